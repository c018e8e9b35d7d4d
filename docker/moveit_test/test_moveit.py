"""The moveit node with MoveIt and its Panda configuration: runs in the image `moveit-test` (see docker/README.md).

What runs: ros2_control with mock hardware (mock_panda.launch.py), and `moveit_node` as on a robot. What is asked of it is
what src/atk_policy/test/test_moveit_node.py asks of the model's scene, and what only MoveIt knows: objects that were put
into the scene, objects in the hand, ways around them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

REASON = "MoveIt is not installed (it comes with ROS 2 from apt; the image moveit-test has it)"
pytest.importorskip("moveit", reason=REASON)
pytest.importorskip("moveit_configs_utils", reason=REASON)

import rclpy
from ament_index_python.packages import get_package_prefix, get_package_share_directory
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Pose
from moveit_msgs.msg import AttachedCollisionObject, CollisionObject
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from shape_msgs.msg import SolidPrimitive
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from atk_interfaces.msg import PlanCheck
from atk_perception.robot_description import RobotDescription
from atk_policy.kinematics import KinematicModel
from atk_policy.moveit_node import GOING_HOME, GOING_HOME_QOS

HERE = Path(__file__).parent
SHIPPED = Path(get_package_share_directory("atk_bringup")) / "config" / "robots" / "panda.yaml"
ROBOT = RobotDescription.load(SHIPPED)
HOME = np.array(ROBOT.home_rad)
# The hand lies 3 cm deep in the forearm, by the maker's meshes.
FOLDED = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 0.2, 2.785])
TURNED = HOME + np.array([1.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
UP_S = 90.0
WAIT_S = 30.0


def start(*command: str) -> subprocess.Popen[bytes]:
    """A process in a session of its own, so that Ctrl-C reaches all that it starts."""
    return subprocess.Popen(command, start_new_session=True)


def end(process: subprocess.Popen[bytes]) -> int:
    """Ctrl-C; returns the status."""
    if process.poll() is not None:
        return process.returncode
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


class Graph:
    """The mock arm, the moveit node, and a node that asks both."""

    def __init__(self, robot: Path) -> None:
        self._arm = start("ros2", "launch", str(HERE / "mock_panda.launch.py"))
        rclpy.init()
        self.node = Node("test_graph")
        self.position: np.ndarray | None = None
        self.checks: list[PlanCheck] = []
        self.node.create_subscription(JointState, "joint_states", self._on_joint_state, 10)
        self.node.create_subscription(PlanCheck, "policy/plan_check", self.checks.append, 10)
        self.plans = self.node.create_publisher(JointTrajectory, "policy/plan", 10)
        self.arm = self.node.create_publisher(JointTrajectory, ROBOT.topics.command, 10)
        self.objects = self.node.create_publisher(CollisionObject, "collision_object", 10)
        self.attached = self.node.create_publisher(AttachedCollisionObject, "attached_collision_object", 10)
        self.go_home = self.node.create_client(Trigger, "moveit/go_home")
        self.stop = self.node.create_client(Trigger, "moveit/stop")
        self.going_home: list[bool] = []
        self.node.create_subscription(
            Bool, GOING_HOME, lambda m: self.going_home.append(m.data), GOING_HOME_QOS
        )
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()
        self.wait("joint states", lambda: self.position is not None, UP_S)
        executable = Path(get_package_prefix("atk_policy")) / "lib" / "atk_policy" / "moveit_node"
        self.moveit = start(
            *(str(executable), "--ros-args", "-p", f"robot:={robot}"),
            *("-p", "moveit_config:=moveit_resources_panda_moveit_config", "-p", "home_speed:=0.5"),
        )
        self.wait("the moveit node", self.go_home.service_is_ready, UP_S)
        for publisher in (self.plans, self.arm, self.objects, self.attached):
            self.wait(publisher.topic_name, lambda p=publisher: p.get_subscription_count() > 0)

    def _on_joint_state(self, message: JointState) -> None:
        values = dict(zip(message.name, message.position, strict=True))
        if set(ROBOT.joints.names) <= set(values):
            self.position = np.array([values[name] for name in ROBOT.joints.names])

    def wait(self, what: str, ready: Callable[[], object], timeout_s: float = WAIT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
            time.sleep(0.02)

    def check(self, *points: np.ndarray) -> PlanCheck:
        """Publish a plan and wait for what the node says of it."""
        plan = trajectory(points, 0.1)
        plan.header.stamp = self.node.get_clock().now().to_msg()
        self.plans.publish(plan)
        stamp = plan.header.stamp
        self.wait("a check", lambda: any(check.header.stamp == stamp for check in self.checks))
        return next(check for check in self.checks if check.header.stamp == stamp)

    def until(self, valid: bool, *points: np.ndarray) -> PlanCheck:
        """The check of a plan once the scene has changed: MoveIt takes objects in when it comes to them."""
        found: list[PlanCheck] = []

        def settled() -> bool:
            found.append(self.check(*points))
            return found[-1].valid == valid

        self.wait(f"a check with valid {valid}", settled)
        return found[-1]

    def move(self, goal: np.ndarray) -> None:
        """Drive the arm there without asking anybody."""
        self.arm.publish(trajectory((goal,), 2.0))
        self.wait("the arm", lambda: np.abs(self.position - goal).max() < 0.01)

    def close(self) -> None:
        end(self.moveit)
        end(self._arm)
        self._executor.shutdown(timeout_sec=2.0)
        self.node.destroy_node()
        rclpy.try_shutdown()


def trajectory(points, period_s: float) -> JointTrajectory:
    message = JointTrajectory(joint_names=list(ROBOT.joints.names))
    for k, point in enumerate(points, start=1):
        seconds, rest = divmod(k * period_s, 1.0)
        message.points.append(
            JointTrajectoryPoint(
                positions=point.tolist(),
                velocities=[0.0] * len(point),
                time_from_start=Duration(sec=int(seconds), nanosec=int(rest * 1e9)),
            )
        )
    return message


def box(name: str, size_m: tuple[float, ...], at_m: tuple[float, ...], frame: str) -> CollisionObject:
    shape = SolidPrimitive(type=SolidPrimitive.BOX, dimensions=list(size_m))
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = at_m
    pose.orientation.w = 1.0
    thing = CollisionObject(
        id=name, primitives=[shape], primitive_poses=[pose], operation=CollisionObject.ADD
    )
    thing.header.frame_id = frame
    return thing


@pytest.fixture(scope="module")
def robot_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped Panda, checked by MoveIt, in a box that leaves everything else to MoveIt."""
    content = yaml.safe_load(SHIPPED.read_text())
    content["scene_check"] = "moveit"
    content["kinematics"] |= {"workspace_min_m": [-2.0, -2.0, -2.0], "workspace_max_m": [2.0, 2.0, 1.0]}
    path = tmp_path_factory.mktemp("robot") / "panda.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def graph(robot_file: Path) -> Iterator[Graph]:
    graph = Graph(robot_file)
    yield graph
    graph.close()


def test_a_free_plan_is_valid(graph):
    check = graph.check(HOME, HOME + 0.05)
    assert (check.valid, check.cause) == (True, "")


def test_a_folded_arm_meets_itself(graph):
    check = graph.check(HOME, FOLDED)
    assert (check.valid, check.cause) == (False, "self_collision"), check.detail
    assert 0.1 < check.fault_time_s <= 0.2


def test_the_workspace_of_the_robot_description_counts_too(graph):
    straight_up = np.array([0.0, 0.0, 0.0, -0.1, 0.0, 1.6, 0.785])
    check = graph.check(HOME, straight_up)
    assert (check.valid, check.cause) == (False, "workspace"), check.detail


def test_what_is_put_into_the_scene_is_met_and_what_is_taken_out_is_not(graph):
    tip = KinematicModel(ROBOT).tip_position_m(TURNED)
    wall = box("wall", (0.1, 0.1, 0.3), tuple(map(float, tip)), "panda_link0")
    assert graph.check(HOME, TURNED).valid
    graph.objects.publish(wall)
    check = graph.until(False, HOME, TURNED)
    assert check.cause == "scene_collision"
    assert graph.check(HOME).valid, "the wall is elsewhere"
    wall.operation = CollisionObject.REMOVE
    graph.objects.publish(wall)
    graph.until(True, HOME, TURNED)


def test_what_is_in_the_hand_is_part_of_the_arm(graph):
    """A stick of 40 cm reaches a floor that the empty hand does not."""
    floor = box("floor", (0.4, 0.4, 0.02), (0.4, 0.0, 0.15), "panda_link0")
    graph.objects.publish(floor)
    graph.until(True, HOME)
    stick = AttachedCollisionObject(link_name="panda_hand")
    stick.object = box("stick", (0.02, 0.02, 0.4), (0.0, 0.0, 0.3), "panda_hand")
    stick.touch_links = ["panda_hand", "panda_leftfinger", "panda_rightfinger"]
    graph.attached.publish(stick)
    assert graph.until(False, HOME).cause == "scene_collision"
    floor.operation = stick.object.operation = CollisionObject.REMOVE
    graph.objects.publish(floor)
    graph.until(True, HOME)
    graph.attached.publish(stick)
    time.sleep(1.0)
    graph.objects.publish(stick.object)  # let go, it stays in the scene where it was
    graph.until(True, HOME)


def test_home_is_reached_around_an_obstacle(graph):
    graph.move(TURNED)
    half_way = (HOME + TURNED) / 2
    tip = KinematicModel(ROBOT).tip_position_m(half_way)
    post = box("post", (0.04, 0.04, 0.3), tuple(map(float, tip)), "panda_link0")
    graph.objects.publish(post)
    graph.until(False, TURNED, HOME)
    answer = graph.go_home.call_async(Trigger.Request())
    graph.wait("home", answer.done, 60.0)
    assert answer.result().success, answer.result().message
    assert np.abs(graph.position - HOME).max() < 0.05
    post.operation = CollisionObject.REMOVE
    graph.objects.publish(post)
    graph.until(True, TURNED, HOME)


@pytest.mark.parametrize("moving", [False, True])
def test_a_stop_while_moveit_plans_or_moves_ends_the_way_home(graph, moving):
    graph.move(TURNED)
    graph.going_home.clear()
    answer = graph.go_home.call_async(Trigger.Request())
    graph.wait("the way home", lambda: True in graph.going_home)
    if moving:
        graph.wait("motion", lambda: np.abs(graph.position - TURNED).max() > 0.1)
    stop = graph.stop.call_async(Trigger.Request())
    graph.wait("the stop", stop.done)
    assert stop.result().success
    graph.wait("the end", answer.done)
    assert answer.result().message == "stopped on the way home: as was asked for"
    rest = graph.position.copy()
    time.sleep(1.0)
    assert np.abs(graph.position - rest).max() < 0.01
    assert np.abs(graph.position - HOME).max() > 0.2
    assert moving or np.abs(graph.position - TURNED).max() < 0.01


INVERSE = """
import json, os, sys
import numpy as np
from atk_perception.robot_description import RobotDescription
from atk_policy.kinematics import KinematicModel
from atk_policy.planning_scenes import make_planning_scene
from atk_policy.planning_scenes.protocol import SceneOptions
robot = RobotDescription.load(sys.argv[1])
scene = make_planning_scene(robot, SceneOptions(moveit_config="moveit_resources_panda_moveit_config"))
model, home = KinematicModel(robot), np.array(robot.home_rad)
wanted = model.tip_pose(home + 0.1)
found = model.tip_pose(scene.inverse(wanted, home))
print("RESULT", json.dumps(float(np.abs(found - wanted).max())), flush=True)
os._exit(0)  # MoveIt has crashed on the way down; what is asked here is over
"""


def test_inverse_kinematics_agrees_with_the_model(graph, robot_file):
    output = subprocess.run(
        [sys.executable, "-c", INVERSE, str(robot_file)],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    ).stdout
    error = json.loads(output.split("RESULT", 1)[1])
    assert error < 2e-3


def test_ctrl_c_ends_it(graph):
    """Last: the others need the node."""
    assert end(graph.moveit) in (0, -signal.SIGSEGV), (
        "MoveIt may crash on the way down, by then everything is at rest"
    )

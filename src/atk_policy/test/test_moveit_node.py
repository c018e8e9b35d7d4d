"""The moveit node as a process of its own, over DDS, with the model's scene: what it answers, and how it goes home."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
import yaml
from ament_index_python.packages import get_package_prefix
from builtin_interfaces.msg import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from atk_interfaces.msg import PlanCheck, PolicyStatus
from atk_perception.robot_description import RobotDescription
from atk_perception.service_answers import answers_reach
from atk_policy.moveit_node import GOING_HOME, GOING_HOME_QOS

pytestmark = pytest.mark.system

ROBOT_PATH = Path(__file__).parents[2] / "atk_bringup" / "config" / "robots" / "sim_panda.yaml"
ROBOT = RobotDescription.load(ROBOT_PATH)
HOME = np.array(ROBOT.home_rad)
FOLDED = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 0.0, 0.785])
TURNED = HOME + np.array([1.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
DOMAIN_ID = 12 + os.getpid() % 80  # and the next one, for a node beside the shared one
WAIT_S = 30.0


def write_robot(folder: Path, **entries: object) -> Path:
    """The simulated Panda with other entries, a box that leaves the fold to the collision check, and a deadline that
    an arm on a busy machine meets too.
    """
    content = yaml.safe_load(ROBOT_PATH.read_text()) | entries
    content["deadlines_s"] = {"image": 1.0, "keypoints": 1.0, "joint_states": 5.0}
    content["kinematics"] |= {"workspace_min_m": [-2.0, -2.0, -2.0], "workspace_max_m": [2.0, 2.0, 2.0]}
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def start_node(robot: Path | str, *parameters: str, domain_id: int = DOMAIN_ID + 1) -> subprocess.Popen[str]:
    executable = Path(get_package_prefix("atk_policy")) / "lib" / "atk_policy" / "moveit_node"
    command = [str(executable), "--ros-args", "-p", f"robot:={robot}"]
    for parameter in parameters:
        command += ["-p", parameter]
    return subprocess.Popen(
        command,
        env={**os.environ, "ROS_DOMAIN_ID": str(domain_id), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class Graph:
    """A moveit node, and the sides of the policy and of an arm that follows its commands at once."""

    def __init__(self, robot: Path, command_type: type, domain_id: int) -> None:
        self.process = start_node(robot, "home_speed:=0.5", domain_id=domain_id)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = Node("test_graph", context=self.context)
        self.checks: list[PlanCheck] = []
        self.commands: list[object] = []
        self.follows = True
        self.position = HOME.copy()
        self._alive = True
        self.plans = self.node.create_publisher(JointTrajectory, "policy/plan", 10)
        self.statuses = self.node.create_publisher(PolicyStatus, "policy/status", 10)
        self._joint_states = self.node.create_publisher(JointState, ROBOT.topics.joint_states, 10)
        self.node.create_subscription(PlanCheck, "policy/plan_check", self.checks.append, 10)
        self.node.create_subscription(command_type, ROBOT.topics.command, self._on_command, 50)
        self.go_home = self.node.create_client(Trigger, "moveit/go_home")
        self.stop = self.node.create_client(Trigger, "moveit/stop")
        self.going_home: list[bool] = []
        self.node.create_subscription(
            Bool, GOING_HOME, lambda m: self.going_home.append(m.data), GOING_HOME_QOS
        )
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._threads = [threading.Thread(target=work) for work in (self._executor.spin, self._be_an_arm)]
        for thread in self._threads:
            thread.start()
        self.wait("the node", lambda: self.go_home.service_is_ready() and self.stop.service_is_ready(), 60.0)
        self.wait("its answers", answers_reach(self.node, "moveit"))
        for publisher in (self.plans, self.statuses, self._joint_states):
            self.wait("discovery", lambda p=publisher: p.get_subscription_count() == 1)

    def _on_command(self, message: Float64MultiArray | JointTrajectory) -> None:
        self.commands.append(message)
        if self.follows:
            first = message.data if isinstance(message, Float64MultiArray) else message.points[0].positions
            self.position = np.array(first)

    def _be_an_arm(self) -> None:
        while self._alive:
            message = JointState(
                name=[*ROBOT.joints.names, ROBOT.gripper.joint], position=[*self.position.tolist(), 0.02]
            )
            message.header.stamp = self.node.get_clock().now().to_msg()
            self._joint_states.publish(message)
            time.sleep(0.01)

    def place(self, position: np.ndarray) -> None:
        """Move the arm by hand, and give the node the time to hear of it."""
        self.position = position.copy()
        time.sleep(0.5)  # fifty joint states

    def wait(self, what: str, ready: Callable[[], object], timeout_s: float = WAIT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            assert self.process.poll() is None, f"the node ended: {self.process.communicate()[0]}"
            assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
            time.sleep(0.005)

    def check(self, *points: np.ndarray, names=ROBOT.joints.names, period_s: float = 0.05) -> PlanCheck:
        """Publish a plan and wait for what the node says of it."""
        plan = JointTrajectory(joint_names=list(names))
        plan.header.stamp = self.node.get_clock().now().to_msg()
        for k, point in enumerate(points, start=1):
            due = Duration(sec=0, nanosec=round(k * period_s * 1e9))
            plan.points.append(JointTrajectoryPoint(positions=point.tolist(), time_from_start=due))
        self.plans.publish(plan)
        stamp = plan.header.stamp
        self.wait("a check", lambda: any(check.header.stamp == stamp for check in self.checks))
        return next(check for check in self.checks if check.header.stamp == stamp)

    def call(self, client) -> Trigger.Response:
        future = client.call_async(Trigger.Request())
        self.wait("an answer", future.done)
        return future.result()

    def close(self) -> str:
        """Ctrl-C; returns the log."""
        self.process.send_signal(signal.SIGINT)
        log = self.process.communicate(timeout=30)[0]
        count = -1
        while count != len(self.commands):  # what was sent last may still be on its way
            count = len(self.commands)
            time.sleep(0.3)
        self._alive = False
        self._executor.shutdown(timeout_sec=2.0)
        for thread in self._threads:
            thread.join(timeout=2.0)
        self.node.destroy_node()
        self.context.try_shutdown()
        return log


@pytest.fixture(scope="module")
def shared_graph(tmp_path_factory) -> Iterator[Graph]:
    graph = Graph(write_robot(tmp_path_factory.mktemp("robot")), Float64MultiArray, DOMAIN_ID)
    yield graph
    assert "Traceback" not in graph.close()


@pytest.fixture
def graph(shared_graph) -> Iterator[Graph]:
    shared_graph.position, shared_graph.follows = HOME.copy(), True
    shared_graph.commands.clear()
    return shared_graph


def test_a_free_plan_is_valid_and_a_colliding_one_named_with_its_time(graph):
    good = graph.check(HOME, HOME + 0.01, HOME + 0.02)
    assert (good.valid, good.cause, good.fault_time_s) == (True, "", -1.0)
    bad = graph.check(HOME, HOME + 0.5 * (FOLDED - HOME), FOLDED)
    assert (bad.valid, bad.cause, bad.detail) == (False, "self_collision", "panda_hand meets panda_link5")
    assert 0.05 < bad.fault_time_s <= 0.15
    assert graph.check(HOME).valid, "and after it, a free one is valid again"


@pytest.mark.parametrize(
    ("points", "names", "cause"),
    [
        ((), ROBOT.joints.names, "plan_empty"),
        ((HOME,), ("a", "b"), "plan_joints"),
        ((np.full(7, np.nan),), ROBOT.joints.names, "plan_not_finite"),
        ((HOME + 3.0,), ROBOT.joints.names, "joint_limits"),
    ],
)
def test_a_plan_that_makes_no_sense_is_invalid(graph, points, names, cause):
    check = graph.check(*points, names=names)
    assert (check.valid, check.cause) == (False, cause)
    assert check.detail


def test_a_node_that_is_flooded_answers_the_newest(graph):
    for _ in range(200):
        graph.plans.publish(JointTrajectory(joint_names=["nothing"]))
    assert graph.check(HOME).valid


def test_home_is_reached_smoothly_and_nothing_is_commanded_unasked(graph):
    graph.place(HOME + np.array([0.3, 0.1, -0.2, 0.1, 0.1, -0.1, 0.2]))
    start = graph.position.copy()
    graph.check(HOME)
    assert not graph.commands
    answer = graph.call(graph.go_home)
    assert answer.success, answer.message
    path = np.vstack([start, [message.data for message in graph.commands]])
    assert np.allclose(path[-1], HOME)
    speed = np.diff(path, axis=0) * ROBOT.control_rate_hz
    assert (np.abs(speed) <= 0.5 * np.array(ROBOT.joints.velocity_max_rad_s) + 1e-6).all()
    graph.wait("the end of it", lambda: graph.going_home[-1] is False)
    assert graph.going_home[-2:] == [True, False]
    # Every joint goes one way, and from rest to rest.
    assert (np.sign(HOME - start) * speed >= -1e-9).all()
    assert np.abs(speed[[0, -1]]).max() < 0.5 * np.abs(speed).max()


def test_a_way_home_that_is_not_free_is_refused(graph):
    graph.place(FOLDED)
    answer = graph.call(graph.go_home)
    assert not answer.success
    assert "self_collision where the arm is (panda_hand meets panda_link5)" in answer.message
    assert not graph.commands


def test_an_arm_that_does_not_follow_is_stopped(graph):
    graph.follows = False
    graph.place(TURNED)
    answer = graph.call(graph.go_home)
    assert not answer.success
    assert "behind its command" in answer.message
    steps = np.abs(np.diff([message.data for message in graph.commands], axis=0)).max(axis=1)
    assert steps[-1] < 0.5 * steps.max(), "braked, not stopped dead"


def test_the_way_home_can_be_stopped_and_ends_when_the_policy_runs(graph):
    for stop, reason in (
        (
            lambda: graph.call(graph.stop).message == "stopped on the way home; the arm rests",
            "as was asked for",
        ),
        (
            lambda: graph.statuses.publish(PolicyStatus(state=PolicyStatus.RUNNING)),
            "the policy has begun to run",
        ),
    ):
        graph.place(TURNED)
        graph.commands.clear()
        answer = graph.go_home.call_async(Trigger.Request())
        graph.wait("motion", lambda: len(graph.commands) > 3)
        assert stop() is not False
        graph.wait("the end", answer.done)
        assert not answer.result().success
        assert answer.result().message == f"stopped on the way home: {reason}"
        assert np.abs(np.array(graph.commands[-1].data) - HOME).max() > 0.1
    assert not graph.call(graph.go_home).success, "while the policy runs"
    graph.statuses.publish(PolicyStatus(state=PolicyStatus.STOPPED))
    graph.place(HOME)
    graph.wait("a policy that has stopped", lambda: graph.call(graph.go_home).success)


@pytest.fixture
def trajectory_graph(tmp_path) -> Iterator[Graph]:
    """With an arm under a joint_trajectory_controller; for tests that end the node."""
    graph = Graph(write_robot(tmp_path, command_sink="joint_trajectory"), JointTrajectory, DOMAIN_ID + 1)
    yield graph
    if graph.process.poll() is None:
        graph.close()


def assert_braked(commands: list[JointTrajectory]) -> None:
    """Setpoint by setpoint inside the share of the limits, and rest as the last word."""
    period_s = 1.0 / ROBOT.control_rate_hz
    velocity = np.array([[0.0] * 7] + [list(message.points[0].velocities) for message in commands])
    limit = 0.5 * np.array(ROBOT.joints.acceleration_max_rad_s2) * period_s
    assert (np.abs(np.diff(velocity, axis=0)) <= limit + 1e-6).all()
    assert np.abs(velocity).max() > 0.1
    assert len(commands[-1].points) == 1
    assert not velocity[-1].any()


def test_a_way_home_that_is_stopped_brakes_inside_the_limits_also_on_ctrl_c(trajectory_graph):
    graph = trajectory_graph
    for end in (lambda: graph.call(graph.stop).success, graph.close):
        graph.place(TURNED)
        graph.commands.clear()
        graph.go_home.call_async(Trigger.Request())
        graph.wait("motion", lambda: len(graph.commands) > 5)
        assert list(graph.commands[0].joint_names) == list(ROBOT.joints.names)
        log = end()
        assert_braked(graph.commands)
        assert np.abs(np.array(graph.commands[-1].points[-1].positions) - HOME).max() > 0.1
    assert "stopped on the way home: the node is going down" in log
    assert "Traceback" not in log


def test_an_arm_whose_way_home_is_killed_brakes_by_itself(trajectory_graph):
    """A trajectory controller goes on with what it was sent last."""
    graph = trajectory_graph
    graph.place(TURNED)
    graph.go_home.call_async(Trigger.Request())
    graph.wait("motion", lambda: len(graph.commands) > 5)
    graph.process.kill()
    graph.close()
    last = graph.commands[-1]
    assert not any(last.points[-1].velocities)
    left_rad = np.abs(np.array(last.points[-1].positions) - np.array(last.points[0].positions)).max()
    assert left_rad < 0.3
    assert np.abs(np.array(last.points[-1].positions) - HOME).max() > 0.3
    assert len(last.points) / ROBOT.control_rate_hz < 0.6


@pytest.mark.parametrize(
    ("robot", "parameters", "message"),
    [
        ("''", (), "parameter 'robot' is empty"),
        (ROBOT_PATH, ("home_state:=ready",), "home_state 'ready' is a named state of MoveIt"),
        ("unchecked", (), "has scene_check: none"),
    ],
)
def test_what_it_cannot_work_with_ends_it_with_the_reason(tmp_path, robot, parameters, message):
    if robot == "unchecked":
        robot = write_robot(tmp_path, scene_check="none")
    process = start_node(robot, *parameters)
    log, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert message in log

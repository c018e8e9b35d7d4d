"""The simulator as its neighbours meet it: a process of its own, spoken to over DDS."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from atk_interfaces.msg import EpisodeStatus, PolicyStatus
from atk_interfaces.srv import ResetEpisode
from atk_perception.frames import stamp_ns_of
from atk_perception.image_codec import depth_from_message, rgb_from_message
from atk_perception.robot_description import RobotDescription
from atk_perception.service_answers import answers_reach
from atk_sim.graph import NodeGraph, executable_path
from atk_sim.tasks import make_task

pytestmark = pytest.mark.system

RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
PERIOD_NS = 50_000_000
PATIENCE_S = 30.0


class Listener:
    """A node of the test process in the graph's domain; keeps what it hears."""

    def __init__(self, domain_id: int, robot: RobotDescription) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node("listener", context=self._context)
        self.heard: dict[str, list] = {}
        self._order = 0
        self.arm = self.node.create_publisher(Float64MultiArray, robot.topics.command, 10)
        self.gripper = self.node.create_publisher(Float64MultiArray, robot.topics.gripper_command, 10)
        self.trajectory = self.node.create_publisher(
            JointTrajectory, "joint_trajectory_controller/joint_trajectory", 10
        )
        self._reset = self.node.create_client(ResetEpisode, "sim/reset")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin)
        self._thread.start()

    def listen(self, kind: type, topic: str) -> list:
        """Messages on a topic from now on, as (order of arrival over all topics, message)."""
        heard = self.heard.setdefault(topic, [])

        def keep(message: object) -> None:
            self._order += 1
            heard.append((self._order, message))

        self.node.create_subscription(kind, topic, keep, RELIABLE)
        return heard

    def reset(self, **request: object) -> ResetEpisode.Response:
        assert self._reset.wait_for_service(PATIENCE_S), "sim/reset is not offered"
        until(answers_reach(self.node, "sim"))
        future = self._reset.call_async(ResetEpisode.Request(**request))
        until(future.done)
        return future.result()

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(timeout=5.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the long patience is for a busy machine only."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@contextmanager
def simulator(graph: NodeGraph, robot: RobotDescription, **parameters: object) -> Iterator[Listener]:
    settings = {"wait_for_reset": True, "real_time_factor": 0.0, **parameters}
    graph.start("atk_sim", "sim_robot_node", settings)
    listener = Listener(graph.domain_id, robot)
    try:
        yield listener
        graph.check()
    finally:
        listener.close()


def connected(listener: Listener) -> None:
    """Until the simulator hears this process's commands and is heard."""
    publishers = (listener.arm, listener.gripper, listener.trajectory)
    until(lambda: all(publisher.get_subscription_count() for publisher in publishers))
    until(lambda: all(listener.node.count_publishers(topic) for topic in listener.heard))


def test_expert_drives_a_whole_episode_over_the_command_topics(graph, robot):
    with simulator(graph, robot) as listener:
        images = listener.listen(Image, robot.camera.image_topic)
        infos = listener.listen(CameraInfo, robot.camera.camera_info_topic)
        states = listener.listen(JointState, robot.topics.joint_states)
        episodes = listener.listen(EpisodeStatus, "sim/episode")
        commands = listener.listen(Float64MultiArray, robot.topics.command)
        connected(listener)
        answer = listener.reset(task="sushi", disturbance="RP", seed=11, driver="expert")
        assert answer.success, answer.message
        until(lambda: bool(episodes) and episodes[-1][1].done)
        last = episodes[-1][1]
        assert last.success
        until(lambda: len(images) == last.step + 1)
        stamps = [stamp_ns_of(message) for _, message in images]
        assert stamps[0] == answer.stamp.sec * 10**9 + answer.stamp.nanosec
        np.testing.assert_array_equal(np.diff(stamps), PERIOD_NS)
        # Joint states come at 100 Hz of simulated time, one at every image's very instant.
        times = np.unique([stamp_ns_of(message) for _, message in states])
        np.testing.assert_array_equal(np.diff(times), PERIOD_NS // 5)
        assert set(stamps) <= set(times.tolist())
        assert list(states[0][1].name)[:7] == list(robot.joints.names)
        assert robot.gripper.joint in states[0][1].name
        assert len(commands) >= last.step
        assert images[0][1].header.frame_id == robot.camera.frame_id
        K = make_task("sushi").camera.intrinsics(robot.camera.width, robot.camera.height)
        np.testing.assert_allclose(infos[0][1].k, K.ravel())


def test_same_seed_by_service_gives_the_same_first_image_and_time_goes_on(graph, robot):
    with simulator(graph, robot, real_time_factor=1.0) as listener:
        pngs = listener.listen(CompressedImage, f"{robot.camera.image_topic}/compressed")
        clocks = listener.listen(Clock, "/clock")
        connected(listener)
        first = []
        for seed in (21, 22, 21):
            answer = listener.reset(task="sushi", disturbance="Light", seed=seed, driver="topics")
            assert answer.success, answer.message
            start_ns = answer.stamp.sec * 10**9 + answer.stamp.nanosec

            def of_the_new_episode(start_ns: int = start_ns) -> list:
                return [message for _, message in list(pngs) if stamp_ns_of(message) >= start_ns]

            until(lambda: bool(of_the_new_episode()))
            first.append(rgb_from_message(of_the_new_episode()[0]))
        np.testing.assert_array_equal(first[0], first[2])
        assert (first[0] != first[1]).any()
        nanoseconds = [message.clock.sec * 10**9 + message.clock.nanosec for _, message in clocks]
        assert (np.diff(nanoseconds) >= 0).all(), "simulated time went back"


def test_simulation_waits_for_the_policys_answer_to_every_image(graph, robot):
    with simulator(graph, robot) as listener:
        images = listener.listen(Image, robot.camera.image_topic)
        states = listener.listen(JointState, robot.topics.joint_states)
        status = listener.node.create_publisher(PolicyStatus, "policy/status", 10)
        connected(listener)
        until(lambda: bool(status.get_subscription_count()))
        assert listener.reset(task="sushi", disturbance="RP", seed=1, driver="topics").success
        for count in range(1, 6):
            until(lambda count=count: len(images) >= count)
            time.sleep(0.2)
            _, image = images[-1]
            assert len(images) == count, "an image came before the one before was answered"
            # What the policy needs for an image is there before the image is.
            at_ns = stamp_ns_of(image)
            until(lambda at_ns=at_ns: any(stamp_ns_of(state) == at_ns for _, state in states))
            assert max(stamp_ns_of(state) for _, state in states) == at_ns
            goal = np.append(robot.home_rad, 0.05 + 0.002 * count)
            listener.arm.publish(Float64MultiArray(data=goal[:-1].tolist()))
            listener.gripper.publish(Float64MultiArray(data=[float(goal[-1])]))
            answer = PolicyStatus(state=PolicyStatus.RUNNING, command=goal.tolist())
            answer.header.stamp = image.header.stamp
            status.publish(answer)


def test_both_command_interfaces_move_the_arm_and_bad_commands_are_ignored_with_the_reason(graph, robot):
    home = np.array(robot.home_rad)
    with simulator(graph, robot, real_time_factor=4.0) as listener:
        states = listener.listen(JointState, robot.topics.joint_states)
        connected(listener)
        assert listener.reset(task="sushi", disturbance="RP", seed=2, driver="topics").success

        def joint(name: str) -> float:
            message = states[-1][1]
            return float(message.position[list(message.name).index(name)])

        until(lambda: bool(states))
        # What must be ignored: too few values, not a number, a gripper command of two.
        for data in (home[:6].tolist(), [float("nan")] * 7, []):
            listener.arm.publish(Float64MultiArray(data=data))
        listener.gripper.publish(Float64MultiArray(data=[0.0, 0.0]))
        until(lambda: "ignored a joint position command" in graph.log("sim_robot_node"))
        assert "expected 7 finite values" in graph.log("sim_robot_node")
        assert abs(joint(robot.joints.names[0]) - home[0]) < 0.05
        assert joint(robot.gripper.joint) > 0.038
        # forward_position_controller, and the gripper beside it.
        moved = home.copy()
        moved[0] += 0.3
        listener.arm.publish(Float64MultiArray(data=moved.tolist()))
        listener.gripper.publish(Float64MultiArray(data=[0.04]))
        until(lambda: abs(joint(robot.joints.names[0]) - moved[0]) < 0.02)
        until(lambda: abs(joint(robot.gripper.joint) - 0.02) < 0.002)
        # joint_trajectory_controller, with the joints in another order.
        trajectory = JointTrajectory(joint_names=list(reversed(robot.joints.names)))
        point = JointTrajectoryPoint(positions=home[::-1].tolist())
        point.time_from_start.nanosec = 500_000_000
        trajectory.points = [point]
        listener.trajectory.publish(trajectory)
        until(lambda: abs(joint(robot.joints.names[0]) - home[0]) < 0.02)
        # A trajectory that lacks a joint is ignored, and says which.
        trajectory.joint_names = [*robot.joints.names[:6], "elbow"]
        listener.trajectory.publish(trajectory)
        until(lambda: "panda_joint7" in graph.log("sim_robot_node"))


def test_unknown_names_are_refused_with_the_known_ones_and_the_node_lives_on(graph, robot):
    with simulator(graph, robot) as listener:
        for request, known in (
            ({"task": "tea"}, "sushi"),
            ({"disturbance": "fog"}, "RP, RB, RO, Light"),
            ({"driver": "ghost"}, "expert"),
        ):
            answer = listener.reset(**request)
            assert not answer.success
            assert known in answer.message
        assert listener.reset(task="sushi", disturbance="RP", seed=3, driver="expert").success


def test_depth_is_published_while_someone_listens(graph, robot):
    with simulator(graph, robot) as listener:
        depths = listener.listen(Image, "camera/depth/image_raw")
        connected(listener)
        assert listener.reset(task="sushi", disturbance="RP", seed=3, driver="expert").success
        until(lambda: bool(depths))
        depth_m = depth_from_message(depths[0][1])
        assert depth_m.shape == (robot.camera.height, robot.camera.width)
        assert 0.3 < np.nanmedian(depth_m) < 1.5


def test_a_wrong_robot_description_ends_the_node_with_the_reason(graph, tmp_path):
    process = graph.start("atk_sim", "sim_robot_node", {"robot": str(tmp_path / "nowhere.yaml")})
    assert process.wait(timeout=PATIENCE_S) == 1
    assert "nowhere.yaml" in graph.log("sim_robot_node")


def test_expert_benchmark_explains_itself():
    command = [str(executable_path("atk_sim", "expert")), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "example:" in shown.stdout


def test_nodes_end_with_the_process_that_started_them(tmp_path):
    """Killed hard, it closes nothing; a node left over would go on driving in its domain."""
    program = f"""
import time
from pathlib import Path
from atk_sim.graph import NodeGraph
nodes = NodeGraph(Path({str(tmp_path)!r}), 97)
print(nodes.start("atk_sim", "sim_robot_node", {{"wait_for_reset": True}}).pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    node = Path(f"/proc/{int(parent.stdout.readline())}")
    until(lambda: "ready" in (tmp_path / "sim_robot_node.log").read_text())
    parent.kill()
    parent.wait()
    until(lambda: not node.exists() or "State:\tZ" in (node / "status").read_text())

"""The loop closes over DDS between separate processes: simulator, tracker, policy."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from stack_arguments import demo_arguments
from std_msgs.msg import Float64MultiArray

from atk_interfaces.msg import PolicyStatus
from atk_perception.frames import (
    FrameAligner,
    bag_messages,
    check_bag,
    read_frames,
    robot_state_from_message,
    stamp_ns_of,
)
from atk_perception.image_codec import rgb_from_message
from atk_sim import demo
from atk_sim.closed_loop_node import RELIABLE, ClosedLoopClient
from atk_sim.graph import robot_file

pytestmark = pytest.mark.system

# This process may lag behind a simulation that runs faster than real time; nothing may be lost meanwhile.
DEEP = QoSProfile(depth=2000, reliability=ReliabilityPolicy.RELIABLE)


def start_stack(graph, run_folder, robot):
    path = str(robot_file("sim_panda"))
    reliable = {f"qos_overrides./{robot.camera.image_topic}.subscription.reliability": "reliable"}
    graph.start("atk_sim", "sim_robot_node", demo._sim_parameters(demo_arguments(), robot_file("sim_panda")))
    graph.start(
        "atk_perception", "tracker_node", {"run_folder": str(run_folder), "use_sim_time": True, **reliable}
    )
    graph.start(
        "atk_policy", "policy_node", {"run_folder": str(run_folder), "robot": path, "use_sim_time": True}
    )


@pytest.mark.timeout(600)
def test_recorded_demonstrations_are_whole(recorded, robot):
    assert len(recorded) >= 3, "the expert succeeds at least 98 times in 100"
    for bag in recorded:
        report = check_bag(bag, robot)
        assert report.ok, report.problems
        frames = list(read_frames(bag, robot))
        assert len(frames) == report.topics[robot.camera.recorded_topic].count
        # Commands have no stamp: lock-step holds the clock until what answers an image is recorded.
        logged_ns = [log_ns for _, log_ns, _ in bag_messages(bag, [robot.topics.command])]
        assert logged_ns == [frame.stamp_ns for frame in frames]
        # The expert moves the arm, opens and closes the gripper.
        actions = np.array([frame.action for frame in frames])
        assert np.ptp(actions[:, :-1], axis=0).max() > 0.3
        assert np.ptp(actions[:, -1]) > 0.02


@pytest.mark.timeout(600)
def test_one_episode_closes_the_loop(graph, run_folder, robot):
    start_stack(graph, run_folder, robot)
    commands: list[np.ndarray] = []
    openings: list[float] = []
    statuses: list[PolicyStatus] = []
    with ClosedLoopClient(graph) as client:
        node = client.node
        node.create_subscription(
            Float64MultiArray, robot.topics.command, lambda m: commands.append(np.array(m.data)), RELIABLE
        )
        node.create_subscription(
            Float64MultiArray, robot.topics.gripper_command, lambda m: openings.append(m.data[0]), RELIABLE
        )
        node.create_subscription(PolicyStatus, "policy/status", statuses.append, RELIABLE)
        episode = client.run_policy("sushi", "RP", seed=7, timeout_s=240.0)
        graph.check()

    assert episode.steps > 30
    assert episode.tracker_states.get("TRACKING", 0) > 0.5 * episode.steps
    running = [status for status in statuses if status.state == PolicyStatus.RUNNING]
    assert len(running) > 0.3 * episode.steps
    # One status per image: none was lost between the processes, in the order in which they were taken.
    stamps = [stamp_ns_of(status) for status in statuses]
    assert stamps == sorted(stamps)
    assert len(set(stamps)) >= episode.steps

    sent = np.array(commands)
    assert np.isfinite(sent).all()
    assert (sent >= np.array(robot.joints.position_min_rad) - 1e-9).all()
    assert (sent <= np.array(robot.joints.position_max_rad) + 1e-9).all()
    speed = np.abs(np.diff(sent, axis=0)) * robot.control_rate_hz
    assert (speed <= np.array(robot.joints.velocity_max_rad_s) + 1e-6).all()
    assert robot.gripper.min_m <= min(openings) <= max(openings) <= robot.gripper.max_m


@pytest.mark.timeout(300)
def test_a_recorded_episode_and_its_live_run_give_identical_frames(graph, tmp_path, robot):
    """What a policy is trained on is what it later gets (design.md, parity)."""
    path = robot_file("sim_panda")
    graph.start("atk_sim", "sim_robot_node", demo._sim_parameters(demo_arguments(), path))
    graph.start(
        "atk_perception", "record_node", {"robot": str(path), "output": str(tmp_path), "use_sim_time": True}
    )
    live = []
    lock = threading.Lock()
    aligner: FrameAligner = FrameAligner(robot, with_actions=False)

    def on_image(message):
        with lock:
            live.extend(aligner.add_payload(stamp_ns_of(message), rgb_from_message(message)))

    def on_joints(message):
        with lock:
            state = robot_state_from_message(message.name, message.position, robot, stamp_ns_of(message))
            live.extend(aligner.add_robot_state(state))

    with ClosedLoopClient(graph) as client:
        from sensor_msgs.msg import CompressedImage, JointState

        client.node.create_subscription(CompressedImage, robot.camera.recorded_topic, on_image, DEEP)
        client.node.create_subscription(JointState, robot.topics.joint_states, on_joints, DEEP)
        kept, message = client.record_expert("sushi", "RP", seed=3, name="episode")
    assert kept, message
    recorded = list(read_frames(tmp_path / "episode", robot))
    by_stamp = {frame.stamp_ns: frame for frame in live}
    assert len(recorded) > 30
    for frame in recorded:
        twin = by_stamp[frame.stamp_ns]
        np.testing.assert_array_equal(frame.payload, twin.payload)
        np.testing.assert_array_equal(frame.robot.vector(), twin.robot.vector())


@pytest.mark.timeout(120)
def test_recording_without_a_camera_names_the_missing_topic(graph, tmp_path):
    from atk_sim.graph import GraphError

    graph.start(
        "atk_perception", "record_node", {"robot": str(robot_file("sim_panda")), "output": str(tmp_path)}
    )
    with ClosedLoopClient(graph) as client:
        from atk_interfaces.srv import RecordEpisode

        with pytest.raises(GraphError, match=r"nobody publishes .*camera/image_raw/compressed"):
            client._call(client._record, RecordEpisode.Request(command=RecordEpisode.Request.START, name="x"))
    assert not list(tmp_path.glob("x*"))

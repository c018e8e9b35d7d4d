"""A bag of a live run gives the same commands again: offline twice, through the live nodes, and as they were live."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from stack_arguments import demo_arguments, next_domain
from std_srvs.srv import Trigger
from untrained_policy import save_untrained_run

from atk_interfaces.action import RunPolicy
from atk_interfaces.msg import PolicyStatus
from atk_interfaces.srv import RecordEpisode
from atk_perception.frames import bag_messages, stamp_ns_of
from atk_perception.robot_description import RobotDescription
from atk_policy.replay import agreement, replay
from atk_policy.run_folder import RunFolder
from atk_sim import demo
from atk_sim.closed_loop_node import ClosedLoopClient
from atk_sim.graph import NodeGraph, executable_path, robot_file

pytestmark = pytest.mark.system

DEEP = QoSProfile(depth=2000, reliability=ReliabilityPolicy.RELIABLE)
SEED = 11


@pytest.fixture(scope="module")
def patient_robot(tmp_path_factory) -> Path:
    """The simulated robot with deadlines that a busy machine meets too: a hold for lateness would not come again."""
    content = yaml.safe_load(robot_file("sim_panda").read_text())
    content["deadlines_s"] = {"image": 30.0, "keypoints": 30.0, "joint_states": 30.0}
    path = tmp_path_factory.mktemp("robot") / "patient.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def live_bag(run_folder, patient_robot, tmp_path_factory) -> Path:
    """One episode that the policy drives, recorded with what it saw and commanded."""
    folder = tmp_path_factory.mktemp("live")
    with NodeGraph(folder / "logs", 101) as graph:
        start_recorded_run(graph, run_folder, patient_robot, folder)
        with ClosedLoopClient(graph) as client:
            client.start_recording("live")
            episode = client.run_policy("sushi", "RP", seed=SEED, timeout_s=240.0)
            message = client.end_recording(RecordEpisode.Request.KEEP)
        assert episode.steps > 30
        assert "WITH PROBLEMS" not in message, message
    return folder / "live"


def start_recorded_run(
    graph: NodeGraph, run_folder: Path, robot_path: Path, output: Path, **simulator: object
) -> None:
    """Simulator, tracker, policy, and a recorder of what they see and say."""
    robot, simulated = RobotDescription.load(robot_path), {"use_sim_time": True}
    run = {"run_folder": str(run_folder), **simulated}
    reliable = {f"qos_overrides./{robot.camera.image_topic}.subscription.reliability": "reliable"}
    sim = {**demo._sim_parameters(demo_arguments(), robot_path), **simulator}
    graph.start("atk_sim", "sim_robot_node", sim)
    graph.start("atk_perception", "tracker_node", {**run, **reliable})
    graph.start("atk_policy", "policy_node", {**run, "robot": str(robot_path)})
    recorder = {"robot": str(robot_path), "output": str(output), "topic_timeout_s": 60.0, **simulated}
    graph.start("atk_perception", "record_node", {**recorder, "extra_topics": ["policy/status", "keypoints"]})


def answers(messages) -> dict[int, np.ndarray]:
    """Command of every frame that the policy answered while it was asked to run."""
    found: dict[int, np.ndarray] = {}
    for message in messages:
        if message.state == PolicyStatus.RUNNING:
            found.setdefault(stamp_ns_of(message), np.array(message.command))
    return found


@pytest.mark.timeout(900)
def test_offline_twice_is_identical_and_agrees_with_the_live_run(live_bag, run_folder, patient_robot):
    run, robot = RunFolder.load(run_folder), RobotDescription.load(patient_robot)
    first, second = replay(live_bag, run, robot), replay(live_bag, run, robot)
    for field in ("time_s", "uv_px", "visible", "recorded", "commanded", "chunk"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
    found = agreement(live_bag, run, robot, first.seen)
    assert found is not None
    assert found.frames > 20
    assert found.missing == 0
    assert not found.held_here
    assert found.command_rad < 1e-6
    assert found.gripper_m < 1e-6
    assert found.tracks_px == 0.0
    assert found.same_tracks_rad < 1e-6


MINUTE_S = 60.0


@pytest.fixture(scope="module")
def minute_run(patient_robot, tmp_path_factory) -> Path:
    """A run folder whose frames cost little: 5 Hz, small images, and a policy that was never trained and moves slowly."""
    content = yaml.safe_load(patient_robot.read_text())
    content["control_rate_hz"] = content["camera"]["rate_hz"] = 5.0
    content["camera"] |= {"width": 320, "height": 240}
    robot = RobotDescription.parse(yaml.safe_dump(content), "minute")
    path = tmp_path_factory.mktemp("minute") / "run"
    return save_untrained_run(
        path, robot, SEED, history=2, step_rad=0.004, uv_mean_px=150.0, uv_scale_px=10.0
    )


@pytest.mark.timeout(900)
def test_a_bag_of_a_minute_gives_identical_commands_twice_and_those_of_the_live_run(minute_run, tmp_path):
    run = RunFolder.load(minute_run)
    with NodeGraph(tmp_path / "logs", next_domain()) as graph:
        start_recorded_run(graph, minute_run, minute_run / "robot.yaml", tmp_path, episode_s=MINUTE_S + 1.0)
        with ClosedLoopClient(graph) as client:
            client.start_recording("live")
            client.run_policy("sushi", "RP", SEED, timeout_s=600.0)
            message = client.end_recording(RecordEpisode.Request.KEEP)
    assert "WITH PROBLEMS" not in message, message
    bag = tmp_path / "live"
    first, second = replay(bag, run, run.robot), replay(bag, run, run.robot)
    assert first.time_s[-1] >= MINUTE_S
    for field in ("time_s", "uv_px", "visible", "recorded", "commanded", "chunk"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
    found = agreement(bag, run, run.robot, first.seen)
    assert found is not None
    assert found.frames > 0.9 * MINUTE_S * run.robot.control_rate_hz
    assert np.ptp(first.commanded[np.isfinite(first.commanded[:, 0])], axis=0)[:-1].max() > 0.05
    assert found.missing == 0
    assert not found.held_here
    assert found.command_rad < 1e-6
    assert found.gripper_m < 1e-6
    assert found.tracks_px == 0.0
    assert found.same_tracks_rad < 1e-6


@pytest.mark.timeout(900)
def test_a_live_run_that_commanded_something_else_is_told(live_bag, run_folder, patient_robot, tmp_path):
    """The comparison can fail: one joint of one recorded answer is moved by 1 mrad."""
    forged = tmp_path / "forged"
    writer = Writer(forged, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.open()
    moved = False
    with AnyReader([live_bag]) as reader:
        connections = {
            c.id: writer.add_connection(c.topic, c.msgtype, typestore=reader.typestore)
            for c in reader.connections
        }
        for connection, log_ns, raw in reader.messages():
            if connection.topic.endswith("policy/status") and not moved:
                message = reader.deserialize(raw, connection.msgtype)
                if message.state == PolicyStatus.RUNNING:
                    message = replace(message, command=message.command + 1e-3 * (np.arange(8) == 2))
                    raw, moved = reader.typestore.serialize_cdr(message, connection.msgtype), True
            writer.write(connections[connection.id], log_ns, raw)
    writer.close()
    assert moved
    run, robot = RunFolder.load(run_folder), RobotDescription.load(patient_robot)
    found = agreement(forged, run, robot, replay(forged, run, robot).seen)
    assert found is not None
    assert found.command_rad == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.timeout(900)
def test_through_the_live_nodes_the_bag_gives_the_same_commands(graph, live_bag, run_folder, patient_robot):
    """Player, tracker and policy as processes, without the ros2 tools; what is commanded reaches no robot."""
    robot = RobotDescription.load(patient_robot)
    topic = robot.camera.recorded_topic
    tracker = {"run_folder": str(run_folder), "use_sim_time": True, "compressed": True}
    reliable = {f"qos_overrides./{topic}.subscription.reliability": "reliable"}
    graph.start("atk_perception", "tracker_node", {**tracker, **reliable})
    graph.start(
        "atk_policy",
        "policy_node",
        {"run_folder": str(run_folder), "robot": str(patient_robot), "use_sim_time": True, "replay": True},
    )
    graph.start(
        "atk_perception",
        "play_node",
        {
            "bag": str(live_bag),
            "rate": 2.0,
            "clock_hz": 100.0,
            "lockstep": "policy",
            "start_paused": True,
        },
    )
    with ClosedLoopClient(graph) as client:
        statuses: list[PolicyStatus] = []
        heard = client.node.create_subscription(PolicyStatus, "policy/status", statuses.append, DEEP)
        client.wait_for("the policy", client._run.server_is_ready, 60.0)
        client.wait_for("its answers", lambda: heard.get_publisher_count() > 0, 60.0)
        client.wait_until_heard("policy")
        sent = client._in_executor(lambda: client._run.send_goal_async(RunPolicy.Goal()))
        client.wait_for("the policy to take the goal", sent.done, 60.0)
        assert sent.result().accepted
        resume = client.node.create_client(Trigger, "player/resume")
        client._call(resume, Trigger.Request())
        client.wait_for("the end of the bag", lambda: "end of live" in graph.log("play_node"), 300.0)
        live = answers(message for _, _, message in bag_messages(live_bag, ["policy/status"]))
        client.wait_for("the last answer", lambda: len(answers(statuses)) >= len(live) - 1, 30.0)
        assert client.node.count_publishers(robot.topics.command) == 0
    assert "no answer" not in graph.log("play_node")
    again = answers(statuses)
    shared = sorted(set(live) & set(again))
    assert len(shared) >= len(live) - 1
    assert max(float(np.abs(live[s] - again[s]).max()) for s in shared) < 1e-6


@pytest.mark.timeout(900)
def test_the_command_writes_a_page_for_two_runs_side_by_side(live_bag, recorded, run_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other, ignore=shutil.ignore_patterns(".select"))
    output = tmp_path / "offline"
    command = [str(executable_path("atk_policy", "evaluate_offline")), str(run_folder)]
    command += [str(live_bag), str(recorded[0]), "--output", str(output), "--compare", str(other)]
    done = subprocess.run([*command, "--videos", "1"], check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    theirs = figures.pop("compared_with")
    assert figures["bags"] == theirs["bags"] == 2
    # A copy is the same run.
    assert figures["error_by_horizon_rad"] == theirs["error_by_horizon_rad"]
    assert figures["live"]["live"]["command_max_rad"] < 1e-6
    page = (output / "index.html").read_text()
    for part in (
        "first/live.png",
        "second/live.png",
        "first/live.mp4",
        "Agreement with the live run",
        str(other),
    ):
        assert part in page
    for name in ("error_by_horizon.png", "error_over_time.png", "second/live.png", "first/live.mp4"):
        assert (output / name).stat().st_size > 1000

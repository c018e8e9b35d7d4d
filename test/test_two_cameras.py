"""Two cameras, a tracker each, one policy: over DDS between separate processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from stack_arguments import demo_arguments, next_domain
from std_msgs.msg import Float64MultiArray
from untrained_policy import save_untrained_run

from atk_interfaces.msg import PolicyStatus
from atk_interfaces.srv import RecordEpisode
from atk_perception.frames import check_bag
from atk_perception.robot_description import RobotDescription
from atk_policy.replay import agreement, replay
from atk_policy.run_folder import RunFolder
from atk_sim import demo
from atk_sim.closed_loop_node import RELIABLE, ClosedLoopClient
from atk_sim.graph import NodeGraph, robot_file

pytestmark = pytest.mark.system

SEED = 11
FRAMES = 30


@pytest.fixture(scope="module")
def patient_robot(tmp_path_factory) -> Path:
    """With deadlines that a busy machine meets too."""
    content = yaml.safe_load(robot_file("sim_panda_two_cameras").read_text())
    content["deadlines_s"] = {"image": 1.0, "keypoints": 1.0, "joint_states": 30.0}
    path = tmp_path_factory.mktemp("robot") / "patient.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def two_cameras(patient_robot, tmp_path_factory) -> Path:
    """A run folder without training: points on what each camera sees, and a policy that moves a little."""
    robot = RobotDescription.load(patient_robot)
    path = tmp_path_factory.mktemp("two") / "run"
    return save_untrained_run(
        path, robot, SEED, history=1, step_rad=0.02, uv_mean_px=300.0, uv_scale_px=100.0
    )


def start(graph: NodeGraph, run_folder: Path, robot_path: Path, **simulator: object) -> None:
    """What sim.launch.py starts for this robot."""
    robot = RobotDescription.load(robot_path)
    simulated = {"use_sim_time": True}
    graph.start(
        "atk_sim", "sim_robot_node", {**demo._sim_parameters(demo_arguments(), robot_path), **simulator}
    )
    for camera, folder, namespace in (
        (robot.cameras[0], run_folder, "/"),
        (robot.cameras[1], run_folder / "cameras" / "left", "/left"),
    ):
        reliable = {f"qos_overrides./{camera.image_topic}.subscription.reliability": "reliable"}
        graph.start(
            "atk_perception",
            "tracker_node",
            {"run_folder": str(folder), **simulated, **reliable},
            name=f"tracker_{camera.name}",
            remappings={"__ns": namespace},
        )
    policy = {"run_folder": str(run_folder), "robot": str(robot_path), "hold_limit_s": 600.0, **simulated}
    graph.start("atk_policy", "policy_node", policy)


def running(statuses: list[PolicyStatus]) -> int:
    return sum(status.state == PolicyStatus.RUNNING for status in statuses)


@pytest.mark.timeout(300)
def test_the_robot_moves_and_the_bag_gives_the_same_commands_again(two_cameras, patient_robot, tmp_path):
    robot = RobotDescription.load(patient_robot)
    commands: list[np.ndarray] = []
    with NodeGraph(tmp_path / "logs", next_domain()) as graph:
        start(graph, two_cameras, patient_robot)
        extra = ["policy/status", "keypoints", "left/keypoints"]
        recorder = {"robot": str(patient_robot), "output": str(tmp_path), "use_sim_time": True}
        graph.start("atk_perception", "record_node", {**recorder, "extra_topics": extra})
        with ClosedLoopClient(graph) as client:
            client.node.create_subscription(
                Float64MultiArray, robot.topics.command, lambda m: commands.append(np.array(m.data)), RELIABLE
            )
            client.wait_for("the policy", client._run.server_is_ready, 60.0)
            client.start_recording("live")
            goal = client.start_policy()
            client.reset("sushi", "RP", SEED, "topics")
            client.wait_for("frames", lambda: running(client._policy) >= FRAMES, 120.0)
            client.cancel_policy(goal)
            answer = client.end_recording(RecordEpisode.Request.KEEP)
    assert "WITH PROBLEMS" not in answer, answer
    assert np.ptp(np.array(commands), axis=0).max() > 0.01

    report = check_bag(tmp_path / "live", robot)
    images = [report.topics[camera.recorded_topic].count for camera in robot.cameras]
    assert min(images) >= FRAMES
    run = RunFolder.load(two_cameras)
    again = replay(tmp_path / "live", run, robot)
    assert again.uv_px.shape[1:] == (24, 2)
    found = agreement(tmp_path / "live", run, robot, again.seen)
    assert found is not None
    assert found.frames >= FRAMES - 1
    assert not found.held_here
    assert found.command_rad < 1e-6
    assert found.tracks_px == 0.0


@pytest.mark.timeout(300)
def test_when_one_tracker_dies_the_robot_holds_and_the_camera_is_named(two_cameras, patient_robot, tmp_path):
    with NodeGraph(tmp_path / "logs", next_domain()) as graph:
        # Not in lock-step: time must go on without the answer. Slowly, for a busy machine.
        start(graph, two_cameras, patient_robot, lockstep=False, real_time_factor=0.5)
        with ClosedLoopClient(graph) as client:
            goal = client.start_policy()
            client.reset("sushi", "RP", SEED, "topics")
            client.wait_for("frames", lambda: running(client._policy) >= 5, 120.0)
            left = graph._processes.pop("tracker_left")  # one that ended would end the wait
            os.kill(left.pid, signal.SIGKILL)
            left.wait()
            deadline = time.monotonic() + 60.0
            while client.policy_statuses()[-1].hold_cause != "camera_left_stale":
                assert time.monotonic() < deadline, client.policy_statuses()[-1]
                time.sleep(0.05)
            seen = len(client.policy_statuses())
            client.wait_for("further answers", lambda: len(client._policy) > seen + 10, 60.0)
            after = client.policy_statuses()[seen:]
            assert {status.hold_cause for status in after} == {"camera_left_stale"}
            assert np.ptp([status.command for status in after[-3:]], axis=0).max() == 0.0
            client.cancel_policy(goal)

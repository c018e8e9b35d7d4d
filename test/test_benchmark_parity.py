"""The benchmark's fast path and the same episode over ROS give the same outcome."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from stack_arguments import demo_arguments
from std_msgs.msg import Float64MultiArray

from atk_policy.run_folder import RunFolder
from atk_sim import demo
from atk_sim.closed_loop_node import RELIABLE, ClosedLoopClient
from atk_sim.graph import robot_file
from atk_sim.judging import Referee
from atk_sim.rollout import ExactTracks, KeypointAgent, run_episode
from atk_sim.simulation import Simulation

pytestmark = pytest.mark.system

EPISODES = [("RP", 7), ("Light", 8), ("freeze", 9)]


def hear_commands(client: ClosedLoopClient, topic: str) -> list[np.ndarray]:
    """The list that every command on `topic` is appended to from now on."""
    heard: list[np.ndarray] = []
    subscription = client.node.create_subscription(
        Float64MultiArray, topic, lambda message: heard.append(np.array(message.data)), RELIABLE
    )
    client.wait_for(f"a publisher of {topic}", lambda: subscription.get_publisher_count() > 0, 60.0)
    # On a busy machine nodes that have just met may lose their very first image: that is no matter of the method.
    client.run_policy("sushi", "RP", 6, timeout_s=240.0)
    heard.clear()
    return heard


def assert_same_commands(heard: list[np.ndarray], commands: list[np.ndarray], atol: float) -> None:
    """`commands` were heard, one after another; the brake of the run before may still come before the first."""
    starts = [k for k in range(4) if np.allclose(heard[k : k + 3], commands[:3], atol=atol)]
    assert starts, f"{np.array(commands[:3])} do not begin within the first heard:\n{np.array(heard[:7])}"
    np.testing.assert_allclose(heard[starts[0] : starts[0] + len(commands)], commands, atol=atol)


@pytest.mark.timeout(600)
def test_an_episode_in_process_ends_as_over_ros(graph, run_folder, robot):
    simulation = Simulation(robot)
    run = RunFolder.load(run_folder)
    # The template is the first image of the first demonstration, that of seed 0.
    exact = ExactTracks(simulation, "sushi", 0, run.keypoint_set.uv_px.astype(np.float64))
    agent = KeypointAgent(run, robot, exact)
    quick, sent = [], []

    def remember(image, step):
        if step.command is not None:
            sent[-1].append(step.command[:-1])

    for disturbance, seed in EPISODES:
        sent.append([])
        quick.append(run_episode(simulation, agent, "sushi", disturbance, seed, watch=remember))
    simulation.close()

    demo.start_run(graph, demo_arguments(), robot_file("sim_panda"), run_folder)
    with ClosedLoopClient(graph) as client, closing(Referee(robot, run.keypoint_set, "sushi", 0)) as referee:
        heard = hear_commands(client, robot.topics.command)
        for outcome, commands in zip(quick, sent, strict=True):
            heard.clear()
            episode = client.run_policy("sushi", outcome.disturbance, outcome.seed, timeout_s=240.0)
            assert (episode.success, episode.steps) == (outcome.success, outcome.steps)
            told = referee.outcome(episode)
            assert (told.cause, told.path) == (outcome.cause, "ros")
            assert told.wrong_share == pytest.approx(outcome.wrong_share, abs=0.01)
            assert told.inference_p95_ms > 0.0
            # Before the first image the node has nothing to go on, and says so; and it sees the image after the last step.
            for cause in {*episode.holds, *outcome.holds} - {"keypoints_stale"}:
                assert abs(episode.holds.get(cause, 0) - outcome.holds.get(cause, 0)) <= 1, cause
            assert set(episode.tracker_states) == set(outcome.tracker_states)
            if outcome.disturbance != "freeze":  # there the node's own watchdog brakes, at its own pace
                assert_same_commands(heard, commands, atol=1e-9)


@pytest.mark.timeout(600)
def test_a_camera_that_was_moved_is_reprojected_alike(graph, run_folder, robot):
    """By depth, from where the simulator says on its topics that the camera stands: the same commands to the last digit."""
    run = RunFolder.load(run_folder)
    assert run.keypoint_set.calibration is not None  # of the bag that the template is from
    simulation = Simulation(robot)
    steps = []
    quick = run_episode(
        simulation,
        KeypointAgent(run, robot, viewpoint="depth"),
        "sushi",
        "camera:0.5",
        7,
        watch=lambda _, step: steps.append(step),
    )
    simulation.close()
    commands = [step.command[:-1] for step in steps if step.command is not None]
    moved_px = [np.linalg.norm(s.seen.policy_uv_px - s.seen.uv_px, axis=1)[s.seen.visible] for s in steps]
    assert np.median(np.concatenate(moved_px)) > 10.0

    demo.start_run(graph, demo_arguments(), robot_file("sim_panda"), run_folder, "depth")
    with ClosedLoopClient(graph) as client:
        heard = hear_commands(client, robot.topics.command)
        episode = client.run_policy("sushi", "camera:0.5", 7, timeout_s=240.0)
    assert (episode.success, episode.steps) == (quick.success, quick.steps)
    assert_same_commands(heard, commands, atol=1e-6)  # the pose comes as a message: its last digits differ

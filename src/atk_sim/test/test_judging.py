"""What was heard of an episode over ROS is judged as one that was driven in process."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import numpy as np
import pytest

from atk_perception.keypoint_set import KeypointSet
from atk_perception.keypoint_tracker import KeypointObservation, TrackerState
from atk_sim.ground_truth import attach, project_attached
from atk_sim.judging import Episode, Referee
from atk_sim.rollout import AgentStep, ExactTracks, run_episode
from atk_sim.simulation import Simulation

POINTS = np.array([[300.0, 200.0], [320.0, 240.0], [340.0, 260.0], [200.0, 300.0]])
TEMPLATE_SEED = 3


class Follower:
    """Does what the expert does up to a step; sees all points, from a step on so many pixels off; and is overheard."""

    def __init__(self, exact: ExactTracks, until: int, off_from: int, lost_from: int = 10_000) -> None:
        self.exact, self.until, self.off_from, self.lost_from = exact, until, off_from, lost_from
        self.seen: list[KeypointObservation] = []
        self.positions: dict[int, np.ndarray] = {}

    def begin(self, simulation: Simulation) -> None:
        self.exact.begin(simulation)

    def act(self, simulation: Simulation, stamp_ns: int) -> AgentStep:
        step = simulation.steps
        off_px = 30.0 if step >= self.off_from else 0.0
        state = TrackerState.LOST if step >= self.lost_from else TrackerState.TRACKING
        uv_px = (self.exact.uv_px(simulation) + off_px).astype(np.float32)
        ones = np.ones(len(uv_px))
        observed = KeypointObservation(stamp_ns, np.arange(len(uv_px)), uv_px, ones > 0, ones, state)
        self.seen.append(observed)
        self.positions[stamp_ns] = simulation.world.positions
        command = simulation.expert_command() if step < self.until else None
        return AgentStep(command, state.name, self.exact.wrong(simulation, observed), inference_ms=2.0)


@pytest.mark.parametrize(
    ("until", "off_from", "lost_from", "cause"),
    [
        (10_000, 10_000, 10_000, ""),
        (10, 10_000, 10_000, "policy"),
        (10, 0, 10_000, "transfer"),
        (10, 40, 10_000, "lost track"),
        (10, 10_000, 40, "lost track"),
    ],
)
def test_both_paths_give_the_same_cause(simulation, robot, until, off_from, lost_from, cause):
    exact = ExactTracks(simulation, "sushi", TEMPLATE_SEED, POINTS)
    simulation.reset("sushi", "RP", TEMPLATE_SEED)
    chosen = KeypointSet.create("sushi", POINTS, simulation.rgb(), camera_name=robot.camera.name)
    agent = Follower(exact, until, off_from, lost_from)
    here = run_episode(simulation, agent, "sushi", "RP", 7)
    assert here.cause == cause
    heard = Episode("sushi", "RP", 7, here.success, here.steps, here.wall_s, agent.seen, agent.positions)
    heard.inference_ms = [2.0] * here.steps
    with closing(Referee(robot, chosen, "sushi", TEMPLATE_SEED)) as referee:
        over_ros = referee.outcome(heard)
        assert over_ros == dataclasses.replace(here, path="ros")
        if cause == "policy":  # where the expert cannot do it either, it is nobody's fault
            referee._simulation.expert_command = referee._simulation.measured
            assert referee.outcome(heard).cause == "physics"


def test_positions_show_everything_where_it_was(simulation, robot):
    """Cloth too: its points lie where they lay, to the last digit that an image could tell."""
    simulation.reset("towel_folding", "RP", 4)
    cloth = np.array([[320.0, 240.0], [330.0, 250.0]])
    points = attach(simulation.world, simulation.renderer, cloth)
    for _ in range(30):
        simulation.step(simulation.expert_command())
    there, positions = project_attached(simulation.world, points, robot.camera), simulation.world.positions
    for _ in range(30):
        simulation.step(simulation.expert_command())
    assert np.abs(project_attached(simulation.world, points, robot.camera) - there).max() > 1e-3
    simulation.world.show(positions)
    np.testing.assert_allclose(project_attached(simulation.world, points, robot.camera), there, atol=1e-3)

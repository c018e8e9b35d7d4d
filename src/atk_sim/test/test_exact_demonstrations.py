"""Episodes are looked at again with any keypoints: exact tracks, of demonstrations and of corrections alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atk_perception.keypoint_set import KeypointSet
from atk_perception.robot_description import RobotDescription
from atk_policy.run_folder import RunFolder
from atk_policy.selection import SelectionConfig
from atk_sim.dagger import record_corrections
from atk_sim.exact_demonstrations import NOTES, Witnessed, exact_demonstration
from atk_sim.methods.dagger import CORRECTION, FIRST_SEED, Dagger, ExactAtk
from atk_sim.methods.protocol import Lesson
from atk_sim.rollout import AgentStep, ExactTracks
from atk_sim.simulation import Simulation, demonstrated

TASK, TEMPLATE_SEED = "clock_hand", 3
# On the clock's face, which the arm hides for a while, and on the table in a corner, which it never does.
POINTS = np.array([[377.0, 260.0], [400.0, 280.0], [40.0, 440.0]])


class Replay:
    """A student that does what the expert did in an episode, and knows where its points are."""

    def __init__(self, robot: RobotDescription, seed: int, exact: ExactTracks | None = None) -> None:
        self.commands = list(demonstrated(Simulation(robot, render=False), TASK, "RP", seed))
        self.exact = exact
        self.measured: list[np.ndarray] = []
        self.uv_px: list[np.ndarray] = []

    def begin(self, simulation: Simulation) -> None:
        if self.exact is not None:
            self.exact.begin(simulation)

    def act(self, simulation: Simulation, stamp_ns: int) -> AgentStep:
        self.measured.append(simulation.measured())
        if self.exact is not None:
            self.uv_px.append(self.exact.uv_px(simulation))
        return AgentStep(self.commands[simulation.steps])


def template_points(simulation: Simulation) -> KeypointSet:
    simulation.reset(TASK, "RP", TEMPLATE_SEED)
    return KeypointSet.create(TASK, POINTS, simulation.rgb(), camera_name=simulation.robot.camera.name)


def test_a_correction_gives_the_points_where_they_were_or_were_last_seen(simulation, robot, tmp_path):
    points = template_points(simulation)
    exact = ExactTracks(simulation, TASK, TEMPLATE_SEED, POINTS)
    student = Replay(robot, 5, exact)
    assert record_corrections(simulation, student, TASK, 5, tmp_path / "correction")
    witnessed = Witnessed.load(tmp_path / "correction")
    again = Simulation(robot)
    seen = exact_demonstration(
        again, TASK, 5, witnessed, ExactTracks(again, TASK, TEMPLATE_SEED, POINTS), points, "correction"
    )
    again.close()
    assert len(seen.stamp_ns) == len(student.measured)
    np.testing.assert_array_equal(seen.robot, np.array(student.measured))
    visible = seen.visible
    assert 0.1 < visible[:, :2].mean() < 0.9, "the arm comes before the clock, and goes"
    assert visible[:, 2].all()
    np.testing.assert_array_equal(seen.confidence, visible)
    there_px = np.array(student.uv_px)
    # While an episode runs, MuJoCo's bodies are where they were one physics step before its positions.
    np.testing.assert_allclose(seen.uv_px[visible], there_px[visible], atol=0.15)
    hidden = ~visible[1:]
    np.testing.assert_array_equal(seen.uv_px[1:][hidden], seen.uv_px[:-1][hidden])


def test_a_demonstration_seen_again_is_what_was_recorded(simulation, robot, tmp_path):
    record_corrections(simulation, Replay(robot, 5), TASK, 5, tmp_path / "driven")
    noted = Witnessed.load(tmp_path / "driven")
    again = Witnessed.demonstration(simulation, TASK, 5)
    assert len(again.robot) == len(noted.robot) + 1  # a recorder sees the frame after the last step too
    np.testing.assert_array_equal(again.positions[:-1], noted.positions)
    np.testing.assert_array_equal(again.action[:-1], noted.action)


@pytest.mark.timeout(900)
def test_a_student_learns_from_exact_tracks_of_demonstrations_and_corrections(
    simulation: Simulation, robot: RobotDescription, tmp_path: Path
):
    """A short training; no tracker runs: there are no tracks of one afterwards."""
    bags = []
    for seed in range(3):
        bag = tmp_path / "demonstrations" / f"episode_{seed:04d}"
        record_corrections(simulation, Replay(robot, seed), TASK, seed, bag)
        (bag / NOTES).unlink()  # as what was recorded over ROS
        bags.append(bag)
    file = tmp_path / "quick.yaml"
    file.write_text(
        "candidates: {count: 24}\nchoice: {measure: {steps: 20, folds: 2}}\n"
        "select: {steps: 60, batch: 64, members: 2, folds: 2}\nrefit: {steps: 20, batch: 32}\n"
    )
    lesson = Lesson(TASK, robot, bags, [0, 1, 2], 0.0, tmp_path / "tracks", SelectionConfig.load(file))
    method, folder = Dagger("dagger_exact", ExactAtk(), rounds=1, episodes=1), tmp_path / "seed_0"
    method.train(lesson, 0, folder)
    correction = folder / "round_0" / "corrections" / f"{CORRECTION}{FIRST_SEED:04d}"
    assert (correction / NOTES).is_file()
    assert RunFolder.load(folder / "round_0").file.trained["demonstrations"] == 3
    assert RunFolder.load(folder).file.trained["demonstrations"] == 4
    assert not list(tmp_path.glob("**/tracks/*.npz"))
    simulation.reset(TASK, "RP", 7)
    agent = method.agent(lesson, folder, simulation)
    agent.begin(simulation)
    assert agent.act(simulation, 1_000_000_000).tracker_state

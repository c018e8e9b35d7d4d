"""Corrections are bags like any other: what was seen, and what the expert would have done there."""

from __future__ import annotations

import numpy as np

from atk_perception.frames import check_bag, read_frames
from atk_sim.dagger import record_corrections
from atk_sim.rollout import AgentStep
from atk_sim.simulation import Simulation


class Wanderer:
    """A student that turns its first joint and does nothing else."""

    def begin(self, simulation: Simulation) -> None:
        self.q = simulation.measured()
        self.met: list[np.ndarray] = []
        self.seen: list[np.ndarray] = []

    def act(self, simulation: Simulation, stamp_ns: int) -> AgentStep:
        self.met.append(simulation.measured())
        self.seen.append(simulation.rgb().copy())
        self.q = self.q + np.array([0.004, *[0.0] * 7])
        return AgentStep(self.q)


def test_a_bag_holds_the_students_way_and_the_experts_commands(simulation, robot, tmp_path):
    student = Wanderer()
    assert not record_corrections(simulation, student, "clock_button", 3, tmp_path / "correction")
    report = check_bag(tmp_path / "correction", robot)
    frames = list(read_frames(tmp_path / "correction", robot))
    assert report.topics[robot.camera.recorded_topic].count == len(frames) == len(student.met)
    # Where the student was, not where the expert would have been.
    np.testing.assert_allclose([frame.robot.vector() for frame in frames], student.met, atol=1e-9)
    for k in (0, 40, len(frames) - 1):
        np.testing.assert_array_equal(frames[k].payload, student.seen[k])
    # What is taught leads from there: back against the student's turn, and on towards the button.
    towards_rad = np.array([frame.action for frame in frames])[60:] - np.array(student.met)[60:]
    assert (towards_rad[:, 0] < -0.01).mean() > 0.9
    assert (np.abs(towards_rad[:, 1]) > 0.003).mean() > 0.9

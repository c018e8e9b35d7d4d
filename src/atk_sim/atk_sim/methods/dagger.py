"""ATK trained as for sim-to-real: after the demonstrations, on what the expert would do where the student gets to.

dagger         with keypoints as the robot tracks them, in training as in the end
dagger_exact   trained with the simulator's exact tracks, as the paper's students are; driven with tracked ones, as all are
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from atk_perception.keypoint_set import KeypointSet
from atk_perception.recording import UNFINISHED_SUFFIX
from atk_perception.robot_description import RobotDescription
from atk_policy.demonstrations import Demonstration
from atk_policy.run_folder import RunFolder
from atk_policy.selection import Track
from atk_sim.dagger import record_corrections
from atk_sim.exact_demonstrations import NOTES, Witnessed, exact_demonstration
from atk_sim.methods.atk import Atk
from atk_sim.methods.protocol import Lesson
from atk_sim.rollout import Agent, ExactTracks, PrivilegedAgent
from atk_sim.simulation import Simulation

ROUNDS = 2
EPISODES = 15  # per round
# Apart from the demonstrations (from 0), from those for tuning (2000) and those for reports (10000).
FIRST_SEED = 1_000
DEMONSTRATION, CORRECTION = "episode_", "correction_"


class ExactAtk(Atk):
    """ATK that learns from exact tracks, of demonstrations and corrections alike."""

    def track(self, lesson: Lesson) -> Track:
        """The simulator sees every bag again."""

        def track(
            bags: Sequence[Path],
            sets: Sequence[KeypointSet],
            robot: RobotDescription,
            report: Callable[[float, str], None],
        ) -> list[Demonstration]:
            (points,) = sets  # the simulated robot has one camera
            simulation = Simulation(robot, lesson.servo_noise)
            try:
                exact = ExactTracks(simulation, lesson.task, lesson.seeds[0], points.uv_px.astype(np.float64))
                tracked = []
                for number, bag in enumerate(bags):
                    seed = int(bag.name.removeprefix(DEMONSTRATION).removeprefix(CORRECTION))
                    if (bag / NOTES).is_file():
                        witnessed = Witnessed.load(bag)
                    else:
                        witnessed = Witnessed.demonstration(simulation, lesson.task, seed)
                    tracked.append(
                        exact_demonstration(simulation, lesson.task, seed, witnessed, exact, points, bag.name)
                    )
                    report((number + 1) / len(bags), bag.name)
                return tracked
            finally:
                simulation.close()

        return track

    def student(self, lesson: Lesson, folder: Path, simulation: Simulation) -> Agent:
        """Told where its points are."""
        run = RunFolder.load(folder)
        uv_px = run.keypoint_set.uv_px.astype(np.float64)
        exact = ExactTracks(simulation, lesson.task, lesson.seeds[0], uv_px)
        return PrivilegedAgent(run, lesson.robot, exact)


class Dagger:
    """Rounds of: select and train on everything so far, drive, be corrected; then select and train once more.

    Args:
        atk: how it selects, trains and drives.
        rounds, episodes: of corrections, per round.
    """

    needs: tuple[str, ...] = ()

    def __init__(self, name: str, atk: Atk, rounds: int = ROUNDS, episodes: int = EPISODES) -> None:
        self.name, self._atk, self._rounds, self._episodes = name, atk, rounds, episodes

    def available(self) -> str:
        """See `Method`."""
        return ""

    def train(
        self, lesson: Lesson, seed: int, folder: Path, report: Callable[[str], None] = lambda line: None
    ) -> None:
        """See `Method`; every finished bag and round stays."""
        bags = list(lesson.bags)
        for number in range(self._rounds):
            student = folder / f"round_{number}"
            if not (student / "policy.yaml").is_file():
                self._atk.train(replace(lesson, bags=bags), seed, student, report)
            corrections = student / "corrections"
            simulation = Simulation(lesson.robot)
            try:
                agent = self._atk.student(lesson, student, simulation)
                for k in range(self._episodes):
                    report(f"round {number}: correcting episode {k + 1} of {self._episodes}")
                    episode_seed = FIRST_SEED + self._episodes * number + k
                    path = corrections / f"{CORRECTION}{episode_seed:04d}"
                    if not (path / "metadata.yaml").is_file():
                        for left in (path, path.with_name(path.name + UNFINISHED_SUFFIX)):
                            shutil.rmtree(left, ignore_errors=True)
                        record_corrections(simulation, agent, lesson.task, episode_seed, path)
                    bags.append(path)
            finally:
                simulation.close()
        self._atk.train(replace(lesson, bags=bags), seed, folder, report)

    def agent(self, lesson: Lesson, folder: Path, simulation: Simulation) -> Agent:
        """See `Method`."""
        return self._atk.agent(lesson, folder, simulation)

"""ATK trained as for sim-to-real: after the demonstrations, on what the expert would do where the student gets to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from atk_perception.recording import UNFINISHED_SUFFIX
from atk_sim.dagger import record_corrections
from atk_sim.methods.atk import Atk
from atk_sim.methods.protocol import Lesson
from atk_sim.rollout import Agent
from atk_sim.simulation import Simulation

ROUNDS = 2
EPISODES = 15  # per round
# Apart from the demonstrations (from 0), from those for tuning (2000) and those for reports (10000).
FIRST_SEED = 1_000


class Dagger:
    """Rounds of: select and train on everything so far, drive, be corrected; then select and train once more."""

    name = "dagger"
    needs: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._atk = Atk()

    def available(self) -> str:
        """See `Method`."""
        return ""

    def train(
        self, lesson: Lesson, seed: int, folder: Path, report: Callable[[str], None] = lambda line: None
    ) -> None:
        """See `Method`; every finished bag and round stays."""
        bags = list(lesson.bags)
        for number in range(ROUNDS):
            student = folder / f"round_{number}"
            if not (student / "policy.yaml").is_file():
                self._atk.train(replace(lesson, bags=bags), seed, student, report)
            corrections = student / "corrections"
            simulation = Simulation(lesson.robot)
            try:
                agent = self._atk.agent(lesson, student, simulation)
                for k in range(EPISODES):
                    report(f"round {number}: correcting episode {k + 1} of {EPISODES}")
                    episode_seed = FIRST_SEED + EPISODES * number + k
                    path = corrections / f"correction_{episode_seed:04d}"
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

"""ATK itself: the task chooses its keypoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from atk_policy.run_folder import RunFolder
from atk_policy.selection import SelectionConfig, select_keypoints
from atk_sim.methods.protocol import Lesson
from atk_sim.rollout import Agent, ExactTracks, KeypointAgent
from atk_sim.simulation import Simulation


class Atk:
    """Selection with its defaults, the same for every task."""

    name = "atk"

    def train(
        self, lesson: Lesson, seed: int, folder: Path, report: Callable[[str], None] = lambda line: None
    ) -> None:
        """See `Method`."""
        config = SelectionConfig(name=lesson.task, seed=seed)

        def progress(stage: str, fraction: float, detail: str) -> None:
            report(f"{stage} {fraction:.0%} {detail}")

        select_keypoints(lesson.bags, folder, lesson.robot, config, workers=1, progress=progress)

    def agent(self, lesson: Lesson, folder: Path, simulation: Simulation) -> Agent:
        """See `Method`."""
        run = RunFolder.load(folder)
        # The template is the first image of the first demonstration.
        exact = ExactTracks(
            simulation, lesson.task, lesson.seeds[0], run.keypoint_set.uv_px.astype(np.float64)
        )
        return KeypointAgent(run, lesson.robot, exact, lesson.viewpoint)

"""ATK itself, and everything else that learns on a keypoint set: what differs is how the set is chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from atk_policy.run_folder import RunFolder
from atk_policy.selection import SelectionConfig, Track, select_keypoints
from atk_sim.methods.protocol import Lesson
from atk_sim.rollout import Agent, ExactTracks, KeypointAgent
from atk_sim.simulation import Simulation

Report = Callable[[str], None]


class KeypointMethod:
    """Candidates, tracks, a set, a policy on it; tracks that methods have in common are made once."""

    name: str
    needs: tuple[str, ...] = ()

    def config(self, lesson: Lesson, seed: int, folder: Path, report: Report) -> SelectionConfig:
        """How the set is chosen; `folder` may keep what it costs to find that out."""
        raise NotImplementedError

    def available(self) -> str:
        """See `Method`."""
        return ""

    def train(self, lesson: Lesson, seed: int, folder: Path, report: Report = lambda line: None) -> None:
        """See `Method`."""

        def progress(stage: str, fraction: float, detail: str) -> None:
            report(f"{stage} {fraction:.0%} {detail}")

        config = self.config(lesson, seed, folder, report)
        select_keypoints(
            lesson.bags,
            folder,
            lesson.robot,
            config,
            workers=1,
            tracks=lesson.tracks,
            track=self.track(lesson),
            progress=progress,
        )

    def track(self, lesson: Lesson) -> Track | None:
        """How demonstrations are tracked; None: as on the robot."""
        return None

    def student(self, lesson: Lesson, folder: Path, simulation: Simulation) -> Agent:
        """Who drives while the expert corrects."""
        return self.agent(lesson, folder, simulation)

    def agent(self, lesson: Lesson, folder: Path, simulation: Simulation) -> Agent:
        """See `Method`."""
        run = RunFolder.load(folder)
        # The template is the first image of the first demonstration.
        exact = ExactTracks(
            simulation, lesson.task, lesson.seeds[0], run.keypoint_set.uv_px.astype(np.float64)
        )
        return KeypointAgent(run, lesson.robot, exact, lesson.viewpoint)


class Atk(KeypointMethod):
    """The automatic selection, with settings that are the same for every task."""

    name = "atk"

    def config(self, lesson: Lesson, seed: int, folder: Path, report: Report) -> SelectionConfig:
        """The lesson's settings."""
        return lesson.settings.model_copy(update={"name": lesson.task, "seed": seed})

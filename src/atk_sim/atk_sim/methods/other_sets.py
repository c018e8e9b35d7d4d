"""The same policy on keypoints that were chosen otherwise, or that nobody chose (method.md, baselines: selection).

    fullset          all candidates
    random           as many of the candidates as ATK kept, drawn at random
    manual           the points that a person picked for the task     (stands for the paper's GPTSelect)
    published_ALPHA  those that the published objective keeps at one alpha: the best of them is what tuning brings

For the points that a vision-language model names see vlm.py. Each is tried with ATK's own candidates, tracker, policy and
training; what cannot be tracked at all is left out, as there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atk_perception.keypoint_set import KeypointSet, KeypointSetError
from atk_policy.keypoint_choice import ChoiceConfig
from atk_policy.selection import CandidateConfig, SelectionConfig, propose_candidates
from atk_sim.methods.atk import Atk, KeypointMethod, Report
from atk_sim.methods.protocol import Lesson
from atk_sim.tasks import TASKS

EVERY = ChoiceConfig(objective="all")
ALPHAS = (0.001, 0.002, 0.005)  # the published range
PICKED_ON_SEED = 0  # the episode on whose first image a person picked


class FullSet(KeypointMethod):
    """All candidates."""

    name = "fullset"

    def config(self, lesson: Lesson, seed: int, folder: Path, report: Report) -> SelectionConfig:
        """ATK's candidates, every one."""
        return SelectionConfig(name=lesson.task, seed=seed, choice=EVERY)


class RandomSelect(KeypointMethod):
    """As many of ATK's candidates as ATK kept with the same seed, drawn at random."""

    name = "random"

    def config(self, lesson: Lesson, seed: int, folder: Path, report: Report) -> SelectionConfig:
        """A draw by `seed`; ATK is trained first where it was not."""
        count = len(_kept_by_atk(lesson, seed, folder, report))
        candidates = propose_candidates(
            lesson.bags, lesson.robot, SelectionConfig(name=lesson.task, seed=seed)
        )
        drawn = np.random.default_rng(seed).choice(len(candidates), count, replace=False)
        return points_config(lesson, seed, candidates.uv_px[drawn].tolist())


def _kept_by_atk(lesson: Lesson, seed: int, folder: Path, report: Report) -> KeypointSet:
    for chosen in (folder.parent.parent / Atk.name / folder.name, folder / Atk.name):
        with contextlib.suppress(KeypointSetError):
            return KeypointSet.load(chosen)
    Atk().train(lesson, seed, folder / Atk.name, report)
    return KeypointSet.load(folder / Atk.name)


class ManualSelect(KeypointMethod):
    """The task's `picked_uv_px`."""

    name = "manual"

    def config(self, lesson: Lesson, seed: int, folder: Path, report: Report) -> SelectionConfig:
        """The points, on the image that they were picked on.

        Raises:
            ValueError: the demonstrations do not begin with the episode that shows that image.
        """
        if lesson.seeds[0] != PICKED_ON_SEED:
            raise ValueError(
                f"{lesson.task}: points were picked on the first image of seed {PICKED_ON_SEED}, but the first demonstration "
                f"is of seed {lesson.seeds[0]}; record seed {PICKED_ON_SEED} too"
            )
        return points_config(lesson, seed, TASKS[lesson.task].picked_uv_px)


class Published(KeypointMethod):
    """The published objective at one `alpha`; candidates, tracks, tracker and the policy's training as ATK's."""

    def __init__(self, alpha: float) -> None:
        self.name, self._alpha = f"published_{alpha:g}", alpha

    def config(self, lesson: Lesson, seed: int, folder: Path, report: Report) -> SelectionConfig:
        """The paper's penalty, gates and training of the mask."""
        return SelectionConfig.published(self._alpha, name=lesson.task, seed=seed)


def points_config(lesson: Lesson, seed: int, uv_px: Sequence[Sequence[float]]) -> SelectionConfig:
    """A policy on points that somebody named, in pixels of the template."""
    points = tuple((float(u), float(v)) for u, v in uv_px)
    return SelectionConfig(
        name=lesson.task,
        seed=seed,
        choice=EVERY,
        candidates=CandidateConfig(count=len(points), uv_px=points),
    )

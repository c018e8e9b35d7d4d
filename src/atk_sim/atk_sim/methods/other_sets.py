"""The same policy on keypoints that were chosen otherwise, or that nobody chose (method.md, baselines: selection).

    fullset          all candidates
    random           as many as ATK kept of those candidates that it could choose from, drawn at random
    manual           the points that a person picked for the task     (stands for the paper's GPTSelect)
    published_ALPHA  those that the published objective keeps at one alpha: the best of them is what tuning brings

For the points that a vision-language model names see vlm.py. Each is tried with ATK's own candidates, tracker, policy and
training; what cannot be tracked at all is left out, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atk_perception.keypoint_set import KeypointSet
from atk_policy.demonstrations import Tracking, track_demonstrations, trackability
from atk_policy.selection import SelectionConfig, propose_candidates, trackable_candidates
from atk_sim.methods.atk import Atk, KeypointMethod, Report
from atk_sim.methods.protocol import Lesson
from atk_sim.tasks import TASKS

ALPHAS = (0.001, 0.002, 0.005)  # the published range
PICKED_ON_SEED = 0  # the episode on whose first image a person picked


class FullSet(KeypointMethod):
    """All candidates."""

    name = "fullset"

    def config(self, lesson: Lesson, seed: int, folder: Path, report: Report) -> SelectionConfig:
        """ATK's candidates, every one that can be tracked."""
        return _every_point(lesson, seed)


class RandomSelect(KeypointMethod):
    """As many of the candidates that ATK could choose from as it kept with the same seed, drawn at random."""

    name = "random"
    needs: tuple[str, ...] = (Atk.name,)

    def config(self, lesson: Lesson, seed: int, folder: Path, report: Report) -> SelectionConfig:
        """A draw by `seed`.

        Raises:
            KeypointSetError: ATK has not learnt yet.
        """
        count = len(KeypointSet.load(folder.parent.parent / Atk.name / folder.name))
        config = Atk().config(lesson, seed, folder, report)
        candidates = propose_candidates(lesson.bags, lesson.robot, config)
        tracking = Tracking(config.matcher, config.tracker, config.viewpoint)
        tracked = track_demonstrations(  # which ATK has done: they are read
            lesson.bags, [candidates], lesson.robot, tracking, lesson.tracks, workers=1
        )
        trackable = np.flatnonzero(trackable_candidates(trackability(tracked), config.candidates))
        drawn = np.random.default_rng(seed).choice(trackable, count, replace=False)
        chosen = points_config(lesson, seed, candidates.uv_px[drawn].tolist())
        # Trackable they are: what a few of them alone do worse than among many must not make them fewer than ATK's.
        anyhow = {"transferred_min": 0.0, "visible_min": 0.0, "confidence_min": 0.0}
        return chosen.model_copy(update={"candidates": chosen.candidates.model_copy(update=anyhow)})


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
        published = SelectionConfig.published(self._alpha)
        changes = {"choice": published.choice, "select": published.select}
        return Atk().config(lesson, seed, folder, report).model_copy(update=changes)


def points_config(lesson: Lesson, seed: int, uv_px: Sequence[Sequence[float]]) -> SelectionConfig:
    """A policy on points that somebody named, in pixels of the template."""
    points = tuple((float(u), float(v)) for u, v in uv_px)
    named = lesson.settings.candidates.model_copy(update={"count": len(points), "uv_px": points})
    return _every_point(lesson, seed).model_copy(update={"candidates": named})


def _every_point(lesson: Lesson, seed: int) -> SelectionConfig:
    settings = lesson.settings
    changes = {
        "name": lesson.task,
        "seed": seed,
        "choice": settings.choice.model_copy(update={"objective": "all"}),
    }
    return settings.model_copy(update=changes)

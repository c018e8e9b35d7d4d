"""From trackable candidates to the keypoint set, in either of two ways.

`automatic` needs no tuning:

    gates on the path of penalties, several members      when does each point leave, in how many of them
        -> stability.py, rigid_parts.py                  an order of all points, duplicates merged
        -> cross_validation.py                           held-out error of the first 1, 2, 3, ... of them
        -> the smallest set within a tolerance of the best of the path and of the full set

`published` is method.md: one Bernoulli mask, one fixed alpha, and what it rather keeps than drops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from atk_policy.agreement import mean_agreement
from atk_policy.augmentation import AugmentationConfig
from atk_policy.cross_validation import errors_of_sets, knee
from atk_policy.demonstrations import Demonstration
from atk_policy.distillation import (
    DistillationHistory,
    Log,
    PolicyConfig,
    Report,
    StageConfig,
    TrainingData,
    distill,
)
from atk_policy.penalty import PenaltyConfig
from atk_policy.rigid_parts import rigid_parts, rigid_share
from atk_policy.stability import near_duplicates, order_points, survival

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]

AUTOMATIC = StageConfig(steps=800, batch=128, members=8, folds=4, learning_rate=2e-3, warm_up=0.15)
# method.md: gates, objective and alpha as published; the pace is ours (see distillation.py).
PUBLISHED = StageConfig(
    steps=1000,
    batch=256,
    members=1,
    learning_rate=2e-3,
    warm_up=0.15,
    gates="bernoulli",
    penalty=PenaltyConfig(form="fixed", alpha=0.002),
    cross_fit=False,
)


class ChoiceConfig(BaseModel):
    """How the set is chosen. Nothing here is to be tuned to a task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: Literal["automatic", "published"] = "automatic"
    keypoints_min: Count = 4  # a transfer needs three points to be believed
    keypoints_max: Count = 12
    tolerance: Annotated[float, Field(ge=0.0)] = 0.05  # of the held-out error, that fewer points may cost
    merge: bool = True  # automatic: near-duplicates on a rigid part count as one
    merge_px: Annotated[float, Field(ge=0.0)] = 6.0  # published: two points closer than this see the same patch
    measure: StageConfig = StageConfig(steps=500, batch=128, members=1, folds=4, learning_rate=2e-3)  # per set and fold


@dataclass(frozen=True)
class Choice:
    """A keypoint set and its reasons. C trackable candidates, F folds, errors as in cross_validation.py.

    Attributes:
        keep: (C,) the set. order: candidates in the order in which they were taken, at least those kept.
        retention: (C,) how much of the path a point or a near-duplicate survives, mean over members; published:
            the probability that it is kept.
        part_retention: (C,) the same of its rigid part. parts: (C,) number of that part.
        sizes: (G,) points in the sets of the path. path_errors: (G, F). full_errors: (F,) with all candidates.
        removal_errors: (points kept, F) of the set without each of its points, in the order of `order`, refitted.
        limit: error at the tolerance line.
        agreement: of the sets of this size that each round of folds would have chosen alone.
        history: of the gates' training.
    """

    keep: Bools
    order: list[int]
    retention: Floats
    part_retention: Floats
    parts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    path_errors: Floats
    full_errors: Floats
    removal_errors: Floats
    limit: float
    agreement: float
    history: DistillationHistory

    @property
    def error(self) -> float:
        """Mean held-out error of the set."""
        return float(self.path_errors[self.sizes == self.keep.sum()].mean())

    def removal(self) -> dict[int, float]:
        """By how much the held-out error rises when a point is taken away and the policy refitted, as a share."""
        kept = [i for i in self.order if self.keep[i]]
        return {i: float(e) for i, e in zip(kept, self.removal_errors.mean(1) / self.error - 1.0, strict=True)}


def choose_keypoints(
    train: TrainingData,
    held_out: TrainingData | None,
    demonstrations: Sequence[Demonstration],
    template_uv_px: npt.NDArray[np.float32],
    trackability: Floats,
    diagonal_px: float,
    policy: PolicyConfig,
    augmentation: AugmentationConfig,
    stage: StageConfig,
    config: ChoiceConfig,
    *,
    seed: int,
    start: Callable[[str], None] = lambda stage: None,
    report: Report = lambda fraction, detail: None,
    log: Log = lambda step, scalars: None,
    checkpoints: Path | None = None,
) -> Choice:
    """Choose among C trackable candidates.

    Args:
        train, held_out: frames with those candidates. What is held out here is seen by nothing that chooses.
        demonstrations: that `train` was made of, with the same candidates, for the rigid parts.
        template_uv_px: (C, 2). trackability: (C,) in [0, 1]. diagonal_px: of the image.
        stage: of the gates.
        start: called with "select" and "measure" as they begin.
        checkpoints: folder of the files from which an interrupted choice continues.
    """

    def file(name: str) -> Path | None:
        return None if checkpoints is None else checkpoints / f"{name}.safetensors"

    start("select")
    outcome = distill(
        train,
        held_out,
        template_uv_px,
        policy,
        augmentation,
        stage,
        masked=True,
        seed=seed,
        report=report,
        log=log,
        checkpoint=file("select"),
    )
    assert outcome.retention is not None
    parts = rigid_parts(rigid_share(demonstrations, template_uv_px))
    same_part = parts[:, None] == parts[None]
    alone = np.eye(len(parts), dtype=np.bool_)

    if config.objective == "published":
        retention = outcome.retention.double().mean(0).numpy()
        part_retention = np.array([retention[part].max() for part in same_part])
        order = hard_set(retention, template_uv_px, config)
        sizes, agreement = np.array([len(order)]), 1.0
    else:
        # Records before the gates learn are the same for all.
        path = np.array(outcome.history.retention)[np.array(outcome.history.step) > stage.warm_up * stage.steps]
        groups = near_duplicates(parts, template_uv_px) if config.merge else alone
        seats_of = parts if config.merge else np.arange(len(parts))

        def ordered(members: slice) -> tuple[Floats, Floats, list[int]]:
            points = survival(path[:, members], groups)
            whole = survival(path[:, members], same_part if config.merge else alone)
            return (
                points,
                whole,
                order_points(points, whole, seats_of, trackability, template_uv_px, config.keypoints_max),
            )

        retention, part_retention, order = ordered(slice(None))
        sizes = np.arange(1, len(order) + 1)
        rounds = [
            ordered(slice(first, first + stage.folds))[2] for first in range(0, stage.members, stage.folds)
        ]

    def errors(sets: list[list[int]], name: str, done: float, share: float) -> Floats:
        members = np.zeros((len(sets), len(parts)), np.bool_)
        for row, indices in zip(members, sets, strict=True):
            row[indices] = True
        return errors_of_sets(
            train,
            members,
            template_uv_px,
            policy,
            augmentation,
            config.measure,
            seed=seed,
            report=lambda fraction, detail: report(done + share * fraction, detail),
            checkpoint=file(name),
        )

    start("measure")
    full_errors = errors([list(range(len(parts)))], "full", 0.0, 0.2)
    path_errors = errors([order[:size] for size in sizes], "path", 0.2, 0.4)
    mean = path_errors.mean(1)
    limit = (1.0 + config.tolerance) * min(float(mean.min()), float(full_errors.mean()))
    allowed = sizes >= min(config.keypoints_min, sizes[-1])
    size = int(sizes[allowed][knee(mean[allowed], limit)])
    kept = order[:size]
    keep = np.isin(np.arange(len(parts)), kept)
    without = [[j for j in kept if j != i] for i in kept] if size > 1 else []
    removal_errors = errors(without, "removal", 0.6, 0.4) if without else np.full((size, 1), np.nan)
    if config.objective == "automatic":
        agreement = mean_agreement(
            [template_uv_px[one[:size]] for one in rounds],
            diagonal_px,
            [parts[one[:size]].tolist() for one in rounds],
        )
    return Choice(
        keep,
        order,
        retention,
        part_retention,
        parts,
        sizes,
        path_errors,
        full_errors,
        removal_errors,
        limit,
        agreement,
        outcome.history,
    )


def hard_set(retention: Floats, uv_px: npt.NDArray[np.float32], config: ChoiceConfig) -> list[int]:
    """As published: what the mask rather keeps than not, best first, of two points within `merge_px` the better one."""
    kept: list[int] = []
    for index in np.argsort(-retention, kind="stable"):
        wanted = retention[index] > 0.5 or len(kept) < config.keypoints_min
        if not wanted or len(kept) >= config.keypoints_max:
            break
        if not (np.hypot(*(uv_px[kept] - uv_px[index]).T) < config.merge_px).any():
            kept.append(int(index))
    return kept

"""From trackable candidates to the keypoint set, in one of three ways.

`automatic` needs no tuning:

    gates on a path of penalties, several members       when does each point leave, in how many of them
        -> rigid_parts.py, stability.py                 which parts survive longest, which points on them
        -> cross_validation.py                          held-out error of the first 1, 2, 3, ... parts
        -> the parts that survive in most members at most prices, as far as they do not raise the error
        -> and one that stays in sight, where all of those go out of it and it does not raise the error either

`published` is method.md: one Bernoulli mask, one fixed alpha, and what it rather keeps than drops, however many points.
`all` chooses nothing: every trackable candidate is kept, for points that a person named, and to compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from atk_policy.agreement import mean_agreement
from atk_policy.augmentation import AugmentationConfig
from atk_policy.cross_validation import errors_of_sets, knee
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
from atk_policy.rigid_parts import consistency, rigid_parts, rigid_share
from atk_policy.stability import (
    SEEN_MIN,
    near_duplicates,
    part_in_sight,
    points_of_part,
    ranked_parts,
    survival,
)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]

# A point in the wrong place says something wrong, one that is out of sight says nothing: one that is astray in a tenth of the
# demonstrations counts like one that is seen in 0.9 ** 8 = 0.43 of the frames.
WRONG_WEIGHS = 8
SIGHT_FRAMES = 4_096  # in which it is looked who is in sight
AUTOMATIC = StageConfig(steps=800, batch=128, members=8, folds=4, learning_rate=2e-3, warm_up=0.25)
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

    objective: Literal["automatic", "published", "all"] = "automatic"
    # All else is of the automatic choice, but for `measure`.
    keypoints_min: Count = 4  # a transfer needs three points to be believed
    keypoints_max: Count = 12
    # Points on each part that matters. One is enough to predict an action, and too few to survive a hand in front
    # of it, a wrong match or a dark corner in a new scene.
    part_points: Count = 4
    parts_max: Count = 6  # that are tried
    # A part is stable that survives so much of the path in the mean over members (Meinshausen and Buehlmann: 0.6 to 0.9). What
    # a task is about survived 0.84 of it and more; what lay beside it 0.77 and less, and came and went (docs/selection).
    stable_min: Share = 0.8
    tolerance: Annotated[float, Field(ge=0.0)] = (
        0.05  # of the best held-out error, that the set's may be above it
    )
    merge: bool = True  # the points of a rigid part stand for each other; False: each is a part
    measure: StageConfig = StageConfig(
        steps=1000, batch=128, members=1, folds=4, learning_rate=2e-3
    )  # per set and fold


@dataclass(frozen=True)
class Choice:
    """A keypoint set and its reasons. C trackable candidates, F folds, errors as in cross_validation.py.

    Attributes:
        keep: (C,) the set.
        retention: (C,) how much of the path a point or a near-duplicate survives, mean over members; published:
            the probability that it is kept.
        worth: (C,) in [0, 1], by which points of one part are preferred: trackability, and how rarely they are on the wrong part.
        parts: (C,) number of the rigid part. part_retention: (C,) `retention` of that part.
        path: the sets that were measured, as indices of candidates. path_errors: (G, F) of them.
        full_errors: (F,) with all candidates.
        limit: largest mean error that counts as good enough. knee: number of the set of the path that was taken; `keep`
            may hold a part more, which stays in sight.
        error: (F,) of the set.
        point_removal, part_removal: by how much the mean error rises, as a share, when a kept point, or all points of
            a part, are taken away and the policy is trained anew; by index of the point, number of the part; NaN where
            that was not measured.
        agreement: mean over the sets that each round of folds would have chosen alone, at the same number of parts; NaN where
            there are no two rounds.
        history: of the gates' training; empty where none were trained.
    """

    keep: Bools
    retention: Floats
    worth: Floats
    parts: npt.NDArray[np.int64]
    part_retention: Floats
    path: list[list[int]]
    path_errors: Floats
    full_errors: Floats
    limit: float
    knee: int
    error: Floats
    point_removal: dict[int, float]
    part_removal: dict[int, float]
    agreement: float
    history: DistillationHistory


def choose_keypoints(
    train: TrainingData,
    held_out: TrainingData | None,
    template_uv_px: npt.NDArray[np.float32],
    trackability: Floats,
    diagonal_px: float,
    policy: PolicyConfig,
    augmentation: AugmentationConfig,
    stage: StageConfig,
    config: ChoiceConfig,
    *,
    seed: int,
    workers: int = 1,
    start: Callable[[str], None] = lambda stage: None,
    report: Report = lambda fraction, detail: None,
    log: Log = lambda step, scalars: None,
    checkpoints: Path | None = None,
) -> Choice:
    """Choose among C trackable candidates.

    Args:
        train, held_out: frames with those candidates. What is held out here is seen by nothing that chooses.
        template_uv_px: (C, 2). trackability: (C,) in [0, 1]. diagonal_px: of the image.
        stage: of the gates.
        workers: processes that train gates and measure sets, see `distill` and `errors_of_sets`.
        start: called with "select" and "measure" as they begin.
        checkpoints: folder of the files from which an interrupted choice continues.
    """

    def file(name: str) -> Path | None:
        return None if checkpoints is None else checkpoints / f"{name}.safetensors"

    share = rigid_share(train, template_uv_px)
    parts = rigid_parts(share)
    worth = trackability * consistency(share, parts) ** WRONG_WEIGHS

    def errors(sets: list[list[int]], name: str, begin: float, end: float) -> Floats:
        rows = np.zeros((len(sets), len(parts)), np.bool_)
        for row, indices in zip(rows, sets, strict=True):
            row[indices] = True
        return errors_of_sets(
            train,
            rows,
            template_uv_px,
            policy,
            augmentation,
            config.measure,
            seed=seed,
            workers=workers,
            report=lambda fraction, detail: report(begin + (end - begin) * fraction, detail),
            checkpoint=file(name),
        )

    if config.objective == "all":
        start("measure")
        return _all(worth, parts, errors([list(range(len(parts)))], "full", 0.0, 1.0))

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
        workers=workers,
        report=report,
        log=log,
        checkpoint=file("select"),
    )
    assert outcome.retention is not None
    labels = parts if config.merge else np.arange(len(parts))
    if config.objective == "published":
        retention = outcome.retention.double().mean(0).numpy()
        path = [published_set(retention)]
        part_retention, rounds = survival(retention[None, None], labels[:, None] == labels[None]), []
    else:
        # Records before the gates learn are the same for all.
        prices = np.array(outcome.history.step) > stage.warm_up * stage.steps
        gates = np.array(outcome.history.retention)[prices]

        def path_of(members: slice) -> tuple[list[list[int]], Floats, Floats]:
            return _path(gates[:, members], labels, template_uv_px, worth, config)

        path, retention, part_retention = path_of(slice(None))
        rounds = [path_of(slice(k, k + stage.folds))[0] for k in range(0, stage.members, stage.folds)]

    start("measure")
    full_errors = errors([list(range(len(parts)))], "full", 0.0, 0.2)
    path_errors = errors(path, "path", 0.2, 0.5)
    mean = path_errors.mean(1)
    limit = (1.0 + config.tolerance) * min(float(mean.min()), float(full_errors.mean()))
    stable = np.array([bool((part_retention[points] >= config.stable_min).all()) for points in path])
    at = knee(mean, stable, limit)
    alone = [sets[min(at, len(sets) - 1)] for sets in rounds]
    agreement = (
        mean_agreement([template_uv_px[s] for s in alone], diagonal_px, [labels[s].tolist() for s in alone])
        if len(alone) > 1
        else float("nan")
    )

    kept = path[at]
    if config.objective == "automatic":
        visible = train.visible[train.every(SIGHT_FRAMES)].numpy() > 0
        while (room := config.keypoints_max - len(kept)) >= SEEN_MIN and (
            part := part_in_sight(kept, visible, labels)
        ) is not None:
            count = min(config.part_points, room)
            more = kept + points_of_part(part, labels, worth, template_uv_px, count)
            error = float(errors([more], f"in_sight_{len(more)}", 0.5, 0.55).mean())
            if error > limit:  # what stays in sight, but says the wrong thing, does more harm than good
                break
            kept = more

    # What each part and each point is worth: the error without it. Of a hundred published points that would take hours.
    removals: list[tuple[str, int, list[int]]] = [("", 0, kept)]
    if len(kept_parts := sorted(set(labels[kept].tolist()))) <= config.keypoints_max:
        removals += [("part", p, [i for i in kept if labels[i] != p]) for p in kept_parts]
    if len(kept) <= config.keypoints_max:
        removals += [("point", i, [j for j in kept if j != i]) for i in kept]
    removals = [r for r in removals if r[2]]  # nothing is trained on no point at all
    measured = errors([r[2] for r in removals], "removal", 0.55, 1.0)
    rise = {
        (kind, i): float(e)
        for (kind, i, _), e in zip(removals, measured.mean(1) / measured[0].mean() - 1.0, strict=True)
    }
    return Choice(
        np.isin(np.arange(len(parts)), kept),
        retention,
        worth,
        labels,
        part_retention,
        path,
        path_errors,
        full_errors,
        limit,
        at,
        measured[0],
        {i: rise.get(("point", i), float("nan")) for i in kept},
        {p: rise.get(("part", p), float("nan")) for p in kept_parts},
        agreement,
        outcome.history,
    )


def _all(worth: Floats, parts: npt.NDArray[np.int64], errors: Floats) -> Choice:
    """Every candidate, `errors` (1, F); nothing was chosen, so there is nothing to tell of a choice."""
    everything = list(range(len(parts)))
    kept = np.ones(len(parts))
    return Choice(
        kept.astype(bool),
        kept,
        worth,
        parts,
        kept,
        [everything],
        errors,
        errors[0],
        float(errors.mean()),
        0,
        errors[0],
        dict.fromkeys(everything, float("nan")),
        dict.fromkeys(sorted(set(parts.tolist())), float("nan")),
        float("nan"),
        DistillationHistory(),
    )


def _path(
    gates: Floats,
    parts: npt.NDArray[np.int64],
    template_uv_px: npt.NDArray[np.float32],
    worth: Floats,
    config: ChoiceConfig,
) -> tuple[list[list[int]], Floats, Floats]:
    """Sets of the first 1, 2, 3, ... parts, and how long points and parts survive, (C,) each.

    `gates` is (R, S, C), see `survival`.
    """
    points = survival(gates, near_duplicates(parts, template_uv_px))
    whole = survival(gates, parts[:, None] == parts[None])
    ranked = ranked_parts(whole, parts)[: min(config.parts_max, config.keypoints_max)]
    best = [points_of_part(part, parts, worth, template_uv_px, config.part_points) for part in ranked]
    path = []
    for count in range(1, len(ranked) + 1):
        each = max(1, min(config.part_points, config.keypoints_max // count))
        path.append([i for part in best[:count] for i in part[:each]])
    enough = [s for s in path if len(s) >= config.keypoints_min]
    return enough or path[-1:], points, whole


def published_set(retention: Floats) -> list[int]:
    """As published, best first: what the mask, (C,) probabilities, rather keeps than not; one point at least."""
    ranked = np.argsort(-retention, kind="stable")
    return [int(index) for index in ranked[: max(1, int((retention > 0.5).sum()))]]

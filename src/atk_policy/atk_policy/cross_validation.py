"""What sets of keypoints are worth: the action error on demonstrations that the policy was not trained on.

All sets and all folds are members of one vectorised run of training, or of one in each of several processes: members of
different sets share nothing but weights to begin with and batches, which their seed decides. The error is measured under the same
imitated failures (augmentation.py) for every set, so that a set which only works with perfect tracks loses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atk_policy.augmentation import Augmentation, AugmentationConfig
from atk_policy.distillation import (
    PolicyConfig,
    Report,
    StageConfig,
    TrainingData,
    distill,
    fold_of,
    share_files,
)
from atk_policy.policies.protocol import Policy
from atk_policy.worker_processes import in_processes

# Of a fold that are looked at at once.
BLOCK_FRAMES = 8_192
# A process takes seconds to start: it pays for so many steps of members, set and fold each.
WORKER_STEPS = 10_000


def errors_of_sets(
    data: TrainingData,
    sets: npt.NDArray[np.bool_],
    template_uv_px: npt.NDArray[np.float32],
    policy_config: PolicyConfig,
    augmentation_config: AugmentationConfig,
    stage: StageConfig,
    *,
    seed: int,
    workers: int = 1,
    report: Report = lambda fraction, detail: None,
    checkpoint: Path | None = None,
) -> npt.NDArray[np.float64]:
    """(G, F) held-out action error of G sets over F folds, in the unit of `held_out_error`.

    Args:
        data: all frames; every fold is held out once. With fewer demonstrations than folds nothing can be
            held out, and the errors are those of training.
        sets: (G, C) which keypoints belong to each set. template_uv_px: (C, 2).
        stage: its `members` are ignored; there is one for each set and fold.
        workers: processes among which the sets are shared out, where that is worth starting them. The errors do not depend
            on how many there are. When `report` raises, those that run are ended.
        checkpoint: as of `distill`; each process has its own beside it.
    """
    union = sets.any(axis=0)
    measure = partial(
        _errors_of_sets,
        data.keypoints(torch.from_numpy(union)),
        template_uv_px=template_uv_px[union],
        policy_config=policy_config,
        augmentation_config=augmentation_config,
        stage=stage,
        seed=seed,
    )
    sets = sets[:, union]
    workers = min(workers, len(sets), len(sets) * stage.folds * stage.steps // WORKER_STEPS)
    if workers < 2:
        return measure(sets, report=report, checkpoint=checkpoint)
    fractions = [0.0] * workers

    def hear(number: int, told: tuple[float, str]) -> None:
        fractions[number], detail = told
        report(sum(fractions) / workers, detail)

    files = share_files(checkpoint, workers)
    calls = [
        partial(_telling, partial(measure, share, checkpoint=file))
        for share, file in zip(np.array_split(sets, workers), files, strict=True)
    ]
    return np.concatenate(in_processes(calls, hear))


def _telling(
    measure: Callable[..., npt.NDArray[np.float64]], tell: Callable[[tuple[float, str]], None]
) -> npt.NDArray[np.float64]:
    return measure(report=lambda fraction, detail: tell((fraction, detail)))


def _errors_of_sets(
    data: TrainingData,
    sets: npt.NDArray[np.bool_],
    *,
    template_uv_px: npt.NDArray[np.float32],
    policy_config: PolicyConfig,
    augmentation_config: AugmentationConfig,
    stage: StageConfig,
    seed: int,
    report: Report = lambda fraction, detail: None,
    checkpoint: Path | None = None,
) -> npt.NDArray[np.float64]:
    """`errors_of_sets` in this process, of keypoints that all are in some set, perhaps in that of another process."""
    masks = torch.from_numpy(sets).float().repeat_interleave(stage.folds, dim=0)
    outcome = distill(
        data,
        None,
        template_uv_px,
        policy_config,
        augmentation_config,
        stage.model_copy(update={"members": len(masks)}),
        masked=False,
        masks=masks,
        seed=seed,
        report=report,
        checkpoint=checkpoint,
    )
    demonstration = data.demonstration()
    count = int(demonstration.max()) + 1
    fold = torch.from_numpy(fold_of(count, stage.folds, (seed, 0)))[demonstration]
    augment = Augmentation(augmentation_config, template_uv_px)
    errors = np.zeros(len(masks))
    for member, (policy, mask) in enumerate(zip(outcome.policies, masks, strict=True)):
        frames = torch.nonzero(fold == member % stage.folds).ravel()
        errors[member] = held_out_error(policy, data, frames, mask, augment, policy_config, seed)
    return errors.reshape(len(sets), stage.folds)


@torch.no_grad()
def held_out_error(
    policy: Policy,
    data: TrainingData,
    frames: Tensor,
    mask: Tensor,
    augment: Augmentation,
    config: PolicyConfig,
    seed: int,
) -> float:
    """Mean absolute error of the normalised action chunk on `frames` (M,), under failures that `seed` draws."""
    frames = frames if len(frames) else torch.arange(len(data))
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for block in torch.split(frames, BLOCK_FRAMES):
        seen = augment.observe(data, block, config.history, config.history_stride, generator)
        seen = seen._replace(mask=mask.expand(len(block), -1))
        wanted = policy.target(seen, data.chunks(block, config.horizon))
        total += len(block) * float((policy.target(seen, policy.act(seen)) - wanted).abs().mean())
    return total / len(frames)


def knee(errors: npt.NDArray[np.float64], stable: npt.NDArray[np.bool_], limit: float) -> int:
    """Index of the set to take, of G sets that grow part by part.

    The largest one of stable parts only whose error is at most `limit`; when there is none, the smallest within the
    limit, and when there is none either, the best. A part that all members pay for is there for a reason, even where
    it matters too seldom to show in a mean over all frames; one that does harm shows.

    Args:
        errors: (G,) mean held-out errors. stable: (G,) whether all parts of a set are stable.
    """
    enough = errors <= limit
    if (enough & stable).any():
        return int(np.flatnonzero(enough & stable)[-1])
    return int(np.argmax(enough)) if enough.any() else int(np.argmin(errors))

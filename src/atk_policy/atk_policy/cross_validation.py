"""What sets of keypoints are worth: the action error on demonstrations that the policy was not trained on.

All sets and all folds are members of one vectorised run of training, or of one in each of several processes: members of
different sets share nothing but weights to begin with and batches, which their seed decides. The error is measured under the same
imitated failures (augmentation.py) for every set, so that a set which only works with perfect tracks loses.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atk_policy.augmentation import Augmentation, AugmentationConfig
from atk_policy.distillation import PolicyConfig, Report, StageConfig, TrainingData, distill, fold_of
from atk_policy.policies.protocol import Policy

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
    return np.concatenate(_in_processes(measure, np.array_split(sets, workers), checkpoint, report))


def _in_processes(
    measure: Callable[..., npt.NDArray[np.float64]],
    shares: list[npt.NDArray[np.bool_]],
    checkpoint: Path | None,
    report: Report,
) -> list[npt.NDArray[np.float64]]:
    """`measure` of each share of the sets, in a process for each."""
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(len(shares), context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        jobs = [
            pool.submit(
                measure,
                share,
                checkpoint=None
                if checkpoint is None
                else checkpoint.with_stem(f"{checkpoint.stem}-{number + 1}-of-{len(shares)}"),
            )
            for number, share in enumerate(shares)
        ]
        left = set(jobs)
        while left:
            left = wait(left, timeout=1.0, return_when=FIRST_COMPLETED).not_done
            done = len(jobs) - len(left)
            report(done / len(jobs), f"{done} of {len(jobs)} processes have measured their sets")
        return [job.result() for job in jobs]
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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

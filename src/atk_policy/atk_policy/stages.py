"""Does a long task want another keypoint set in each of its stages? Measured, not assumed.

Stages are learned from the robot's own state alone, so that a robot could tell which one it is in: clusters of joint positions
and gripper opening over all demonstrations (k-means). A point that counts in one stage only is a *copy* of it that is out of sight in
the others. So staged sets are ordinary sets of copies, and training, failures and errors are those of every other set
(`cross_validation.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from atk_policy.distillation import ROBOT_SCALE_MIN, TrainingData
from atk_policy.stored_rows import StoredRows

Floats = npt.NDArray[np.float64]
Set = list[int]
Errors = Callable[[TrainingData, list[Set]], Floats]


def learn_stages(robot: Tensor, count: int, seed: int) -> npt.NDArray[np.int64]:
    """(M,) stage of each frame, 0 to count - 1, from (M, J + 1) joint positions [rad] and gripper opening [m].

    Every coordinate counts by its spread; the gripper as much as all joints together, since it is what the task is done with.
    """
    values = robot.double().numpy()
    scaled = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), ROBOT_SCALE_MIN)
    scaled[:, -1] *= np.sqrt(scaled.shape[1] - 1)
    _, stage = kmeans2(scaled, count, iter=50, minit="++", seed=seed)
    return np.asarray(stage, np.int64)


def staged(data: TrainingData, stage: npt.NDArray[np.int64], count: int) -> TrainingData:
    """The same frames with a copy of every keypoint for each stage: copy k * N + i is point i, seen in stage k only.

    Out of its stage a copy rests at its mean, so that its place tells nothing.

    Raises:
        ValueError: keypoints on disk; stages are measured on what fits into memory.
    """
    if isinstance(data.uv_px, StoredRows) or isinstance(data.visible, StoredRows):
        raise ValueError("stages are measured on demonstrations that fit into memory; give fewer")
    at = torch.from_numpy(stage)
    weight = data.visible[..., None]
    middle = (data.uv_px * weight).sum(0) / weight.sum(0).clamp_min(1.0)
    here = [(at == k)[:, None] for k in range(count)]
    return replace(
        data,
        uv_px=torch.cat([torch.where(now[..., None], data.uv_px, middle) for now in here], dim=1),
        visible=torch.cat([data.visible * now for now in here], dim=1),
    )


@dataclass(frozen=True)
class StagedSets:
    """What staged sets are worth beside one set for the whole task.

    Attributes:
        one, fewer, more, gated: held-out error of one set; of it without the parts that a stage can do without; with the part,
            from outside, that helps a stage most; of what gates chose among the copies of all candidates.
        in_use: mean number of points that count in a frame, of each of the four and of the smaller one.
        dropped: (stage, part) that were taken out. added: the one that was put in, or None. kept: those that the gates kept.
        smaller: error of the whole-task set of as few parts as `fewer` has in the mean, or NaN.
    """

    one: float
    fewer: float
    more: float
    gated: float
    in_use: tuple[float, float, float, float, float]
    dropped: list[tuple[int, int]]
    added: tuple[int, int] | None
    kept: list[tuple[int, int]]
    smaller: float

    def rows(self) -> list[dict[str, object]]:
        """A table: how the sets were found, which parts differ by stage, their error, and points in use."""

        def named(parts: Sequence[tuple[int, int]]) -> str:
            return ", ".join(f"{part} in {stage}" for stage, part in parts)

        whole, fewer, more, gated, smaller = self.in_use
        found = [
            ("one set", "", self.one, whole),
            ("parts taken from stages", named(self.dropped), self.fewer, fewer),
            ("a part added to a stage", named([self.added] if self.added else []), self.more, more),
            ("gates over the copies", named(self.kept), self.gated, gated),
            ("one set of fewer parts", "", self.smaller, smaller),
        ]
        return [
            {"sets": name, "parts": parts, "held_out_error": round(error, 4), "points_in_use": round(use, 1)}
            for name, parts, error, use in found
            if not np.isnan(error)
        ]


def compare_stages(
    data: TrainingData,
    path: Sequence[Set],
    taken: int,
    gated: Set,
    parts: npt.NDArray[np.int64],
    stage: npt.NDArray[np.int64],
    tolerance: float,
    errors: Errors,
) -> StagedSets:
    """Take parts out of stages, and put others in, as far as the held-out error says so.

    Args:
        data: frames with C candidates.
        path: sets of the first 1, 2, 3, ... parts (keypoint_choice.py), `taken` of which was chosen.
        gated: copies that were chosen among the copies of all candidates.
        parts: (C,) number of each candidate's part. stage: (M,) of each frame.
        tolerance: a part may go from a stage if the error stays within this share of the one set's.
        errors: held-out errors of sets of copies, as `errors_of_sets` gives them, (G, F).
    """
    count, points = int(stage.max()) + 1, len(parts)
    copies = staged(data, stage, count)
    share = np.bincount(stage, minlength=count) / len(stage)

    def spread(indices: Set, stages: Sequence[int] = tuple(range(count))) -> Set:
        return [k * points + i for k in stages for i in indices]

    def in_use(indices: Set) -> float:
        return float(sum(share[i // points] for i in indices))

    one = path[taken]
    kept = sorted(set(parts[one].tolist()))
    # The part that each larger set of the path has more.
    further = [[i for i in larger if parts[i] == parts[larger[-1]]] for larger in path[taken + 1 :]]
    without = [(k, part) for k in range(count) for part in kept]
    beside = [(k, group) for k in range(count) for group in further]
    whole = spread(one)
    tried = [whole, gated]
    tried += [
        [c for c in whole if not (c // points == k and parts[c % points] == part)] for k, part in without
    ]
    tried += [whole + spread(group, [k]) for k, group in beside]
    base, gated_error, *others = errors(copies, [s or whole for s in tried]).mean(axis=1).tolist()
    alone, added = np.array(others[: len(without)]), np.array(others[len(without) :])

    # The least harmful ones first, as long as all that went so far together stay within the tolerance.
    dropped: list[tuple[int, int]] = []
    fewer, fewer_error = whole, base
    for at in np.argsort(alone):
        if alone[at] > (1 + tolerance) * base:
            break
        k, part = without[at]
        smaller = [c for c in fewer if not (c // points == k and parts[c % points] == part)]
        if not smaller:
            continue
        error = float(errors(copies, [smaller]).mean())
        if error <= (1 + tolerance) * base:
            dropped.append((k, part))
            fewer, fewer_error = smaller, error
    more, more_error, best = whole, base, None
    if len(added) and added.min() < base:
        k, group = beside[int(np.argmin(added))]
        more, more_error, best = whole + spread(group, [k]), float(added.min()), (k, int(parts[group[0]]))
    same_size = [s for s in path[:taken] if len(s) <= round(in_use(fewer))]
    small = spread(same_size[-1]) if same_size else []
    small_error = float(errors(copies, [small]).mean()) if small else float("nan")
    return StagedSets(
        base,
        fewer_error,
        more_error,
        gated_error,
        (in_use(whole), in_use(fewer), in_use(more), in_use(gated), in_use(small)),
        dropped,
        best,
        sorted({(c // points, int(parts[c % points])) for c in gated}),
        small_error,
    )

"""Stability selection: what survives, over members and prices: rigid parts, and points on them.

One run's choice among near-duplicates is luck, what survives in many runs and at many prices is not
(Meinshausen and Buehlmann 2010, "Stability selection"). Here the runs are the members of one vectorised
run, other initial weights on other splits of the demonstrations, and the prices are those of the penalty's
path. Luck among near-duplicates is taken out by merging them: a point survives when it or a near-duplicate
on its rigid part does, and a part survives when any of its points does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SPACING_PX = 20.0  # closer on one rigid part, two points see much the same patch and are lost together
# Fewer than these seen is next to blind. In so small a share of all frames that is a slip of the tracker, and no matter.
SEEN_MIN = 2
BLIND_SHARE = 0.05
# Where points of a part are wanted: left, right, up, down, at so much of its half extent. At its very rim what is behind it
# gets into their windows.
SIDES = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
SIDE_SHARE = 0.8
# Companions of a part: this many say where it is, and more that are nearer to each other than this say the same again.
COMPANIONS, COMPANION_SPACING_PX = 24, 40.0
IN_SIGHT_SHARE = 0.5  # of the frames in which a set is blind, that a part must be seen in to be of help


def near_duplicates(
    parts: npt.NDArray[np.int64], template_uv_px: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """(C, C) which points are on one rigid part and within SPACING_PX, each with itself."""
    distance_px = np.hypot(*(template_uv_px[:, None] - template_uv_px[None]).transpose(2, 0, 1))
    return np.asarray((parts[:, None] == parts[None]) & (distance_px < SPACING_PX))


def survival(retention: Floats, groups: npt.NDArray[np.bool_]) -> Floats:
    """(C,) how much of the path each point's group survives, mean over members.

    Args:
        retention: (R, S, C) probability that a gate is open, at R prices, in S members.
        groups: (C, C) row i marks who stands for point i.
    """
    return np.array([retention[:, :, group].max(axis=2).mean() for group in groups])


def ranked_parts(part_survival: Floats, parts: npt.NDArray[np.int64]) -> list[int]:
    """Numbers of the rigid parts, the one that survives longest first; of equal ones the larger part.

    Args:
        part_survival: (C,) from `survival`, the same for all points of a part. parts: (C,) from rigid_parts.py.
    """
    return sorted(set(parts.tolist()), key=lambda part: (-part_survival[parts == part][0], part))


def part_in_sight(
    kept: list[int], visible: npt.NDArray[np.bool_], parts: npt.NDArray[np.int64]
) -> int | None:
    """The part to add to a set that is out of sight too often: the one that is seen most then; None where it is not, or none is.

    At the end of a task its objects may lie behind a door and under the arm. A tracker that sees nothing for long is lost,
    and the robot then holds where it is; a part that hardly matters, but stays in sight, tells both that all is well.

    Args:
        kept: indices of the set. visible: (M, C) who is seen, over frames of the demonstrations. parts: (C,) from rigid_parts.py.
    """
    blind = visible[:, kept].sum(axis=1) < SEEN_MIN
    if blind.mean() <= BLIND_SHARE:
        return None
    seen = visible[blind].mean(axis=0)
    shares = {
        part: float(seen[parts == part].mean())
        for part in sorted(set(parts.tolist()) - set(parts[kept].tolist()))
        if (parts == part).sum() >= SEEN_MIN
    }
    best = max(shares, key=lambda part: shares[part], default=None)
    return best if best is not None and shares[best] >= IN_SIGHT_SHARE else None


def points_of_part(
    part: int,
    parts: npt.NDArray[np.int64],
    trackability: Floats,
    template_uv_px: npt.NDArray[np.float32],
    count: int,
) -> list[int]:
    """`count` points of a rigid part, towards its left, right, upper and lower side in turn; fewer where it has fewer.

    Each is the best of trackability (C,) in [0, 1] and nearness to that side. So the points tell of the part's turn and
    size as well as they can, and runs that drew other candidates choose nearly the same. Not by survival: which of the
    points that say the same the gates keep is luck.
    """
    left = np.flatnonzero(parts == part).tolist()
    low_px, high_px = np.quantile(template_uv_px[left], (0.05, 0.95), axis=0)
    middle_px, half_px = (low_px + high_px) / 2, (high_px - low_px) / 2
    taken: list[int] = []
    while left and len(taken) < count:
        turn, side = divmod(len(taken), len(SIDES))
        wanted_px = middle_px + SIDE_SHARE / (1 + turn) * half_px * SIDES[side]
        offset_px = np.linalg.norm(template_uv_px[left] - wanted_px, axis=1)
        value = trackability[left] * np.exp(-0.5 * (offset_px / SPACING_PX) ** 2)
        taken.append(left.pop(int(np.argmax(value))))
    return taken


def companions_of_part(
    kept: list[int], members: npt.NDArray[np.int64], worth: Floats, template_uv_px: npt.NDArray[np.float32]
) -> list[int]:
    """At most COMPANIONS further points of a rigid part, spread over it: they are transferred along (part_placement.py).

    Args:
        kept: those of its points that are in the set. members: all of its points.
        worth: (C,) in [0, 1], whom to prefer. template_uv_px: (C, 2).
    """
    left = [i for i in members.tolist() if i not in kept]
    away_px = np.full(len(worth), COMPANION_SPACING_PX)

    def taken(point: int) -> None:
        np.minimum(away_px, np.linalg.norm(template_uv_px - template_uv_px[point], axis=1), out=away_px)

    for point in kept:
        taken(point)
    companions: list[int] = []
    while left and len(companions) < COMPANIONS:
        companions.append(left.pop(int(np.argmax((worth * away_px)[left]))))
        taken(companions[-1])
    return companions

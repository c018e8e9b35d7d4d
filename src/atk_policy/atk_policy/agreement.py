"""How much two keypoint sets are the same: do independent runs choose the same handful of points?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

MATCH_SHARE = 0.03  # of the image's diagonal


def agreement(
    first_uv_px: npt.ArrayLike,
    second_uv_px: npt.ArrayLike,
    diagonal_px: float,
    first_bodies: Sequence[object],
    second_bodies: Sequence[object],
    match_share: float = MATCH_SHARE,
) -> float:
    """Share of the points of both sets that have a partner in the other one, in [0, 1].

    Partners lie on the same body and within `match_share` of the image's diagonal, and each point has at most
    one: so a cluster of four does not agree with a single point. As many pairs as possible are made. The
    figure is 2 pairs / (points of both), the same whichever set comes first.

    Args:
        first_uv_px, second_uv_px: (N, 2), (M, 2) on one template.
        first_bodies, second_bodies: (N,), (M,) labels of bodies or rigid parts, in one numbering.

    Raises:
        ValueError: an empty set, or as many labels as there are points is not given.
    """
    a, b = np.asarray(first_uv_px, float).reshape(-1, 2), np.asarray(second_uv_px, float).reshape(-1, 2)
    if not len(a) or not len(b):
        raise ValueError(f"sets of {len(a)} and {len(b)} points: agreement needs points in both")
    if len(a) != len(first_bodies) or len(b) != len(second_bodies):
        raise ValueError(
            f"{len(a)} and {len(b)} points have {len(first_bodies)} and {len(second_bodies)} bodies; give one for each"
        )
    near = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) <= match_share * diagonal_px
    same = np.array([[one == other for other in second_bodies] for one in first_bodies])
    return 2.0 * _most_pairs(near & same) / (len(a) + len(b))


def mean_agreement(
    sets_uv_px: Sequence[npt.ArrayLike], diagonal_px: float, bodies: Sequence[Sequence[object]]
) -> float:
    """Mean `agreement` over all pairs of some sets; 1 for a single one."""
    pairs = list(combinations(range(len(sets_uv_px)), 2))
    values = [agreement(sets_uv_px[i], sets_uv_px[j], diagonal_px, bodies[i], bodies[j]) for i, j in pairs]
    return float(np.mean(values)) if values else 1.0


def _most_pairs(possible: npt.NDArray[np.bool_]) -> int:
    """Size of a maximum matching in an (N, M) bipartite graph, by augmenting paths (Kuhn)."""
    partner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column in map(int, np.flatnonzero(possible[row])):
            if column in seen:
                continue
            seen.add(column)
            if column not in partner or place(partner[column], seen):
                partner[column] = row
                return True
        return False

    return sum(place(row, set()) for row in range(len(possible)))

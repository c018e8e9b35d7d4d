"""Stability selection: which points survive, over members and prices, and in which order they are taken.

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


def order_points(
    point_survival: Floats,
    part_survival: Floats,
    parts: npt.NDArray[np.int64],
    trackability: Floats,
    template_uv_px: npt.NDArray[np.float32],
    count: int,
) -> list[int]:
    """The `count` best points, best first; the first n of them are the set of n points.

    Parts get points by their survival as parties get seats by their votes (d'Hondt): the next point goes to
    the part with the largest survival / (points that it has + 1), so that what matters more gets more
    insurance against a hand in front of it, and what matters a little gets one point late. On a part the
    best point is next by survival, trackability, and distance from those that are there.

    Args:
        point_survival, part_survival: (C,) from `survival`; a part's is the same for all its points.
        parts: (C,) from rigid_parts.py.
        trackability: (C,) in [0, 1].
    """
    worth = point_survival * trackability
    taken: list[int] = []
    while len(taken) < min(count, len(parts)):
        seats = np.array([sum(parts[t] == part for t in taken) for part in parts])
        left = np.ones(len(parts), np.bool_)
        left[taken] = False
        claim = np.where(left, part_survival / (seats + 1.0), -np.inf)
        part = parts[np.argmax(claim)]
        possible = np.flatnonzero(left & (parts == part))
        here = [t for t in taken if parts[t] == part]
        value = worth[possible]
        if here:
            offset_px = template_uv_px[possible, None] - template_uv_px[here][None]
            value = value * np.minimum(1.0, np.linalg.norm(offset_px, axis=2).min(axis=1) / SPACING_PX)
        taken.append(int(possible[np.argmax(value)]))
    return taken

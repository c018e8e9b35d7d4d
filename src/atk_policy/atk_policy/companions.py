"""Company for the chosen keypoints: further points on the same rigid part, as insurance for tracking.

The mask finds which parts matter and keeps as few points on them as the penalty allows, often one.
One point is enough to predict an action and too few to survive a hand in front of it, a wrong match
or a dark corner in a new scene. So each chosen point gets company that moved with it in the
demonstrations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from atk_policy.demonstrations import Demonstration, Trackability

# Two points are on one rigid part when their distance in the image stays what it is on the template,
# up to foreshortening (a quarter of it) and tracking noise.
STRETCH_MAX = 0.25
NOISE_PX = 4.0
RIGID_SHARE = 0.9  # of the frames that show both
FRAMES_MIN = 50  # that show both, or nothing is known
REACH_PX = 90.0  # parts are small; further away a distance is a poor witness of rigidity
SPACING_PX = 20.0  # closer company sees much the same patch and is lost with it


def move_together(
    demonstrations: Sequence[Demonstration], template_uv_px: npt.NDArray[np.float32], index: int
) -> npt.NDArray[np.bool_]:
    """(C,) which candidates moved rigidly with candidate `index` in the demonstrations."""
    template_px = np.linalg.norm(template_uv_px - template_uv_px[index], axis=1)
    allowed_px = NOISE_PX + STRETCH_MAX * template_px
    both, rigid = np.zeros(len(template_uv_px)), np.zeros(len(template_uv_px))
    for d in demonstrations:
        seen = d.visible & d.visible[:, index : index + 1]
        distance_px = np.linalg.norm(d.uv_px - d.uv_px[:, index : index + 1], axis=2)
        both += seen.sum(axis=0)
        rigid += (seen & (np.abs(distance_px - template_px) <= allowed_px)).sum(axis=0)
    together: npt.NDArray[np.bool_] = (
        (both >= FRAMES_MIN) & (rigid >= RIGID_SHARE * both) & (template_px <= REACH_PX)
    )
    return together


def add_companions(
    demonstrations: Sequence[Demonstration],
    template_uv_px: npt.NDArray[np.float32],
    keep: npt.NDArray[np.bool_],
    trackable: npt.NDArray[np.bool_],
    quality: Trackability,
    *,
    part_min: int,
    total_max: int,
) -> npt.NDArray[np.bool_]:
    """Fill each rigid part that has a chosen point up to `part_min` points, `total_max` in all.

    Parts take turns, the poorest first; on a part the best tracked candidate comes first that is not
    too close to one that is there.

    Args:
        keep: (C,) chosen by the mask. trackable: (C,) who may be company.

    Returns:
        (C,) bool, `keep` and its company.
    """
    together = {int(i): move_together(demonstrations, template_uv_px, int(i)) for i in np.flatnonzero(keep)}
    score = quality.transferred * quality.visible * quality.confidence
    result = keep.copy()
    finished: set[int] = set()
    while result.sum() < total_max:
        counts = {i: int((mates & result).sum()) for i, mates in together.items() if i not in finished}
        poorest = min(counts, key=lambda i: counts[i], default=None)
        if poorest is None or counts[poorest] >= part_min:
            break
        possible = np.flatnonzero(together[poorest] & trackable & ~result)
        if not len(possible):
            finished.add(poorest)
            continue
        offset_px = template_uv_px[possible, None] - template_uv_px[result][None]
        nearest_px = np.linalg.norm(offset_px, axis=2).min(axis=1)
        result[possible[np.argmax(score[possible] * np.minimum(1.0, nearest_px / SPACING_PX))]] = True
    return result

"""Points that a tracker follows for its own use: a set of a handful is too small to support each other.

They are corners of the template around the set's own points, tracked in the same way and not reported.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches
from atk_perception.patches import Alignment, Float, PatchBank, align

# Corners within an object's radius of a point, no nearer than this to it.
AROUND_PX, APART_PX = 40, 4
# Of its neighbours so many may say where a helper is.
OFFERS = 4


def helper_points(template_grey: NDArray[np.uint8], uv_px: Float, count: int) -> Float:
    """At most `count` corners of the template near its points, (K, 2), apart from each other and from them."""
    if count <= 0:
        return np.zeros((0, 2), np.float32)
    mask = np.zeros_like(template_grey)
    for u, v in np.round(uv_px).astype(int):
        cv2.circle(mask, (int(u), int(v)), AROUND_PX, 255, -1)
    for u, v in np.round(uv_px).astype(int):
        cv2.circle(mask, (int(u), int(v)), APART_PX, 0, -1)
    corners = cv2.goodFeaturesToTrack(template_grey, count, 0.002, 6.0, mask=mask, blockSize=5)
    return np.zeros((0, 2), np.float32) if corners is None else np.asarray(corners[:, 0], np.float32)


def place_helpers(
    bank: PatchBank,
    pyramid: tuple[Float, ...],
    template_px: Float,
    matches: Matches,
    seen: NDArray[np.bool_],
    neighbourhood_px: float,
) -> Alignment:
    """Helpers in the first frame: of the placements their matched neighbours offer, the one that looks right.

    Args:
        bank: appearance of all M points on the template, of which the last M - N are helpers.
        pyramid: of the frame.
        template_px: (M, 2).
        matches: of the first N points. seen: (N,) which of them were found.
        neighbourhood_px: distance on the template at which a neighbour's say has fallen to 0.6.

    Returns:
        Of the helpers; an NCC of -1 where no neighbour says anything.
    """
    count = len(seen)
    helpers = np.arange(count, len(template_px))
    best_uv = template_px[helpers].copy()
    best_warp = np.tile(np.eye(2, dtype=np.float32), (len(helpers), 1, 1))
    best_ncc = np.full(len(helpers), -1.0, np.float32)
    if not seen.any():
        return Alignment(best_uv, best_warp, best_ncc)
    away_px = np.linalg.norm(template_px[helpers, None] - template_px[None, :count], axis=2)
    weight = np.exp(-0.5 * (away_px / neighbourhood_px) ** 2).astype(np.float32) * seen
    bank = bank.take(helpers)
    for neighbour in np.argsort(-weight, axis=1)[:, : min(OFFERS, count)].T:
        warp = matches.warp[neighbour]
        arm = (template_px[helpers] - template_px[neighbour])[:, :, None]
        uv_px = matches.uv_px[neighbour] + (warp @ arm)[:, :, 0]
        aligned = align(bank, pyramid, uv_px, warp, iterations=4, affine=True)
        usable = np.take_along_axis(weight, neighbour[:, None], axis=1)[:, 0] > 0.0
        better = usable & (aligned.ncc > best_ncc)
        best_uv[better], best_warp[better] = aligned.uv_px[better], aligned.warp[better]
        best_ncc[better] = aligned.ncc[better]
    return Alignment(best_uv, best_warp, best_ncc)

"""Local affine maps fitted around many points at once: how a neighbourhood of the template lies in a scene."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

# A prior weighs as much as one correspondence of weight 1 this far away in every direction.
PRIOR_ARM_PX = 6.0


def fit_local_affine(
    points_px: Float, source_px: Float, target_px: Float, weight: Float, prior: Float
) -> tuple[Float, Float]:
    """Weighted least squares affine map around each point, held to a prior where correspondences are few or in line.

    Args:
        points_px: (N, 2) where the maps are wanted.
        source_px: (M, 2) correspondences, from.
        target_px: (M, 2) correspondences, to.
        weight: (N, M) weight of each correspondence for each point, at least 0; rows must not be all zero.
        prior: (N, 2, 2) linear parts to fall back on.

    Returns:
        (N, 2) images of the points, (N, 2, 2) linear parts.
    """
    total = np.maximum(weight.sum(axis=1, keepdims=True), 1e-9)
    source_mean = weight @ source_px / total
    target_mean = weight @ target_px / total
    # Second moments about the means, from products of (N, M) with (M, few): no (N, M, 2) array is ever made.
    products = np.concatenate(
        [
            source_px[:, [0, 0, 1]] * source_px[:, [0, 1, 1]],
            target_px[:, [0, 0, 1, 1]] * source_px[:, [0, 1, 0, 1]],
        ],
        axis=1,
    ).astype(np.float64)
    raw = weight.astype(np.float64) @ products
    source_mean64, target_mean64, total64 = (m.astype(np.float64) for m in (source_mean, target_mean, total))
    moment = raw[:, [0, 1, 1, 2]] - total64 * source_mean64[:, [0, 0, 1, 1]] * source_mean64[:, [0, 1, 0, 1]]
    cross = raw[:, 3:] - total64 * target_mean64[:, [0, 0, 1, 1]] * source_mean64[:, [0, 1, 0, 1]]
    ridge = PRIOR_ARM_PX**2 * np.eye(2)
    linear = (cross.reshape(-1, 2, 2) + PRIOR_ARM_PX**2 * prior) @ np.linalg.inv(
        moment.reshape(-1, 2, 2) + ridge
    )
    image = target_mean + (linear @ (points_px - source_mean)[:, :, None])[:, :, 0]
    return image.astype(np.float32), linear.astype(np.float32)

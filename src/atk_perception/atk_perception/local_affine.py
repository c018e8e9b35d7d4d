"""Local affine maps fitted around many points at once: how a neighbourhood of the template lies in a scene."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
AnyFloat = TypeVar("AnyFloat", np.float32, np.float64)

# A prior weighs as much as one correspondence of weight 1 this far away in every direction.
PRIOR_ARM_PX = 6.0
# How large a scale of a local map is believed, and the neighbourhood on the template from which it is fitted, in cells.
LARGEST_SCALE = 2.2
NEIGHBOURHOOD_CELLS = 3.5


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
    ridge = PRIOR_ARM_PX**2
    linear = (cross.reshape(-1, 2, 2) + ridge * prior) @ inverse_2x2(
        moment.reshape(-1, 2, 2) + ridge * np.eye(2)
    )
    image = target_mean + (linear @ (points_px - source_mean)[:, :, None])[:, :, 0]
    return image.astype(np.float32), linear.astype(np.float32)


def inverse_2x2(m: NDArray[AnyFloat]) -> NDArray[AnyFloat]:
    """Batch inverse, (N, 2, 2), of the same precision; ten times faster than LAPACK at this size."""
    determinant = m[:, 0, 0] * m[:, 1, 1] - m[:, 0, 1] * m[:, 1, 0]
    adjugate = np.stack([m[:, 1, 1], -m[:, 0, 1], -m[:, 1, 0], m[:, 0, 0]], axis=1).reshape(-1, 2, 2)
    return np.asarray(adjugate / determinant[:, None, None], m.dtype)


def squared_misfit(
    points_px: Float, placed_px: Float, linear: Float, source_px: Float, target_px: Float
) -> Float:
    """(N, M) squared distance [px^2] of each correspondence from where each point's map puts it.

    As a product of (N, 4) with (4, M) for either coordinate: a tracker asks for it several times in every frame.

    Args:
        points_px, placed_px, linear: (N, 2), (N, 2), (N, 2, 2), the maps.
        source_px, target_px: (M, 2) correspondences.
    """
    moved = placed_px - (linear @ points_px[:, :, None])[:, :, 0]
    minus = np.full(len(points_px), -1.0, np.float32)
    one = np.ones(len(source_px), np.float32)
    squared = np.zeros((len(points_px), len(source_px)), np.float32)
    for axis in (0, 1):
        maps = np.stack([linear[:, axis, 0], linear[:, axis, 1], moved[:, axis], minus], axis=1)
        misfit = maps @ np.stack([source_px[:, 0], source_px[:, 1], one, target_px[:, axis]])
        squared += misfit * misfit
    return squared


def local_warps(
    points_px: Float, found_px: Float, source_px: Float, target_px: Float, *, cell_px: float
) -> Float:
    """Linear maps around points, from matches of other places of which many are wrong.

    First a similarity about each found point (least squares of complex numbers, reweighted twice by residual, so that a roll
    of any angle is found), then an affine map held to it.

    Args:
        points_px, found_px: (N, 2) points and where they were found.
        source_px, target_px: (M, 2) matches of other places.
        cell_px: how exact the matches are; the neighbourhood grows with it.

    Returns:
        (N, 2, 2); the identity where nothing around a point agrees.
    """
    away = _complex(source_px)[None] - _complex(points_px)[:, None]
    there = _complex(target_px)[None] - _complex(found_px)[:, None]
    near = np.exp(-0.5 * (np.abs(away) / (NEIGHBOURHOOD_CELLS * cell_px)) ** 2)
    weight = near * (np.abs(there) < LARGEST_SCALE * np.abs(away) + 2 * cell_px)
    similarity = np.ones(len(points_px), np.complex64)
    for _ in range(3):
        energy = (weight * np.abs(away) ** 2).sum(axis=1)
        total = (weight * np.conj(away) * there).sum(axis=1)
        # A prior of one match at half a cell: without matches the map is the identity.
        prior_energy = (0.5 * cell_px) ** 2
        similarity = ((total + prior_energy) / (energy + prior_energy)).astype(np.complex64)
        residual = np.abs(there - similarity[:, None] * away)
        weight = near / (1.0 + (residual / cell_px) ** 2) ** 2
    size = np.abs(similarity)
    similarity = np.where((size > 1 / LARGEST_SCALE) & (size < LARGEST_SCALE), similarity, 1.0)
    prior = np.stack([similarity.real, -similarity.imag, similarity.imag, similarity.real], axis=1).reshape(
        -1, 2, 2
    )
    _, linear = fit_local_affine(
        points_px, source_px, target_px, (weight + 1e-9).astype(np.float32), prior.astype(np.float32)
    )
    return linear


def agreement(
    points_px: Float, placed_px: Float, linear: Float, source_px: Float, target_px: Float, *, exact_px: float
) -> Float:
    """(N, M) in [0, 1]: how well each match of another place fits the map of each point.

    Args:
        points_px, placed_px, linear: (N, 2), (N, 2), (N, 2, 2), the maps.
        source_px, target_px: (M, 2) the matches.
        exact_px: how exact they are; at twice this off a match hardly agrees.
    """
    squared = squared_misfit(points_px, placed_px, linear, source_px, target_px)
    return np.asarray(1.0 / (1.0 + squared / exact_px**2) ** 2, np.float32)


def _complex(uv_px: Float) -> NDArray[np.complex64]:
    return np.asarray(uv_px[:, 0] + 1j * uv_px[:, 1], np.complex64)

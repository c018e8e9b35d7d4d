"""Small image patches under affine warps: sampling, gain and bias invariant correlation, alignment.

The one piece of image algebra that the classical matcher and the classical tracker share. Alignment is the inverse
compositional Gauss-Newton of Baker and Matthews ("Lucas-Kanade 20 years on", IJCV 2004), made invariant to
`gain * I + bias` by projecting both out of the Jacobian, so that a lamp that is switched on moves no point. All
points are aligned at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.local_affine import inverse_2x2

Float = NDArray[np.float32]

# Below this standard deviation [grey levels] a patch is camera noise: it correlates with nothing.
NOISE_STD = 1.5


def grey_image(image_rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma of an (H, W, 3) RGB image, (H, W) uint8."""
    return np.asarray(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def smooth_pyramid(grey: NDArray[np.uint8], levels: int) -> tuple[Float, ...]:
    """`levels` images of half the size each, float32; pixel (u, v) of level k is (2^k u, 2^k v) of the image.

    The first level is smoothed slightly: sub-pixel interpolation of raw pixels favours integer positions.
    """
    images = [cv2.GaussianBlur(grey, (3, 3), 0.7).astype(np.float32)]
    for _ in range(levels - 1):
        images.append(np.asarray(cv2.pyrDown(images[-1]), np.float32))
    return tuple(images)


@dataclass(frozen=True, eq=False)
class PatchShape:
    """A square window with Gaussian weights.

    Attributes:
        radius: half side, in samples; the window has (2 radius + 1)^2 = P samples.
        level: pyramid level that is sampled; samples are 2^level px apart.
    """

    radius: int
    level: int

    @property
    def spacing_px(self) -> int:
        """Distance between samples [px of the full image]."""
        return int(2**self.level)

    @property
    def offsets_px(self) -> Float:
        """(P, 2) offsets (u, v) from the centre [px of the full image]."""
        steps = np.arange(-self.radius, self.radius + 1)
        v, u = np.meshgrid(steps, steps, indexing="ij")
        return (np.stack([u.ravel(), v.ravel()], axis=1) * self.spacing_px).astype(np.float32)

    @property
    def weights(self) -> Float:
        """(P,) Gaussian weights of sum 1; the point itself counts more than what happens to surround it."""
        distance = np.linalg.norm(self.offsets_px / self.spacing_px, axis=1)
        weights = np.exp(-0.5 * (distance / (0.6 * self.radius)) ** 2)
        return np.asarray(weights / weights.sum(), np.float32)


# Where a patch is about, and where exactly; and the levels of the pyramid that they are sampled from.
COARSE, FINE = PatchShape(radius=7, level=1), PatchShape(radius=7, level=0)
LEVELS = 2


def inside(uv_px: Float, image: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) which of (N, 2) points lie between the centres of the outermost pixels of an (H, W, ...) image."""
    height, width = image.shape[:2]
    return np.asarray(np.all((uv_px >= 0.0) & (uv_px <= np.array([width - 1, height - 1])), axis=1), np.bool_)


def sample(image: Float, uv_px: Float, warp: Float, offsets_px: Float, level: int) -> Float:
    """Bilinear samples of pyramid level `level` at `uv + warp @ offset`.

    Args:
        image: (H, W) float32, the level's image.
        uv_px: (N, 2) centres [px of the full image].
        warp: (N, 2, 2) linear maps applied to the offsets.
        offsets_px: (P, 2) [px].
        level: pyramid level of `image`.

    Returns:
        (N, P) float32; the border is replicated outside the image.
    """
    if len(uv_px) == 0:  # OpenCV refuses empty maps
        return np.zeros((0, len(offsets_px)), np.float32)
    at = (uv_px[:, :, None] + warp @ offsets_px.T) * np.float32(0.5**level)
    return np.asarray(
        cv2.remap(image, at[:, 0], at[:, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32
    )


def standardise(patches: Float, weights: Float) -> Float:
    """Weighted zero mean, unit norm: (N, P) -> (N, P). The inner product of two rows is their weighted NCC."""
    centred = (patches - (patches @ weights)[:, None]) * np.sqrt(weights)
    norm = np.sqrt(np.einsum("np,np->n", centred, centred))
    return np.asarray(centred / np.maximum(norm, NOISE_STD)[:, None], np.float32)


@dataclass(frozen=True, eq=False)
class PatchBank:
    """Reference appearance of N points, with everything alignment needs computed once.

    Attributes:
        shape: the window.
        appearance: (N, P) standardised samples.
        affine_solver: (N, 6, P), standardised residual -> (du, dv, row-major 2x2 linear part).
        shift_solver: (N, 2, P), standardised residual -> (du, dv).
        texture: (N,) standard deviation [grey levels] of the window.
    """

    shape: PatchShape
    appearance: Float
    affine_solver: Float
    shift_solver: Float
    texture: Float

    def __len__(self) -> int:
        return len(self.appearance)

    def take(self, index: NDArray[np.int_]) -> PatchBank:
        """The bank of these points."""
        return PatchBank(
            self.shape,
            self.appearance[index],
            self.affine_solver[index],
            self.shift_solver[index],
            self.texture[index],
        )

    def join(self, other: PatchBank) -> PatchBank:
        """The points of this bank, then those of `other`, which has the same shape."""
        return PatchBank(
            self.shape,
            np.concatenate([self.appearance, other.appearance]),
            np.concatenate([self.affine_solver, other.affine_solver]),
            np.concatenate([self.shift_solver, other.shift_solver]),
            np.concatenate([self.texture, other.texture]),
        )

    def where(self, condition: NDArray[np.bool_], other: PatchBank) -> PatchBank:
        """Points of `other` where `condition` (N,) holds, of this bank elsewhere."""
        pick = condition[:, None]
        return PatchBank(
            self.shape,
            np.where(pick, other.appearance, self.appearance),
            np.where(pick[:, :, None], other.affine_solver, self.affine_solver),
            np.where(pick[:, :, None], other.shift_solver, self.shift_solver),
            np.where(condition, other.texture, self.texture),
        )


def make_bank(pyramid: tuple[Float, ...], uv_px: Float, warp: Float, shape: PatchShape) -> PatchBank:
    """Sample the appearance of points and prepare alignment to it.

    `warp` (N, 2, 2) maps offsets of the template to offsets of this image, so that a bank sampled in any image
    describes the points in the template's geometry.
    """
    image = pyramid[shape.level]
    offsets, weights, spacing = shape.offsets_px, shape.weights, float(shape.spacing_px)
    patches = sample(image, uv_px, warp, offsets, shape.level)

    def slope(step: tuple[float, float]) -> Float:
        ahead = sample(image, uv_px, warp, offsets + np.array(step, np.float32), shape.level)
        behind = sample(image, uv_px, warp, offsets - np.array(step, np.float32), shape.level)
        return (ahead - behind) / np.float32(2 * spacing)

    slope_u, slope_v = slope((spacing, 0.0)), slope((0.0, spacing))
    centred = (patches - (patches @ weights)[:, None]) * np.sqrt(weights)
    texture = np.sqrt(np.einsum("np,np->n", centred, centred))
    scale = np.maximum(texture, NOISE_STD)[:, None, None]
    appearance = (centred / scale[:, 0]).astype(np.float32)

    # Linear parameters are in units of the window's radius, so that all six move its pixels about equally.
    ru, rv = (offsets / (shape.radius * spacing)).T
    jacobian = np.stack(
        [slope_u, slope_v, slope_u * ru, slope_u * rv, slope_v * ru, slope_v * rv], axis=1
    )  # (N, 6, P)
    jacobian = (jacobian - (jacobian @ weights)[:, :, None]) * np.sqrt(weights) / scale
    jacobian -= (jacobian @ appearance[:, :, None]) * appearance[:, None, :]
    # Damping keeps directions that the texture does not determine (an edge, a flat patch) where they are.
    damping = np.array([0.002, 0.002, 0.01, 0.01, 0.01, 0.01], np.float32)
    energy = np.einsum("nkp,nkp->n", jacobian[:, :2], jacobian[:, :2])[:, None] + 1e-6

    def solver(rows: int) -> Float:
        used = jacobian[:, :rows]
        hessian = used @ used.transpose(0, 2, 1)
        hessian[:, range(rows), range(rows)] += damping[:rows] * energy
        return np.asarray(np.linalg.solve(hessian, used), np.float32)

    return PatchBank(shape, appearance, solver(6), solver(2), texture.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Alignment:
    """Result of `align`: (N, 2) uv_px, (N, 2, 2) warp, (N,) ncc in [-1, 1] at that place."""

    uv_px: Float
    warp: Float
    ncc: Float


def correlate(bank: PatchBank, pyramid: tuple[Float, ...], uv_px: Float, warp: Float) -> Float:
    """(N,) NCC of the bank's appearance with the image at `uv_px` under `warp`."""
    shape = bank.shape
    seen = standardise(
        sample(pyramid[shape.level], uv_px, warp, shape.offsets_px, shape.level), shape.weights
    )
    return np.asarray(np.einsum("np,np->n", seen, bank.appearance), np.float32)


def align(
    bank: PatchBank,
    pyramid: tuple[Float, ...],
    uv_px: Float,
    warp: Float,
    *,
    iterations: int,
    affine: bool,
    max_step_px: float = 2.0,
) -> Alignment:
    """Move every point, and with `affine` reshape its window, to where the image looks like its bank.

    The best position met on the way is returned, so the NCC never falls below that of the start.

    Args:
        bank: reference appearance of N points.
        pyramid: of the image, at least `bank.shape.level + 1` levels.
        uv_px: (N, 2) start.
        warp: (N, 2, 2) start.
        iterations: Gauss-Newton steps.
        affine: six parameters instead of two.
        max_step_px: longest single step, in samples of the bank's level; Gauss-Newton overshoots far from the optimum.
    """
    shape = bank.shape
    image, offsets, weights = pyramid[shape.level], shape.offsets_px, shape.weights
    solver = bank.affine_solver if affine else bank.shift_solver
    limit = max_step_px * shape.spacing_px
    uv_px, warp = uv_px.astype(np.float32), warp.astype(np.float32)
    best_uv, best_warp = uv_px, warp
    best_ncc = np.full(len(uv_px), -2.0, np.float32)
    for iteration in range(iterations + 1):
        seen = standardise(sample(image, uv_px, warp, offsets, shape.level), weights)
        ncc = np.einsum("np,np->n", seen, bank.appearance)
        better = ncc > best_ncc
        best_ncc = np.where(better, ncc, best_ncc)
        best_uv = np.where(better[:, None], uv_px, best_uv)
        best_warp = np.where(better[:, None, None], warp, best_warp)
        if iteration == iterations:
            break
        step = (solver @ seen[:, :, None])[:, :, 0] / np.maximum(ncc, 0.2)[:, None]
        shift = step[:, :2]
        length = np.linalg.norm(shift, axis=1, keepdims=True)
        shift = shift * np.minimum(1.0, limit / np.maximum(length, 1e-6))
        if affine:
            linear = np.clip(step[:, 2:].reshape(-1, 2, 2) / (shape.radius * shape.spacing_px), -0.2, 0.2)
            warp = warp @ inverse_2x2(np.eye(2, dtype=np.float32) + linear)
        uv_px = uv_px - (warp @ shift[:, :, None])[:, :, 0]
    return Alignment(best_uv.astype(np.float32), best_warp.astype(np.float32), best_ncc.astype(np.float32))

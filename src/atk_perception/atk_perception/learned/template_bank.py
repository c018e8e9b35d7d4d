"""What a template's points look like at every roll and scale: the template, turned and scaled, described again.

A convolutional descriptor sees through a turn of some thirty degrees, not through any. So the template is described at eight
rolls and three scales, once, and a point is looked for by the one that lies over it as it is now. The network need not learn
what arithmetic does exactly, and what it learns tells more points apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atk_perception.correspondence.protocol import Template
from atk_perception.learned.backbone import NETWORK_WIDTH, Backbone
from atk_perception.learned.network import CELL_PX, describe_points
from atk_perception.local_affine import Float

ROLLS = 8
# Between 0.6 and 1.6 no point is farther than a fifth from one of these.
SCALES = (0.7, 1.0, 1.45)
# What surrounds the points as far as the encoder looks, in its pixels.
MARGIN_PX = 64
UPRIGHT = ROLLS * SCALES.index(1.0)  # the entry of the template as it is


def entry_warps() -> Float:
    """(R, 2, 2) the linear maps template -> turned template, R = ROLLS * len(SCALES), all rolls of a scale in turn."""
    angle = 2 * np.pi / ROLLS * np.arange(ROLLS)
    turns = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 2, 2)
    return np.concatenate([scale * turns for scale in SCALES]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class TemplateBank:
    """Descriptors of N points at R rolls and scales, (N, R, 64)."""

    descriptors: Tensor

    def __len__(self) -> int:
        return len(self.descriptors)

    def take(self, index: NDArray[np.int_]) -> TemplateBank:
        """Of these points."""
        return TemplateBank(self.descriptors[torch.from_numpy(np.asarray(index, np.int64))])

    def join(self, other: TemplateBank) -> TemplateBank:
        """Of these points, then those of `other`."""
        return TemplateBank(torch.cat([self.descriptors, other.descriptors]))

    def pick(self, entries: NDArray[np.int_], points: NDArray[np.int_] | None = None) -> Tensor:
        """(1, K, 64), of each of `points` (K,), or of all, the descriptor of one entry, (K,)."""
        rows = torch.arange(len(self)) if points is None else torch.from_numpy(np.asarray(points, np.int64))
        return self.descriptors[rows, torch.from_numpy(np.asarray(entries, np.int64))][None]


def nearest_entries(warp: Float) -> NDArray[np.int_]:
    """(N,) the entries that lie over points seen under (N, 2, 2) linear maps."""
    # The closest similarity to a linear map, by least squares.
    real, imaginary = warp[:, 0, 0] + warp[:, 1, 1], warp[:, 1, 0] - warp[:, 0, 1]
    roll = np.rint(np.arctan2(imaginary, real) * ROLLS / (2 * np.pi)).astype(int)
    log_scale = 0.5 * np.log(np.maximum(np.abs(np.linalg.det(warp)), 1e-3))
    level = np.abs(log_scale[:, None] - np.log(SCALES)).argmin(axis=1)
    return np.asarray(level * ROLLS + roll % ROLLS, np.int_)


# A place so far [network px] from where a point is expected must look more like it by a cosine of 0.1.
ASTRAY_PX = 24.0


def entries_that_fit(bank: TemplateBank, points: NDArray[np.int_], seen: Tensor) -> NDArray[np.int_]:
    """(N,) the entries of `points` (N,) that look most like (N, 64) what is seen of them."""
    fit = (bank.descriptors[torch.from_numpy(points)] @ seen[..., None])[..., 0]
    return np.asarray(fit.argmax(dim=1).numpy(), np.int_)


def look_for(
    bank: TemplateBank,
    points: NDArray[np.int_],
    entries: NDArray[np.int_],
    features: Tensor,
    around_px: Tensor | None = None,
) -> tuple[NDArray[np.int_], Tensor]:
    """Where a frame looks most like each of some points.

    Args:
        points: (N,) which of the bank's. entries: (N, E), which may be meant.
        features: (1, 64, h, w).
        around_px: (N, 2) where they are expected [network px]; anywhere if not given.

    Returns:
        (N,) the entry that fits best, and (N, 2) the place [network px].
    """
    height, width = features.shape[2:]
    count, kinds = entries.shape
    described = bank.descriptors[torch.from_numpy(points)[:, None], torch.from_numpy(entries)]
    cosine = (described.flatten(0, 1) @ features[0].flatten(1)).reshape(count, kinds, height * width)
    u, v = (CELL_PX * torch.arange(size, dtype=torch.float32) for size in (width, height))
    if around_px is not None:
        apart = (v[:, None] - around_px[:, 1, None, None]) ** 2 + (u - around_px[:, 0, None, None]) ** 2
        cosine = cosine - (0.1 / ASTRAY_PX**2) * apart.reshape(count, 1, height * width)
    peak, cell = cosine.max(dim=2)
    best = peak.argmax(dim=1)
    one = torch.arange(count)
    at, chart = cell[one, best], cosine[one, best].reshape(count, height, width)
    row, column = at // width, at % width
    place = torch.stack([column, row], dim=1).float()
    # Between cells, by a parabola through the peak and its neighbours along either axis.
    for axis, (middle, last) in enumerate(((column, width - 1), (row, height - 1))):
        before, after = (middle - 1).clamp(min=0), (middle + 1).clamp(max=last)
        low, high = (
            chart[one, row, side] if axis == 0 else chart[one, side, column] for side in (before, after)
        )
        bend = (2.0 * peak[one, best] - low - high).clamp(min=1e-4)
        place[:, axis] += (0.5 * (high - low) / bend).clamp(-0.5, 0.5)
    return entries[np.arange(count), best.numpy()], CELL_PX * place


@torch.inference_mode()
def make_template_bank(backbone: Backbone, template: Template) -> TemplateBank:
    """Describe the points of a template at every entry."""
    if len(template) == 0:
        return TemplateBank(torch.zeros(0, ROLLS * len(SCALES), 64))
    image, uv_px = template.image_rgb, np.asarray(template.uv_px, np.float64)
    size = np.array([image.shape[1], image.shape[0]])
    found = []
    for number, warp in enumerate(entry_warps()):
        # Reduced before it is turned, lest pixels are skipped.
        scale = SCALES[number // ROLLS] * NETWORK_WIDTH / size[0]
        reduced = np.maximum(np.rint(scale * size), 1).astype(int)
        smaller = cv2.resize(
            image,
            (int(reduced[0]), int(reduced[1])),
            interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
        )
        at = (uv_px + 0.5) * (reduced / size) - 0.5
        turn = warp.astype(np.float64) / SCALES[number // ROLLS]
        turned = at @ turn.T
        corner = np.floor(turned.min(axis=0)) - MARGIN_PX
        canvas = (np.ceil(turned.max(axis=0)) + MARGIN_PX - corner).astype(int)
        picture = cv2.warpAffine(
            smaller,
            np.column_stack([turn, -corner]),
            (int(canvas[0]), int(canvas[1])),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        features = backbone.describe(np.asarray(picture, np.uint8))
        place = torch.from_numpy((turned - corner).astype(np.float32))[None]
        found.append(describe_points(features, place)[0])
    return TemplateBank(torch.stack(found, dim=1))

"""Matching by any dense descriptor: what the backends that are maps of features share.

A model turns an image into a map of descriptors, one per cell of some 8 to 16 px. Each template point's descriptor is looked
for in the scene's map; the best cell is refined to a fraction of a cell by the similarities around it; and what is found must
lead back to where it came from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.image_codec import require_rgb
from atk_perception.local_affine import Float, agreement, local_warps


@dataclass(frozen=True, eq=False)
class DenseMap:
    """Descriptors of one image.

    Attributes:
        features: (C, h, w) unit descriptors.
        image_size: (width, height) of the image [px]; the cells divide it evenly.
    """

    features: Tensor
    image_size: tuple[int, int]

    @property
    def cell_px(self) -> Float:
        """(2,) size of a cell [px of the image], horizontally and vertically."""
        height, width = self.features.shape[1:]
        return np.array([self.image_size[0] / width, self.image_size[1] / height], np.float32)

    def to_cells(self, uv_px: Float) -> Float:
        """(N, 2) pixels -> (N, 2) cells, centres at integers in both."""
        return np.asarray((uv_px + 0.5) / self.cell_px - 0.5, np.float32)

    def to_image(self, cells: Float) -> Float:
        """(N, 2) cells -> (N, 2) pixels, centres at integers in both."""
        return np.asarray((cells + 0.5) * self.cell_px - 0.5, np.float32)

    def describe(self, uv_px: Float) -> Tensor:
        """(N, C) unit descriptors at pixels (N, 2), bilinear; border cells repeat outside."""
        height, width = self.features.shape[1:]
        size = torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=self.features.device)
        cells = torch.from_numpy(self.to_cells(uv_px)).to(self.features)
        picked = functional.grid_sample(
            self.features[None],
            (2.0 * cells / size - 1.0)[None, None],
            align_corners=True,
            padding_mode="border",
        )
        return functional.normalize(picked[0, :, 0].T, dim=1)

    def similarity(self, descriptors: Tensor) -> Tensor:
        """(N, h*w) cosines of descriptors (N, C) with all cells."""
        return descriptors @ self.features.flatten(1)

    def best_cells(self, similarity: Tensor) -> Float:
        """(N, 2) most similar cells of (N, h*w) cosines."""
        best = similarity.argmax(dim=1).cpu().numpy()
        width = self.features.shape[2]
        return np.stack([best % width, best // width], axis=1).astype(np.float32)


DenseFeatures = Callable[[NDArray[np.uint8]], DenseMap]
"""(H, W, 3) uint8 RGB to its map. Raises ValueError for an image of another shape or type."""


@dataclass(frozen=True)
class DenseParameters:
    """What can be tuned, with the reason for each value.

    Attributes:
        sharpness: of the softmax over cosines in units of their own spread over the scene, since what is a high cosine differs
            between models. Among 1500 wrong cells the best is some 3.3 of these.
        window_cells: half side of the window around the best cell whose mean is the place: a point between four cells spreads
            over two in each direction.
        return_cells: a match whose scene descriptor leads back farther than this is another part of the object.
        not_mutual: factor on the confidence of such a match. It is kept: neighbours may vouch for it.
        neighbourhood_cells: distance on the template at which a neighbouring cell's say has fallen to 0.6.
        half_agreement: at this share of the cells around that match mutually and move along, a match is as likely right as
            wrong. With upright SIFT descriptors of 8 px on textured objects right matches have some 0.35, wrong ones 0.
    """

    sharpness: float = 2.0
    window_cells: int = 2
    return_cells: float = 1.5
    not_mutual: float = 0.5
    neighbourhood_cells: float = 1.75
    half_agreement: float = 0.15


@dataclass(frozen=True, eq=False)
class _Reference:
    """What is computed once for a template: its map, the points' descriptors, and its cells' places and descriptors."""

    template: Template
    map: DenseMap
    descriptors: Tensor
    cells: Float
    cell_descriptors: Tensor


class DenseMatcher:
    """A `Matcher` by dense descriptors.

    Confidence is what the cells around a point say: how many of them match mutually and move along with it. It orders matches
    well; how far it is a probability with a given model `bench_perception` draws (reliability.png).
    """

    def __init__(self, features: DenseFeatures, parameters: DenseParameters | None = None) -> None:
        self.parameters = parameters or DenseParameters()
        self._features = features
        # The same template is matched to every scene of a task.
        self._reference: _Reference | None = None

    @torch.inference_mode()
    def match(self, template: Template, scene_rgb: NDArray[np.uint8]) -> Matches:
        """See `Matcher.match`."""
        parameters = self.parameters
        reference, scene = self._prepare(template), self._features(scene_rgb)
        if len(template) == 0:
            none = np.zeros((0, 2), np.float32)
            return Matches(none, np.zeros(0, np.float32), np.zeros((0, 2, 2), np.float32))
        uv_px = scene.to_image(self._locate(scene, scene.similarity(reference.descriptors)))
        source_px, target_px = self._mutual_cells(reference, scene)
        cell_px = float(reference.map.cell_px.max())
        warp = local_warps(template.uv_px, uv_px, source_px, target_px, cell_px=cell_px)

        agree = agreement(
            template.uv_px, uv_px, warp, source_px, target_px, exact_px=float(scene.cell_px.max())
        )
        reach_px = parameters.neighbourhood_cells * cell_px
        around = _near(template.uv_px, reference.map.to_image(reference.cells), reach_px).sum(axis=1)
        share = (_near(template.uv_px, source_px, reach_px) * agree).sum(axis=1) / np.maximum(around, 1e-6)
        likely = 1.0 - 0.5 ** (share / parameters.half_agreement)

        back = reference.map.best_cells(reference.map.similarity(scene.describe(uv_px)))
        away = np.linalg.norm(back - reference.map.to_cells(template.uv_px), axis=1)
        mutual = np.where(away < parameters.return_cells, 1.0, parameters.not_mutual)
        return Matches(uv_px, (likely * mutual).astype(np.float32), warp)

    def _mutual_cells(self, reference: _Reference, scene: DenseMap) -> tuple[Float, Float]:
        """(M, 2) template cells, (M, 2) scene cells [px of the images] that are each other's best, to a cell."""
        similarity = scene.similarity(reference.cell_descriptors)
        there = similarity.argmax(dim=1)
        back = reference.cells[similarity.argmax(dim=0)[there].cpu().numpy()]
        mutual = np.linalg.norm(back - reference.cells, axis=1) < self.parameters.return_cells
        return (
            reference.map.to_image(reference.cells[mutual]),
            scene.to_image(scene.best_cells(similarity)[mutual]),
        )

    def _prepare(self, template: Template) -> _Reference:
        if self._reference is None or self._reference.template is not template:
            on_template = self._features(template.image_rgb)
            height, width = on_template.features.shape[1:]
            v, u = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
            self._reference = _Reference(
                template,
                on_template,
                on_template.describe(template.uv_px),
                np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float32),
                on_template.features.flatten(1).T,
            )
        return self._reference

    def _locate(self, scene: DenseMap, similarity: Tensor) -> Float:
        """(N, 2) places [cells of the scene]: the mean around the best cell, weighted by a softmax."""
        parameters = self.parameters
        height, width = scene.features.shape[1:]
        v, u = torch.meshgrid(
            torch.arange(height, device=similarity.device),
            torch.arange(width, device=similarity.device),
            indexing="ij",
        )
        cells = torch.stack([u.flatten(), v.flatten()], dim=1).to(similarity.dtype)
        best = cells[similarity.argmax(dim=1)]
        outside = (cells[None] - best[:, None]).abs().amax(dim=2) > parameters.window_cells
        spread = similarity / similarity.std(dim=1, keepdim=True).clamp(min=1e-6)
        weight = functional.softmax((parameters.sharpness * spread).masked_fill(outside, -torch.inf), dim=1)
        place: Float = (weight @ cells).float().cpu().numpy()
        return place


def _near(points_px: Float, other_px: Float, reach_px: float) -> Float:
    """(N, M) weight of other places, 0.6 at `reach_px`."""
    away = np.linalg.norm(points_px[:, None] - other_px[None], axis=2)
    return np.asarray(np.exp(-0.5 * (away / reach_px) ** 2), np.float32)


def network_image(image_rgb: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """(1, 3, height, width) float32 in [0, 1] of an (H, W, 3) uint8 image, resized to (width, height).

    Raises:
        ValueError: another shape or type.
    """
    require_rgb(image_rgb)
    smaller = size[0] < image_rgb.shape[1]
    resized = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return torch.from_numpy(resized).permute(2, 0, 1)[None].float() / 255.0


def network_size(image_rgb: NDArray[np.uint8], width_px: int, multiple: int) -> tuple[int, int]:
    """(width, height) nearest to `width_px` wide, of about the image's aspect ratio, both multiples of `multiple`."""
    height_px = width_px * image_rgb.shape[0] / image_rgb.shape[1]
    width, height = (max(1, round(side / multiple)) * multiple for side in (width_px, height_px))
    return width, height

"""Votes and candidates from learned descriptors: places of the template found in a scene, at every roll and scale.

Around every template point there is a grid of *places*. Each is looked for in the scene's map by its description at every entry of
the template bank, and votes for where it was found, by the probability that it is there and not elsewhere. A point's candidates
are the placements that most places around it agree on; their maps are refined by least squares from the places themselves,
since the bank's rolls are 45 degrees apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atk_perception.correspondence.protocol import Template
from atk_perception.correspondence.verification import Candidates, Votes, as_complex, as_matrix
from atk_perception.learned.backbone import Backbone, FeatureMap
from atk_perception.learned.network import CELL_PX
from atk_perception.learned.template_bank import TemplateBank, entry_warps, make_template_bank
from atk_perception.local_affine import PRIOR_ARM_PX, Float, inverse_2x2

Complex = NDArray[np.complex64]

# Votes below this probability are noise, and there are many.
LEAST_WEIGHT = 0.01


@dataclass(frozen=True)
class DescriptorVoteParameters:
    """What can be tuned, with the reason for each value.

    Attributes:
        step_px: between places; three or four on the smallest objects that are worth a keypoint, at 640x480.
        around_px: how far from a point places are of use; about an object's radius.
        places: at most; more are thinned out. Each costs a product with the whole scene at every entry.
        neighbourhood_px: distance on the template at which a place's say has fallen to 0.6.
        entries: of the bank's, those that are examined per point.
        voters: places examined per point, the nearest.
        agree_px: votes within this of each other agree, before rolls are refined.
        exact_px: how exact a place is found, after.
        candidates: placements kept per point.
    """

    step_px: float = 10.0
    around_px: float = 40.0
    places: int = 500
    neighbourhood_px: float = 22.0
    entries: int = 6
    voters: int = 24
    agree_px: float = 10.0
    exact_px: float = 4.0
    candidates: int = 4


@dataclass(frozen=True, eq=False)
class Places:
    """Of one template: (F, 2) places, and what they look like."""

    uv_px: Float
    bank: TemplateBank


@dataclass(frozen=True, eq=False)
class _Found:
    """Where F places are in a scene at each of R entries: (F, R) target [u + iv px] and probability."""

    target: Complex
    weight: Float


class DescriptorVoter:
    """Proposes placements; see the module's docstring."""

    def __init__(self, backbone: Backbone, parameters: DescriptorVoteParameters | None = None) -> None:
        self._backbone = backbone
        self.parameters = parameters or DescriptorVoteParameters()

    def prepare(self, template: Template) -> Places:
        """Once for a template."""
        uv_px = _grid_around(template, self.parameters)
        return Places(uv_px, make_template_bank(self._backbone, Template(template.image_rgb, uv_px)))

    def propose(self, places: Places, points_px: Float, scene: FeatureMap) -> tuple[Votes, Candidates]:
        """Votes of all places, and candidates for (N, 2) `points_px` of the template."""
        parameters = self.parameters
        if len(points_px) == 0:
            return Votes.none(), Candidates.none(0, parameters.candidates)
        found = self._find(places.bank, scene)
        turns = _turns()
        source = as_complex(places.uv_px)
        row, entry = np.nonzero(found.weight > LEAST_WEIGHT)
        votes = Votes(
            source[row],
            found.target[row, entry],
            turns[entry],
            found.weight[row, entry],
        )
        return votes, self._candidates(points_px, places.uv_px, found, turns)

    @torch.inference_mode()
    def _find(self, bank: TemplateBank, scene: FeatureMap) -> _Found:
        """The best cell of every place at every entry, to a fraction of a cell."""
        features, scale = scene.features, torch.exp(self._backbone.network.log_scale_template)
        height, width = features.shape[2:]
        count, entries = bank.descriptors.shape[:2]
        peak = torch.empty(count, entries)
        at = torch.empty(count, entries, 2)
        mass = torch.zeros(count)
        flat = features[0].flatten(1)
        for entry in range(entries):
            cosine = bank.descriptors[:, entry] @ flat
            best, cell = cosine.max(dim=1)
            peak[:, entry] = best
            at[:, entry] = _refined(cosine.view(count, height, width), cell, scale)
            # Of exponentials that are at most e^scale: single precision holds their sums.
            mass += torch.exp(scale * (cosine - 1.0)).sum(dim=1)
        weight = torch.exp(scale * (peak - 1.0)) / mass[:, None]
        target = scene.to_image(at.reshape(1, -1, 2)).reshape(count, entries, 2)
        return _Found((target[..., 0] + 1j * target[..., 1]).astype(np.complex64), weight.numpy())

    def _candidates(self, points_px: Float, places_px: Float, found: _Found, turns: Complex) -> Candidates:
        parameters = self.parameters
        count, voters = len(points_px), min(self.parameters.voters, len(places_px))
        away = np.linalg.norm(points_px[:, None] - places_px[None], axis=2)
        nearest = np.argsort(away, axis=1)[:, :voters]
        near = np.exp(-0.5 * (np.take_along_axis(away, nearest, 1) / parameters.neighbourhood_px) ** 2)
        points, source = as_complex(points_px), as_complex(places_px)[nearest]  # (N,), (N, V)

        # The entries at which the places around are found best.
        says = np.einsum("nv,nvr->nr", near, found.weight[nearest])
        entries = np.argsort(-says, axis=1)[:, : parameters.entries]  # (N, E)
        target = np.take_along_axis(found.target[nearest], entries[:, None], axis=2)  # (N, V, E)
        weight = near[..., None] * np.take_along_axis(found.weight[nearest], entries[:, None], axis=2)
        turn = turns[entries][:, None]  # (N, 1, E)
        placed = target + turn * (points[:, None] - source)[..., None]

        # A vote's density: the weight of those that put the point on about the same place at the same roll.
        apart = np.abs(placed[:, :, None] - placed[:, None])  # (N, V, V, E)
        density = np.einsum("nwe,nvwe->nve", weight, np.exp(-0.5 * (apart / parameters.agree_px) ** 2))
        result = Candidates.none(count, parameters.candidates)
        everyone = np.arange(count)
        score = (weight * density).reshape(count, -1)
        flat_placed = placed.reshape(count, -1)
        for k in range(parameters.candidates):
            best = score.argmax(axis=1)
            chosen = entries[everyone, best % entries.shape[1]]
            uv_px, warp, support = self._refine(
                points_px,
                places_px[nearest],
                found.target[nearest, chosen[:, None]],
                near * found.weight[nearest, chosen[:, None]],
                turns[chosen],
                flat_placed[everyone, best],
            )
            result.uv_px[:, k], result.warp[:, k] = uv_px, warp
            result.support[:, k] = np.where(score[everyone, best] > 0.0, support, 0.0)
            score[np.abs(flat_placed - flat_placed[everyone, best][:, None]) < 8.0] = 0.0
        return result

    def _refine(
        self,
        points_px: Float,
        source_px: Float,
        target: Complex,
        weight: Float,
        turn: Complex,
        placed: Complex,
    ) -> tuple[Float, Float, Float]:
        """Least squares, reweighted by residual: a similarity, then an affine map held to it.

        Args:
            points_px: (N, 2). source_px: (N, V, 2). target, weight: (N, V). turn, placed: (N,), the start.
        """
        source = source_px[..., 0] + 1j * source_px[..., 1]
        points = as_complex(points_px)
        arm = source - points[:, None]
        tolerance = self.parameters.agree_px
        for _ in range(4):
            residual = np.abs(target - placed[:, None] - turn[:, None] * arm)
            belief = weight / (1.0 + (residual / tolerance) ** 2) ** 2
            total = belief.sum(axis=1) + 1e-9
            middle, centre = (belief * arm).sum(axis=1) / total, (belief * target).sum(axis=1) / total
            away = arm - middle[:, None]
            energy = (belief * np.abs(away) ** 2).sum(axis=1)
            cross = (belief * np.conj(away) * (target - centre[:, None])).sum(axis=1)
            # Held to the bank's roll as strongly as by a vote of average weight an object's part away.
            prior = (
                36.0 * total / np.maximum((belief > 0.1 * belief.max(axis=1, keepdims=True)).sum(axis=1), 1)
            )
            turn = ((cross + prior * turn) / (energy + prior)).astype(np.complex64)
            placed = (centre - turn * middle).astype(np.complex64)
            tolerance = max(self.parameters.exact_px, 0.6 * tolerance)
        weight = belief.astype(np.float32)
        uv_px, warp = _affine(points_px, source_px, target, weight, as_matrix(turn))
        return uv_px, warp, weight.sum(axis=1)


def _affine(
    points_px: Float, source_px: Float, target: Complex, weight: Float, prior: Float
) -> tuple[Float, Float]:
    """`fit_local_affine` where every point (N, 2) has voters of its own: source_px (N, V, 2), target and weight (N, V)."""
    target_px = np.stack([target.real, target.imag], axis=2).astype(np.float64)
    total = np.maximum(weight.sum(axis=1), 1e-9)[:, None]
    source_mean = np.einsum("nv,nvc->nc", weight, source_px) / total
    target_mean = np.einsum("nv,nvc->nc", weight, target_px) / total
    source, moved = source_px - source_mean[:, None], target_px - target_mean[:, None]
    ridge = PRIOR_ARM_PX**2 * total[..., None] * np.eye(2)
    moment = np.einsum("nv,nvi,nvj->nij", weight, source, source) + ridge
    cross = np.einsum("nv,nvi,nvj->nij", weight, moved, source) + prior @ ridge
    linear = cross @ inverse_2x2(moment)
    placed = target_mean + np.einsum("nij,nj->ni", linear, points_px - source_mean)
    return placed.astype(np.float32), linear.astype(np.float32)


def _turns() -> Complex:
    """(R,) the bank's entries as complex numbers."""
    warp = entry_warps()
    return (warp[:, 0, 0] + 1j * warp[:, 1, 0]).astype(np.complex64)


def _refined(cosine: Tensor, cell: Tensor, scale: Tensor) -> Tensor:
    """(F, 2) network pixels: the mean of the 3 x 3 cells around the best, weighted by probability."""
    count, height, width = cosine.shape
    v, u = torch.div(cell, width, rounding_mode="floor"), cell % width
    step = torch.arange(-1, 2)
    rows, columns = (v[:, None] + step).clamp(0, height - 1), (u[:, None] + step).clamp(0, width - 1)
    around = cosine[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    share = torch.softmax(scale * around.reshape(count, -1), dim=1).reshape(count, 3, 3)
    return CELL_PX * torch.stack(
        [(share.sum(dim=1) * columns).sum(dim=1), (share.sum(dim=2) * rows).sum(dim=1)], dim=1
    )


def _grid_around(template: Template, parameters: DescriptorVoteParameters) -> Float:
    """(F, 2) places on a grid, those near a point of the template, thinned out if there are too many."""
    height, width = template.image_rgb.shape[:2]
    step = parameters.step_px
    u, v = np.meshgrid(np.arange(step / 2, width, step), np.arange(step / 2, height, step))
    grid = np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float32)
    away = np.linalg.norm(grid[:, None] - template.uv_px[None], axis=2).min(axis=1, initial=np.inf)
    grid = grid[away < parameters.around_px]
    if len(grid) > parameters.places:
        grid = grid[np.linspace(0, len(grid) - 1, parameters.places).astype(int)]
    return np.concatenate([template.uv_px[: parameters.places], grid]).astype(np.float32)

"""Placements of template points in a scene: proposed by votes, aligned by patches, and how much of the votes they explain.

What every matcher of ours shares. A *vote* says that some place of the template is at some place of the scene, turned and scaled
so; a *candidate* is a placement of a point that several votes around it agree on. Which votes there are is the matcher's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Template
from atk_perception.patches import (
    COARSE,
    FINE,
    LEVELS,
    Alignment,
    Float,
    PatchBank,
    align,
    grey_image,
    make_bank,
    smooth_pyramid,
)

# Votes farther than this from a point on the template hardly say anything of it; about an object's radius.
EVIDENCE_RADIUS_PX = 30.0


@dataclass(frozen=True, eq=False)
class Votes:
    """M votes: where from, where to [u + iv px], the similarity each implies, and how much each weighs."""

    source: NDArray[np.complex64]
    target: NDArray[np.complex64]
    similarity: NDArray[np.complex64]
    weight: Float

    @staticmethod
    def none() -> Votes:
        """No votes."""
        empty = np.zeros(0, np.complex64)
        return Votes(empty, empty, empty, np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class Candidates:
    """K placements per point: (N, K, 2) uv_px, (N, K, 2, 2) warp, (N, K) what speaks for them, 0 for none."""

    uv_px: Float
    warp: Float
    support: Float

    @staticmethod
    def none(points: int, candidates: int) -> Candidates:
        """No placement of so many points."""
        return Candidates(
            np.zeros((points, candidates, 2), np.float32),
            np.tile(np.eye(2, dtype=np.float32), (points, candidates, 1, 1)),
            np.zeros((points, candidates), np.float32),
        )


@dataclass(frozen=True, eq=False)
class TemplatePatches:
    """The points of a template as they look there."""

    coarse: PatchBank
    fine: PatchBank

    @staticmethod
    def of(template: Template) -> TemplatePatches:
        """Sampled from the template."""
        pyramid = smooth_pyramid(grey_image(template.image_rgb), LEVELS)
        return TemplatePatches(
            *(
                make_bank(pyramid, template.uv_px, identities(len(template)), shape)
                for shape in (COARSE, FINE)
            )
        )

    def aligned(
        self, pyramid: tuple[Float, ...], owner: NDArray[np.int_], uv_px: Float, warp: Float
    ) -> Alignment:
        """Placements of points `owner` (C,) moved to where they fit, coarse to fine."""
        coarse = align(self.coarse.take(owner), pyramid, uv_px, warp, iterations=4, affine=False)
        return align(self.fine.take(owner), pyramid, coarse.uv_px, coarse.warp, iterations=5, affine=True)


def explained_votes(
    points_px: Float, placed: Alignment, votes: Votes, *, exact_px: float, per_px: float = 0.1
) -> tuple[Float, Float]:
    """Of placed points: the weight of the votes around that their maps explain, and its share of all around.

    Args:
        points_px: (C, 2) on the template.
        placed: where they are in the scene, and how turned.
        exact_px, per_px: a vote is explained within so much, plus this share of its distance from the point.
    """
    source_px, target_px = as_points(votes.source), as_points(votes.target)
    arm = source_px[None] - points_px[:, None]
    error = np.linalg.norm(
        placed.uv_px[:, None] + arm @ placed.warp.transpose(0, 2, 1) - target_px[None], axis=2
    )
    away = np.linalg.norm(arm, axis=2)
    weight = votes.weight * np.exp(-0.5 * (away / EVIDENCE_RADIUS_PX) ** 2)
    explained = (weight * (error < exact_px + per_px * away)).sum(axis=1)
    return explained, explained / (weight.sum(axis=1) + 0.3)


def identities(count: int) -> Float:
    """(count, 2, 2)."""
    return np.tile(np.eye(2, dtype=np.float32), (count, 1, 1))


def as_points(z: NDArray[np.complex64]) -> Float:
    """(M,) u + iv -> (M, 2)."""
    return np.stack([z.real, z.imag], axis=1)


def as_complex(uv_px: Float) -> NDArray[np.complex64]:
    """(M, 2) -> (M,) u + iv."""
    return np.asarray(uv_px[:, 0] + 1j * uv_px[:, 1], np.complex64)


def as_matrix(z: NDArray[np.complex64]) -> Float:
    """(M,) similarities -> (M, 2, 2)."""
    return np.stack([z.real, -z.imag, z.imag, z.real], axis=1).reshape(-1, 2, 2)

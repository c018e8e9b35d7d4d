"""From matches between features of two images to the template's own points: for backends that find features of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atk_perception.correspondence.protocol import Matches
from atk_perception.local_affine import Float, agreement, fit_local_affine, local_warps


@dataclass(frozen=True, eq=False)
class FeatureMatches:
    """M matches between features of the template and of the scene.

    Attributes:
        source_px: (M, 2) on the template.
        target_px: (M, 2) in the scene.
        score: (M,) in [0, 1].
    """

    source_px: Float
    target_px: Float
    score: Float


@dataclass(frozen=True)
class SparseParameters:
    """What can be tuned, with the reason for each value.

    Attributes:
        neighbourhood_px: distance on the template at which a match's say has fallen to 0.6; about an object's radius.
        exact_px: how exact a match is; one farther off than about twice this from a point's map does not belong to it.
        anchors: nearest matches that are tried as a point's fixed point. One of them lies on its own object.
        enough: weight of agreeing matches that makes a place all but certain.
        enough_share: of the weight of all matches around: beside another object half of them belong to that.
    """

    neighbourhood_px: float = 22.0
    exact_px: float = 4.0
    anchors: int = 4
    enough: float = 1.0
    enough_share: float = 0.5


def place_points(
    points_px: Float, matches: FeatureMatches, parameters: SparseParameters | None = None
) -> Matches:
    """Place template points (N, 2) by the matches around them.

    Objects move independently of each other, so every point gets an affine map of its own: about each of the nearest matches in
    turn, the map that most of the others around agree with; the best of them is fitted to those that do. Confidence is lowered
    where few of the matches around agree, by weight or by share.
    """
    parameters = parameters or SparseParameters()
    count = len(points_px)
    placed, warp = points_px.astype(np.float32), np.tile(np.eye(2, dtype=np.float32), (count, 1, 1))
    confidence = np.zeros(count, np.float32)
    if count == 0 or len(matches.score) < 3:  # fewer do not fix a map
        return Matches(placed, confidence, warp)
    away = np.linalg.norm(points_px[:, None] - matches.source_px[None], axis=2)
    near = np.exp(-0.5 * (away / parameters.neighbourhood_px) ** 2) * matches.score
    total = near.sum(axis=1)
    best = np.full(count, -1.0)
    agreeing = np.zeros_like(near)
    for anchor in np.argsort(-near, axis=1)[:, : parameters.anchors].T:
        source, target = matches.source_px[anchor], matches.target_px[anchor]
        # Neighbourhoods of the local maps are about as wide as those of the points.
        linear = local_warps(
            source, target, matches.source_px, matches.target_px, cell_px=parameters.neighbourhood_px / 3.5
        )
        found = target + _apply(linear, points_px - source)
        agree = agreement(
            points_px, found, linear, matches.source_px, matches.target_px, exact_px=parameters.exact_px
        )
        support = (near * agree).sum(axis=1)
        better = support > best
        best, agreeing = np.where(better, support, best), np.where(better[:, None], agree, agreeing)
        placed, warp = (
            np.where(better[:, None], found, placed),
            np.where(better[:, None, None], linear, warp),
        )
    placed, warp = fit_local_affine(
        points_px,
        matches.source_px,
        matches.target_px,
        (near * agreeing + 1e-9).astype(np.float32),
        warp.astype(np.float32),
    )
    agree = agreement(
        points_px, placed, warp, matches.source_px, matches.target_px, exact_px=parameters.exact_px
    )
    support = (near * agree).sum(axis=1)
    share = np.minimum(1.0, support / np.maximum(parameters.enough_share * total, 1e-6))
    confidence = share * (1.0 - np.exp(-3.0 * support / parameters.enough))
    return Matches(placed, confidence.astype(np.float32), warp)


def _apply(linear: Float, vectors: Float) -> Float:
    return np.asarray((linear @ vectors[:, :, None])[:, :, 0], np.float32)

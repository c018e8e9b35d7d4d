"""Rigid parts are placed as a whole: the geometric check over a set whose points sit on several moving things.

A point alone may be found in a wrong place with much to speak for it: the rim of a turned disc looks like the dial that has not
turned. A part of a dozen points may not: they lie where one affine map takes them from the template, and all look there as they
do on the template. Which points are one part, the demonstrations have shown (atk_policy/rigid_parts.py).

1. Sequential RANSAC (Fischler and Bolles 1981) over what the matcher found of a part gives the maps that it may lie under.
2. Under every map the first appearance of all of the part's points is aligned to the scene; the map that they look right under
   is the part's. Not the one of most matches: where half of them fell for the thing beside, those agree as well.
3. Points that the matcher put elsewhere, or did not find, go where the part's map has them. They are seen if they look right there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.correspondence.verification import identities
from atk_perception.patches import (
    FINE,
    LEVELS,
    Float,
    PatchBank,
    align,
    grey_image,
    inside,
    make_bank,
    smooth_pyramid,
)

Points = NDArray[np.int_]

# What perspective and a small object's relief add to an affine map, at 640x480.
TOLERANCE_PX = 8.0
POINTS_MIN = 4  # that share a map: any three do
MAPS_MAX = 3  # that a part is tried under
RANSAC_DRAWS = 1000
# Under its map a part looks right: mean correlation of its points, hidden ones among them. Chance is 0.2 to 0.4.
PART_NCC_MIN = 0.5
# A point that the map places is seen there from this correlation on.
SEEN_NCC = 0.8


@dataclass(frozen=True, eq=False)
class RigidParts:
    """Which points of the template move in one piece. N keypoints, K companions.

    Companions are further points of the keypoints' parts: they are transferred along and then forgotten.

    Attributes:
        of_points: (N,) int64, number of each keypoint's part.
        companions_px: (K, 2) float32 on the template.
        of_companions: (K,) int64, number of each companion's part.
    """

    of_points: NDArray[np.int64]
    companions_px: Float
    of_companions: NDArray[np.int64]

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(N + K,) part of the keypoints, then of the companions."""
        return np.concatenate([self.of_points, self.of_companions])

    def with_companions(self, template: Template) -> Template:
        """The keypoints of a template, then the companions."""
        return Template(template.image_rgb, np.concatenate([template.uv_px, self.companions_px]))

    def companions(self) -> dict[int, list[tuple[float, float]]]:
        """Their pixels by part."""
        of = self.of_companions
        return {
            int(part): [(float(u), float(v)) for u, v in self.companions_px[of == part]]
            for part in np.unique(of)
        }

    def subset(self, keep: NDArray[np.bool_]) -> RigidParts:
        """Of the keypoints where `keep` (N,) is true; companions of parts without any are left out."""
        of_points = self.of_points[keep]
        stay = np.isin(self.of_companions, of_points)
        return RigidParts(of_points, self.companions_px[stay], self.of_companions[stay])


def place_parts(
    template: Template,
    parts: NDArray[np.int64],
    matches: Matches,
    scene_rgb: NDArray[np.uint8],
    min_confidence: float,
) -> tuple[Matches, NDArray[np.bool_]]:
    """Matches of M points with every part in one piece, and (M,) whose part was placed; others stay as they were.

    Args:
        template: with all M points. parts: (M,) number of each one's part.
        matches: of all M points, as a matcher gives them.
        scene_rgb: (H, W, 3) uint8.
        min_confidence: from here on a match counts as found.
    """
    uv_px, warp, confidence = matches.uv_px.copy(), matches.warp.copy(), matches.confidence.copy()
    scene = smooth_pyramid(grey_image(scene_rgb), LEVELS)
    looks = make_bank(
        smooth_pyramid(grey_image(template.image_rgb), LEVELS),
        template.uv_px,
        identities(len(template)),
        FINE,
    )
    found, placed = matches.confidence >= min_confidence, np.zeros(len(template), np.bool_)
    for part in np.unique(parts):
        mine = np.flatnonzero(parts == part)
        tried = [
            _laid(looks.take(mine), scene, template.uv_px[mine], linear, shift_px)
            for linear, shift_px in _maps(template.uv_px, matches.uv_px, mine[found[mine]])
        ]
        best = max(tried, key=lambda laid: float(laid.ncc.mean()), default=None)
        if best is None or best.ncc.mean() < PART_NCC_MIN:
            continue
        placed[mine] = True
        off_px = np.linalg.norm(matches.uv_px[mine] - best.expected_px, axis=1)
        moved = (off_px > TOLERANCE_PX) | ~found[mine]
        seen = best.ncc >= SEEN_NCC
        at = mine[moved]
        uv_px[at] = np.where(seen[:, None], best.uv_px, best.expected_px)[moved]
        warp[at] = best.linear
        confidence[at] = np.where(seen, best.ncc, 0.0)[moved]
    return Matches(uv_px, confidence, warp), placed


@dataclass(frozen=True, eq=False)
class _Laid:
    """A part of P points under a map.

    Attributes:
        linear: (2, 2) of the map. expected_px: (P, 2) where it has them.
        uv_px: (P, 2) where they look right, near there; ncc: (P,) how much so, 0 for not at all.
    """

    linear: Float
    expected_px: Float
    uv_px: Float
    ncc: Float


def _maps(source_px: Float, target_px: Float, found: Points) -> list[tuple[Float, Float]]:
    """The affine maps (linear part, shift) that most, then most of the rest of the points `found` agree on."""
    maps = []
    for _ in range(MAPS_MAX):
        if len(found) < POINTS_MIN:
            break
        matrix, inliers = cv2.estimateAffine2D(
            source_px[found],
            target_px[found],
            method=cv2.RANSAC,
            ransacReprojThreshold=TOLERANCE_PX,
            maxIters=RANSAC_DRAWS,
            confidence=0.999,
        )
        agrees = np.zeros(len(found), np.bool_) if matrix is None else inliers[:, 0] > 0
        if agrees.sum() < POINTS_MIN:
            break
        maps.append((matrix[:, :2].astype(np.float32), matrix[:, 2].astype(np.float32)))
        found = found[~agrees]
    return maps


def _laid(
    looks: PatchBank, scene: tuple[Float, ...], template_px: Float, linear: Float, shift_px: Float
) -> _Laid:
    expected_px = template_px @ linear.T + shift_px
    warp = np.tile(linear, (len(template_px), 1, 1))
    aligned = align(looks, scene, expected_px, warp, iterations=5, affine=False)
    near = np.linalg.norm(aligned.uv_px - expected_px, axis=1) <= TOLERANCE_PX
    ncc = np.where(inside(aligned.uv_px, scene[0]) & near, np.maximum(aligned.ncc, 0.0), 0.0)
    return _Laid(linear, expected_px, aligned.uv_px, ncc.astype(np.float32))

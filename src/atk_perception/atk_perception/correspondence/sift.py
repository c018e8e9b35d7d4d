"""Matching by SIFT features, voted per point and verified by patch alignment. CPU, no weights.

Keypoints sit on several objects that move independently, so no single homography explains a scene. Instead:

1. SIFT features of template and scene (Lowe, IJCV 2004; square-rooted as in Arandjelovic and Zisserman, CVPR 2012).
   Each template feature keeps its two best scene features: look-alikes are sorted out by geometry, not by a ratio.
2. Every feature match is a hypothesis of a local similarity (SIFT knows scale and orientation). For every template
   point, hypotheses collect votes from the matches around that point which they explain. The votes' maxima, several
   per point, are refit as affine maps to their inliers.
3. Each candidate is aligned to the scene by its own patch. How likely it is right follows from the correlation, the
   votes, and what its map explains of the feature matches around; the likeliest is kept.
4. Confidence is that likelihood, lowered where the second best candidate comes close.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.correspondence.verification import (
    Candidates,
    TemplatePatches,
    Votes,
    as_complex,
    as_matrix,
    as_points,
    explained_votes,
    identities,
)
from atk_perception.local_affine import fit_local_affine
from atk_perception.patches import LEVELS, Float, grey_image, inside, smooth_pyramid

# How likely a placement is right: logistic regression on some 30,000 placements of known truth, in rendered scenes
# (sushi, seeds 100 to 109, all disturbances) and warped textures, rounded. A flat or repeated patch correlates
# anywhere, so what the map explains of the features around the point says more than the patch itself.
EVIDENCE_BIAS, EVIDENCE_NCC, EVIDENCE_SUPPORT, EVIDENCE_EXPLAINED, EVIDENCE_SHARE = -3.1, 2.4, 1.0, 0.45, 4.5
# The same for the chosen one: its own evidence, and its lead over the next best.
CONFIDENCE_BIAS, CONFIDENCE_BEST, CONFIDENCE_MARGIN, LARGEST_MARGIN = 0.1, 0.66, 0.14, 6.0
IMPOSSIBLE = -30.0  # evidence of a placement that does not exist


@dataclass(frozen=True)
class SiftParameters:
    """What can be tuned, with the reason for each value.

    Attributes:
        contrast_threshold: of SIFT; a quarter of Lowe's, because objects of one colour are worth features too.
        cell_px, features_per_cell, matches_per_cell: the strongest so many are kept in every cell of the image, so
            that a textured table bounds neither the time nor drowns the small object that lies on it.
        neighbourhood_px: distance on the template at which a match's vote has fallen to 0.6; about the radius of an
            object that a robot grasps, seen at 640x480.
        tolerance_px, tolerance_per_px: a match agrees with a hypothesis within tolerance_px plus this share of its
            distance from the hypothesis's own feature: SIFT's orientation is good to a few degrees.
        scale_min, scale_max: objects nearer or farther than this are not looked for.
        candidates: hypotheses examined per point.
    """

    contrast_threshold: float = 0.01
    cell_px: int = 40
    features_per_cell: int = 20
    matches_per_cell: int = 12
    neighbourhood_px: float = 22.0
    tolerance_px: float = 2.5
    tolerance_per_px: float = 0.12
    scale_min: float = 0.45
    scale_max: float = 2.2
    candidates: int = 6


@dataclass(frozen=True, eq=False)
class _Features:
    """(M,) complex positions u + iv [px], (M,) complex size and direction, (M, 128) unit descriptors."""

    position: NDArray[np.complex64]
    frame: NDArray[np.complex64]
    descriptor: Float


@dataclass(frozen=True, eq=False)
class _Reference:
    """What is computed once for a template; the features also for another one on the same picture."""

    template: Template
    features: _Features
    patches: TemplatePatches


class SiftMatcher:
    """The classical `Matcher`."""

    def __init__(self, parameters: SiftParameters | None = None) -> None:
        self.parameters = parameters or SiftParameters()
        self._sift = cv2.SIFT_create(contrastThreshold=self.parameters.contrast_threshold)
        # The same template is matched to every scene of a task: its features are kept until another one comes.
        self._reference: _Reference | None = None

    def match(self, template: Template, scene_rgb: NDArray[np.uint8]) -> Matches:
        """See `Matcher.match`."""
        scene_grey = grey_image(scene_rgb)
        votes, candidates = self.propose(template, scene_grey)
        return self._select(self.prepare(template), smooth_pyramid(scene_grey, LEVELS), votes, candidates)

    def propose(self, template: Template, scene_grey: NDArray[np.uint8]) -> tuple[Votes, Candidates]:
        """Feature matches between template and scene, (H, W) uint8, and the placements that they vote for."""
        votes = self._feature_matches(self.prepare(template).features, self._detect(scene_grey))
        return votes, self._hypotheses(template.uv_px, votes)

    def prepare(self, template: Template) -> _Reference:
        """What a template, or its picture, needs but once: the next match is the quicker."""
        known = self._reference
        if known is not None and known.template is template:
            return known
        if known is not None and known.template.image_rgb is template.image_rgb:
            features = known.features
        else:
            features = self._detect(grey_image(template.image_rgb))
        self._reference = _Reference(template, features, TemplatePatches.of(template))
        return self._reference

    def _detect(self, grey: NDArray[np.uint8]) -> _Features:
        parameters = self.parameters
        keypoints = self._sift.detect(grey, None)
        if not keypoints:
            empty = np.zeros(0, np.complex64)
            return _Features(empty, empty, np.zeros((0, 128), np.float32))
        strength = np.array([k.response for k in keypoints], np.float32)
        at = np.array([k.pt for k in keypoints], np.float32)
        kept = _strongest_per_cell(at, strength, parameters.cell_px, parameters.features_per_cell)
        keypoints, descriptors = self._sift.compute(grey, [keypoints[i] for i in kept])
        values = np.array([(*k.pt, k.size, k.angle) for k in keypoints], np.float32)
        unit = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
        return _Features(
            (values[:, 0] + 1j * values[:, 1]).astype(np.complex64),
            (values[:, 2] * np.exp(1j * np.deg2rad(values[:, 3]))).astype(np.complex64),
            unit.astype(np.float32),
        )

    def _feature_matches(self, template: _Features, scene: _Features) -> Votes:
        """Each template feature with its two nearest scene features, if they are distinctive at all."""
        parameters = self.parameters
        if len(template.position) == 0 or len(scene.position) < 3:
            return Votes.none()
        nearest, cosine = _three_best(template.descriptor @ scene.descriptor.T)
        distance = np.sqrt(np.maximum(2.0 - 2.0 * cosine, 0.0))
        # Measured against the third best: a pair of equal objects in the scene keeps both of its matches.
        weight = 1.0 - distance[:, :2] / np.maximum(distance[:, 2:], 1e-6)
        row = np.repeat(np.arange(len(nearest)), 2)
        column, weight = nearest[:, :2].ravel(), weight.ravel()
        change = scene.frame[column] / template.frame[row]
        usable = (
            (weight > 0.02)
            & (np.abs(change) > parameters.scale_min)
            & (np.abs(change) < parameters.scale_max)
        )
        keep = np.flatnonzero(usable)
        keep = keep[
            _strongest_per_cell(
                as_points(template.position[row[keep]]),
                weight[keep],
                parameters.cell_px,
                parameters.matches_per_cell,
            )
        ]
        return Votes(
            template.position[row[keep]],
            scene.position[column[keep]],
            change[keep].astype(np.complex64),
            np.sqrt(weight[keep]).astype(np.float32),
        )

    def _hypotheses(self, uv_px: Float, votes: Votes) -> Candidates:
        """The placements of each point (N, 2) that have most votes and differ from each other."""
        count, candidates = len(uv_px), self.parameters.candidates
        found = Candidates.none(count, candidates)
        if len(votes.source) == 0:
            return found
        points = as_complex(uv_px)
        agree, near, score = self._vote(uv_px, votes)
        placed = votes.target[None, :] + votes.similarity[None, :] * (points[:, None] - votes.source[None, :])

        source_px, target_px = as_points(votes.source), as_points(votes.target)
        everyone = np.arange(count)
        for k in range(candidates):
            best = np.argmax(score, axis=1)
            found.support[:, k] = score[everyone, best]
            found.uv_px[:, k], found.warp[:, k] = fit_local_affine(
                uv_px,
                source_px,
                target_px,
                agree[best] * (near * votes.weight) + np.float32(1e-9),
                as_matrix(votes.similarity[best]),
            )
            # Others that put the point on the same place are the same candidate.
            here = placed[everyone, best]
            score[np.abs(placed - here[:, None]) < 8.0] = 0.0
        return found

    def _vote(self, uv_px: Float, votes: Votes) -> tuple[NDArray[np.bool_], Float, Float]:
        """How well each match, as a hypothesis, explains the matches around each point.

        Computed cell by cell, since only matches near each other on the template vote on each other.

        Returns:
            (M, M) whether hypothesis j explains match i; (N, M) spatial weight of the matches; (N, M) votes.
        """
        parameters = self.parameters
        source_px = as_points(votes.source)
        away = np.linalg.norm(uv_px[:, None] - source_px[None], axis=2)
        near = np.exp(-0.5 * (away / parameters.neighbourhood_px) ** 2).astype(np.float32)
        agree = np.zeros((len(source_px), len(source_px)), np.bool_)
        score = np.zeros_like(near)
        cells, point_cells = source_px // parameters.cell_px, uv_px // parameters.cell_px
        for cell in np.unique(cells, axis=0):
            mine = np.flatnonzero((cells == cell).all(axis=1))
            around = np.flatnonzero(np.abs(cells - cell).max(axis=1) <= 2)
            points = np.flatnonzero(np.abs(point_cells - cell).max(axis=1) <= 2)
            agree[np.ix_(mine, around)] = explained = self._explained(votes, mine, around)
            says = near[np.ix_(points, around)] * votes.weight[around]
            score[np.ix_(points, mine)] = near[np.ix_(points, mine)] * (says @ explained.T.astype(np.float32))
        return agree, near, score

    def _explained(
        self, votes: Votes, hypotheses: NDArray[np.int_], matches: NDArray[np.int_]
    ) -> NDArray[np.bool_]:
        """(H, I) whether the matches lie where the hypotheses put them, with about their scale and angle."""
        parameters = self.parameters
        turn = votes.similarity[hypotheses, None]
        between = votes.source[None, matches] - votes.source[hypotheses, None]
        error = np.abs(votes.target[hypotheses, None] + turn * between - votes.target[None, matches])
        tolerance = parameters.tolerance_px + parameters.tolerance_per_px * np.abs(turn * between)
        result: NDArray[np.bool_] = (error < tolerance) & (
            np.abs(votes.similarity[None, matches] / turn - 1.0) < 0.5
        )
        return result

    def _select(
        self,
        reference: _Reference,
        pyramid: tuple[Float, ...],
        votes: Votes,
        candidates: Candidates,
    ) -> Matches:
        """Align all candidates to the scene and keep the most likely one of each point."""
        owner, rank = np.nonzero(candidates.support > 0.0)
        placed = reference.patches.aligned(
            pyramid, owner, candidates.uv_px[owner, rank], candidates.warp[owner, rank]
        )
        logit = np.full(candidates.support.shape, IMPOSSIBLE, np.float32)
        in_view = inside(placed.uv_px, pyramid[0])
        explained, share = explained_votes(
            reference.template.uv_px[owner], placed, votes, exact_px=self.parameters.tolerance_px
        )
        right = (
            EVIDENCE_BIAS
            + EVIDENCE_NCC * placed.ncc
            + EVIDENCE_SUPPORT * np.log(np.maximum(candidates.support[owner, rank], 0.02))
            + EVIDENCE_EXPLAINED * np.log(explained + 0.1)
            + EVIDENCE_SHARE * share
        )
        logit[owner, rank] = np.where(in_view, right, IMPOSSIBLE)

        order = np.sort(logit, axis=1)
        margin = np.minimum(order[:, -1] - order[:, -2], LARGEST_MARGIN)
        sure = CONFIDENCE_BIAS + CONFIDENCE_BEST * order[:, -1] + CONFIDENCE_MARGIN * margin
        confidence = np.where(order[:, -1] > IMPOSSIBLE, 1.0 / (1.0 + np.exp(-sure)), 0.0)

        uv_px, warp = reference.template.uv_px.copy(), identities(len(logit))
        chosen = (np.argmax(logit, axis=1)[owner] == rank) & in_view
        uv_px[owner[chosen]], warp[owner[chosen]] = placed.uv_px[chosen], placed.warp[chosen]
        return Matches(uv_px, confidence.astype(np.float32), warp)


def _three_best(cosine: Float) -> tuple[NDArray[np.int_], Float]:
    """Columns and values of the three largest of each row, (R, 3) each; overwrites `cosine`."""
    rows = np.arange(len(cosine))
    columns, values = np.empty((len(cosine), 3), np.int_), np.empty((len(cosine), 3), np.float32)
    for k in range(3):  # three passes are several times faster than a partial sort
        columns[:, k] = cosine.argmax(axis=1)
        values[:, k] = cosine[rows, columns[:, k]]
        cosine[rows, columns[:, k]] = -1.0
    return columns, values


def _strongest_per_cell(uv_px: Float, strength: Float, cell_px: int, count: int) -> NDArray[np.int_]:
    """Indices of the `count` strongest of each square cell of `cell_px`."""
    cell = (uv_px // cell_px).astype(np.int64) @ np.array([1, 1 << 20])
    order = np.lexsort((-strength, cell))
    _, first, size = np.unique(cell[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, size)
    return order[rank < count]

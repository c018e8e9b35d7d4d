"""Matching by the learned descriptor and by SIFT, verified together: two witnesses that fail in different ways.

1. Both propose candidates for every point, from votes around it: learned descriptors at every roll and scale
   (`descriptor_votes.py`), which see plain and blurred things, and SIFT features (`sift.py`), which are exact where there is
   texture.
2. Every candidate is aligned to the scene by its own patch.
3. How likely it is right follows from the patch's correlation, from what its map explains of either kind of votes, and from what
   the network says when it is asked to look there. The likeliest is kept.
4. Confidence is that likelihood, lowered where another place comes close.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from atk_perception.correspondence.descriptor_votes import DescriptorVoter, Places
from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.correspondence.sift import SiftMatcher
from atk_perception.correspondence.verification import (
    Candidates,
    TemplatePatches,
    Votes,
    explained_votes,
    identities,
)
from atk_perception.learned.backbone import Backbone, FeatureMap, load_backbone
from atk_perception.learned.network import ITERATIONS, begin
from atk_perception.learned.template_bank import TemplateBank, make_template_bank, nearest_entries
from atk_perception.local_affine import Float
from atk_perception.patches import LEVELS, Alignment, grey_image, inside, smooth_pyramid

# A patch aligned farther than this from where votes put it found something else.
FARTHEST_PX = 8.0
# Below this correlation the votes' own place is better than the patch's.
LEAST_NCC = 0.6
# Candidates within this of each other are one.
SAME_PX = 8.0
LEARNED_EXACT_PX, SIFT_EXACT_PX = 5.0, 2.5

# Log odds that a candidate is right: a bias, then a weight for each column of `AtkMatcher.evidence`. And those that the best one is:
# a bias, then weights of its log odds and of its lead over the next. From `training.fit_confidence matcher`.
EVIDENCE = (-2.842, 1.225, 0.569, -1.321, -0.015, 5.754, 0.519)
CONFIDENCE, LARGEST_LEAD = (-0.065, 0.916, 0.17), 6.0
IMPOSSIBLE = -30.0


@dataclass(frozen=True, eq=False)
class _Reference:
    """What is computed once for a template."""

    template: Template
    places: Places
    bank: TemplateBank
    patches: TemplatePatches


class AtkMatcher:
    """The learned `Matcher`."""

    def __init__(self, backbone: Backbone | None = None, iterations: int = ITERATIONS) -> None:
        """`backbone`: the packaged one if not given; `iterations`: refinements when the network is asked."""
        self._backbone = backbone or load_backbone()
        self._voter = DescriptorVoter(self._backbone)
        self._sift = SiftMatcher()
        self._iterations = iterations
        # The same template is matched to every scene of a task.
        self._reference: _Reference | None = None

    def match(self, template: Template, scene_rgb: NDArray[np.uint8]) -> Matches:
        """See `Matcher.match`."""
        if len(template) == 0:
            return Matches(template.uv_px, np.zeros(0, np.float32), identities(0))
        logit, placed = self._judged(template, scene_rgb)
        order = np.sort(logit, axis=1)
        lead = np.minimum(order[:, -1] - order[:, -2], LARGEST_LEAD)
        sure = CONFIDENCE[0] + CONFIDENCE[1] * order[:, -1] + CONFIDENCE[2] * lead
        confidence = np.where(order[:, -1] > IMPOSSIBLE, 1.0 / (1.0 + np.exp(-sure)), 0.0)
        best, everyone = logit.argmax(axis=1), np.arange(len(template))
        known = (order[:, -1] > IMPOSSIBLE)[:, None]
        return Matches(
            np.where(known, placed.uv_px[everyone, best], template.uv_px).astype(np.float32),
            confidence.astype(np.float32),
            np.where(known[..., None], placed.warp[everyone, best], identities(1)).astype(np.float32),
        )

    def evidence(
        self, template: Template, scene_rgb: NDArray[np.uint8]
    ) -> tuple[Candidates, NDArray[np.float32]]:
        """Candidates (N, K) aligned to the scene, and (N, K, 6) what speaks for each; support 0: there is none.

        Its columns: the patch's correlation; log weight and share of the SIFT votes that the placement explains; the same of
        the learned votes; what the network says of it.
        """
        reference, scene = self._prepare(template), self._backbone(scene_rgb)
        grey = grey_image(scene_rgb)
        pyramid = smooth_pyramid(grey, LEVELS)
        sift_votes, by_sift = self._sift.propose(template, grey)
        votes, learned = self._voter.propose(reference.places, template.uv_px, scene)
        candidates = _distinct(
            Candidates(
                np.concatenate([learned.uv_px, by_sift.uv_px], axis=1),
                np.concatenate([learned.warp, by_sift.warp], axis=1),
                np.concatenate([learned.support, by_sift.support], axis=1),
            )
        )
        owner, rank = np.nonzero(candidates.support > 0.0)
        start_px, start_warp = candidates.uv_px[owner, rank], candidates.warp[owner, rank]
        fitted = reference.patches.aligned(pyramid, owner, start_px, start_warp)
        keeps = (fitted.ncc > LEAST_NCC) & (np.linalg.norm(fitted.uv_px - start_px, axis=1) < FARTHEST_PX)
        placed = Alignment(
            np.where(keeps[:, None], fitted.uv_px, start_px),
            np.where(keeps[:, None, None], fitted.warp, start_warp),
            np.where(keeps, fitted.ncc, np.minimum(fitted.ncc, LEAST_NCC)),
        )
        in_view = inside(placed.uv_px, grey)
        points_px = template.uv_px[owner]
        by_votes = [
            part
            for kind, exact_px in ((sift_votes, SIFT_EXACT_PX), (votes, LEARNED_EXACT_PX))
            for part in _explained(points_px, placed, kind, exact_px)
        ]
        asked = self._ask(reference, scene, owner, placed)
        facts = np.zeros((*candidates.support.shape, 6), np.float32)
        facts[owner, rank] = np.stack([placed.ncc, *by_votes, asked], axis=1)
        support = np.zeros_like(candidates.support)
        support[owner, rank] = np.where(in_view, candidates.support[owner, rank], 0.0)
        candidates.uv_px[owner, rank], candidates.warp[owner, rank] = placed.uv_px, placed.warp
        return Candidates(candidates.uv_px, candidates.warp, support), facts

    def _judged(
        self, template: Template, scene_rgb: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], Candidates]:
        """(N, K) log odds that each candidate is right, and the candidates."""
        candidates, facts = self.evidence(template, scene_rgb)
        logit = EVIDENCE[0] + facts @ np.asarray(EVIDENCE[1:], np.float32)
        return np.where(candidates.support > 0.0, logit, np.float32(IMPOSSIBLE)), candidates

    @torch.inference_mode()
    def _ask(
        self, reference: _Reference, scene: FeatureMap, owner: NDArray[np.int_], placed: Alignment
    ) -> Float:
        """(C,) log odds of "visible and within 8 px" when the network is told where the candidates are.

        One candidate of every point at a time, so that points ask each other about one and the same placement of the set.
        """
        said = np.zeros(len(owner), np.float32)
        rank = np.arange(len(owner)) - np.searchsorted(owner, owner)  # `owner` is sorted
        for number in range(int(rank.max(initial=-1)) + 1):
            rows = np.flatnonzero(rank == number)
            points = reference.template.uv_px[owner[rows]]
            state = begin(
                reference.bank.pick(nearest_entries(placed.warp[rows]), owner[rows]),
                scene.to_network(points),
                scene.to_network(placed.uv_px[rows]),
            )
            estimate = self._backbone.estimate(scene, state, self._iterations)
            off = torch.linalg.norm(estimate.uv_px[-1] - state.uv_px, dim=2)[0].numpy()
            sure = torch.minimum(estimate.visible_logit[-1], estimate.certain_logit[-1])[0].numpy()
            # Where the network would rather be elsewhere, its certainty is not about this candidate.
            said[rows] = np.clip(sure, -6.0, 6.0) - 2.0 * np.minimum(off / 4.0, 3.0)
        return said

    def _prepare(self, template: Template) -> _Reference:
        if self._reference is None or self._reference.template is not template:
            self._reference = _Reference(
                template,
                self._voter.prepare(template),
                make_template_bank(self._backbone, template),
                TemplatePatches.of(template),
            )
        return self._reference


def _explained(points_px: Float, placed: Alignment, votes: Votes, exact_px: float) -> tuple[Float, Float]:
    """(C,) log weight of explained votes, and their share."""
    explained, share = explained_votes(points_px, placed, votes, exact_px=exact_px)
    return np.log(explained + 0.1), share


def _distinct(candidates: Candidates) -> Candidates:
    """Without those that come after another at the same place."""
    support = candidates.support.copy()
    for later in range(1, support.shape[1]):
        apart = np.linalg.norm(candidates.uv_px[:, :later] - candidates.uv_px[:, later : later + 1], axis=2)
        same = ((apart < 0.5 * SAME_PX) & (support[:, :later] > 0.0)).any(axis=1)
        support[same, later] = 0.0
    return Candidates(candidates.uv_px, candidates.warp, support)

"""Tracking against the first appearance: Lucas-Kanade prediction, affine template refinement, co-motion of neighbours.

Per frame:

1. Pyramidal Lucas-Kanade from the last frame, forward and backward (`flow.py`), predicts the points that are in view.
2. Every point's neighbourhood gives a second opinion: an affine map from the template fitted to the neighbours that
   have moved with it so far (`co_motion.py`).
3. The point's first appearance, warped by that map, is aligned to the image (see patches.py). It cannot drift, because
   the appearance is never updated.
4. A point is visible while it correlates with its first appearance and agrees with its neighbourhood. Unseen points
   are carried along by their neighbourhood and searched for, a few in every frame.
5. What is left is judged by its likelihood to be right: a window that has slid onto a hand still correlates, but alone
   and out of shape. The likelihood is the confidence.

A set may be down to a handful of points after selection, too few to support each other. So the tracker adds *helpers*,
textured points of the template around them, tracked in the same way and not reported (`helpers.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.patches import (
    FINE,
    LEVELS,
    Float,
    PatchBank,
    align,
    grey_image,
    inside,
    make_bank,
    sample,
    smooth_pyramid,
)
from atk_perception.tracking.co_motion import CoMotion, CoMotionParameters, Placed
from atk_perception.tracking.flow import FlowParameters, followed
from atk_perception.tracking.helpers import helper_points, place_helpers
from atk_perception.tracking.protocol import Tracks

# How likely a tracked point is right: logistic regression on 280,000 points of known truth in rendered episodes (sushi,
# seeds 100 to 109, all disturbances) and textures behind a moving bar, rounded; an error counts double. Features: the
# misfit to the first appearance, how far the window's area is from the scene's usual, the weight of the neighbours that
# move along, and its share of what their weight could be, so that a point without neighbours is not held against it.
RIGHT_BIAS, RIGHT_MISFIT, RIGHT_AREA, RIGHT_SUPPORT, RIGHT_SHARE = 0.0, -1.1, -2.3, 1.5, 1.2


@dataclass(frozen=True)
class TemplateLkParameters:
    """What can be tuned, with the reason for each value.

    Attributes:
        start_confidence: matches below this start unseen.
        flow: from frame to frame.
        keep_ncc, regain_ncc: correlation with the first appearance needed to stay and to become visible; a gap
            between them keeps points from flickering.
        co_motion: which points move as one.
        max_points: points and helpers together; above it no helpers are added.
        searches_per_frame: unseen points searched for in one frame; bounds the time per frame.
        search_px: half side of the searched window.
    """

    start_confidence: float = 0.3
    flow: FlowParameters = field(default_factory=FlowParameters)
    keep_ncc: float = 0.6
    regain_ncc: float = 0.75
    co_motion: CoMotionParameters = field(default_factory=CoMotionParameters)
    max_points: int = 96
    searches_per_frame: int = 12
    search_px: int = 14


@dataclass(frozen=True, eq=False)
class TemplateLkState:
    """Everything the tracker remembers; M = N reported points followed by the helpers.

    Attributes:
        count: N.
        co_motion: the points on the template, and which of them have moved as one.
        bank: first appearances.
        grey: (H, W) uint8, the last frame.
        uv_px: (M, 2); warp: (M, 2, 2) template -> last frame.
        visible: (M,); ncc: (M,).
        turn: first point of the next round of searches.
    """

    count: int
    co_motion: CoMotion
    bank: PatchBank
    grey: NDArray[np.uint8]
    uv_px: Float
    warp: Float
    visible: NDArray[np.bool_]
    ncc: Float
    turn: int


class TemplateLkTracker:
    """The classical `Tracker`."""

    def __init__(self, parameters: TemplateLkParameters | None = None) -> None:
        self.parameters = parameters or TemplateLkParameters()

    def start(self, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches) -> TemplateLkState:
        """See `Tracker.start`."""
        parameters = self.parameters
        count = len(template)
        grey = grey_image(frame_rgb)
        pyramid = smooth_pyramid(grey, LEVELS)
        template_grey = grey_image(template.image_rgb)
        template_pyramid = smooth_pyramid(template_grey, LEVELS)
        helpers = helper_points(template_grey, template.uv_px, parameters.max_points - count)
        template_px = np.concatenate([template.uv_px, helpers]).astype(np.float32)
        total = len(template_px)
        identity = np.tile(np.eye(2, dtype=np.float32), (total, 1, 1))
        bank = make_bank(template_pyramid, template_px, identity, FINE)

        seen = matches.confidence >= parameters.start_confidence
        uv_px, warp = template_px.copy(), identity.copy()
        uv_px[:count], warp[:count] = matches.uv_px, matches.warp
        visible = np.zeros(total, np.bool_)
        visible[:count] = seen
        placed = place_helpers(
            bank, pyramid, template_px, matches, seen, parameters.co_motion.neighbourhood_px
        )
        uv_px[count:], warp[count:] = placed.uv_px, placed.warp
        visible[count:] = placed.ncc > parameters.regain_ncc
        # The scene's own light and view make a better reference than the template's, where it is known.
        here = make_bank(pyramid, uv_px, warp, FINE)
        return TemplateLkState(
            count=count,
            co_motion=CoMotion.begin(parameters.co_motion, template_px, uv_px, warp, visible),
            bank=bank.where(visible, here),
            grey=grey,
            uv_px=uv_px,
            warp=warp,
            visible=visible,
            ncc=np.where(visible, 1.0, 0.0).astype(np.float32),
            turn=0,
        )

    def step(self, state: TemplateLkState, frame_rgb: NDArray[np.uint8]) -> tuple[TemplateLkState, Tracks]:
        """See `Tracker.step`."""
        parameters, agreement_px = self.parameters, self.parameters.co_motion.agreement_px
        grey = grey_image(frame_rgb)
        pyramid = smooth_pyramid(grey, LEVELS)
        flow_px, flow_ok = followed(state.grey, grey, state.uv_px, state.visible, parameters.flow)

        moved = replace(state, uv_px=np.where(flow_ok[:, None], flow_px, state.uv_px), visible=flow_ok)
        carried = _neighbourhood(moved)
        supported = carried.support > 0.5
        off = np.linalg.norm(moved.uv_px - carried.uv_px, axis=1)
        trust_flow = flow_ok & ~(supported & (off > 2 * agreement_px))
        start_px = np.where((trust_flow | ~supported)[:, None], moved.uv_px, carried.uv_px)
        start_warp = np.where((~flow_ok & supported)[:, None, None], carried.warp, state.warp)

        aligned = align(state.bank, pyramid, start_px, start_warp, iterations=3, affine=True)
        off = np.linalg.norm(aligned.uv_px - carried.uv_px, axis=1)
        agrees = ~supported | (off < agreement_px)
        enough = np.where(state.visible, parameters.keep_ncc, parameters.regain_ncc)
        visible = (aligned.ncc > enough) & agrees & (flow_ok | supported) & inside(aligned.uv_px, grey)
        # An unseen point rests where its neighbourhood carries it.
        resting = np.where(supported[:, None], carried.uv_px, state.uv_px)
        uv_px = np.where(visible[:, None], aligned.uv_px, resting)
        warp = np.where(visible[:, None, None], aligned.warp, start_warp)
        ncc = np.where(visible, aligned.ncc, 0.0).astype(np.float32)

        state = replace(state, grey=grey, uv_px=uv_px, warp=warp, visible=visible, ncc=ncc)
        state = self._search(state, pyramid, supported)
        state, confidence = self._judge(state)
        state = replace(state, co_motion=state.co_motion.learn(state.uv_px, state.warp, state.visible))
        count = state.count
        return state, Tracks(state.uv_px[:count], state.visible[:count], confidence[:count])

    def select(self, state: TemplateLkState, keep: NDArray[np.int_]) -> TemplateLkState:
        """See `Tracker.select`; the helpers stay, since they stand on the same objects."""
        return self._take(state, np.asarray(keep, np.int_), np.arange(state.count, len(state.uv_px)))

    def extend(
        self, state: TemplateLkState, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches
    ) -> TemplateLkState:
        """See `Tracker.extend`."""
        more = self.start(template, frame_rgb, matches)
        old, new = len(state.uv_px), len(more.uv_px)
        uv_px, warp = np.concatenate([state.uv_px, more.uv_px]), np.concatenate([state.warp, more.warp])
        visible = np.concatenate([state.visible, more.visible])
        joined = replace(
            state,
            co_motion=state.co_motion.join(more.co_motion, uv_px, warp, visible),
            bank=state.bank.join(more.bank),
            uv_px=uv_px,
            warp=warp,
            visible=visible,
            ncc=np.concatenate([state.ncc, more.ncc]),
        )
        points = np.concatenate([np.arange(state.count), old + np.arange(more.count)])
        helpers = np.concatenate([np.arange(state.count, old), np.arange(old + more.count, old + new)])
        room = max(0, self.parameters.max_points - len(points))
        return self._take(joined, points, helpers[:room])

    def _take(
        self, state: TemplateLkState, points: NDArray[np.int_], helpers: NDArray[np.int_]
    ) -> TemplateLkState:
        """Of all M only `points`, which are reported, and `helpers`."""
        index = np.concatenate([points, helpers]).astype(np.int_)
        return replace(
            state,
            count=len(points),
            co_motion=state.co_motion.take(index),
            bank=state.bank.take(index),
            uv_px=state.uv_px[index],
            warp=state.warp[index],
            visible=state.visible[index],
            ncc=state.ncc[index],
            turn=0,
        )

    def _judge(self, state: TemplateLkState) -> tuple[TemplateLkState, Float]:
        """The state without the points that are rather wrong than right, and (M,) confidence, 0 where unseen."""
        carried = _neighbourhood(state)
        support = carried.support
        area = np.maximum(np.abs(np.linalg.det(state.warp)), 1e-3)
        sure = state.visible & (support > 1.0)
        usual = float(np.median(area[sure])) if sure.any() else 1.0
        logit = (
            RIGHT_BIAS
            + RIGHT_MISFIT * np.log(1.02 - np.minimum(state.ncc, 1.0))
            + RIGHT_AREA * np.abs(np.log(area / usual))
            + RIGHT_SUPPORT * np.log(support + 0.1)
            + RIGHT_SHARE * np.log((support + 0.1) / (state.co_motion.near.sum(axis=1) + 0.1))
        )
        visible = state.visible & (logit > 0.0)
        rejected = state.visible & ~visible & (support > 0.5)
        confidence = np.where(visible, 1.0 / (1.0 + np.exp(-logit)), 0.0).astype(np.float32)
        uv_px = np.where(rejected[:, None], carried.uv_px, state.uv_px)
        return replace(state, visible=visible, uv_px=uv_px, ncc=np.where(visible, state.ncc, 0.0)), confidence

    def _search(
        self, state: TemplateLkState, pyramid: tuple[Float, ...], supported: NDArray[np.bool_]
    ) -> TemplateLkState:
        """Look around for a few unseen points, in turn."""
        parameters = self.parameters
        unseen = np.flatnonzero(~state.visible)
        if len(unseen) == 0:
            return state
        order = np.argsort((unseen - state.turn) % len(state.uv_px))
        index = unseen[order][: parameters.searches_per_frame]
        bank = state.bank.take(index)
        found_px = np.empty((len(index), 2), np.float32)
        reach = parameters.search_px
        shape = FINE
        side = 2 * shape.radius + 1
        span = np.arange(-reach - shape.radius, reach + shape.radius + 1)
        v, u = np.meshgrid(span, span, indexing="ij")
        window = np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float32)
        # The surroundings are unwarped into the template's geometry, where the appearance is upright.
        views = sample(pyramid[0], state.uv_px[index], state.warp[index], window, 0)
        views = views.reshape(-1, len(span), len(span))
        weights = np.sqrt(shape.weights)
        for row, view in enumerate(views):
            appearance = (bank.appearance[row] / weights).reshape(side, side)
            response = cv2.matchTemplate(view, appearance.astype(np.float32), cv2.TM_CCOEFF_NORMED)
            _, _, _, peak = cv2.minMaxLoc(response)
            offset = np.array([peak[0] - reach, peak[1] - reach], np.float32)
            found_px[row] = state.uv_px[index[row]] + state.warp[index[row]] @ offset
        aligned = align(bank, pyramid, found_px, state.warp[index], iterations=3, affine=True)
        off = np.linalg.norm(aligned.uv_px - state.uv_px[index], axis=1)
        agrees = ~supported[index] | (off < parameters.co_motion.agreement_px)
        good = (aligned.ncc > parameters.regain_ncc) & agrees & inside(aligned.uv_px, state.grey)
        uv_px, warp = state.uv_px.copy(), state.warp.copy()
        visible, ncc = state.visible.copy(), state.ncc.copy()
        uv_px[index[good]] = aligned.uv_px[good]
        warp[index[good]] = aligned.warp[good]
        ncc[index[good]] = aligned.ncc[good]
        visible[index[good]] = True
        turn = int(index[-1] + 1) % len(state.uv_px)
        return replace(state, uv_px=uv_px, warp=warp, visible=visible, ncc=ncc, turn=turn)


def _neighbourhood(state: TemplateLkState) -> Placed:
    return state.co_motion.neighbourhood(state.uv_px, state.warp, state.visible)

"""The learned tracker: every frame, a posterior over the image, refined by a recurrent unit (see `learned.network`).

Per frame:

1. The network looks for every point by its descriptor on the template, turned and scaled as the point was last seen
   (`learned.template_bank`). There is no separate transfer or re-detection: a point that was seen a frame ago has a sharp prior,
   one that was hidden for a while a flat one. A point that nothing carries along is looked for at another roll in every frame.
2. It works at 320x240 and is good to a pixel or two of it. Where the template has texture, its patch, laid over the frame as the
   point is turned, is aligned at full resolution, and taken if it fits. Nothing is compared with later appearances alone, so
   nothing drifts.
3. The set checks itself (`co_motion.py`): a point that left those it moves with has slid to a look-alike and is not seen; a
   hidden one is carried along by them.

A handful of kept points is too few for that, so there are helpers (`helpers.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.learned.backbone import Backbone, load_backbone
from atk_perception.learned.network import SEEN_PROBABILITY, PointState, describe_points
from atk_perception.learned.template_bank import (
    ROLLS,
    TemplateBank,
    entry_warps,
    make_template_bank,
    nearest_entries,
)
from atk_perception.local_affine import Float, fit_local_affine
from atk_perception.patches import PatchBank, PatchShape, align, grey_image, make_bank, smooth_pyramid
from atk_perception.tracking.co_motion import CoMotion, CoMotionParameters
from atk_perception.tracking.helpers import helper_points, place_helpers
from atk_perception.tracking.protocol import Tracks

COARSE, FINE = PatchShape(radius=7, level=1), PatchShape(radius=7, level=0)
LEVELS = 2


@dataclass(frozen=True)
class AtkTrackerParameters:
    """What can be tuned, with the reason for each value.

    Attributes:
        iterations: refinements per frame. Trained with three; the third moves points by little and costs a millisecond.
        max_points: points and helpers together; above it there are no helpers.
        co_motion: which points move as one.
        least_ncc, farthest_px: an aligned patch that correlates less, or had to move farther than the network is ever off when it
            is right, is not believed.
        helper_ncc: a helper starts as seen from this correlation on.
        lost_frames: a point unseen for so long, which nothing carries along, is looked for at any roll.
    """

    iterations: int = 2
    max_points: int = 40
    co_motion: CoMotionParameters = field(default_factory=CoMotionParameters)
    least_ncc: float = 0.8
    farthest_px: float = 10.0
    helper_ncc: float = 0.75
    lost_frames: int = 3


@dataclass(frozen=True, eq=False)
class AtkState:
    """What is remembered of M points, the N that are reported and then the helpers.

    Attributes:
        count: N.
        points: see `PointState`; positions in pixels of the network.
        bank: descriptors on the template.
        coarse, fine: patches of the template.
        co_motion: the points on the template, and which of them have moved as one.
        warp: (M, 2, 2) how the template lies in the last frame around each point, as of when that was known.
    """

    count: int
    points: PointState
    bank: TemplateBank
    coarse: PatchBank
    fine: PatchBank
    co_motion: CoMotion
    warp: Float


@dataclass(frozen=True, eq=False)
class _Reference:
    """What is computed once for a template: all M points, helpers last, and what they look like."""

    template: Template
    points: Template
    bank: TemplateBank
    coarse: PatchBank
    fine: PatchBank


class AtkTracker:
    """The learned `Tracker`."""

    def __init__(
        self, backbone: Backbone | None = None, parameters: AtkTrackerParameters | None = None
    ) -> None:
        """`backbone`: the packaged one if not given."""
        self._backbone = backbone or load_backbone()
        self.parameters = parameters or AtkTrackerParameters()
        # A set is started anew after every loss: its template is described once.
        self._reference: _Reference | None = None

    @torch.inference_mode()
    def start(self, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches) -> AtkState:
        """See `Tracker.start`."""
        reference, count = self._prepare(template), len(template)
        template_px = reference.points.uv_px
        frame = self._backbone(frame_rgb)
        found = matches.confidence >= SEEN_PROBABILITY
        helpers = place_helpers(
            reference.fine,
            smooth_pyramid(grey_image(frame_rgb), LEVELS),
            template_px,
            matches,
            found,
            self.parameters.co_motion.neighbourhood_px,
        )
        uv_px = np.concatenate([matches.uv_px, helpers.uv_px]).astype(np.float32)
        warp = np.concatenate([matches.warp, helpers.warp]).astype(np.float32)
        sure = np.concatenate(
            [matches.confidence, np.where(helpers.ncc > self.parameters.helper_ncc, helpers.ncc, 0.0)]
        ).astype(np.float32)

        certain = torch.from_numpy(sure)[None]
        place = frame.to_network(uv_px)
        described = reference.bank.pick(nearest_entries(warp))
        latest = torch.where(
            (certain >= SEEN_PROBABILITY)[..., None], describe_points(frame.features, place), described
        )
        points = PointState(
            described,
            frame.to_network(template_px),
            latest,
            place,
            torch.zeros_like(place),
            certain,
            certain,
            torch.zeros_like(certain),
        )
        seen = sure >= SEEN_PROBABILITY
        co_motion = CoMotion.begin(self.parameters.co_motion, template_px, uv_px, warp, seen)
        return AtkState(count, points, reference.bank, reference.coarse, reference.fine, co_motion, warp)

    @torch.inference_mode()
    def step(self, state: AtkState, frame_rgb: NDArray[np.uint8]) -> tuple[AtkState, Tracks]:
        """See `Tracker.step`."""
        if state.count == 0:
            nothing = np.zeros((0, 2), np.float32)
            return state, Tracks(nothing, np.zeros(0, np.bool_), np.zeros(0, np.float32))
        parameters, network = self.parameters, self._backbone.network
        frame = self._backbone(frame_rgb)
        entries, warp = self._turned(state)
        points = replace(state.points, template=state.bank.pick(entries))
        estimate = self._backbone.estimate(frame, points, parameters.iterations)
        said = torch.sigmoid(estimate.visible_logit[-1]) * torch.sigmoid(estimate.certain_logit[-1])
        confidence = np.asarray(said[0].numpy(), np.float32)
        visible = confidence > SEEN_PROBABILITY
        uv_px, warp = self._align(state, warp, frame_rgb, frame.to_image(estimate.uv_px[-1]), visible)

        carried = state.co_motion.neighbourhood(uv_px, warp, visible)
        supported = carried.support > 0.5
        off_px = np.linalg.norm(uv_px - carried.uv_px, axis=1)
        slid = visible & supported & (off_px > parameters.co_motion.agreement_px)
        visible = visible & ~slid & _inside(uv_px, frame_rgb)
        confidence = np.where(visible, confidence, np.minimum(confidence, 1.0 - SEEN_PROBABILITY))
        resting = supported & ~visible
        uv_px = np.where(resting[:, None], carried.uv_px, uv_px)
        warp = np.where(resting[:, None, None], carried.warp, warp)

        unseen = torch.from_numpy(~visible)[None]
        said_logit = torch.where(unseen, torch.full_like(said, -9.0), estimate.visible_logit[-1])
        after = network.advance(
            frame.features,
            points,
            replace(estimate, uv_px=[frame.to_network(uv_px)], visible_logit=[said_logit]),
        )
        carry = torch.from_numpy(resting)[None]
        after = replace(after, uv_px=torch.where(carry[..., None], frame.to_network(uv_px), after.uv_px))
        state = replace(state, points=after, warp=warp, co_motion=state.co_motion.learn(uv_px, warp, visible))
        rows = slice(state.count)
        return state, Tracks(frame.to_image(after.uv_px)[rows], visible[rows], confidence[rows])

    def select(self, state: AtkState, keep: NDArray[np.int_]) -> AtkState:
        """See `Tracker.select`; the helpers stay, since they stand on the same objects."""
        return _take(state, np.asarray(keep, np.int_), np.arange(state.count, len(state.warp)))

    def extend(
        self, state: AtkState, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches
    ) -> AtkState:
        """See `Tracker.extend`."""
        more = self.start(template, frame_rgb, matches)
        old, new = len(state.warp), len(more.warp)
        points = PointState(
            *(
                torch.cat([getattr(state.points, name), getattr(more.points, name)], dim=1)
                for name in (entry.name for entry in fields(PointState))
            )
        )
        warp = np.concatenate([state.warp, more.warp])
        uv_px = self._backbone(frame_rgb).to_image(points.uv_px)
        seen = (points.certain[0].numpy() >= SEEN_PROBABILITY) & (points.unseen[0].numpy() == 0)
        joined = AtkState(
            state.count,
            points,
            state.bank.join(more.bank),
            state.coarse.join(more.coarse),
            state.fine.join(more.fine),
            state.co_motion.join(more.co_motion, uv_px, warp, seen),
            warp,
        )
        reported = np.concatenate([np.arange(state.count), old + np.arange(more.count)])
        helpers = np.concatenate([np.arange(state.count, old), np.arange(old + more.count, old + new)])
        return _take(joined, reported, helpers[: max(0, self.parameters.max_points - len(reported))])

    def _prepare(self, template: Template) -> _Reference:
        if self._reference is None or self._reference.template is not template:
            grey = grey_image(template.image_rgb)
            helpers = helper_points(grey, template.uv_px, self.parameters.max_points - len(template))
            points = Template(
                template.image_rgb, np.concatenate([template.uv_px, helpers]).astype(np.float32)
            )
            identity = np.tile(np.eye(2, dtype=np.float32), (len(points), 1, 1))
            pyramid = smooth_pyramid(grey, LEVELS)
            coarse, fine = (make_bank(pyramid, points.uv_px, identity, shape) for shape in (COARSE, FINE))
            bank = make_template_bank(self._backbone, points)
            self._reference = _Reference(template, points, bank, coarse, fine)
        return self._reference

    def _turned(self, state: AtkState) -> tuple[NDArray[np.int_], Float]:
        """(M,) which description of the template each point is looked for by, and (M, 2, 2) how the template would lie then."""
        unseen = state.points.unseen[0].numpy().astype(int)
        lost = unseen >= self.parameters.lost_frames
        entries = nearest_entries(state.warp, np.where(lost, unseen % ROLLS, 0))
        return entries, np.where(lost[:, None, None], entry_warps()[entries], state.warp)

    def _align(
        self,
        state: AtkState,
        warp: Float,
        frame_rgb: NDArray[np.uint8],
        uv_px: Float,
        visible: NDArray[np.bool_],
    ) -> tuple[Float, Float]:
        """(M, 2) positions and (M, 2, 2) warps, those of visible points moved to where the template's patch fits."""
        chosen = np.flatnonzero(visible)
        if len(chosen) == 0:
            return uv_px, warp
        template_px, found_px = state.co_motion.template_px[chosen], uv_px[chosen]
        pyramid = smooth_pyramid(grey_image(frame_rgb), LEVELS)
        near = state.co_motion.near[np.ix_(chosen, chosen)] + np.eye(len(chosen), dtype=np.float32)
        rough = align(state.coarse.take(chosen), pyramid, found_px, warp[chosen], iterations=3, affine=False)
        # Patches that fit, and hardly those that do not, say how their neighbours are turned.
        trust = near * np.clip(rough.ncc - 0.4, 0.01, 1.0) ** 2
        _, turned = fit_local_affine(template_px, template_px, rough.uv_px, trust, warp[chosen])
        fitted = align(state.fine.take(chosen), pyramid, rough.uv_px, turned, iterations=4, affine=True)
        good = (fitted.ncc > self.parameters.least_ncc) & (
            np.linalg.norm(fitted.uv_px - found_px, axis=1) < self.parameters.farthest_px
        )
        aligned, warps = uv_px.copy(), warp.copy()
        aligned[chosen[good]] = fitted.uv_px[good]
        warps[chosen] = np.where(good[:, None, None], fitted.warp, turned)
        return aligned, warps


def _take(state: AtkState, points: NDArray[np.int_], helpers: NDArray[np.int_]) -> AtkState:
    """Of all M only `points`, which are reported, and `helpers`."""
    index = np.concatenate([points, helpers]).astype(np.int_)
    rows = torch.from_numpy(index.astype(np.int64))
    return AtkState(
        len(points),
        PointState(*(getattr(state.points, entry.name)[:, rows] for entry in fields(PointState))),
        state.bank.take(index),
        state.coarse.take(index),
        state.fine.take(index),
        state.co_motion.take(index),
        state.warp[index],
    )


def _inside(uv_px: Float, frame_rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    last = np.array([frame_rgb.shape[1] - 1, frame_rgb.shape[0] - 1])
    return np.asarray(np.all((uv_px >= 0.0) & (uv_px <= last), axis=1), np.bool_)

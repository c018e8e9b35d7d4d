"""The learned tracker: a network that looks for every point in every frame, and image alignment that makes it exact.

Per frame three things propose where a point is:

* Lucas-Kanade from the last frame (`flow.py`): exact while nothing is in the way, and wrong for good once something was;
* the network (`learned.network`), which looks for its descriptor on the template, turned and scaled as the point was last seen
  (`learned.template_bank`). There is no separate transfer or re-detection: a point that was seen a frame ago has a sharp prior,
  one that was hidden for a while a flat one, and one that nothing carries along is looked for at other rolls, too. It works at
  320x240 and is good to a pixel or two of it;
* its neighbours that have moved as it has so far (`co_motion.py`).

The template's patch, laid over the frame as the point is turned, is aligned at each proposal at full resolution. Nothing is
compared with later appearances alone, so nothing drifts. How probable a proposal is follows from what the network says, how far
off it is, how well the patch fits, and where the neighbours put it (`Evidence`, fitted on generated scenes by
`training.fit_confidence`); the most probable one is taken. That is also the point's confidence, and below one half it is not seen.

A handful of kept points is too few for neighbours, so there are helpers (`helpers.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.learned.backbone import Backbone, FeatureMap, load_backbone
from atk_perception.learned.network import ITERATIONS, SEEN_PROBABILITY, Estimate, PointState, describe_points
from atk_perception.learned.template_bank import (
    TemplateBank,
    entries_that_fit,
    entry_warps,
    look_for,
    make_template_bank,
    nearest_entries,
)
from atk_perception.local_affine import Float
from atk_perception.patches import (
    COARSE,
    FINE,
    LEVELS,
    Alignment,
    PatchBank,
    align,
    grey_image,
    inside,
    make_bank,
    smooth_pyramid,
)
from atk_perception.tracking.co_motion import CoMotion, CoMotionParameters
from atk_perception.tracking.flow import FlowParameters, followed
from atk_perception.tracking.helpers import helper_points, place_helpers
from atk_perception.tracking.protocol import Tracks

# Log odds that a proposal is right, within 8 px of a point that is in view: a bias, then a weight for each column of
# `Proposals.evidence`. Those that the best one is: a bias, and a weight of its log odds. From `training.fit_confidence tracker`.
EVIDENCE = (-1.222, 0.424, -0.433, 0.22, -0.787, 0.534, 0.058, -0.258, 0.058, 0.788, -1.146, -0.653, 3.07)
CONFIDENCE = (0.019, 0.952)


@dataclass(frozen=True)
class AtkTrackerParameters:
    """What can be tuned, with the reason for each value.

    Attributes:
        iterations: refinements per frame.
        max_points: points and helpers together; above it there are no helpers.
        flow: from frame to frame.
        co_motion: which points move as one.
        apart_px: proposals nearer than this are one.
        least_ncc, farthest_px: an aligned patch that correlates less, or had to move farther, stays at its proposal.
        helper_ncc: a helper starts as seen from this correlation on.
        lost_frames: a point unseen for so long, which nothing carries along, is looked for everywhere, at any roll and scale.
        searches: points that are, per frame; each costs a fifth of a millisecond.
    """

    iterations: int = ITERATIONS
    max_points: int = 40
    flow: FlowParameters = field(default_factory=FlowParameters)
    co_motion: CoMotionParameters = field(default_factory=CoMotionParameters)
    apart_px: float = 2.0
    least_ncc: float = 0.7
    farthest_px: float = 10.0
    helper_ncc: float = 0.75
    lost_frames: int = 4
    searches: int = 6


@dataclass(frozen=True, eq=False)
class AtkState:
    """What is remembered of M points, the N that are reported and then the helpers.

    Attributes:
        count: N.
        points: see `PointState`; positions in pixels of the network.
        bank: descriptors on the template.
        coarse, fine: patches of the template.
        co_motion: the points on the template, and which of them have moved as one.
        grey: (H, W) uint8, the last frame.
        uv_px: (M, 2) in it. visible: (M,) in it.
        warp: (M, 2, 2) how the template lies in the last frame around each point, as of when that was known.
        carried: (M,) whether neighbours carry a point along.
        aligned: (M,) whether its patch fitted in the last frame.
    """

    count: int
    points: PointState
    bank: TemplateBank
    coarse: PatchBank
    fine: PatchBank
    co_motion: CoMotion
    grey: NDArray[np.uint8]
    uv_px: Float
    visible: NDArray[np.bool_]
    warp: Float
    carried: NDArray[np.bool_]
    aligned: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Proposals:
    """Where M points may be in a frame, K places in all.

    Attributes:
        owner: (K,) whose each is. uv_px: (K, 2). warp: (K, 2, 2).
        fits: (K,) whether the patch does. evidence: (K, E) what else speaks for it.
        searched: the points as the network looked for them. estimate: what it said. frame: its view.
        grey: (H, W) uint8, the frame.
    """

    owner: NDArray[np.int_]
    uv_px: Float
    warp: Float
    fits: NDArray[np.bool_]
    evidence: Float
    searched: PointState
    estimate: Estimate
    frame: FeatureMap
    grey: NDArray[np.uint8]


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
        template_px, grey = reference.points.uv_px, grey_image(frame_rgb)
        frame = self._backbone(frame_rgb)
        found = matches.confidence >= SEEN_PROBABILITY
        helpers = place_helpers(
            reference.fine,
            smooth_pyramid(grey, LEVELS),
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
        return AtkState(
            count,
            points,
            reference.bank,
            reference.coarse,
            reference.fine,
            co_motion,
            grey,
            uv_px,
            seen,
            warp,
            np.zeros(len(seen), np.bool_),
            seen,
        )

    def step(self, state: AtkState, frame_rgb: NDArray[np.uint8]) -> tuple[AtkState, Tracks]:
        """See `Tracker.step`."""
        if state.count == 0:
            nothing = np.zeros((0, 2), np.float32)
            return state, Tracks(nothing, np.zeros(0, np.bool_), np.zeros(0, np.float32))
        return self.settle(state, self.propose(state, frame_rgb))

    @torch.inference_mode()
    def propose(self, state: AtkState, frame_rgb: NDArray[np.uint8]) -> Proposals:
        """Where the points may be in the next frame."""
        parameters, grey = self.parameters, grey_image(frame_rgb)
        pyramid = smooth_pyramid(grey, LEVELS)
        frame = self._backbone(frame_rgb)
        searched, turned, sought, sought_px = self._search(state, frame)
        estimate = self._backbone.estimate(frame, searched, parameters.iterations)
        network_px = frame.to_image(estimate.uv_px[-1])

        flow_px, flow_ok = followed(state.grey, grey, state.uv_px, state.visible, parameters.flow)
        placed = state.co_motion.neighbourhood(flow_px, state.warp, flow_ok)
        supported = placed.support > 0.5

        def apart(a: Float, b: Float) -> NDArray[np.bool_]:
            return np.asarray(np.linalg.norm(a - b, axis=1) > parameters.apart_px)

        def fits(found: Alignment, began_px: Float) -> NDArray[np.bool_]:
            moved_px = np.linalg.norm(found.uv_px - began_px, axis=1)
            return np.asarray((found.ncc > parameters.least_ncc) & (moved_px < parameters.farthest_px))

        by_network = np.flatnonzero(~flow_ok | apart(network_px, flow_px))
        by_neighbours = np.flatnonzero(
            supported & apart(placed.uv_px, network_px) & (~flow_ok | apart(placed.uv_px, flow_px))
        )
        by_flow = np.flatnonzero(flow_ok)
        # The network's places may be off by some pixels: first a coarse look.
        asked = np.concatenate([by_network, sought])
        asked_px = np.concatenate([network_px[by_network], sought_px])
        rough = align(state.coarse.take(asked), pyramid, asked_px, turned[asked], iterations=3, affine=False)
        owner = np.concatenate([by_flow, by_neighbours, asked])
        start_px = np.concatenate(
            [
                flow_px[by_flow],
                placed.uv_px[by_neighbours],
                np.where(fits(rough, asked_px)[:, None], rough.uv_px, asked_px),
            ]
        )
        bent = np.where(supported[:, None, None], placed.warp, state.warp)
        warp = np.concatenate([state.warp[by_flow], placed.warp[by_neighbours], turned[asked]])
        fitted = align(state.fine.take(owner), pyramid, start_px, warp, iterations=3, affine=True)
        good = fits(fitted, start_px)
        uv_px = np.where(good[:, None], fitted.uv_px, start_px)
        # What has no texture of its own is turned as what is around it.
        warp = np.where(
            good[:, None, None], fitted.warp, np.concatenate([bent[by_flow], warp[len(by_flow) :]])
        )

        said = torch.minimum(estimate.visible_logit[-1], estimate.certain_logit[-1])[0].numpy()
        texture = state.fine.texture / (state.fine.texture + 8.0)
        support = np.log(placed.support + 0.1)
        around = np.log(state.co_motion.near.sum(axis=1) + 0.1)

        def log_off(to_px: Float, unit_px: float) -> Float:
            return np.asarray(np.log1p(np.linalg.norm(uv_px - to_px[owner], axis=1) / unit_px), np.float32)

        off_network = log_off(network_px, 2.0)
        described = state.bank.pick(nearest_entries(warp), owner)
        cosine = (described * describe_points(frame.features, frame.to_network(uv_px)))[0].sum(dim=1).numpy()
        size = 0.5 * np.log(np.maximum(np.abs(np.linalg.det(warp)), 1e-3))
        usual = np.median(size[: len(by_flow)]) if len(by_flow) else 0.0
        share = np.minimum(placed.support, 1.0)[owner]
        network = np.clip(said, -6.0, 6.0)[owner]
        evidence = np.stack(
            [
                network,
                off_network,
                network * np.exp(-off_network),
                texture[owner],
                -texture[owner] * np.log(1.02 - np.minimum(fitted.ncc, 1.0)),
                flow_ok[owner] * np.exp(-log_off(flow_px, 2.0)),
                state.visible[owner],
                (support - around)[owner],
                support[owner],
                share * log_off(placed.uv_px, 3.0),
                np.abs(size - usual),
                cosine,
            ],
            axis=1,
        ).astype(np.float32)
        return Proposals(owner, uv_px, warp, good, evidence, searched, estimate, frame, grey)

    @torch.inference_mode()
    def settle(self, state: AtkState, proposals: Proposals) -> tuple[AtkState, Tracks]:
        """Of every point the most probable proposal, if it is probable enough."""
        frame, estimate = proposals.frame, proposals.estimate
        logit = EVIDENCE[0] + proposals.evidence @ np.asarray(EVIDENCE[1:], np.float32)
        # Of several rows of a point the last that is written stays: the best.
        order = np.argsort(logit, kind="stable")
        owner = proposals.owner[order]
        best = np.full(len(state.warp), -9.0, np.float32)
        uv_px, proposed, aligned = state.uv_px.copy(), state.warp.copy(), np.zeros(len(best), np.bool_)
        best[owner], uv_px[owner] = logit[order], proposals.uv_px[order]
        proposed[owner], aligned[owner] = proposals.warp[order], proposals.fits[order]
        sure = CONFIDENCE[0] + CONFIDENCE[1] * best
        confidence = np.asarray(1.0 / (1.0 + np.exp(-np.clip(sure, -9.0, 9.0))), np.float32)
        visible = (confidence >= SEEN_PROBABILITY) & inside(uv_px, proposals.grey)
        confidence = np.where(visible, confidence, np.minimum(confidence, 1.0 - SEEN_PROBABILITY)).astype(
            np.float32
        )
        carried = state.co_motion.neighbourhood(uv_px, proposed, visible)
        supported = carried.support > 0.5
        resting = supported & ~visible
        warp = np.where(visible[:, None, None], proposed, state.warp)
        warp = np.where(resting[:, None, None], carried.warp, warp)
        uv_px = np.where(resting[:, None], carried.uv_px, uv_px).astype(np.float32)

        # The network goes on from what was settled.
        agreed = torch.from_numpy(np.sqrt(confidence))[None]
        said = torch.sigmoid(estimate.visible_logit[-1]) * torch.sigmoid(estimate.certain_logit[-1])
        keep = torch.from_numpy(visible)[None] & (said > SEEN_PROBABILITY)
        settled = torch.logit(
            torch.where(torch.from_numpy(visible)[None], agreed, torch.zeros_like(agreed)), 1e-4
        )
        place = frame.to_network(uv_px)
        after = self._backbone.network.advance(
            frame.features,
            proposals.searched,
            replace(
                estimate,
                uv_px=[place],
                visible_logit=[torch.where(keep, estimate.visible_logit[-1], settled)],
                certain_logit=[torch.where(keep, estimate.certain_logit[-1], settled)],
            ),
        )
        after = replace(
            after, uv_px=torch.where(torch.from_numpy(resting)[None, :, None], place, after.uv_px)
        )
        state = replace(
            state,
            points=after,
            grey=proposals.grey,
            uv_px=uv_px,
            visible=visible,
            warp=warp,
            carried=supported,
            aligned=aligned & visible,
            co_motion=state.co_motion.learn(uv_px, warp, visible),
        )
        rows = slice(state.count)
        return state, Tracks(uv_px[rows], visible[rows], confidence[rows])

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
        warp, uv_px = np.concatenate([state.warp, more.warp]), np.concatenate([state.uv_px, more.uv_px])
        visible = np.concatenate([state.visible, more.visible])
        joined = AtkState(
            state.count,
            points,
            state.bank.join(more.bank),
            state.coarse.join(more.coarse),
            state.fine.join(more.fine),
            state.co_motion.join(more.co_motion, uv_px, warp, visible),
            more.grey,
            uv_px,
            visible,
            warp,
            np.concatenate([state.carried, more.carried]),
            np.concatenate([state.aligned, more.aligned]),
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

    def _search(
        self, state: AtkState, frame: FeatureMap
    ) -> tuple[PointState, Float, NDArray[np.int_], Float]:
        """How the points are looked for: as they were last seen, or, of the lost ones some in turn, as if they never were.

        Returns:
            The points; (M, 2, 2) how the template would lie then; (L,) those that were looked for by their descriptors alone, and
            (L, 2) the place in the frame that looks most like each of them.
        """
        parameters, points = self.parameters, state.points
        entries, turned = nearest_entries(state.warp), state.warp.copy()
        unseen = points.unseen[0].numpy().astype(int)
        lost = np.flatnonzero((unseen >= parameters.lost_frames) & ~state.carried)
        if len(lost) > parameters.searches:
            first = parameters.searches * int(unseen[lost].max()) % len(lost)
            lost = np.roll(lost, -first)[: parameters.searches]
        everything = np.tile(np.arange(len(entry_warps())), (len(lost), 1))
        entries[lost], lost_px = look_for(state.bank, lost, everything, frame.features)
        turned[lost] = entry_warps()[entries[lost]]
        # What is seen without texture drifts: where around its last place does it look most like the template?
        plain = np.flatnonzero(state.visible & ~state.aligned)
        around_px = points.uv_px[:, torch.from_numpy(plain)]
        fitting = entries_that_fit(state.bank, plain, describe_points(frame.features, around_px)[0])
        _, plain_px = look_for(state.bank, plain, fitting[:, None], frame.features, around_px[0])
        rows = torch.from_numpy(lost)
        template = state.bank.pick(entries)
        anew = torch.zeros_like(points.certain, dtype=torch.bool)
        anew[0, rows] = True
        searched = replace(
            points,
            template=template,
            latest=torch.where(anew[..., None], template, points.latest),
            velocity_px=torch.where(
                anew[..., None], torch.zeros_like(points.velocity_px), points.velocity_px
            ),
            certain=torch.where(anew, torch.zeros_like(points.certain), points.certain),
            visible=torch.where(anew, torch.zeros_like(points.visible), points.visible),
        )
        sought = np.concatenate([lost, plain])
        return searched, turned, sought, frame.to_image(torch.cat([lost_px, plain_px])[None])


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
        state.grey,
        state.uv_px[index],
        state.visible[index],
        state.warp[index],
        state.carried[index],
        state.aligned[index],
    )

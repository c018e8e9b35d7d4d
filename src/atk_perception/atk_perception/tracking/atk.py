"""The learned tracker: every frame, a posterior over the image, refined by a recurrent unit (see `learned.network`).

There is no separate transfer or re-detection. A point that was seen a frame ago has a sharp prior; one that was hidden for a
while, or never seen, has a flat one and is looked for everywhere by its template's descriptor.

The network works at 320x240 and is good to a pixel or two of it. Where the template has texture, its patch, laid over the
frame by the map that the neighbouring points suggest, is aligned at full resolution, and taken if it fits.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.learned.backbone import Backbone, load_backbone
from atk_perception.learned.network import SEEN_PROBABILITY, PointState, describe_points
from atk_perception.local_affine import fit_local_affine
from atk_perception.patches import Float, PatchBank, PatchShape, align, grey_image, make_bank, smooth_pyramid
from atk_perception.tracking.protocol import Tracks

COARSE, FINE = PatchShape(radius=7, level=1), PatchShape(radius=7, level=0)
LEVELS = 2
# Neighbours within about an object's radius at 640x480 say how the patch is turned; the weight falls to 0.6 at this distance.
NEIGHBOURHOOD_PX = 25.0
# A patch that correlates less than this, or had to move farther than the network is ever off when it is right, is not believed.
LEAST_NCC = 0.8
FARTHEST_PX = 10.0


@dataclass(frozen=True, eq=False)
class AtkState:
    """What is remembered.

    Attributes:
        points: see `PointState`; positions in pixels of the network.
        template_px: (N, 2) pixels of the template.
        warp: (N, 2, 2) how the template lies in the last frame around each point, as of when that was known.
        coarse, fine: the template's patches.
    """

    points: PointState
    template_px: Float
    warp: Float
    coarse: PatchBank
    fine: PatchBank


class AtkTracker:
    """The learned `Tracker`."""

    def __init__(self, backbone: Backbone | None = None, iterations: int = 3) -> None:
        """`backbone`: the packaged one if not given; `iterations`: refinements per frame, as in training."""
        self._backbone = backbone or load_backbone()
        self._iterations = iterations

    @torch.inference_mode()
    def start(self, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches) -> AtkState:
        """See `Tracker.start`."""
        on_template = self._backbone(template.image_rgb)
        descriptors = describe_points(on_template.features, on_template.to_network(template.uv_px))
        in_frame = self._backbone(frame_rgb)
        uv_px = in_frame.to_network(matches.uv_px)
        certain = torch.from_numpy(np.asarray(matches.confidence, np.float32))[None]
        found = certain >= SEEN_PROBABILITY
        latest = torch.where(found[..., None], describe_points(in_frame.features, uv_px), descriptors)
        none = torch.zeros_like(certain)
        points = PointState(descriptors, latest, uv_px, torch.zeros_like(uv_px), certain, certain, none)
        identity = np.tile(np.eye(2, dtype=np.float32), (len(template), 1, 1))
        pyramid = smooth_pyramid(grey_image(template.image_rgb), LEVELS)
        coarse, fine = (make_bank(pyramid, template.uv_px, identity, shape) for shape in (COARSE, FINE))
        return AtkState(points, template.uv_px, matches.warp, coarse, fine)

    @torch.inference_mode()
    def step(self, state: AtkState, frame_rgb: NDArray[np.uint8]) -> tuple[AtkState, Tracks]:
        """See `Tracker.step`."""
        if len(state.template_px) == 0:
            return state, Tracks(state.template_px, np.zeros(0, np.bool_), np.zeros(0, np.float32))
        frame = self._backbone(frame_rgb)
        network = self._backbone.network
        estimate = self._backbone.estimate(frame, state.points, self._iterations)
        seen_and_close = torch.sigmoid(estimate.visible_logit[-1]) * torch.sigmoid(estimate.certain_logit[-1])
        confidence = np.asarray(seen_and_close[0].numpy(), np.float32)
        visible = confidence > SEEN_PROBABILITY
        uv_px, warp = self._align(state, frame_rgb, frame.to_image(estimate.uv_px[-1]), visible)
        estimate = replace(estimate, uv_px=[*estimate.uv_px[:-1], frame.to_network(uv_px)])
        after = network.advance(frame.features, state.points, estimate)
        tracks = Tracks(frame.to_image(after.uv_px), visible, confidence)
        return replace(state, points=after, warp=warp), tracks

    def select(self, state: AtkState, keep: NDArray[np.int_]) -> AtkState:
        """See `Tracker.select`."""
        rows = torch.from_numpy(np.asarray(keep, np.int64))
        return AtkState(
            PointState(*(getattr(state.points, field.name)[:, rows] for field in fields(PointState))),
            state.template_px[keep],
            state.warp[keep],
            state.coarse.take(keep),
            state.fine.take(keep),
        )

    def extend(
        self, state: AtkState, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches
    ) -> AtkState:
        """See `Tracker.extend`."""
        more = self.start(template, frame_rgb, matches)
        joined = (
            torch.cat([getattr(state.points, field.name), getattr(more.points, field.name)], dim=1)
            for field in fields(PointState)
        )
        return AtkState(
            PointState(*joined),
            np.concatenate([state.template_px, more.template_px]),
            np.concatenate([state.warp, more.warp]),
            state.coarse.join(more.coarse),
            state.fine.join(more.fine),
        )

    def _align(
        self, state: AtkState, frame_rgb: NDArray[np.uint8], uv_px: Float, visible: NDArray[np.bool_]
    ) -> tuple[Float, Float]:
        """(N, 2) positions and (N, 2, 2) warps, those of visible points moved to where the template's patch fits."""
        chosen = np.flatnonzero(visible)
        if len(chosen) == 0:
            return uv_px, state.warp
        template_px, found_px = state.template_px[chosen], uv_px[chosen]
        pyramid = smooth_pyramid(grey_image(frame_rgb), LEVELS)
        between = np.linalg.norm(template_px[:, None] - template_px[None], axis=2)
        near = np.exp(-0.5 * (between / NEIGHBOURHOOD_PX) ** 2).astype(np.float32)
        rough = align(
            state.coarse.take(chosen), pyramid, found_px, state.warp[chosen], iterations=3, affine=False
        )
        # Patches that fit, and hardly those that do not, say how their neighbours are turned.
        trust = near * np.clip(rough.ncc - 0.4, 0.01, 1.0) ** 2
        _, turned = fit_local_affine(template_px, template_px, rough.uv_px, trust, state.warp[chosen])
        fitted = align(state.fine.take(chosen), pyramid, rough.uv_px, turned, iterations=4, affine=True)
        good = (fitted.ncc > LEAST_NCC) & (np.linalg.norm(fitted.uv_px - found_px, axis=1) < FARTHEST_PX)
        aligned, warps = uv_px.copy(), state.warp.copy()
        aligned[chosen[good]] = fitted.uv_px[good]
        warps[chosen] = np.where(good[:, None, None], fitted.warp, turned)
        return aligned, warps

"""The learned tracker: every frame, a posterior over the image, refined by a recurrent unit (see `learned.network`).

There is no separate transfer or re-detection. A point that was seen a frame ago has a sharp prior; one that was hidden for a
while, or never seen, has a flat one and is looked for everywhere by its template's descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.learned.backbone import Backbone, load_backbone
from atk_perception.learned.network import SEEN_PROBABILITY, PointState, describe_points
from atk_perception.tracking.protocol import Tracks


@dataclass(frozen=True, eq=False)
class AtkState:
    """What is remembered: see `PointState` (positions in pixels of the network)."""

    points: PointState


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
        return AtkState(
            PointState(descriptors, latest, uv_px, torch.zeros_like(uv_px), certain, certain, none)
        )

    @torch.inference_mode()
    def step(self, state: AtkState, frame_rgb: NDArray[np.uint8]) -> tuple[AtkState, Tracks]:
        """See `Tracker.step`."""
        frame = self._backbone(frame_rgb)
        network = self._backbone.network
        estimate = network.estimate(frame.features, state.points, self._iterations)
        after = network.advance(frame.features, state.points, estimate)
        seen_and_close = torch.sigmoid(estimate.visible_logit[-1]) * torch.sigmoid(estimate.certain_logit[-1])
        confidence = seen_and_close[0].numpy()
        tracks = Tracks(
            frame.to_image(after.uv_px), confidence > SEEN_PROBABILITY, confidence.astype(np.float32)
        )
        return AtkState(after), tracks

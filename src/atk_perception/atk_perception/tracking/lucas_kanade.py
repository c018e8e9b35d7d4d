"""Pyramidal Lucas-Kanade from frame to frame, forward and back: the baseline that everyone knows.

See `flow.py`. It drifts, and never finds a point again once it is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.patches import grey_image, inside
from atk_perception.tracking.flow import FlowParameters, followed
from atk_perception.tracking.protocol import Tracks


@dataclass(frozen=True, eq=False)
class LucasKanadeState:
    """The last frame, (H, W) uint8, and the points in it: (N, 2) uv_px, (N,) alive."""

    grey: NDArray[np.uint8]
    uv_px: NDArray[np.float32]
    alive: NDArray[np.bool_]


class LucasKanadeTracker:
    """The simplest `Tracker`."""

    def __init__(self, parameters: FlowParameters | None = None) -> None:
        """By default the window and tolerance that are usual for this baseline."""
        self._parameters = parameters or FlowParameters(window_px=21, round_trip_px=1.0)

    def start(self, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches) -> LucasKanadeState:
        """See `Tracker.start`; the template's appearance is not used."""
        return LucasKanadeState(
            grey_image(frame_rgb), matches.uv_px.astype(np.float32), matches.confidence > 0.0
        )

    def step(self, state: LucasKanadeState, frame_rgb: NDArray[np.uint8]) -> tuple[LucasKanadeState, Tracks]:
        """See `Tracker.step`."""
        grey = grey_image(frame_rgb)
        uv_px, alive = followed(state.grey, grey, state.uv_px, state.alive, self._parameters)
        alive = alive & inside(uv_px, grey)
        uv_px = np.where(alive[:, None], uv_px, state.uv_px)
        return LucasKanadeState(grey, uv_px, alive), Tracks(uv_px, alive, alive.astype(np.float32))

    def select(self, state: LucasKanadeState, keep: NDArray[np.int_]) -> LucasKanadeState:
        """See `Tracker.select`."""
        return LucasKanadeState(state.grey, state.uv_px[keep], state.alive[keep])

    def extend(
        self, state: LucasKanadeState, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches
    ) -> LucasKanadeState:
        """See `Tracker.extend`."""
        more = self.start(template, frame_rgb, matches)
        return LucasKanadeState(
            state.grey, np.concatenate([state.uv_px, more.uv_px]), np.concatenate([state.alive, more.alive])
        )

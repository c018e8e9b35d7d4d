"""Pyramidal Lucas-Kanade from frame to frame, forward and back: the baseline that everyone knows.

Bouguet, "Pyramidal implementation of the Lucas Kanade feature tracker", 2001; Kalal et al., "Forward-backward error", ICPR
2010. It drifts, and never finds a point again once it is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.patches import grey_image
from atk_perception.tracking.protocol import Tracks


@dataclass(frozen=True, eq=False)
class LucasKanadeState:
    """The last frame, (H, W) uint8, and the points in it: (N, 2) uv_px, (N,) alive."""

    grey: NDArray[np.uint8]
    uv_px: NDArray[np.float32]
    alive: NDArray[np.bool_]


class LucasKanadeTracker:
    """The simplest `Tracker`."""

    def __init__(self, window_px: int = 21, levels: int = 3, forward_backward_px: float = 1.0) -> None:
        """`window_px`: side; `levels`: above the image; `forward_backward_px`: largest error of the round trip."""
        self._window_px = (window_px, window_px)
        self._levels = levels
        self._forward_backward_px = forward_backward_px

    def start(self, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches) -> LucasKanadeState:
        """See `Tracker.start`; the template's appearance is not used."""
        return LucasKanadeState(
            grey_image(frame_rgb), matches.uv_px.astype(np.float32), matches.confidence > 0.0
        )

    def step(self, state: LucasKanadeState, frame_rgb: NDArray[np.uint8]) -> tuple[LucasKanadeState, Tracks]:
        """See `Tracker.step`."""
        grey = grey_image(frame_rgb)
        uv_px, alive = state.uv_px.copy(), state.alive.copy()
        if alive.any():
            before = np.ascontiguousarray(state.uv_px[alive])
            after, found = self._flow(state.grey, grey, before)
            back, returned = self._flow(grey, state.grey, after)
            size = np.array([grey.shape[1] - 1, grey.shape[0] - 1])
            kept = (
                found
                & returned
                & (np.linalg.norm(back - before, axis=1) < self._forward_backward_px)
                & np.all((after >= 0) & (after <= size), axis=1)
            )
            uv_px[alive] = np.where(kept[:, None], after, before)
            alive[alive] = kept
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

    def _flow(
        self, before: NDArray[np.uint8], after: NDArray[np.uint8], uv_px: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        # Points are given as the guess, too: OpenCV's stubs know no way to leave it out.
        moved, found, _ = cv2.calcOpticalFlowPyrLK(
            before, after, uv_px, uv_px.copy(), winSize=self._window_px, maxLevel=self._levels
        )
        return np.asarray(moved, np.float32), np.asarray(found)[:, 0] > 0

"""What a tracker takes and gives: an explicit causal state, passed in and out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template

State = TypeVar("State")


@dataclass(frozen=True, eq=False)
class Tracks:
    """The points in one frame.

    Attributes:
        uv_px: (N, 2) float32; the last or predicted position where a point is not visible.
        visible: (N,) bool.
        confidence: (N,) float32 in [0, 1]: probability that uv_px lies within 8 px of the truth.
    """

    uv_px: NDArray[np.float32]
    visible: NDArray[np.bool_]
    confidence: NDArray[np.float32]


class Tracker(Protocol[State]):
    """Follows points through a video, one frame at a time, never looking ahead.

    All memory is in the state, and no method changes the state it is given: a state can be kept, and stepping it again on the
    same frame gives the same tracks. Another `start` re-initialises; the tracker itself remembers nothing.
    """

    def start(self, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches) -> State:
        """A state for `template`'s points, placed in `frame_rgb` (H, W, 3) uint8 by `matches`.

        Points with confidence 0 start unseen; the tracker looks for them from the template's appearance.
        """
        ...

    def step(self, state: State, frame_rgb: NDArray[np.uint8]) -> tuple[State, Tracks]:
        """Follow the points into the next frame."""
        ...

    def select(self, state: State, keep: NDArray[np.int_]) -> State:
        """The state without all points but those of indices `keep` (K,), in that order; they go on as they were."""
        ...

    def extend(
        self, state: State, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches
    ) -> State:
        """The state with `template`'s points after those it has.

        Args:
            state: after `frame_rgb` was stepped or started with.
            template: the new points, on the same picture as those of the state.
            frame_rgb: (H, W, 3) uint8, the last frame.
            matches: where the new points are in it; as for `start`.
        """
        ...

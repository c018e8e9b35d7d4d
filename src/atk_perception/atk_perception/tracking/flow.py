"""Points carried from one frame to the next by Lucas-Kanade, and back to see whether that can be believed.

Bouguet, "Pyramidal implementation of the Lucas Kanade feature tracker", 2001; Kalal et al., "Forward-backward error", ICPR 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.patches import Float


@dataclass(frozen=True)
class FlowParameters:
    """What can be tuned, with the reason for each value.

    Attributes:
        window_px: side of the window.
        levels: pyramid levels above the image; 3 follow 40 px per frame.
        round_trip_px: largest error of the way there and back.
    """

    window_px: int = 15
    levels: int = 3
    round_trip_px: float = 1.5


def followed(
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    uv_px: Float,
    chosen: NDArray[np.bool_],
    parameters: FlowParameters,
) -> tuple[Float, NDArray[np.bool_]]:
    """Where `chosen` (M,) of the points (M, 2) went, and which of them came back to where they began; others stay.

    Args:
        before, after: (H, W) uint8.

    Returns:
        (M, 2) float32, (M,) bool.
    """
    moved_px, back = uv_px.astype(np.float32).copy(), np.zeros(len(uv_px), np.bool_)
    index = np.flatnonzero(chosen)
    if len(index) == 0:
        return moved_px, back
    start = np.ascontiguousarray(moved_px[index][:, None])
    options = {
        "winSize": (parameters.window_px, parameters.window_px),
        "maxLevel": parameters.levels,
        "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 0.02),
    }
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, None, **options)
    home, returned, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **options)
    error_px = np.linalg.norm(home - start, axis=2)[:, 0]
    good = (found[:, 0] == 1) & (returned[:, 0] == 1) & (error_px < parameters.round_trip_px)
    moved_px[index[good]] = there[good, 0]
    back[index[good]] = True
    return moved_px, back

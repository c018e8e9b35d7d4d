"""Points that came out of hiding elsewhere: found again without a pause, a window of the image at a time.

A tracker looks for a hidden point around the place where its neighbours carry it. What turned or was carried away while a hand
hid it is beyond that. To match the whole image takes as long as several frames, so it is done piecemeal: in one frame out of a few, a
window around one such point. The reference is the scene's own first image, of the same light and view, so that classical features do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.correspondence.sift import SiftMatcher
from atk_perception.correspondence.verification import TemplatePatches
from atk_perception.patches import LEVELS, grey_image, smooth_pyramid


@dataclass(frozen=True)
class RefinderParameters:
    """When and where to look.

    Attributes:
        after_frames: a point unseen for so long is not just behind a fingertip, and its tracker has looked around for it.
        every_frames: one window in so many frames.
        window_px: its side; what an object of 60 px can have moved to either side while it was hidden.
        around_px: how far around the points the first image is known; what is near them moves as they do.
        min_confidence, min_ncc: of a match that is believed. What is around a point may have stayed where it was though the point
            is gone; so it must look like itself too, which in the same light is not asking much.
    """

    after_frames: int = 5
    every_frames: int = 4
    window_px: int = 192
    around_px: int = 48
    min_confidence: float = 0.7
    min_ncc: float = 0.8


class Refinder:
    """Looks for the hidden points of one scene.

    Args:
        frame_rgb: (H, W, 3) the scene's first image.
        matches: where the points are in it. found: (N,) which of them can be relied on.
    """

    def __init__(
        self,
        frame_rgb: NDArray[np.uint8],
        matches: Matches,
        found: NDArray[np.bool_],
        parameters: RefinderParameters | None = None,
    ) -> None:
        self.parameters = parameters or RefinderParameters()
        self._matches, self._found = matches, found
        self._corner_px, self._image_rgb = _around(frame_rgb, matches.uv_px[found], self.parameters.around_px)
        self._matcher = SiftMatcher()
        everything = self._reference(np.arange(len(found)))
        self._matcher.prepare(everything)  # now, while nothing moves yet
        self._patches = TemplatePatches.of(everything)
        self._unseen_frames = np.zeros(len(found), np.int64)
        self._pause = 0
        self._turn = 0

    def look(
        self, frame_rgb: NDArray[np.uint8], uv_px: NDArray[np.float32], visible: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int_], Matches] | None:
        """After every frame: indices (K,) of points that were found again in it, and where; None for none.

        Args:
            uv_px: (N, 2) where the tracker has the points, or takes them to be. visible: (N,).
        """
        self._unseen_frames = np.where(visible, 0, self._unseen_frames + 1)
        self._pause = max(0, self._pause - 1)
        missing = np.flatnonzero(self._found & (self._unseen_frames >= self.parameters.after_frames))
        if len(missing) == 0 or self._pause > 0:
            return None
        self._pause = self.parameters.every_frames
        first = missing[np.argmin((missing - self._turn) % len(visible))]
        self._turn = int(first) + 1

        side = self.parameters.window_px
        height, width = frame_rgb.shape[:2]
        left, top = (
            int(np.clip(round(float(centre)) - side // 2, 0, max(0, size - side)))
            for centre, size in zip(uv_px[first], (width, height), strict=True)
        )
        corner = np.array([left, top], np.float32)
        here = np.all((uv_px[missing] >= corner) & (uv_px[missing] < corner + side), axis=1)
        missing = missing[here | (missing == first)]
        window = np.ascontiguousarray(frame_rgb[top : top + side, left : left + side])
        matches = self._matcher.match(self._reference(missing), window)
        looks = self._patches.aligned(
            smooth_pyramid(grey_image(window), LEVELS), missing, matches.uv_px, matches.warp
        )
        good = (matches.confidence >= self.parameters.min_confidence) & (looks.ncc >= self.parameters.min_ncc)
        if not good.any():
            return None
        index = missing[good]
        # From the template to the first image, and from there to this one.
        warp = matches.warp[good] @ self._matches.warp[index]
        return index, Matches(matches.uv_px[good] + corner, matches.confidence[good], warp)

    def _reference(self, index: NDArray[np.int_]) -> Template:
        return Template(self._image_rgb, self._matches.uv_px[index] - self._corner_px)


def _around(
    frame_rgb: NDArray[np.uint8], uv_px: NDArray[np.float32], margin_px: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(2,) upper left corner and (h, w, 3) the part of an image that holds the points (N, 2) with a margin."""
    height, width = frame_rgb.shape[:2]
    left, top = np.clip(np.floor(uv_px.min(axis=0)) - margin_px, 0, [width, height]).astype(int)
    right, bottom = np.clip(np.ceil(uv_px.max(axis=0)) + margin_px, 0, [width, height]).astype(int)
    return np.array([left, top], np.float32), np.ascontiguousarray(frame_rgb[top:bottom, left:right])

"""Keypoints drawn on the image they were seen in: colour says the state, the id stays legible."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

from atk_perception.image_codec import RgbImage
from atk_perception.keypoint_tracker import KeypointObservation, TrackerState

# RGB; chosen to be told apart also with red-green colour blindness (Okabe and Ito).
TRACKED, OCCLUDED, LOST = (0, 200, 140), (240, 170, 0), (215, 60, 60)
TRAIL_FRAMES = 15
STATE_COLOURS = {
    TrackerState.UNINITIALISED: (150, 150, 150),
    TrackerState.TRACKING: TRACKED,
    TrackerState.LOST: LOST,
    TrackerState.TRANSFER_FAILED: LOST,
}


class Overlay:
    """Draws observations of one image stream, with the way each point came."""

    def __init__(self) -> None:
        self._trail: deque[KeypointObservation] = deque(maxlen=TRAIL_FRAMES)

    def reset(self) -> None:
        """Forget the trails: another scene begins."""
        self._trail.clear()

    def draw(
        self, image_rgb: RgbImage, seen: KeypointObservation, scale: tuple[float, float] = (1.0, 1.0)
    ) -> RgbImage:
        """A copy of the image, (H, W, 3) uint8, with the keypoints on it.

        Args:
            seen: in pixels of the keypoint set's image.
            scale: (u, v) from those pixels to this image's.
        """
        if self._trail and seen.stamp_ns < self._trail[-1].stamp_ns:
            self._trail.clear()
        self._trail.append(seen)
        picture = image_rgb.copy()
        factor = np.asarray(scale, np.float32)
        for k, key in enumerate(seen.ids):
            self._draw_trail(picture, k, factor)
            at = tuple(int(x) for x in np.rint(seen.uv_px[k] * factor))
            colour = self._colour(seen, k)
            if seen.visible[k]:
                cv2.circle(picture, at, 5, (0, 0, 0), -1, cv2.LINE_AA)
                cv2.circle(picture, at, 4, colour, -1, cv2.LINE_AA)
            else:  # hollow: this is where it is believed to be
                cv2.circle(picture, at, 5, (0, 0, 0), 3, cv2.LINE_AA)
                cv2.circle(picture, at, 5, colour, 1, cv2.LINE_AA)
            _label(picture, str(int(key)), (at[0] + 7, at[1] - 6), 0.38)
        visible = int(np.count_nonzero(seen.visible))
        text = f"{seen.tracker_state.name}  {visible}/{len(seen.ids)} visible"
        if seen.tracker_state is not TrackerState.TRACKING:
            text += f"  {seen.reason}"
        _label(picture, text[:90], (8, 18), 0.48, STATE_COLOURS[seen.tracker_state])
        return picture

    def _colour(self, seen: KeypointObservation, k: int) -> tuple[int, int, int]:
        if seen.visible[k]:
            return TRACKED
        return OCCLUDED if seen.tracker_state is TrackerState.TRACKING else LOST

    def _draw_trail(self, picture: RgbImage, k: int, factor: np.ndarray) -> None:
        way = [o.uv_px[k] * factor for o in self._trail if k < len(o.uv_px) and o.visible[k]]
        if len(way) > 1:
            points = np.rint(np.array(way)).astype(np.int32)[:, None]
            cv2.polylines(picture, [points], False, TRACKED, 1, cv2.LINE_AA)


def _label(
    picture: RgbImage,
    text: str,
    at: tuple[int, int],
    size: float,
    colour: tuple[int, int, int] = (255, 255, 255),
) -> None:
    """Text with a dark outline, legible on any background."""
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)

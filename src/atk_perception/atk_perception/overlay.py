"""Keypoints drawn on the image they were seen in: colour says the state, the id stays legible."""

from __future__ import annotations

from collections import deque
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.image_codec import RgbImage
from atk_perception.keypoint_tracker import KeypointObservation, TrackerState

Rgb = tuple[int, int, int]


class PointState(Enum):
    """What is known of one keypoint; the value is its colour, RGB.

    Chosen to be told apart also with red-green colour blindness (Okabe and Ito); the overlay draws points that are
    not seen hollow as well.
    """

    TRACKED = (0, 200, 140)
    OCCLUDED = (240, 170, 0)
    LOST = (215, 60, 60)


TRAIL_FRAMES = 15
STATE_COLOURS: dict[TrackerState, Rgb] = {
    TrackerState.UNINITIALISED: (190, 190, 190),
    TrackerState.TRACKING: PointState.TRACKED.value,
    TrackerState.LOST: (255, 110, 110),
    TrackerState.TRANSFER_FAILED: (255, 110, 110),
}
RADIUS_PX = 4
FONT, LABEL_SIZE, TEXT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.38, 0.48
# Where a label may stand about its point, best first: (right, up), in label sizes beyond the point's radius.
SIDES = [(1, -1), (1, 1), (-1, -1), (-1, 1), (1, 0), (-1, 0), (0, -1), (0, 1)]


def point_states(seen: KeypointObservation) -> list[PointState]:
    """State of every keypoint: seen; not seen while the set is tracked; or lost with the set."""
    unseen = PointState.OCCLUDED if seen.tracker_state is TrackerState.TRACKING else PointState.LOST
    return [PointState.TRACKED if visible else unseen for visible in seen.visible]


def state_text(seen: KeypointObservation) -> str:
    """The tracker's state in one line; the reason where it does not track."""
    text = f"{seen.tracker_state.name}  {int(np.count_nonzero(seen.visible))}/{len(seen.ids)} visible"
    return text if seen.tracker_state is TrackerState.TRACKING else f"{text}  {seen.reason}"


def place_labels(
    points_px: NDArray[np.float32], sizes_px: NDArray[np.float32], image_size: tuple[int, int]
) -> NDArray[np.int64]:
    """Where labels stand so that they hide neither each other nor a point, as far as there is room.

    Args:
        points_px: (N, 2) u, v.
        sizes_px: (N, 2) width and height of the labels.
        image_size: (width, height).

    Returns:
        (N, 2) upper left corners.
    """
    corners = np.zeros((len(points_px), 2), np.int64)
    boxes: list[tuple[float, float, float, float]] = [
        (u - RADIUS_PX, v - RADIUS_PX, u + RADIUS_PX, v + RADIUS_PX) for u, v in points_px
    ]
    for k, ((u, v), (width, height)) in enumerate(zip(points_px, sizes_px, strict=True)):
        best = (np.inf, 0.0, 0.0)
        for rank, (right, down) in enumerate(SIDES):
            gap = RADIUS_PX + 2
            left = u + (gap if right > 0 else -gap - width if right < 0 else -width / 2)
            top = v + (gap if down > 0 else -gap - height if down < 0 else -height / 2)
            if right and down:  # diagonal: closer
                top += -0.5 * gap * down
            box = (left, top, left + width, top + height)
            hidden = sum(_overlap(box, other) for other in boxes)
            inside = _overlap(box, (0.0, 0.0, float(image_size[0]), float(image_size[1])))
            cost = hidden + 2.0 * (width * height - inside) + 0.1 * rank
            best = min(best, (cost, left, top))
        corners[k] = np.rint(best[1:])
        boxes.append((best[1], best[2], best[1] + width, best[2] + height))
    return corners


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Area [px^2] that two boxes (left, top, right, bottom) share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return float(width * height) if width > 0 and height > 0 else 0.0


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
        for k in range(len(seen.ids)):
            self._draw_trail(picture, k, factor)
        # A position that is not finite cannot be drawn; far outside, OpenCV clips.
        points = np.clip(np.nan_to_num(seen.uv_px * factor, nan=-100.0), -1e4, 1e4).astype(np.float32)
        for at, state in zip(points, point_states(seen), strict=True):
            centre = tuple(int(x) for x in np.rint(at))
            if state is PointState.TRACKED:
                cv2.circle(picture, centre, RADIUS_PX + 1, (0, 0, 0), -1, cv2.LINE_AA)
                cv2.circle(picture, centre, RADIUS_PX, state.value, -1, cv2.LINE_AA)
            else:  # hollow: this is where it is believed to be
                cv2.circle(picture, centre, RADIUS_PX + 1, (0, 0, 0), 4, cv2.LINE_AA)
                cv2.circle(picture, centre, RADIUS_PX + 1, state.value, 2, cv2.LINE_AA)
        self._draw_ids(picture, points, [str(int(key)) for key in seen.ids])
        _draw_state(picture, state_text(seen), STATE_COLOURS[seen.tracker_state])
        return picture

    @staticmethod
    def _draw_ids(picture: RgbImage, points: NDArray[np.float32], texts: list[str]) -> None:
        sizes = np.array([cv2.getTextSize(t, FONT, LABEL_SIZE, 1)[0] for t in texts], np.float32) + 2
        height, width = picture.shape[:2]
        corners = place_labels(points, sizes, (width, height))
        for text, (left, top), size in zip(texts, corners, sizes, strict=True):
            _label(picture, text, (int(left) + 1, int(top + size[1]) - 1), LABEL_SIZE)

    def _draw_trail(self, picture: RgbImage, k: int, factor: NDArray[np.float32]) -> None:
        way = [o.uv_px[k] * factor for o in self._trail if k < len(o.uv_px) and o.visible[k]]
        if len(way) > 1:
            points = np.rint(np.array(way)).astype(np.int32)[:, None]
            cv2.polylines(picture, [points], False, PointState.TRACKED.value, 1, cv2.LINE_AA)


def _draw_state(picture: RgbImage, text: str, colour: Rgb) -> None:
    """One line at the top on a darkened strip, cut where the image ends."""
    width = picture.shape[1]
    while len(text) > 4 and cv2.getTextSize(text, FONT, TEXT_SIZE, 1)[0][0] > width - 16:
        text = text[:-4] + "..."
    strip = picture[:24]
    strip[:] = strip // 3
    cv2.putText(picture, text, (8, 17), FONT, TEXT_SIZE, colour, 1, cv2.LINE_AA)


def _label(picture: RgbImage, text: str, at: tuple[int, int], size: float) -> None:
    """White text with a dark outline, legible on any background."""
    cv2.putText(picture, text, at, FONT, size, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(picture, text, at, FONT, size, (255, 255, 255), 1, cv2.LINE_AA)

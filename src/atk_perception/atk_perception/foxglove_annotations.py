"""Keypoints as Foxglove image annotations, in the overlay's colours; only where `foxglove_msgs` is installed.

The viewer draws them over its own image, so that no overlay image need travel.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from atk_perception.keypoint_tracker import KeypointObservation
from atk_perception.overlay import STATE_COLOURS, PointState, Rgb, point_states, state_text

AVAILABLE = importlib.util.find_spec("foxglove_msgs") is not None
DIAMETER_PX, THICKNESS_PX, FONT_PX = 10.0, 2.0, 14.0
# Foxglove's origin is the corner of the first pixel, ours its centre.
CORNER_PX = 0.5


def image_annotations(header: Any, seen: KeypointObservation, scale: tuple[float, float] = (1.0, 1.0)) -> Any:
    """foxglove_msgs/ImageAnnotations: a circle and an id per keypoint, and the tracker's state.

    Args:
        scale: (u, v) from the keypoint set's pixels to the image's.
    """
    from foxglove_msgs.msg import CircleAnnotation, ImageAnnotations, TextAnnotation

    message = ImageAnnotations()
    if hasattr(message, "timestamp"):  # releases since 2025
        message.timestamp = header.stamp
    for key, (u, v), state in zip(seen.ids, seen.uv_px * scale, point_states(seen), strict=True):
        circle = CircleAnnotation(timestamp=header.stamp, diameter=DIAMETER_PX, thickness=THICKNESS_PX)
        circle.position.x, circle.position.y = float(u) + CORNER_PX, float(v) + CORNER_PX
        circle.outline_color = _colour(state.value)
        circle.fill_color = _colour(state.value, 1.0 if state is PointState.TRACKED else 0.0)
        message.circles.append(circle)
        message.texts.append(_text(TextAnnotation, header, str(int(key)), u + 7.0, v - 6.0, (255, 255, 255)))
    colour = STATE_COLOURS[seen.tracker_state]
    message.texts.append(_text(TextAnnotation, header, state_text(seen), 8.0, 18.0, colour))
    return message


def _text(kind: Any, header: Any, text: str, u: float, v: float, colour: Rgb) -> Any:
    label = kind(timestamp=header.stamp, text=text, font_size=FONT_PX)
    label.position.x, label.position.y = float(u), float(v)
    label.text_color = _colour(colour)
    label.background_color = _colour((0, 0, 0), 0.5)
    return label


def _colour(rgb: Rgb, alpha: float = 1.0) -> Any:
    from foxglove_msgs.msg import Color

    red, green, blue = (value / 255.0 for value in rgb)
    return Color(r=red, g=green, b=blue, a=alpha)

"""Keypoints as RViz markers in the optical frame, in the overlay's colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from atk_perception.keypoint_tracker import KeypointObservation
from atk_perception.overlay import STATE_COLOURS, PointState, Rgb, point_states, state_text

FloatArray = NDArray[np.float64]
# A tracker that has ended leaves nothing on the screen; at 2 Hz and more nothing flickers.
LIFETIME = Duration(sec=0, nanosec=500_000_000)
# Shares of the distance, so that markers look alike from 0.3 m and from 3 m.
POINT_SIZE, TEXT_SIZE, STATE_SIZE = 0.02, 0.03, 0.04


def keypoint_markers(
    header: Any, seen: KeypointObservation, points_m: FloatArray, plane_m: float
) -> MarkerArray:
    """Points (namespace 'keypoints'), their ids ('ids') and the tracker's state ('state').

    Args:
        header: of the image.
        points_m: (N, 3) in the optical frame; those that are not finite are left out.
        plane_m: distance at which the state is written, above the points.
    """
    shown = np.asarray(np.isfinite(points_m).all(axis=1))
    distance_m = float(np.median(points_m[shown, 2])) if shown.any() else plane_m
    points = _marker(header, "keypoints", 0, Marker.SPHERE_LIST, POINT_SIZE * distance_m)
    points.color = _colour(PointState.TRACKED.value)
    markers = [points]
    for key, state, (x, y, z), is_shown in zip(seen.ids, point_states(seen), points_m, shown, strict=True):
        if not is_shown:
            continue
        # What is not seen is drawn, paler, where it is believed to be.
        colour = _colour(state.value, 1.0 if state is PointState.TRACKED else 0.6)
        points.points.append(Point(x=float(x), y=float(y), z=float(z)))
        points.colors.append(colour)
        label = _marker(header, "ids", int(key), Marker.TEXT_VIEW_FACING, TEXT_SIZE * distance_m)
        label.text, label.color = str(int(key)), _colour((255, 255, 255))
        label.pose.position = Point(x=float(x), y=float(y) - TEXT_SIZE * distance_m, z=float(z))
        markers.append(label)
    state_marker = _marker(header, "state", 0, Marker.TEXT_VIEW_FACING, STATE_SIZE * distance_m)
    state_marker.text = state_text(seen)
    state_marker.color = _colour(STATE_COLOURS[seen.tracker_state])
    top_m = float(points_m[shown, 1].min()) if shown.any() else 0.0
    middle_m = float(np.median(points_m[shown, 0])) if shown.any() else 0.0
    state_marker.pose.position = Point(x=middle_m, y=top_m - 3 * STATE_SIZE * distance_m, z=distance_m)
    markers.append(state_marker)
    return MarkerArray(markers=markers)


def _marker(header: Any, namespace: str, number: int, kind: int, size_m: float) -> Marker:
    # Marker ids are signed, keypoint ids are not.
    marker = Marker(header=header, ns=namespace, id=number % 2**31, type=kind, action=Marker.ADD)
    marker.pose.orientation.w = 1.0
    marker.scale.x = marker.scale.y = marker.scale.z = size_m
    marker.lifetime = LIFETIME
    return marker


def _colour(rgb: Rgb, alpha: float = 1.0) -> ColorRGBA:
    red, green, blue = (value / 255.0 for value in rgb)
    return ColorRGBA(r=red, g=green, b=blue, a=alpha)

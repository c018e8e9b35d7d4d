"""Poses: (4, 4) matrices T_a_b that take points of frame b into frame a, and how files and messages write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class FrameError(ValueError):
    """Two frames are not connected; the message says which are known."""


def pose(translation_m: Sequence[float], rotation_xyzw: Sequence[float]) -> FloatArray:
    """(4, 4) of a translation [m] and a quaternion, which is normalised."""
    x, y, z, w = np.asarray(rotation_xyzw, np.float64) / np.linalg.norm(rotation_xyzw)
    T = np.eye(4)
    T[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    T[:3, 3] = translation_m
    return T


def pose_from_rpy(translation_m: Sequence[float], rpy_rad: Sequence[float]) -> FloatArray:
    """(4, 4) of a translation [m] and fixed-axis roll, pitch, yaw [rad] (REP 103, as URDF writes them)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy_rad), np.sin(rpy_rad)
    T = np.eye(4)
    T[:3, :3] = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    T[:3, 3] = translation_m
    return T


def quaternion_xyzw(T: FloatArray) -> FloatArray:
    """(4,) unit quaternion of a pose's rotation, w not negative."""
    R = T[:3, :3]
    # The largest of the four is computed first, so that none is divided by something small (Shepperd 1978).
    squares = np.array(
        [
            1 + R[0, 0] - R[1, 1] - R[2, 2],
            1 - R[0, 0] + R[1, 1] - R[2, 2],
            1 - R[0, 0] - R[1, 1] + R[2, 2],
            1 + np.trace(R),
        ]
    )
    products = np.array(
        [
            [squares[0], R[0, 1] + R[1, 0], R[0, 2] + R[2, 0], R[2, 1] - R[1, 2]],
            [R[0, 1] + R[1, 0], squares[1], R[1, 2] + R[2, 1], R[0, 2] - R[2, 0]],
            [R[0, 2] + R[2, 0], R[1, 2] + R[2, 1], squares[2], R[1, 0] - R[0, 1]],
            [R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1], squares[3]],
        ]
    )
    q = products[int(np.argmax(squares))]
    q = q / np.linalg.norm(q)
    return np.asarray(-q if q[3] < 0 else q)


def inverse(T: FloatArray) -> FloatArray:
    """T_b_a of T_a_b."""
    back = np.eye(4)
    back[:3, :3] = T[:3, :3].T
    back[:3, 3] = -T[:3, :3].T @ T[:3, 3]
    return back


def difference(one: FloatArray, other: FloatArray) -> tuple[float, float]:
    """How far two poses are apart: distance [m], angle [rad]."""
    turn = one[:3, :3].T @ other[:3, :3]
    # The arccosine of the trace loses half the digits near 0.
    sine = np.linalg.norm([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2
    angle_rad = float(np.arctan2(sine, (np.trace(turn) - 1) / 2))
    return float(np.linalg.norm(one[:3, 3] - other[:3, 3])), angle_rad


def mean_pose(poses: Sequence[FloatArray]) -> FloatArray:
    """The mean translation, and the rotation nearest to the mean of the matrices (chordal mean)."""
    stacked = np.stack(poses)
    left, _, right = np.linalg.svd(stacked[:, :3, :3].mean(axis=0))
    T = np.eye(4)
    T[:3, :3] = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    T[:3, 3] = stacked[:, :3, 3].mean(axis=0)
    return T


def pose_of_message(message: Any) -> FloatArray:
    """(4, 4) of a geometry_msgs Pose or Transform.

    Raises:
        ValueError: it is not finite, or its quaternion is 0.
    """
    place = getattr(message, "position", None) or message.translation
    turn = getattr(message, "orientation", None) or message.rotation
    translation, quaternion = [place.x, place.y, place.z], [turn.x, turn.y, turn.z, turn.w]
    if not np.isfinite([*translation, *quaternion]).all() or np.linalg.norm(quaternion) < 1e-6:
        raise ValueError(f"a pose with translation {translation} and quaternion (x, y, z, w) {quaternion}")
    return pose(translation, quaternion)


class TransformTree:
    """The newest transform of every frame, from /tf and /tf_static: all that a camera that stands needs of TF."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, FloatArray]] = {}

    def add(self, message: Any) -> None:
        """Take the transforms of a tf2_msgs/TFMessage."""
        for stamped in message.transforms:
            T_parent_child = pose_of_message(stamped.transform)
            self._parents[_name(stamped.child_frame_id)] = (_name(stamped.header.frame_id), T_parent_child)

    def look_up(self, target: str, source: str) -> FloatArray:
        """T_target_source (4, 4).

        Raises:
            FrameError: they are not connected.
        """
        target, source = _name(target), _name(source)
        above_target, above_source = self._to_root(target), self._to_root(source)
        for frame, T_frame_source in above_source.items():
            if frame in above_target:
                return inverse(above_target[frame]) @ T_frame_source
        known = sorted({*self._parents, *(parent for parent, _ in self._parents.values())})
        raise FrameError(f"TF does not connect '{source}' with '{target}'; it knows {known or 'no frame'}")

    def _to_root(self, frame: str) -> dict[str, FloatArray]:
        """T_ancestor_frame of the frame itself and all above it, nearest first."""
        found, T = {frame: np.eye(4)}, np.eye(4)
        while frame in self._parents:
            frame, T_parent_child = self._parents[frame]
            if frame in found:
                raise FrameError(f"TF has a loop through '{frame}'")
            T = T_parent_child @ T
            found[frame] = T
        return found


def _name(frame: str) -> str:
    return frame.lstrip("/")

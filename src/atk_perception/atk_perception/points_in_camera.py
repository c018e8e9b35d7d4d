"""Keypoints as points in the camera's optical frame (REP 103: z forward, x right, y down)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from atk_perception.image_codec import DepthImage

FloatArray = NDArray[np.float64]
# Readings of a depth camera fail at the edges of things; the median of so many pixels about a point is steady.
WINDOW_PX = 5


class CalibrationError(ValueError):
    """A camera_info that gives no geometry; the message says why."""


def intrinsics(camera_info: Any) -> FloatArray:
    """(3, 3) of a sensor_msgs/CameraInfo.

    Raises:
        CalibrationError: it is uncalibrated (k[0] is 0), as the message's definition has it.
    """
    K = np.asarray(camera_info.k, np.float64).reshape(3, 3)
    if K[0, 0] == 0.0 or K[1, 1] == 0.0:
        raise CalibrationError("camera_info is uncalibrated (k[0] is 0); calibrate the camera")
    return K


def depth_at(depth_m: DepthImage, uv_px: FloatArray) -> FloatArray:
    """(N,) depth [m] at pixels: the median of the readings about each; NaN where there is none.

    Args:
        depth_m: (H, W), NaN or 0 where there is no reading.
        uv_px: (N, 2) in pixels of the depth image.
    """
    height, width = depth_m.shape
    reach = WINDOW_PX // 2
    found = np.full(len(uv_px), np.nan)
    for k, (u, v) in enumerate(uv_px):
        if not (-0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5):
            continue
        column, row = round(float(u)), round(float(v))
        near = depth_m[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        readings = near[np.isfinite(near) & (near > 0.0)]
        if readings.size:
            found[k] = float(np.median(readings))
    return found


def points_in_camera(uv_px: FloatArray, K: FloatArray, z_m: FloatArray) -> FloatArray:
    """(N, 3) points [m] behind (N, 2) pixels of a pinhole camera K, at (N,) depths."""
    x = z_m * (uv_px[:, 0] - K[0, 2]) / K[0, 0]
    y = z_m * (uv_px[:, 1] - K[1, 2]) / K[1, 1]
    return np.stack([x, y, z_m], axis=1)

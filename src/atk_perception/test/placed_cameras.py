"""Cameras about a table, for tests of viewpoints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from atk_perception.camera_calibration import CameraCalibration
from atk_perception.rigid_transforms import quaternion_xyzw
from atk_perception.viewpoint import PlacedCamera

WIDTH, HEIGHT, FOCAL_PX = 640, 480, 700.0
DISTORTIONS = {
    "plumb_bob": (-0.35, 0.05, 0.0002, 0.0001, 0.0),
    "rational_polynomial": (0.9, 0.3, 0.0001, -0.0002, 0.01, 1.2, 0.45, 0.05),
    "equidistant": (0.02, -0.01, 0.004, -0.001),
}


def looking_at(position_m, target_m=(0.5, 0.0, 0.0), roll_rad: float = 0.0) -> np.ndarray:
    """(4, 4) pose of an optical frame at a position, its z axis through the target."""
    forward = np.subtract(target_m, position_m)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll_rad), np.sin(roll_rad)
    T = np.eye(4)
    T[:3, :3] = np.stack([c * right + s * down, c * down - s * right, forward], axis=1)
    T[:3, 3] = position_m
    return T


def camera_at(
    position_m=(1.0, 0.0, 0.6), roll_rad: float = 0.0, model: str = "", focal_px: float = FOCAL_PX
) -> PlacedCamera:
    """640x480, looking at the table; `model` names its distortion."""
    K = np.array([[focal_px, 0, (WIDTH - 1) / 2 + 4], [0, focal_px + 3, (HEIGHT - 1) / 2 - 5], [0, 0, 1.0]])
    distortion = np.array(DISTORTIONS.get(model, ()), np.float64)
    return PlacedCamera(
        WIDTH, HEIGHT, K, looking_at(position_m, roll_rad=roll_rad), distortion, model or "plumb_bob"
    )


def calibration_of(camera: PlacedCamera, base_frame: str = "base") -> CameraCalibration:
    return CameraCalibration(
        base_frame=base_frame,
        image_width=camera.width,
        image_height=camera.height,
        camera_matrix=tuple(camera.K.ravel().tolist()),
        distortion_model=camera.distortion_model,
        distortion=tuple(camera.distortion.tolist()),
        translation_m=tuple(camera.T_base_camera[:3, 3].tolist()),
        rotation_xyzw=tuple(quaternion_xyzw(camera.T_base_camera).tolist()),
    )


@st.composite
def cameras(draw: st.DrawFn, distorted: bool = True) -> PlacedCamera:
    """Anywhere above the far side of the table, turned by up to half a radian about its axis, of any model."""
    position_m = (
        draw(st.floats(0.75, 1.4)),
        draw(st.floats(-0.5, 0.5)),
        draw(st.floats(0.35, 1.0)),
    )
    model = draw(st.sampled_from(["", *DISTORTIONS])) if distorted else ""
    camera = camera_at(position_m, draw(st.floats(-0.5, 0.5)), model, draw(st.floats(500.0, 900.0)))
    assert camera.distortion_model == (model or "plumb_bob")
    return replace(camera)

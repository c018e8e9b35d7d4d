"""Pinhole camera: intrinsics, placement, projection (REP 103 optical frame: z forward, x right, y down)."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atk_perception.camera_calibration import CameraCalibration
from atk_perception.rigid_transforms import quaternion_xyzw

# The robot's base stands in the world's origin.
BASE_FRAME = "world"

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class CameraPlacement:
    """A fixed camera: where it is, what it looks at, how wide it sees, how far it is turned about its optical axis."""

    position_m: tuple[float, float, float]
    target_m: tuple[float, float, float]
    vertical_field_rad: float
    roll_rad: float = 0.0

    @property
    def T_world_camera(self) -> FloatArray:
        """(4, 4) pose of the optical frame in the world; without roll the image's horizon is level."""
        forward = np.subtract(self.target_m, self.position_m)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        cosine, sine = np.cos(self.roll_rad), np.sin(self.roll_rad)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([cosine * right + sine * down, cosine * down - sine * right, forward], axis=1)
        pose[:3, 3] = self.position_m
        return pose

    def gone_around(self, angle_rad: float) -> "CameraPlacement":
        """The same camera after a walk around what it looks at, counterclockwise seen from above."""
        dx, dy, dz = np.subtract(self.position_m, self.target_m)
        c, s = np.cos(angle_rad), np.sin(angle_rad)
        position_m = np.add(self.target_m, (c * dx - s * dy, s * dx + c * dy, dz))
        x, y, z = (float(value) for value in position_m)
        return replace(self, position_m=(x, y, z))

    def intrinsics(self, width: int, height: int) -> FloatArray:
        """(3, 3) camera matrix K [px] with pixel centres at integers."""
        focal_px = height / 2 / np.tan(self.vertical_field_rad / 2)
        return np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]])

    def calibration(self, width: int, height: int) -> CameraCalibration:
        """What calibrating it would find, if nothing were ever measured wrong."""
        return CameraCalibration(
            base_frame=BASE_FRAME,
            image_width=width,
            image_height=height,
            camera_matrix=tuple(self.intrinsics(width, height).ravel().tolist()),
            translation_m=tuple(self.T_world_camera[:3, 3].tolist()),
            rotation_xyzw=tuple(quaternion_xyzw(self.T_world_camera).tolist()),
        )


def project(points_m: FloatArray, T_world_camera: FloatArray, K: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Pixels (N, 2) and depths (N,) [m] of points (N, 3) in the world; behind the camera the depth is negative."""
    in_camera = (points_m - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
    depth_m = in_camera[:, 2]
    homogeneous = in_camera @ K.T
    return homogeneous[:, :2] / np.where(np.abs(depth_m) < 1e-9, 1e-9, depth_m)[:, None], depth_m


def back_project(
    uv_px: FloatArray, depth_m: FloatArray, T_world_camera: FloatArray, K: FloatArray
) -> FloatArray:
    """World points (N, 3) [m] seen at pixels (N, 2) with depths (N,) along the optical axis."""
    rays = np.concatenate([uv_px, np.ones((len(uv_px), 1))], axis=1) @ np.linalg.inv(K).T
    points: FloatArray = (rays * depth_m[:, None]) @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
    return points

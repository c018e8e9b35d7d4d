"""Where a live camera stands, from whoever says it: a calibration file, a topic, or TF. Messages in, a `PlacedCamera` out."""

from __future__ import annotations

from typing import Any

import numpy as np

from atk_perception.camera_calibration import CameraCalibration, CameraCalibrationError
from atk_perception.keypoint_set import KeypointSet
from atk_perception.points_in_camera import CalibrationError
from atk_perception.rigid_transforms import (
    FloatArray,
    FrameError,
    TransformTree,
    difference,
    pose_of_message,
)
from atk_perception.robot_description import Camera, RobotDescription
from atk_perception.viewpoint import VIEWPOINTS, PlacedCamera, Plane, Viewpoint

POSE_SOURCES = ("calibration", "topic", "tf")
# A driver's intrinsics that differ by more than this from the calibration's are those of another setting.
FOCAL_TOLERANCE = 0.02


class ViewpointError(ValueError):
    """Keypoints cannot be reprojected; the message says what is missing, and where it belongs."""


def make_viewpoint(name: str, keypoint_set: KeypointSet, robot: RobotDescription) -> Viewpoint | None:
    """The viewpoint of this name for a keypoint set; None for 'none'. The live camera is still to be placed.

    Raises:
        ViewpointError: no such name, or the robot description lacks what it needs.
        KeypointSetError: the set does not say where the training camera stood.
    """
    if name not in VIEWPOINTS:
        raise ViewpointError(f"unknown viewpoint '{name}'; known: {', '.join(VIEWPOINTS)}")
    if name == "none":
        return None
    plane: Plane | None = None
    if name == "plane":
        if robot.work_plane is None:
            raise ViewpointError(
                f"viewpoint 'plane' needs to know the plane, and robot '{robot.name}' has no entry 'work_plane'. Add it, as "
                "work_plane: {point_m: [0.5, 0.0, 0.02], normal: [0, 0, 1]}, in the frame of the camera calibration"
            )
        plane = robot.work_plane.plane
    return Viewpoint(keypoint_set.training_camera, plane, keypoint_set.uv_px)


def require_same_base(training: CameraCalibration | None, base_frame: str, who: str) -> None:
    """Refuse a pose in another frame than that of the training camera's pose.

    Raises:
        ViewpointError: naming both.
    """
    if training is not None and training.base_frame.lstrip("/") != base_frame.lstrip("/"):
        raise ViewpointError(
            f"{who} is in frame '{base_frame}', that of the training camera in '{training.base_frame}'; both must be in one "
            "frame that does not move, as the robot's base"
        )


class CameraPlacing:
    """What is known of one live camera, by messages as they come. `camera` is replaced whole, so any thread may read it.

    Args:
        keypoint_set: names the camera, and the frame that its pose was in.
        robot: has the camera's calibration.
        source: one of `POSE_SOURCES`.

    Raises:
        ViewpointError: no such source, no such camera, or a calibration that is missing or in another frame.
    """

    def __init__(self, keypoint_set: KeypointSet, robot: RobotDescription, source: str) -> None:
        if source not in POSE_SOURCES:
            raise ViewpointError(f"unknown pose_from '{source}'; known: {', '.join(POSE_SOURCES)}")
        self.source = source
        self._camera = _camera_of(robot, keypoint_set.camera_name)
        assert keypoint_set.calibration is not None  # make_viewpoint has refused it
        self._training = keypoint_set.calibration
        self._info: Any = None
        self._pose: FloatArray | str = "nobody has said on camera/pose where the camera stands"
        self._tree = TransformTree()
        # Where the camera stands, or why that is not known.
        self.camera: PlacedCamera | str = "no camera_info yet, which says what pixels mean"
        if source == "calibration":
            if self._camera.calibration is None:
                raise ViewpointError(
                    f"camera '{self._camera.name}' of robot '{robot.name}' has no entry 'calibration', which says where it "
                    "stands now. Write one with 'ros2 run atk_perception calibrate_camera' and name it there, or set "
                    "pose_from to 'tf' or 'topic'"
                )
            require_same_base(self._training, self._camera.calibration.base_frame, "the calibration")
            self.camera = self._camera.calibration.camera
        elif source == "tf":
            self._pose = f"TF has not said yet where '{self._camera.frame_id}' is"

    def describe(self) -> str:
        """One line for a person: how far the camera stands from where it was in training, as far as it is known."""
        if isinstance(self.camera, str):
            return f"camera '{self._camera.name}': its pose comes from {self.source}"
        metres, radians = difference(self._training.T_base_camera, self.camera.T_base_camera)
        return (
            f"camera '{self._camera.name}' stands {100 * metres:.1f} cm and {np.degrees(radians):.1f} degrees from where it "
            "was in the demonstrations"
        )

    def add_camera_info(self, message: Any) -> None:
        """A sensor_msgs/CameraInfo of the live camera."""
        info = self._info
        if info is not None and info.width == message.width and np.array_equal(info.k, message.k):
            return
        self._info = message
        self._update()

    def add_pose(self, message: Any) -> None:
        """A geometry_msgs/PoseStamped: the optical frame's pose in the frame of the header."""
        try:
            require_same_base(self._training, message.header.frame_id, "the pose on camera/pose")
            self._pose = pose_of_message(message.pose)
        except ValueError as error:
            self._pose = str(error)
        self._update()

    def add_tf(self, message: Any) -> None:
        """A tf2_msgs/TFMessage, static or not."""
        try:
            self._tree.add(message)
            pose = self._tree.look_up(self._training.base_frame, self._camera.frame_id)
        except FrameError as error:
            self._pose = str(error)
        except ValueError as error:
            self._pose = f"TF holds {error}"
        else:
            if isinstance(self._pose, np.ndarray) and np.array_equal(pose, self._pose):
                return  # of another part of the robot
            self._pose = pose
        self._update()

    def _update(self) -> None:
        calibrated = self._camera.calibration
        if self.source == "calibration" and calibrated is not None:
            self.camera = _unless_another_setting(calibrated.camera, self._info)
        elif isinstance(self._pose, str):
            self.camera = self._pose
        elif self._info is not None:
            try:
                self.camera = CameraCalibration.of(
                    self._info, self._pose, self._training.base_frame, rectified=self._camera.is_rectified
                ).camera
            except (CalibrationError, CameraCalibrationError) as error:
                self.camera = str(error)


def _unless_another_setting(calibrated: PlacedCamera, info: Any) -> PlacedCamera | str:
    """The calibration, unless the driver has said that it takes other pictures than it was made for."""
    focal_px = float(info.k[0]) * calibrated.width / max(int(info.width), 1)
    # An uncalibrated driver (0) says nothing against it.
    if focal_px and abs(focal_px / float(calibrated.K[0, 0]) - 1.0) > FOCAL_TOLERANCE:
        return (
            f"camera_info has a focal length of {focal_px:.1f} px at {calibrated.width} px of width, the calibration "
            f"{calibrated.K[0, 0]:.1f} px: the camera runs in another setting; calibrate it in this one"
        )
    return calibrated


def _camera_of(robot: RobotDescription, name: str) -> Camera:
    for camera in robot.cameras:
        if camera.name == name:
            return camera
    raise ViewpointError(
        f"robot '{robot.name}' has no camera '{name}', which the keypoint set is of; it has "
        f"{[camera.name for camera in robot.cameras]}"
    )

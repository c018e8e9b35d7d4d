"""What a bag says of the places behind its pixels: where a camera stood, told by the bag itself wherever it can, and depth."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from atk_perception.camera_calibration import CameraCalibration, CameraCalibrationError
from atk_perception.camera_placing import ViewpointError, make_viewpoint, require_same_base
from atk_perception.frames import BagError, bag_messages, bag_robot, bag_topics, stamp_ns_of
from atk_perception.image_codec import DepthImage, depth_from_message
from atk_perception.keypoint_set import KeypointSet
from atk_perception.points_in_camera import CalibrationError
from atk_perception.rigid_transforms import FloatArray, FrameError, TransformTree, pose_of_message
from atk_perception.robot_description import Camera, RobotDescription
from atk_perception.viewpoint import Viewpoint

TF_TOPIC = "tf_static"
# A depth image this much older or newer than an image is of another moment: one of three at 30 Hz.
DEPTH_AGE_NS = 50_000_000


def bag_calibration(path: Path | str, robot: RobotDescription, camera: Camera) -> CameraCalibration | None:
    """Intrinsics and pose of `camera`, from the first of: the robot file inside the bag; camera_info with the camera's
    pose topic or with static TF, both in the bag; `robot`. None where none of them says it.

    Raises:
        BagError: the bag is damaged, or what it says cannot be used.
    """
    recorded = bag_robot(path)
    for candidate in recorded.cameras if recorded is not None else ():
        if candidate.name == camera.name and candidate.calibration is not None:
            return candidate.calibration
    return _told_by_topics(Path(path), robot, camera) or camera.calibration


def _told_by_topics(path: Path, robot: RobotDescription, camera: Camera) -> CameraCalibration | None:
    info_topic, pose_topic = camera.camera_info_topic.lstrip("/"), camera.pose_topic.lstrip("/")
    counts = bag_topics(path)
    base_frame = robot.kinematics.base_frame if robot.kinematics is not None else ""
    by_pose, by_tf = counts.get(pose_topic, 0) > 0, counts.get(TF_TOPIC, 0) > 0 and base_frame != ""
    if not counts.get(info_topic) or not (by_pose or by_tf):
        return None
    info: Any = None
    placed: tuple[FloatArray, str] | None = None
    tree = TransformTree()
    for topic, _, message in bag_messages(path, [info_topic, pose_topic if by_pose else TF_TOPIC]):
        try:
            if topic == info_topic:
                info = message
            elif topic == pose_topic:
                placed = pose_of_message(message.pose), message.header.frame_id
            else:
                tree.add(message)
                placed = tree.look_up(base_frame, camera.frame_id), base_frame
        except FrameError:
            continue  # other publishers may still tell
        except ValueError as error:
            raise BagError(f"bag {path}: {topic} holds {error}") from error
        # A pose counts from the first image on; what a simulator told before its reset does not.
        if info is not None and placed is not None:
            try:
                return CameraCalibration.of(
                    info,
                    placed[0],
                    placed[1] or "unnamed",
                    rectified=camera.is_rectified,
                    estimated={"recorded": pose_topic if by_pose else TF_TOPIC},
                )
            except CalibrationError:
                return None  # images serve without; who wants to reproject is told what is missing
            except CameraCalibrationError as error:
                raise BagError(f"bag {path}: {error}") from error
    return None


class BagDepth:
    """The depth images of a camera in a bag, in step with its images."""

    def __init__(self, path: Path | str, camera: Camera) -> None:
        self._messages = bag_messages(path, [camera.registered_depth_topic])
        self._waiting: deque[Any] = deque()

    def at(self, stamp_ns: int) -> DepthImage | None:
        """The one nearest to a stamp, if it is of about it. Ask by growing stamps.

        Raises:
            BagError: the bag is damaged. ImageFormatError: it holds no depth.
        """
        while not self._waiting or stamp_ns_of(self._waiting[-1]) < stamp_ns:
            message = next(self._messages, None)
            if message is None:
                break
            self._waiting.append(message[2])
        while len(self._waiting) > 1 and self._off(1, stamp_ns) <= self._off(0, stamp_ns):
            self._waiting.popleft()
        if not self._waiting or self._off(0, stamp_ns) > DEPTH_AGE_NS:
            return None
        return depth_from_message(self._waiting[0])

    def _off(self, number: int, stamp_ns: int) -> int:
        return abs(stamp_ns_of(self._waiting[number]) - stamp_ns)


def bag_viewpoint(
    name: str, path: Path | str, keypoint_set: KeypointSet, robot: RobotDescription, camera: Camera
) -> tuple[Viewpoint | None, BagDepth | None]:
    """The viewpoint of this name for a bag of `camera`, placed where the camera stood, and the depth that it needs.

    Raises:
        ViewpointError, KeypointSetError: see `make_viewpoint`; or the bag does not say where its camera stood, or has no
            depth.
        BagError: see `bag_calibration`.
    """
    viewpoint = make_viewpoint(name, keypoint_set, robot)
    if viewpoint is None:
        return None, None
    calibration = bag_calibration(path, robot, camera)
    if calibration is None:
        raise ViewpointError(
            f"bag {path} does not say where camera '{camera.name}' stood: it has no {camera.pose_topic} with "
            f"{camera.camera_info_topic}, and neither its robot description nor the given one has camera.calibration"
        )
    require_same_base(keypoint_set.calibration, calibration.base_frame, f"the camera's pose in bag {path}")
    viewpoint.place(calibration.camera)
    if not viewpoint.needs_depth:
        return viewpoint, None
    if not bag_topics(path).get(camera.registered_depth_topic.lstrip("/")):
        raise ViewpointError(
            f"bag {path} has no depth images on {camera.registered_depth_topic}; record them (the recorder's extra_topics), "
            "name their topic as camera.depth_topic, or use viewpoint 'plane'"
        )
    return viewpoint, BagDepth(path, camera)

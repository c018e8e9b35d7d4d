"""Where a camera stood when a bag was recorded: told by the bag itself wherever it can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atk_perception.camera_calibration import CameraCalibration, CameraCalibrationError
from atk_perception.frames import BagError, bag_messages, bag_robot, bag_topics
from atk_perception.points_in_camera import CalibrationError
from atk_perception.rigid_transforms import FloatArray, FrameError, TransformTree, pose_of_message
from atk_perception.robot_description import Camera, RobotDescription

TF_TOPIC = "tf_static"


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

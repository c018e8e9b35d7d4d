"""Demonstrations to a LeRobotDataset and back, through the lerobot package itself (format v3.0).

    observation.state               (J + 1,) measured joint positions [rad], gripper opening [m]
    action                          (J + 1,) commanded ones
    observation.images.CAMERA       (H, W, 3) RGB
    observation.keypoints.uv_px     (N, 2) with a keypoint set: tracks in pixels of its template
    observation.keypoints.visible   (N,) 1 where seen
    observation.keypoints.confidence (N,)

What is exported are aligned frames (`frames.read_frames`), one per control period: what a policy is trained on here is
what it would be trained on there. The robot description and the bags' names go along in `meta/atk.json`, so that an
import gives the same robot. lerobot is optional: `pip install lerobot`; nothing else of this stack needs it.

Source: huggingface/lerobot, lerobot/datasets (0.4: create, add_frame, save_episode, finalize).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from atk_perception.demonstration_topics import with_gripper_topic
from atk_perception.frames import BagError, Frame, bag_label, read_frames
from atk_perception.image_codec import RgbImage
from atk_perception.keypoint_tracker import KeypointObservation, KeypointTracker
from atk_perception.recording import DemonstrationWriter
from atk_perception.robot_description import RobotDescription

STATE, ACTION, KEYPOINTS = "observation.state", "action", "observation.keypoints"
SIDECAR = "meta/atk.json"
SIDECAR_VERSION = 1
# Imported bags begin here: stamp 0 means "no stamp" to many ROS tools.
START_NS = 1_000_000_000
# A frame whose stamp lies this share of a period beside its place in LeRobot's even time is another frame.
PERIOD_TOLERANCE = 0.5


class LeRobotError(ValueError):
    """A dataset cannot be written or read; the message says what it holds and what to do."""


@dataclass(frozen=True)
class Exported:
    """What was written: the folder, episodes, frames, and keypoints per frame (0 without tracks)."""

    root: Path
    episodes: int
    frames: int
    keypoints: int


def lerobot_dataset_class() -> Any:
    """LeRobotDataset of the installed lerobot.

    Raises:
        LeRobotError: it is not installed, or of a release with another format.
    """
    try:
        from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset
    except ImportError as error:
        raise LeRobotError(
            f"lerobot cannot be imported ({error}); it is optional: 'pip install lerobot' (0.4 or newer), best in an "
            "environment of its own, since it pins torch"
        ) from error
    if not str(CODEBASE_VERSION).startswith("v3"):
        raise LeRobotError(
            f"the installed lerobot writes datasets of format {CODEBASE_VERSION}; v3 is supported (lerobot 0.4 or newer)"
        )
    return LeRobotDataset


def features(
    robot: RobotDescription, image_shape: tuple[int, ...], keypoints: int, *, video: bool
) -> dict[str, Any]:
    """The dataset's features, as `LeRobotDataset.create` takes them."""
    names = [*robot.joints.names, "gripper_opening"]
    found: dict[str, Any] = {
        STATE: {"dtype": "float32", "shape": (robot.action_size,), "names": names},
        ACTION: {"dtype": "float32", "shape": (robot.action_size,), "names": names},
        f"observation.images.{robot.camera.name}": {
            "dtype": "video" if video else "image",
            "shape": tuple(image_shape),
            "names": ["height", "width", "channels"],
        },
    }
    if keypoints:
        found[f"{KEYPOINTS}.uv_px"] = {
            "dtype": "float32",
            "shape": (keypoints, 2),
            "names": ["keypoint", "uv"],
        }
        for name in ("visible", "confidence"):
            found[f"{KEYPOINTS}.{name}"] = {"dtype": "float32", "shape": (keypoints,), "names": None}
    return found


def export_demonstrations(
    bags: Sequence[Path],
    robot: RobotDescription,
    root: Path,
    *,
    task: str,
    repo_id: str,
    make_tracker: Callable[[], KeypointTracker] | None = None,
    video: bool = True,
    report: Callable[[str], None] = lambda name: None,
) -> Exported:
    """Write bags as the episodes of a new dataset.

    Args:
        root: folder of the dataset; must not exist.
        task: what the demonstrations do, in words; lerobot's policies are conditioned on it.
        repo_id: name of the dataset, as 'me/sushi'; nothing is uploaded.
        make_tracker: gives a fresh tracker per bag; its tracks become features.
        video: images as H.264/AV1 video, small and slightly lossy; else as PNG, exact.
        report: called with the name of every bag that is done.

    Raises:
        LeRobotError: lerobot is missing, or the folder exists.
        BagError, JointStateError, ImageFormatError: see `read_frames`.
    """
    dataset_class = lerobot_dataset_class()
    if root.exists():
        raise LeRobotError(f"{root} exists already; give another folder, or move it away")
    if not bags:
        raise LeRobotError("no bag was given")
    dataset: Any = None
    count = keypoints = 0
    camera = f"observation.images.{robot.camera.name}"
    names: list[dict[str, Any]] = []
    try:
        for bag in bags:
            tracker = None if make_tracker is None else make_tracker()
            episode = 0
            for frame in _frames_with_tracks(bag, robot, tracker):
                image, seen = frame.payload
                if dataset is None:
                    keypoints = 0 if seen is None else len(seen.ids)
                    dataset = dataset_class.create(
                        repo_id=repo_id,
                        fps=_whole(robot.control_rate_hz),
                        features=features(robot, image.shape, keypoints, video=video),
                        root=root,
                        robot_type=robot.name,
                        use_videos=video,
                    )
                dataset.add_frame({**_row(frame, camera), "task": task})
                episode += 1
            if not episode:
                raise BagError(
                    f"bag {bag} has no frame in which image, joint state and command overlap in time"
                )
            dataset.save_episode()
            names.append({"bag": bag.name, "label": bag_label(bag), "frames": episode})
            count += episode
            report(bag.name)
        dataset.finalize()
    except BaseException:
        if root.exists():  # half a dataset would be taken for a whole one
            shutil.rmtree(root)
        raise
    sidecar: dict[str, Any] = {
        "format_version": SIDECAR_VERSION,
        "robot": robot.dump(),
        "episodes": names,
    }
    if make_tracker is not None:
        keypoint_set = make_tracker().keypoint_set
        sidecar["keypoint_set"] = {"name": keypoint_set.name, "ids": keypoint_set.ids.tolist()}
    (root / SIDECAR).write_text(json.dumps(sidecar, indent=2) + "\n")
    return Exported(root, len(bags), count, keypoints)


def _whole(rate_hz: float) -> int:
    if abs(rate_hz - round(rate_hz)) > 1e-6:
        raise LeRobotError(f"lerobot takes whole frames per second, the control rate is {rate_hz} Hz")
    return round(rate_hz)


Payload = tuple[RgbImage, KeypointObservation | None]


def _frames_with_tracks(
    bag: Path, robot: RobotDescription, tracker: KeypointTracker | None
) -> Iterator[Frame[Payload]]:
    """Frames whose payload is the image and what the tracker, which sees every image, answered to it."""

    def observe(stamp_ns: int, image: RgbImage) -> Payload:
        return image, None if tracker is None else tracker.update(stamp_ns, image)

    period_ns, previous_ns = robot.control_period_ns, None
    for frame in read_frames(bag, robot, observe):
        gap_ns = period_ns if previous_ns is None else frame.stamp_ns - previous_ns
        if abs(gap_ns - period_ns) > PERIOD_TOLERANCE * period_ns:
            raise LeRobotError(
                f"bag {bag} has a gap of {gap_ns / 1e9:.3f} s between frames; lerobot knows only an even rate of "
                f"{robot.control_rate_hz:g} Hz, so that the motion would jump. Leave this bag out"
            )
        previous_ns = frame.stamp_ns
        yield frame


def _row(frame: Frame[Payload], camera: str) -> dict[str, Any]:
    image, seen = frame.payload
    assert frame.action is not None
    row: dict[str, Any] = {
        STATE: frame.robot.vector().astype(np.float32),
        ACTION: frame.action.astype(np.float32),
        camera: image,
    }
    if seen is not None:
        row[f"{KEYPOINTS}.uv_px"] = seen.uv_px.astype(np.float32)
        row[f"{KEYPOINTS}.visible"] = seen.visible.astype(np.float32)
        row[f"{KEYPOINTS}.confidence"] = seen.confidence.astype(np.float32)
    return row


# ------------------------------------------------------------------------------------------ import


def dataset_robot(root: Path) -> RobotDescription | None:
    """The robot description that an exported dataset holds; None for datasets of others.

    Raises:
        LeRobotError: the file is of another version.
    """
    path = root / SIDECAR
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    if content.get("format_version") != SIDECAR_VERSION:
        raise LeRobotError(
            f"{path} has format_version {content.get('format_version')!r}; this release reads {SIDECAR_VERSION}"
        )
    return RobotDescription.parse(content["robot"], source=str(path))


def import_dataset(
    root: Path,
    output: Path,
    robot: RobotDescription,
    *,
    repo_id: str = "local/dataset",
    camera_key: str = "",
    report: Callable[[str], None] = lambda name: None,
) -> list[Path]:
    """Write every episode of a dataset as a demonstration (rosbag2 folder) of `robot`.

    Args:
        root: the dataset's folder on this machine.
        robot: its joints, in command order, must be named in the dataset's features; or, where those have no names,
            the vectors are taken to be in its order.
        camera_key: which `observation.images.*`; by default that of the robot's camera, or the only one.

    Returns:
        The bags. Images become PNG, states and commands float64, at LeRobot's even rate.

    Raises:
        LeRobotError: lerobot is missing, or the dataset does not fit the robot.
        RecordingError: a bag exists already.
    """
    dataset_class = lerobot_dataset_class()
    if not (root / "meta" / "info.json").is_file():
        raise LeRobotError(f"{root} is no LeRobotDataset: it has no meta/info.json")
    dataset = dataset_class(repo_id, root=root)
    camera = _choose_camera(dataset.features, robot, camera_key, root)
    order = {key: _order(dataset.features, key, robot, root) for key in (STATE, ACTION)}
    rate_hz = float(dataset.fps)
    if abs(rate_hz - robot.control_rate_hz) > 1e-6:
        raise LeRobotError(
            f"dataset {root} has {rate_hz:g} frames per second, robot '{robot.name}' a control rate of "
            f"{robot.control_rate_hz:g} Hz; give a robot description with control_rate_hz and camera.rate_hz {rate_hz:g}"
        )
    bags: list[Path] = []
    names = _episode_names(root, dataset.num_episodes)
    writer: DemonstrationWriter | None = None
    episode, step = -1, 0
    messages = _Messages(robot)
    try:
        for index in range(len(dataset)):
            row = dataset[index]
            if int(row["episode_index"]) != episode:
                if writer is not None:
                    writer.keep()
                    report(bags[-1].name)
                episode, step = int(row["episode_index"]), 0
                bags.append(output / names[episode])
                writer = DemonstrationWriter(bags[-1], messages.topics, messages.robot)
            assert writer is not None
            image = np.asarray(row[camera].permute(1, 2, 0).numpy() * 255.0)
            state, action = (np.asarray(row[key], np.float64)[order[key]] for key in (STATE, ACTION))
            stamp_ns = START_NS + round(step * 1e9 / rate_hz)
            for topic, cdr in messages.of_frame(stamp_ns, np.rint(image).astype(np.uint8), state, action):
                writer.write(topic, stamp_ns, cdr)
            step += 1
        if writer is not None:
            writer.keep()
            report(bags[-1].name)
            writer = None
    finally:
        if writer is not None:  # an error in the middle of an episode
            writer.discard()
    return bags


def _choose_camera(known: dict[str, Any], robot: RobotDescription, camera_key: str, root: Path) -> str:
    cameras = [key for key, entry in known.items() if entry["dtype"] in ("video", "image")]
    wanted = camera_key or f"observation.images.{robot.camera.name}"
    if wanted in cameras:
        return wanted
    if not camera_key and len(cameras) == 1:
        return cameras[0]
    raise LeRobotError(f"dataset {root} has no images '{wanted}'; it has {cameras}. Name one with --camera")


def _order(known: dict[str, Any], key: str, robot: RobotDescription, root: Path) -> NDArray[np.int64]:
    """Where in a vector of the dataset the robot's joints and, last, its gripper stand."""
    if key not in known or tuple(known[key]["shape"]) != (robot.action_size,):
        shape = tuple(known[key]["shape"]) if key in known else None
        raise LeRobotError(
            f"dataset {root}: '{key}' has shape {shape}; robot '{robot.name}' needs ({robot.action_size},): "
            f"{robot.joint_count} joint positions [rad] and the gripper's opening [m]"
        )
    names = known[key].get("names")
    if isinstance(names, dict):  # older exporters group them: {"motors": [...]}
        names = next(iter(names.values()))
    if not names:
        return np.arange(robot.action_size)
    # SO-100 and others write 'shoulder_pan.pos'.
    plain = [str(name).removesuffix(".pos") for name in names]
    gripper = [name for name in plain if name not in robot.joints.names]
    missing = [name for name in robot.joints.names if name not in plain]
    if missing or len(gripper) != 1:
        raise LeRobotError(
            f"dataset {root}: '{key}' is of {list(names)}; robot '{robot.name}' has the joints "
            f"{list(robot.joints.names)} and one gripper. Correct joints.names in the robot description"
        )
    return np.array([plain.index(name) for name in (*robot.joints.names, gripper[0])])


def _episode_names(root: Path, count: int) -> list[str]:
    """Names of the bags that were exported, where they are known and whole; else numbered."""
    numbered = [f"episode_{number:04d}" for number in range(count)]
    path = root / SIDECAR
    if not path.is_file():
        return numbered
    known = [str(entry["bag"]) for entry in json.loads(path.read_text()).get("episodes", [])]
    return known if len(known) == count and len(set(known)) == count else numbered


class _Messages:
    """Serialised ROS messages of a frame, as the robot would publish them."""

    def __init__(self, robot: RobotDescription) -> None:
        self.robot, self._gripper_topic = with_gripper_topic(robot)
        self._store = get_typestore(Stores.ROS2_JAZZY)
        image, joints, array = (
            "sensor_msgs/msg/CompressedImage",
            "sensor_msgs/msg/JointState",
            "std_msgs/msg/Float64MultiArray",
        )
        self.topics = {
            robot.camera.recorded_topic: image,
            robot.topics.joint_states: joints,
            robot.topics.recorded_arm_command: array,
            self._gripper_topic: array,
        }

    def of_frame(
        self, stamp_ns: int, image: RgbImage, state: NDArray[np.float64], action: NDArray[np.float64]
    ) -> Iterator[tuple[str, bytes]]:
        robot, types = self.robot, self._store.types
        stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=robot.camera.frame_id)
        layout = types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].ravel()
        position = np.append(state[:-1], robot.gripper.joint_position(float(state[-1])))
        names, none = [*robot.joints.names, robot.gripper.joint], np.zeros(0)
        for topic, arguments in (
            (robot.topics.joint_states, (header, names, position, none, none)),
            (robot.camera.recorded_topic, (header, "rgb8; png compressed bgr8", png)),
            (robot.topics.recorded_arm_command, (layout, action[:-1])),
            (self._gripper_topic, (layout, action[-1:])),
        ):
            kind = self.topics[topic]
            yield topic, bytes(self._store.serialize_cdr(types[kind](*arguments), kind))

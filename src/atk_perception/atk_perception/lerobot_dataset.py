"""Demonstrations to a LeRobotDataset and back, through the lerobot package itself (format v3.0).

    observation.state               (J + 1,) measured joint positions [rad], gripper opening [m]
    action                          (J + 1,) commanded ones
    observation.images.CAMERA       (H, W, 3) RGB, of every camera
    observation.keypoints.uv_px     (N, 2) with keypoint sets: tracks in pixels of their templates, one camera after the other
    observation.keypoints.visible   (N,) 1 where seen
    observation.keypoints.confidence (N,)

What is exported are aligned frames (`frames.read_joined_frames`), one per control period: what a policy is trained on here
is what it would be trained on there. The robot description, the bags' names and whose keypoints are which go along in
`meta/atk.json`, so that an import gives the same robot. lerobot is optional: `pip install lerobot`; nothing else of this stack needs it.

Source: huggingface/lerobot, lerobot/datasets (0.4: create, add_frame, save_episode, finalize).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from atk_perception.camera_join import Joined
from atk_perception.demonstration_topics import with_gripper_topic
from atk_perception.frames import BagError, Frame, bag_label, read_joined_frames
from atk_perception.image_codec import RgbImage
from atk_perception.keypoint_tracker import KeypointObservation, KeypointTracker
from atk_perception.recording import DemonstrationWriter
from atk_perception.robot_description import RobotDescription

STATE, ACTION = "observation.state", "action"
IMAGES, KEYPOINTS = "observation.images", "observation.keypoints"
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
    robot: RobotDescription, image_shapes: Mapping[str, tuple[int, ...]], keypoints: int, *, video: bool
) -> dict[str, Any]:
    """The dataset's features, as `LeRobotDataset.create` takes them; `image_shapes` are (H, W, 3) by camera."""
    names = [*robot.joints.names, "gripper_opening"]
    found: dict[str, Any] = {
        STATE: {"dtype": "float32", "shape": (robot.action_size,), "names": names},
        ACTION: {"dtype": "float32", "shape": (robot.action_size,), "names": names},
    }
    for camera, shape in image_shapes.items():
        found[f"{IMAGES}.{camera}"] = {
            "dtype": "video" if video else "image",
            "shape": tuple(shape),
            "names": ["height", "width", "channels"],
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
    make_trackers: Callable[[], Mapping[str, KeypointTracker]] = dict,
    video: bool = True,
    report: Callable[[str], None] = lambda name: None,
) -> Exported:
    """Write bags as the episodes of a new dataset, seen by every camera of the robot.

    Args:
        root: folder of the dataset; must not exist.
        task: what the demonstrations do, in words; lerobot's policies are conditioned on it.
        repo_id: name of the dataset, as 'me/sushi'; nothing is uploaded.
        make_trackers: gives fresh trackers per bag, by camera; their tracks become features. A camera may have none.
        video: images as H.264/AV1 video, small and slightly lossy; else as PNG, exact.
        report: called with the name of every bag that is done.

    Raises:
        LeRobotError: lerobot is missing, the folder exists, a tracker is of a camera that the robot lacks, or a camera was
            silent in the middle of a bag.
        BagError, JointStateError, ImageFormatError: see `read_frames`.
    """
    dataset_class = lerobot_dataset_class()
    if root.exists():
        raise LeRobotError(f"{root} exists already; give another folder, or move it away")
    if not bags:
        raise LeRobotError("no bag was given")
    sets = {camera: tracker.keypoint_set for camera, tracker in make_trackers().items()}
    cameras = [camera.name for camera in robot.cameras]
    if unknown := sorted(set(sets) - set(cameras)):
        raise LeRobotError(
            f"there are keypoints of camera {unknown}; robot '{robot.name}' has {cameras}. Give the run folder, or the robot "
            "description, that belongs to these bags"
        )
    dataset: Any = None
    count = 0
    names: list[dict[str, Any]] = []
    try:
        for bag in bags:
            episode = 0
            for frame in _seen_frames(bag, robot, make_trackers()):
                if dataset is None:
                    shapes = {camera: seen.image.shape for camera, seen in frame.payload.items()}
                    keypoints = sum(len(points) for points in sets.values())
                    dataset = dataset_class.create(
                        repo_id=repo_id,
                        fps=_whole(robot.control_rate_hz),
                        features=features(robot, shapes, keypoints, video=video),
                        root=root,
                        robot_type=robot.name,
                        use_videos=video,
                    )
                dataset.add_frame({**_row(frame), "task": task})
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
        # In the order in which their points stand in the features.
        "keypoint_sets": [
            {"camera": camera, "name": sets[camera].name, "ids": sets[camera].ids.tolist()}
            for camera in cameras
            if camera in sets
        ],
    }
    (root / SIDECAR).write_text(json.dumps(sidecar, indent=2) + "\n")
    return Exported(root, len(bags), count, sum(len(points) for points in sets.values()))


def _whole(rate_hz: float) -> int:
    if abs(rate_hz - round(rate_hz)) > 1e-6:
        raise LeRobotError(f"lerobot takes whole frames per second, the control rate is {rate_hz} Hz")
    return round(rate_hz)


@dataclass(frozen=True)
class _Seen:
    """An image and what the tracker, which sees every one, answered to it; None where no points are tracked in it."""

    image: RgbImage
    keypoints: KeypointObservation | None


Payload = dict[str, _Seen]  # by camera, in the robot's order


def _seen_frames(
    bag: Path, robot: RobotDescription, trackers: Mapping[str, KeypointTracker]
) -> Iterator[Frame[Payload]]:
    def observe(camera: str, stamp_ns: int, image: RgbImage) -> _Seen:
        tracker = trackers.get(camera)
        return _Seen(image, None if tracker is None else tracker.update(stamp_ns, image))

    def join(joined: Joined[_Seen]) -> Payload:
        """Without a camera that has no recent image."""
        names = (camera.name for camera in robot.cameras)
        return {name: seen for name, seen in zip(names, joined.seen, strict=True) if seen is not None}

    period_ns, previous_ns = robot.control_period_ns, None
    for frame in read_joined_frames(bag, robot, observe, join):
        silent = [camera.name for camera in robot.cameras if camera.name not in frame.payload]
        if silent and previous_ns is None:  # when a recording starts, cameras are found one after the other
            continue
        if silent:
            raise LeRobotError(
                f"bag {bag}: camera {silent} has no image of the {robot.deadlines_s.image} s before one of camera "
                f"'{robot.camera.name}'; lerobot wants images of every camera in every frame. Leave this bag out"
            )
        gap_ns = period_ns if previous_ns is None else frame.stamp_ns - previous_ns
        if abs(gap_ns - period_ns) > PERIOD_TOLERANCE * period_ns:
            raise LeRobotError(
                f"bag {bag} has a gap of {gap_ns / 1e9:.3f} s between frames; lerobot knows only an even rate of "
                f"{robot.control_rate_hz:g} Hz, so that the motion would jump. Leave this bag out"
            )
        previous_ns = frame.stamp_ns
        yield frame


def _row(frame: Frame[Payload]) -> dict[str, Any]:
    assert frame.action is not None
    row: dict[str, Any] = {
        STATE: frame.robot.vector().astype(np.float32),
        ACTION: frame.action.astype(np.float32),
        **{f"{IMAGES}.{camera}": seen.image for camera, seen in frame.payload.items()},
    }
    tracked = [seen.keypoints for seen in frame.payload.values() if seen.keypoints is not None]
    if tracked:
        for name in ("uv_px", "visible", "confidence"):
            values = np.concatenate([getattr(seen, name) for seen in tracked])
            row[f"{KEYPOINTS}.{name}"] = values.astype(np.float32)
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
        camera_key: which `observation.images.*` the robot's only camera is; by default that of its name, or the only one.
            Of a robot with several cameras each is that of its name. What the dataset has beyond is left out, see
            `other_cameras`.

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
    cameras = _choose_cameras(dataset.features, robot, camera_key, root)
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
            images = {
                name: np.rint(np.asarray(row[key].permute(1, 2, 0).numpy() * 255.0)).astype(np.uint8)
                for name, key in cameras.items()
            }
            state, action = (np.asarray(row[key], np.float64)[order[key]] for key in (STATE, ACTION))
            stamp_ns = START_NS + round(step * 1e9 / rate_hz)
            for topic, cdr in messages.of_frame(stamp_ns, images, state, action):
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


def other_cameras(root: Path, robot: RobotDescription, camera_key: str = "") -> list[str]:
    """Image features of a dataset that an import for this robot leaves out.

    Raises:
        LeRobotError: lerobot is missing, or the dataset lacks a camera.
    """
    known = lerobot_dataset_class()("local/dataset", root=root).features
    chosen = set(_choose_cameras(known, robot, camera_key, root).values())
    return [key for key in _image_features(known) if key not in chosen]


def _image_features(known: dict[str, Any]) -> list[str]:
    return [key for key, entry in known.items() if entry["dtype"] in ("video", "image")]


def _choose_cameras(
    known: dict[str, Any], robot: RobotDescription, camera_key: str, root: Path
) -> dict[str, str]:
    """Camera of the robot -> feature of the dataset."""
    cameras = _image_features(known)
    wanted = {camera.name: f"{IMAGES}.{camera.name}" for camera in robot.cameras}
    if not robot.more_cameras and camera_key:
        wanted = {robot.camera.name: camera_key}
    elif camera_key:
        raise LeRobotError(
            f"--camera {camera_key} names one camera, robot '{robot.name}' has {list(wanted)}; name them in the robot "
            "description as the dataset does"
        )
    elif not robot.more_cameras and len(cameras) == 1:
        wanted = {robot.camera.name: cameras[0]}
    for key in wanted.values():
        if key not in cameras:
            raise LeRobotError(
                f"dataset {root} has no images '{key}'; it has {cameras}. Name one with --camera, or its cameras in the robot "
                "description"
            )
    return wanted


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
            **{camera.recorded_topic: image for camera in robot.cameras},
            robot.topics.joint_states: joints,
            robot.topics.recorded_arm_command: array,
            self._gripper_topic: array,
        }

    def of_frame(
        self,
        stamp_ns: int,
        images: Mapping[str, RgbImage],
        state: NDArray[np.float64],
        action: NDArray[np.float64],
    ) -> Iterator[tuple[str, bytes]]:
        robot, types = self.robot, self._store.types
        stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        header = types["std_msgs/msg/Header"]
        own = header(stamp=stamp, frame_id="")
        layout = types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        position = np.append(state[:-1], robot.gripper.joint_position(float(state[-1])))
        names, none = [*robot.joints.names, robot.gripper.joint], np.zeros(0)
        pictures = [
            (
                camera.recorded_topic,
                (
                    header(stamp=stamp, frame_id=camera.frame_id),
                    "rgb8; png compressed bgr8",
                    _png(images[camera.name]),
                ),
            )
            for camera in robot.cameras
        ]
        for topic, arguments in (
            (robot.topics.joint_states, (own, names, position, none, none)),
            *pictures,
            (robot.topics.recorded_arm_command, (layout, action[:-1])),
            (self._gripper_topic, (layout, action[-1:])),
        ):
            kind = self.topics[topic]
            yield topic, bytes(self._store.serialize_cdr(types[kind](*arguments), kind))


def _png(image_rgb: RgbImage) -> NDArray[np.uint8]:
    encoded = cv2.imencode(".png", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))[1]
    return np.asarray(encoded.ravel(), np.uint8)

"""Bags and live messages to aligned frames: one definition of what belongs together in time.

A frame is one payload (an image, or the keypoints seen in it) with the robot's state at the same
instant, at the control rate. The live policy and the reader of demonstrations use the same
`FrameAligner`, so what a policy was trained on is what it later gets.

What further cameras saw is joined to the first one's payloads before (see camera_join).

Time is the stamp in the message headers. Three rules make a frame independent of the order in
which messages happen to arrive:

* the robot state at a payload's stamp is interpolated between the joint states before and after
  it, never extrapolated;
* control frames are the payloads nearest after the ticks of a clock at the control rate;
* the action of a frame is the first command in [its stamp, the next frame's stamp), or else the
  command still in effect, as a position controller would hold it. Where nobody publishes the gripper's
  opening, it is the one at the next frame: that is what it was told.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt
import yaml
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from atk_perception.camera_join import CLOCK_JUMP_NS, CameraJoin, Joined
from atk_perception.demonstration_topics import (
    IMAGES,
    CommandError,
    arm_command_from_message,
    needed_topics,
    opening_from_message,
    refusals,
)
from atk_perception.image_codec import ImageFormatError, RgbImage, rgb_from_message
from atk_perception.mcap_file import McapError, mcap_metadata
from atk_perception.robot_description import Camera, Gripper, RobotDescription, RobotDescriptionError

S = TypeVar("S")
T = TypeVar("T")
FloatArray = npt.NDArray[np.float64]

# A command has no stamp of its own, so its log time must be on the clock of the image stamps.
MAX_CLOCK_OFFSET_NS = 5_000_000_000
# A person who teleoperates pauses for moments; for longer, the arm stood still while the policy would learn a motion.
COMMAND_GAP_S = 1.0
# When a recording starts, topics are found one after the other.
EDGE_S = 1.0
# A gripper that moves back by less [m] still moves as it did: its sensor is noisy.
TURN_M = 0.002
# A rate this much below what was promised is that of another setting, not jitter.
RATE_FRACTION = 0.9
# Entries of a bag's custom_data: the robot description as YAML, and how the episode ended.
ROBOT_KEY, LABEL_KEY = "atk_robot_file", "atk_label"
# Beside the messages, for people, and for bags of older recorders.
ROBOT_FILE = "robot.yaml"


class JointStateError(ValueError):
    """A joint state cannot be used; `cause` is a short name for diagnostics."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class BagError(ValueError):
    """A bag cannot be read as a demonstration; the message says what it holds and what to do."""


@dataclass(frozen=True)
class RobotState:
    """The robot at one instant: (J,) joint positions [rad] in command order, gripper opening [m]."""

    stamp_ns: int
    joint_position_rad: FloatArray
    gripper_m: float

    def vector(self) -> FloatArray:
        """(J + 1,) joint positions [rad], then the gripper opening [m]: the layout of an action."""
        return np.append(self.joint_position_rad, self.gripper_m)


@dataclass(frozen=True)
class Frame(Generic[T]):
    """One aligned control frame; `action` is (J + 1,) [rad, m], or None when none is recorded."""

    stamp_ns: int
    payload: T
    robot: RobotState
    action: FloatArray | None


def robot_state_from_message(
    names: Sequence[str], position: Sequence[float], robot: RobotDescription, stamp_ns: int
) -> RobotState:
    """Pick the robot's joints out of a JointState, whatever their order and company.

    Raises:
        JointStateError: a joint is missing, names and positions differ in number, or a needed
            position is not finite.
    """
    if len(names) != len(position):
        raise JointStateError(
            "joint_state_malformed",
            f"joint state names {len(names)} joints but holds {len(position)} positions",
        )
    by_name = dict(zip(names, position, strict=True))
    wanted = [*robot.joints.names, robot.gripper.joint]
    missing = [name for name in wanted if name not in by_name]
    if missing:
        raise JointStateError(
            "joint_missing",
            f"joint state lacks {missing}; it holds {sorted(by_name)}. "
            "Correct joints.names or gripper.joint in the robot description, or the joint state broadcaster.",
        )
    values = np.array([by_name[name] for name in wanted], dtype=np.float64)
    if not np.isfinite(values).all():
        bad = [name for name, value in zip(wanted, values, strict=True) if not np.isfinite(value)]
        raise JointStateError(
            "joint_state_not_finite", f"joint state holds a position that is not finite for {bad}"
        )
    return RobotState(stamp_ns, values[:-1], robot.gripper.opening_m(float(values[-1])))


class FrameAligner(Generic[T]):
    """Joins payloads, robot states and (for demonstrations) commands into frames at the control rate.

    Args:
        robot: gives the control rate and the joint state deadline.
        with_actions: wait for each frame's action (demonstrations); live frames have none.
    """

    def __init__(self, robot: RobotDescription, *, with_actions: bool) -> None:
        self._robot = robot
        self._with_actions = with_actions
        self._max_gap_ns = round(robot.deadlines_s.joint_states * 1e9)
        # A payload this much before its tick still belongs to it: half a camera period.
        self._early_ns = round(0.5e9 / robot.camera.rate_hz)
        self.dropped: dict[str, int] = {}
        self.held_actions = 0
        self._reset()

    def _reset(self) -> None:
        self._payloads: deque[tuple[int, T]] = deque()
        self._states: deque[RobotState] = deque()
        self._commands = _HeldSignal()
        self._gripper_commands = _HeldSignal()
        measured = self._with_actions and self._robot.topics.gripper_command is None
        self._grip = _MeasuredGrip(self._robot.gripper) if measured else None
        self._waiting: Frame[T] | None = None
        self._due_ns: int | None = None
        self._newest_ns: int | None = None

    def _drop(self, cause: str, count: int = 1) -> None:
        if count:
            self.dropped[cause] = self.dropped.get(cause, 0) + count

    def _note_time(self, stamp_ns: int) -> None:
        """Forget everything when time jumps back: another episode, replay or simulation began."""
        if self._newest_ns is not None and stamp_ns < self._newest_ns - CLOCK_JUMP_NS:
            self._drop("clock_jumped_back", len(self._payloads) + (self._waiting is not None))
            self._reset()
        self._newest_ns = stamp_ns if self._newest_ns is None else max(stamp_ns, self._newest_ns)

    def add_payload(self, stamp_ns: int, payload: T) -> list[Frame[T]]:
        """Add what was seen at `stamp_ns`; returns the frames that are now complete."""
        self._note_time(stamp_ns)
        if self._payloads and stamp_ns <= self._payloads[-1][0]:
            self._drop("payload_out_of_order")
            return []
        if not self._is_due(stamp_ns):
            return []
        self._payloads.append((stamp_ns, payload))
        return self._ready()

    def add_robot_state(self, state: RobotState) -> list[Frame[T]]:
        """Add a robot state; returns the frames that are now complete."""
        self._note_time(state.stamp_ns)
        if self._states and state.stamp_ns <= self._states[-1].stamp_ns:
            return []  # repeated or late by less than a jump: the buffer already brackets that time
        self._states.append(state)
        return self._ready()

    def add_command(self, stamp_ns: int, joint_position_rad: FloatArray) -> None:
        """Add an arm command: (J,) joint positions [rad]."""
        self._commands.add(stamp_ns, joint_position_rad)

    def add_gripper_command(self, stamp_ns: int, opening_m: float) -> None:
        """Add a gripper command: opening [m]."""
        self._gripper_commands.add(stamp_ns, np.array([opening_m]))

    def add_trajectory_command(
        self, stamp_ns: int, time_from_start_ns: Sequence[int], joint_position_rad: FloatArray
    ) -> None:
        """Add a trajectory: (P, J) positions [rad] to be reached at stamp + time_from_start.

        It replaces what an earlier trajectory still had to say. A point is the action of the
        control period at whose end it is to be reached; the first point goes before later points of
        the trajectory that it replaces, however late in its period it came.
        """
        self._commands.truncate(stamp_ns)
        for k, (offset_ns, position) in enumerate(zip(time_from_start_ns, joint_position_rad, strict=True)):
            due_ns = max(stamp_ns, stamp_ns + offset_ns - self._robot.control_period_ns)
            self._commands.add(due_ns, position, is_plan=k > 0)

    def finish(self) -> list[Frame[T]]:
        """The last frame, whose action has no next frame to end it. Call once, at the end of a bag."""
        self._drop("no_joint_state_after", len(self._payloads))
        self._payloads.clear()
        if self._waiting is None:
            return []
        last, self._waiting = self._waiting, None
        return self._with_action(last, last.stamp_ns + self._robot.control_period_ns, last.robot)

    def _is_due(self, stamp_ns: int) -> bool:
        period_ns = self._robot.control_period_ns
        if self._due_ns is None:
            self._due_ns = stamp_ns
        if stamp_ns < self._due_ns - self._early_ns:
            return False
        # The next tick after this payload; ticks that a gap swallowed are skipped.
        self._due_ns += period_ns * max(1, (stamp_ns + self._early_ns - self._due_ns) // period_ns + 1)
        return True

    def _ready(self) -> list[Frame[T]]:
        frames: list[Frame[T]] = []
        while self._payloads and self._states and self._states[-1].stamp_ns >= self._payloads[0][0]:
            stamp_ns, payload = self._payloads.popleft()
            robot = self._state_at(stamp_ns)
            if robot is None:
                continue
            frame = Frame(stamp_ns, payload, robot, None)
            if not self._with_actions:
                frames.append(frame)
                continue
            if self._waiting is not None:
                frames.extend(self._with_action(self._waiting, stamp_ns, robot))
            self._waiting = frame
        return frames

    def _state_at(self, stamp_ns: int) -> RobotState | None:
        """The robot at `stamp_ns` by linear interpolation; None (counted) where states are missing."""
        while len(self._states) >= 2 and self._states[1].stamp_ns <= stamp_ns:
            self._states.popleft()
        before = self._states[0]
        if before.stamp_ns == stamp_ns:
            return before
        if before.stamp_ns > stamp_ns:
            self._drop("no_joint_state_before")
            return None
        after = self._states[1]
        gap_ns = after.stamp_ns - before.stamp_ns
        if gap_ns > self._max_gap_ns:
            self._drop("joint_state_gap")
            return None
        weight = (stamp_ns - before.stamp_ns) / gap_ns
        mixed = (1.0 - weight) * before.vector() + weight * after.vector()
        return RobotState(stamp_ns, mixed[:-1], float(mixed[-1]))

    def _with_action(self, frame: Frame[T], until_ns: int, then: RobotState) -> list[Frame[T]]:
        """The frame with its action, if there is one; `then` is the robot at its end."""
        arm, arm_is_new = self._commands.take(frame.stamp_ns, until_ns)
        gripper, _ = self._gripper_commands.take(frame.stamp_ns, until_ns)
        if self._grip is not None:
            gripper = np.array([self._grip.commanded(then.gripper_m)])
        if arm is None or gripper is None:
            self._drop("no_command_yet")
            return []
        self.held_actions += not arm_is_new
        return [Frame(frame.stamp_ns, frame.payload, frame.robot, np.concatenate([arm, gripper]))]


class _MeasuredGrip:
    """What a gripper was told, by where it went: there, and further where it closed; see `Gripper.squeeze_m`."""

    def __init__(self, gripper: Gripper) -> None:
        self._gripper = gripper
        self._closing = False
        self._farthest_m = -np.inf  # in the direction in which it moved last

    def commanded(self, opening_m: float) -> float:
        """The command [m] of the control period at whose end the gripper is open by `opening_m`. Call by time."""
        further = min if self._closing else max
        self._farthest_m = further(self._farthest_m, opening_m)
        if abs(opening_m - self._farthest_m) > TURN_M:
            self._closing, self._farthest_m = not self._closing, opening_m
        squeeze_m = self._gripper.squeeze_m if self._closing else 0.0
        return max(self._gripper.min_m, opening_m - squeeze_m)


class _HeldSignal:
    """Commands in time order; between two, the earlier one holds."""

    def __init__(self) -> None:
        self._stamps_ns: list[int] = []
        self._values: list[FloatArray] = []
        self._is_plan: list[bool] = []

    def add(self, stamp_ns: int, value: FloatArray, *, is_plan: bool = False) -> None:
        """A command for `stamp_ns`; `is_plan` one that counts only where no news came."""
        index = len(self._stamps_ns)
        while index and self._stamps_ns[index - 1] > stamp_ns:
            index -= 1
        self._stamps_ns.insert(index, stamp_ns)
        self._values.insert(index, np.asarray(value, dtype=np.float64))
        self._is_plan.insert(index, is_plan)

    def truncate(self, stamp_ns: int) -> None:
        index = bisect_left(self._stamps_ns, stamp_ns)
        del self._stamps_ns[index:], self._values[index:], self._is_plan[index:]

    def take(self, from_ns: int, until_ns: int) -> tuple[FloatArray | None, bool]:
        """First value in [from, until), news before plans, and True; else the one in effect (or None) and False."""
        index, end = bisect_left(self._stamps_ns, from_ns), bisect_left(self._stamps_ns, until_ns)
        is_new = index < end
        chosen = next((k for k in range(index, end) if not self._is_plan[k]), index) if is_new else index - 1
        if chosen < 0:
            return None, False
        value = self._values[chosen]
        # Keep the chosen one: it may still be in effect later.
        del self._stamps_ns[:chosen], self._values[:chosen], self._is_plan[:chosen]
        return value, is_new


# ------------------------------------------------------------------------------------------- bags


def _open_bag(path: Path) -> AnyReader:
    if not path.is_dir():
        raise BagError(
            f"{path} is no folder; a demonstration is a rosbag2 folder (ros2 bag record -s mcap -o FOLDER)"
        )
    if not (path / "metadata.yaml").is_file():
        raise BagError(
            f"{path} has no metadata.yaml: the recording was cut short. 'ros2 run atk_perception recover_bag {path.name}' "
            "or 'ros2 bag reindex -s mcap' restores what was written."
        )
    reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
    try:
        reader.open()
    except (AnyReaderError, OSError, ValueError, AssertionError, IndexError) as error:
        raise BagError(
            f"bag {path} cannot be opened ({error}); it may be cut short. 'ros2 run atk_perception recover_bag {path.name}' "
            "restores what was written."
        ) from error
    return reader


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag as it was offered; where the bag does not say, reliable and volatile."""

    msgtype: str
    reliable: bool
    latched: bool


def bag_messages(path: Path | str, topics: Iterable[str] | None = None) -> Iterator[tuple[str, int, Any]]:
    """Stream (topic without leading slash, log time [ns], message) of a rosbag2 folder in log order.

    Raises:
        BagError: no such bag, or a bag that is cut short or corrupt. Messages before the damage
            have been given out by then.
    """
    return _stream(Path(path), topics, AnyReader.deserialize)


def raw_messages(path: Path | str, topics: Iterable[str] | None = None) -> Iterator[tuple[str, int, bytes]]:
    """As `bag_messages`, with the serialised messages (CDR) as they were recorded."""
    return _stream(Path(path), topics, lambda reader, raw, msgtype: bytes(raw))


def _stream(
    path: Path, topics: Iterable[str] | None, read: Callable[[AnyReader, bytes, str], T]
) -> Iterator[tuple[str, int, T]]:
    wanted = None if topics is None else {topic.lstrip("/") for topic in topics}
    reader = _open_bag(path)
    try:
        connections = [c for c in reader.connections if wanted is None or c.topic.lstrip("/") in wanted]
        if not connections:
            return
        count = 0
        try:
            for connection, log_ns, raw in reader.messages(connections):
                yield connection.topic.lstrip("/"), log_ns, read(reader, raw, connection.msgtype)
                count += 1
        except BagError:
            raise
        except Exception as error:  # the storage readers raise what their decompressors and parsers raise
            raise BagError(
                f"bag {path} is damaged after {count} messages ({error}); re-record it, or 'ros2 run atk_perception "
                f"recover_bag {path.name}'"
            ) from error
    finally:
        reader.close()


def bag_offers(path: Path | str) -> dict[str, BagTopic]:
    """Type and quality of service of every topic of a bag (without leading slash)."""
    reader = _open_bag(Path(path))
    try:
        offers: dict[str, BagTopic] = {}
        for connection in reader.connections:
            profiles = connection.ext.offered_qos_profiles
            offers[connection.topic.lstrip("/")] = BagTopic(
                connection.msgtype,
                all(profile.reliability.name != "BEST_EFFORT" for profile in profiles),
                any(profile.durability.name == "TRANSIENT_LOCAL" for profile in profiles),
            )
        return offers
    finally:
        reader.close()


def bag_topics(path: Path | str) -> dict[str, int]:
    """Topics of a bag (without leading slash) and how many messages each holds."""
    return {topic: count for topic, (count, _) in _counts_and_types(Path(path)).items()}


def _counts_and_types(path: Path) -> dict[str, tuple[int, set[str]]]:
    """Messages and message types of every topic (without leading slash); several publishers may have several types."""
    reader = _open_bag(path)
    try:
        found: dict[str, tuple[int, set[str]]] = {}
        for connection in reader.connections:
            topic = connection.topic.lstrip("/")
            count, types = found.get(topic, (0, set[str]()))
            found[topic] = count + connection.msgcount, types | {connection.msgtype}
        return found
    finally:
        reader.close()


def _custom_data(path: Path) -> dict[str, str]:
    """What a recorder noted in a bag beside its messages; empty for bags of 'ros2 bag record'."""
    _open_bag(path).close()  # refuses what is no bag, with the cause
    metadata = yaml.safe_load((path / "metadata.yaml").read_text())
    noted = metadata["rosbag2_bagfile_information"].get("custom_data") or {}
    for file in sorted(path.glob("*.mcap")) if not noted else []:  # 'ros2 bag reindex' forgets it
        try:
            stored = mcap_metadata(file).get("rosbag2", {}).get("serialized_metadata", "")
            noted = (yaml.safe_load(stored) or {}).get("custom_data") or {}
        except (OSError, yaml.YAMLError, McapError, AttributeError) as error:
            raise BagError(f"what the recorder noted in {file} cannot be read: {error}") from error
    return {str(key): str(value) for key, value in noted.items()}


def bag_robot(path: Path | str) -> RobotDescription | None:
    """The robot description that a bag was recorded with; None where it holds none.

    Raises:
        BagError: it holds one that cannot be read.
    """
    path = Path(path)
    text = _custom_data(path).get(ROBOT_KEY, "")
    if not text and (path / ROBOT_FILE).is_file():
        text = (path / ROBOT_FILE).read_text()
    if not text:
        return None
    try:
        return RobotDescription.parse(text, source=f"inside bag {path}")
    except RobotDescriptionError as error:
        raise BagError(str(error)) from error


def bag_label(path: Path | str) -> str:
    """How the recorded episode ended, 'success' or 'discard'; empty where nobody said."""
    return _custom_data(Path(path)).get(LABEL_KEY, "")


def _require_same_robot(path: Path, robot: RobotDescription) -> None:
    """Refuse a bag whose messages mean something else than `robot` says; a bag that names no robot is believed."""
    recorded = bag_robot(path)
    if recorded is None:
        return
    # Messages come at rates of their own; at which of them a policy runs is decided later.
    same_rate = recorded.model_copy(update={"control_rate_hz": robot.control_rate_hz})
    differences = robot.differences(same_rate)
    if differences:
        raise BagError(
            f"bag {path} was recorded with robot '{recorded.name}', which differs from '{robot.name}' (here: "
            f"{robot.origin.name or 'the given robot description'}, there: {recorded.origin.name}): "
            f"{'; '.join(differences)}. Give the robot description of the recording"
        )


def image_topic_of(path: Path | str, camera: Camera) -> str:
    """The topic of the bag that holds a camera: the recorded one, else the raw one.

    Raises:
        BagError: the bag holds neither.
    """
    return _image_topic_in(bag_topics(path), path, camera)


def _image_topic_in(counts: Mapping[str, int], path: Path | str, camera: Camera) -> str:
    for topic in (camera.recorded_topic, camera.image_topic):
        if counts.get(topic.lstrip("/"), 0) > 0:
            return topic.lstrip("/")
    raise BagError(
        f"bag {path} has no images on {camera.recorded_topic!r} or {camera.image_topic!r}; it holds {counts}. "
        f"Record camera '{camera.name}' too, or name its topic in the robot description."
    )


def stamp_ns_of(message: Any) -> int:
    """Header stamp of a message [ns]."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


@dataclass(frozen=True)
class _Contents:
    """What a bag that can serve as a demonstration holds: counts by topic, and image topics with their cameras."""

    counts: Mapping[str, int]
    image_topics: Mapping[str, Camera]  # the first camera's first


def _require_topics(path: Path, robot: RobotDescription, *, with_actions: bool = True) -> _Contents:
    """Refuse a bag that is of another robot, or lacks a topic or its type."""
    _require_same_robot(path, robot)
    found = _counts_and_types(path)
    counts = {topic: count for topic, (count, _) in found.items()}
    image_topics = {_image_topic_in(counts, path, camera): camera for camera in robot.cameras}
    needed = {t.lstrip("/"): n for t, n in needed_topics(robot, with_actions=with_actions).items()}
    missing = [f"{topic} ({what.what})" for topic, what in needed.items() if not counts.get(topic)]
    if missing:
        raise BagError(
            f"bag {path} lacks {', '.join(missing)}; it holds {counts}. Record every topic of the robot description."
        )
    types = {topic: types for topic, (_, types) in found.items()}
    wrong = refusals(needed | dict.fromkeys(image_topics, IMAGES), types)
    if wrong:
        raise BagError(f"bag {path}: {'; '.join(wrong)}")
    return _Contents(counts, image_topics)


@overload
def read_frames(
    path: Path | str, robot: RobotDescription, *, with_actions: bool = True, from_ns: int = 0
) -> Iterator[Frame[RgbImage]]: ...
@overload
def read_frames(
    path: Path | str,
    robot: RobotDescription,
    observe: Callable[[int, RgbImage], T],
    *,
    with_actions: bool = True,
    from_ns: int = 0,
) -> Iterator[Frame[T]]: ...
def read_frames(
    path: Path | str,
    robot: RobotDescription,
    observe: Callable[[int, RgbImage], Any] | None = None,
    *,
    with_actions: bool = True,
    from_ns: int = 0,
) -> Iterator[Frame[Any]]:
    """Stream the aligned frames of a demonstration, seen by the robot's first camera (`robot.seen_by`: by another).

    Args:
        path: rosbag2 folder (MCAP or sqlite3).
        robot: names the topics and the joints.
        observe: called with (stamp [ns], (H, W, 3) RGB) for EVERY image, also those between
            control frames, since a tracker must see them all; its result is the payload.
            Without it the payload is the image.
        with_actions: False gives frames as the robot had them, without what was commanded.
        from_ns: frames begin with the image of this stamp; earlier ones are observed all the same.

    Raises:
        BagError: a topic is missing, the bag is damaged, was recorded with another robot, or its log times are on
            another clock.
        JointStateError: a joint is missing or not finite.
        ImageFormatError: an image that cannot be decoded.
        Each says which message of the bag it is about.
    """
    yield from read_joined_frames(
        path,
        robot.seen_by(robot.camera.name),
        lambda _, stamp_ns, image: image if observe is None else observe(stamp_ns, image),
        lambda joined: joined.seen[0],
        with_actions=with_actions,
        from_ns=from_ns,
    )


def read_joined_frames(
    path: Path | str,
    robot: RobotDescription,
    observe: Callable[[str, int, RgbImage], S],
    join: Callable[[Joined[S]], T],
    *,
    with_actions: bool = True,
    from_ns: int = 0,
) -> Iterator[Frame[T]]:
    """As `read_frames`, seen by every camera of the robot.

    Args:
        observe: called with (camera name, stamp [ns], image) for every image of every camera.
        join: makes the payload of what the cameras saw together, for every image of the first one.
    """
    path = Path(path)
    yield from _aligned_frames(
        path,
        robot,
        _require_topics(path, robot, with_actions=with_actions),
        lambda camera, stamp_ns, message: observe(camera, stamp_ns, rgb_from_message(message)),
        join,
        with_actions=with_actions,
        from_ns=from_ns,
    )


def _aligned_frames(
    path: Path,
    robot: RobotDescription,
    contents: _Contents,
    observe: Callable[[str, int, Any], S],
    join: Callable[[Joined[S]], T],
    witness: Callable[[str, int, Any], None] = lambda topic, log_ns, message: None,
    *,
    with_actions: bool = True,
    from_ns: int = 0,
) -> Iterator[Frame[T]]:
    """As `read_joined_frames`; `observe` gets messages, and `witness` every message with its topic and log time [ns]."""
    image_topics = contents.image_topics
    aligner: FrameAligner[T] = FrameAligner(robot, with_actions=with_actions)
    cameras: CameraJoin[S] = CameraJoin(robot)

    def aligned(complete: Iterable[Joined[S]]) -> Iterator[Frame[T]]:
        for joined in complete:
            payload = join(joined)
            if joined.stamp_ns >= from_ns:
                yield from aligner.add_payload(joined.stamp_ns, payload)

    needed = [*image_topics, *needed_topics(robot, with_actions=with_actions)]
    began_ns: int | None = None
    for topic, log_ns, message in bag_messages(path, needed):
        began_ns = log_ns if began_ns is None else began_ns
        witness(topic, log_ns, message)
        where = f"bag {path}, {topic}, {(log_ns - began_ns) / 1e9:.3f} s after its first message"
        try:
            if topic in image_topics:
                camera, stamp_ns = image_topics[topic].name, stamp_ns_of(message)
                _require_one_clock(stamp_ns, log_ns, where)
                yield from aligned(cameras.add(camera, stamp_ns, observe(camera, stamp_ns, message)))
            else:
                yield from _add_to(aligner, robot, topic, log_ns, message)
        except JointStateError as error:
            raise JointStateError(error.cause, f"{where}: {error}") from error
        except ImageFormatError as error:
            raise ImageFormatError(f"{where}: {error}") from error
        except CommandError as error:
            raise BagError(f"{where}: {error}") from error
    yield from aligned(cameras.finish())
    yield from aligner.finish()


def _require_one_clock(stamp_ns: int, log_ns: int, where: str) -> None:
    if abs(log_ns - stamp_ns) > MAX_CLOCK_OFFSET_NS:
        raise BagError(
            f"{where}: an image stamped {stamp_ns / 1e9:.3f} s was logged at {log_ns / 1e9:.3f} s. Commands have no stamp, so "
            "both must be on one clock: record with --use-sim-time when the robot is simulated."
        )


def _add_to(
    aligner: FrameAligner[T], robot: RobotDescription, topic: str, log_ns: int, message: Any
) -> list[Frame[T]]:
    """Add what a message says; returns the frames that are now complete.

    Raises:
        JointStateError, CommandError: it says nothing that can be used.
    """
    if topic == robot.topics.joint_states.lstrip("/"):
        stamp_ns = stamp_ns_of(message)
        return aligner.add_robot_state(
            robot_state_from_message(message.name, message.position, robot, stamp_ns)
        )
    if topic != robot.topics.recorded_arm_command.lstrip("/"):
        aligner.add_gripper_command(log_ns, opening_from_message(message))
        return []
    command = arm_command_from_message(message, robot)
    if command.time_from_start_ns:
        aligner.add_trajectory_command(
            command.stamp_ns or log_ns, command.time_from_start_ns, command.position_rad
        )
    elif len(command.position_rad):
        aligner.add_command(log_ns, command.position_rad[0])
    return []


@dataclass(frozen=True)
class TopicReport:
    """How one topic arrived: messages, mean rate [Hz] and longest gap [s] between stamps."""

    count: int
    rate_hz: float
    longest_gap_s: float

    def __str__(self) -> str:
        if self.count < 2:
            return f"{self.count} messages"
        return f"{self.count} at {self.rate_hz:.1f} Hz, longest gap {self.longest_gap_s:.3f} s"


@dataclass(frozen=True)
class BagReport:
    """Whether a bag serves as a demonstration; `problems` is empty when it does."""

    path: Path
    duration_s: float
    topics: Mapping[str, TopicReport]
    problems: Sequence[str] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        """No problem was found."""
        return not self.problems


def check_bag(path: Path | str, robot: RobotDescription) -> BagReport:
    """Check that every needed topic arrived at its rate, without gaps, and soon after it was stamped.

    Every message is read as `read_frames` reads it, but that images are not decoded: what passes gives frames.

    Raises:
        BagError: the bag cannot be opened, is damaged, lacks a topic, holds a message that says nothing about this robot,
            or gives no frame.
    """
    path = Path(path)
    contents = _require_topics(path, robot)
    image_topics, topics = contents.image_topics, robot.topics
    needed = [*image_topics, *(topic.lstrip("/") for topic in needed_topics(robot))]
    stamps: dict[str, list[int]] = {topic: [] for topic in needed}
    latest_ns = dict.fromkeys(image_topics, 0)

    def note(topic: str, log_ns: int, message: Any) -> None:
        # The stamp of a trajectory is 0 where it begins at once.
        stamp_ns = stamp_ns_of(message) if hasattr(message, "header") else 0
        stamps[topic].append(stamp_ns or log_ns)
        if topic in image_topics:
            latest_ns[topic] = max(latest_ns[topic], log_ns - stamp_ns)

    try:
        count = sum(1 for _ in _aligned_frames(path, robot, contents, lambda *_: None, lambda _: None, note))
    except JointStateError as error:
        raise BagError(str(error)) from error
    if count == 0:
        raise BagError(f"bag {path} has no frame in which image, joint state and command overlap in time")
    times_s = {t: np.sort(np.asarray(stamps[t], dtype=np.int64)) / 1e9 for t in needed}
    reports = {topic: _report(at_s) for topic, at_s in times_s.items()}
    # Whatever else was to be recorded, as camera_info: its publisher was there, and said nothing.
    problems = [f"{topic}: no message came" for topic, arrived in contents.counts.items() if arrived == 0]
    measured = [times_s[t] for t in (*image_topics, topics.joint_states.lstrip("/"))]
    first_s, last_s = min(float(t[0]) for t in measured), max(float(t[-1]) for t in measured)
    for topic, at_s in times_s.items():
        if at_s.size < 2:
            problems.append(f"{topic}: {at_s.size} messages; a demonstration needs at least 2")
            continue
        problems += _arrival_problems(topic, reports[topic], robot, image_topics.get(topic))
        if topic == (topics.gripper_command or "").lstrip("/"):
            continue  # told when it changes
        if at_s[0] - first_s > EDGE_S:
            problems.append(f"{topic}: begins {at_s[0] - first_s:.1f} s after the others")
        if last_s - at_s[-1] > EDGE_S:
            problems.append(f"{topic}: ends {last_s - at_s[-1]:.1f} s before the others")
    # The recorder was as late for the commands, whose only time is that of their arrival.
    problems += [
        f"{topic}: an image was recorded {late_ns / 1e9:.3f} s after its stamp, the deadline is "
        f"{robot.deadlines_s.image} s; commands have no stamp of their own, so frames and actions do not match"
        for topic, late_ns in latest_ns.items()
        if late_ns > robot.deadlines_s.image * 1e9
    ]
    image_times = stamps[next(iter(image_topics))]
    return BagReport(path, (max(image_times) - min(image_times)) / 1e9, reports, tuple(problems))


def _report(at_s: FloatArray) -> TopicReport:
    """Of (N,) sorted times, at least one."""
    if at_s.size < 2:
        return TopicReport(int(at_s.size), 0.0, float("inf"))
    span_s = float(at_s[-1] - at_s[0])
    rate_hz = (at_s.size - 1) / span_s if span_s > 0 else float("inf")
    return TopicReport(int(at_s.size), rate_hz, float(np.diff(at_s).max()))


def _arrival_problems(
    topic: str, report: TopicReport, robot: RobotDescription, camera: Camera | None
) -> Iterator[str]:
    """What is wrong with the rate and the gaps of a topic; `camera` is whose images it holds."""
    topics = robot.topics
    if camera is not None:
        # One lost image doubles a gap; half a period of jitter is still no loss.
        if report.longest_gap_s > 1.5 / camera.rate_hz:
            yield (
                f"{topic}: images are {report.longest_gap_s:.3f} s apart at worst; at {camera.rate_hz} Hz one is missing"
            )
        elif report.rate_hz < RATE_FRACTION * camera.rate_hz:
            yield f"{topic}: {report.rate_hz:.1f} Hz; the robot description says {camera.rate_hz} Hz"
    elif topic == topics.joint_states.lstrip("/"):
        if report.longest_gap_s > robot.deadlines_s.joint_states:
            yield (
                f"{topic}: a gap of {report.longest_gap_s:.3f} s; the deadline is {robot.deadlines_s.joint_states} s"
            )
        if report.rate_hz < RATE_FRACTION * robot.control_rate_hz:
            yield f"{topic}: {report.rate_hz:.1f} Hz, below the control rate of {robot.control_rate_hz} Hz"
    elif topic == topics.recorded_arm_command.lstrip("/") and report.longest_gap_s > COMMAND_GAP_S:
        yield (
            f"{topic}: no command for {report.longest_gap_s:.3f} s, in which the arm was held; did the teleoperation stall?"
        )

"""Write demonstrations as rosbag2 folders (MCAP), as `ros2 bag record -s mcap` would.

A recording grows in `NAME.recording/` and becomes `NAME/` only when it is kept, so that a folder
with a demonstration's name is always a whole one. What was written before a crash stays in the
`.recording` folder. The bag itself says which robot it is of and how the episode ended (`custom_data`
of rosbag2, which stands in metadata.yaml and inside the MCAP file).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.base import TypesysError

from atk_perception.frames import LABEL_KEY, ROBOT_FILE, ROBOT_KEY, BagReport, check_bag
from atk_perception.mcap_file import McapError, recover
from atk_perception.robot_description import RobotDescription

UNFINISHED_SUFFIX = ".recording"
DISCARDED_SUFFIX = ".discarded"
LATCHED = Qos(
    history=QosHistory.KEEP_LAST,
    depth=1,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.TRANSIENT_LOCAL,
    deadline=QosTime(0, 0),
    lifespan=QosTime(0, 0),
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=QosTime(0, 0),
    avoid_ros_namespace_conventions=False,
)
SUCCESS, DISCARDED = "success", "discard"


class RecordingError(RuntimeError):
    """A demonstration cannot be recorded; the message says why and what to do."""


class DemonstrationWriter:
    """One demonstration being written.

    Args:
        path: folder of the finished bag; must not exist.
        topics: topic -> ROS message type, such as ``sensor_msgs/msg/JointState``.
        robot: stored beside the messages, since it says what the topics mean.
        definitions: text of message definitions that ROS 2 Jazzy itself does not have, by type.
        latched: those of `topics` whose last message is for who joins late, noted for who plays the bag.

    Raises:
        RecordingError: the bag exists already, a type is unknown, or the disk is full.
    """

    def __init__(
        self,
        path: Path,
        topics: Mapping[str, str],
        robot: RobotDescription,
        definitions: Mapping[str, str] | None = None,
        latched: Collection[str] = (),
    ) -> None:
        self._path = path
        self._partial = path.with_name(path.name + UNFINISHED_SUFFIX)
        self._robot = robot
        for folder in (self._path, self._partial):
            if folder.exists():
                raise RecordingError(
                    f"{folder} exists already; give the demonstration another name, or move it away"
                )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        typestore = get_typestore(Stores.ROS2_JAZZY)
        for msgtype, text in (definitions or {}).items():
            typestore.register(get_types_from_msg(text, msgtype))
        self._writer = Writer(self._partial, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_custom_data("atk_robot", robot.name)
        self._writer.set_custom_data(ROBOT_KEY, robot.dump())
        self._writer.open()
        self._connections: dict[str, Any] = {}
        for topic, msgtype in topics.items():
            try:
                self._connections[topic] = self._writer.add_connection(
                    f"/{topic.lstrip('/')}",
                    msgtype,
                    typestore=typestore,
                    offered_qos_profiles=(LATCHED,) if topic in latched else (),
                )
            except (WriterError, TypesysError) as error:
                self.discard()
                raise RecordingError(
                    f"messages of type {msgtype} ({topic}) cannot be recorded: {error}"
                ) from error
        try:
            (self._partial / ROBOT_FILE).write_text(robot.dump())
        except OSError as error:
            self.discard()
            raise RecordingError(f"cannot record into {self._path.parent}: {error.strerror}") from error

    @property
    def partial(self) -> Path:
        """The folder that is being written."""
        return self._partial

    def write(self, topic: str, log_ns: int, cdr: bytes) -> None:
        """Append one serialised message; `log_ns` is the ROS clock at its arrival [ns].

        Raises:
            RecordingError: the disk is full or failed. The recording has ended; what was written before stays
                readable in the `.recording` folder.
        """
        try:
            self._writer.write(self._connections[topic], log_ns, cdr)
        except OSError as error:
            raise RecordingError(self._salvage(error)) from error

    def keep(self, label: str = SUCCESS) -> BagReport:
        """Finish the bag and check it.

        Returns:
            The check; a bag with problems is kept too, for a person to judge.

        Raises:
            BagError: what was written cannot serve as a demonstration at all (a topic is empty);
                it stays in the `.recording` folder.
            RecordingError: the disk is full; see `write`.
        """
        self._finish(label)
        report = check_bag(self._partial, self._robot)
        self._partial.rename(self._path)
        return replace(report, path=self._path)

    def close_unfinished(self) -> None:
        """Finish the file but leave it in the `.recording` folder: nobody said what it is worth."""
        self._finish("")

    def discard(self) -> None:
        """Delete what was written."""
        with contextlib.suppress(OSError):  # a full disk must not keep a bag from being deleted
            self._writer.close()
        shutil.rmtree(self._partial)

    def set_aside(self) -> Path:
        """Finish the bag as a discarded one, in `NAME.discarded/`, where no selection looks for it.

        Raises:
            RecordingError: such a folder exists already, or the disk is full.
        """
        path = self._path.with_name(self._path.name + DISCARDED_SUFFIX)
        self._finish(DISCARDED)
        if path.exists():
            raise RecordingError(f"{path} exists already; what was recorded stays in {self._partial}")
        return self._partial.rename(path)

    def _finish(self, label: str) -> None:
        if label:
            self._writer.set_custom_data(LABEL_KEY, label)
        try:
            self._writer.close()
        except OSError as error:
            raise RecordingError(self._salvage(error)) from error

    def _salvage(self, error: OSError) -> str:
        """End the file after the last chunk that reached the disk; returns what to tell people."""
        assert self._writer.storage is not None
        # What still waits in the file's buffer is the end of a chunk that did not fit.
        with contextlib.suppress(OSError):
            self._writer.storage.bio.close()
        (self._partial / "metadata.yaml").unlink(missing_ok=True)
        text = f"the recording has ended: {error.strerror or error}."
        try:
            saved = recover(self._partial, self._writer.custom_data)
        except (McapError, OSError) as failure:
            return f"{text} Nothing of it could be saved ({failure}). Make room, and record again."
        return (
            f"{text} {sum(saved.messages.values())} messages of the first {saved.duration_s:.1f} s are readable in "
            f"{self._partial}. Make room, and record again."
        )

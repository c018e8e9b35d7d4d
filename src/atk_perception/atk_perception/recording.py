"""Write demonstrations as rosbag2 folders (MCAP), as `ros2 bag record -s mcap` would.

A recording grows in `NAME.recording/` and becomes `NAME/` only when it is kept, so that a folder
with a demonstration's name is always a whole one. What was written before a crash stays in the
`.recording` folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.base import TypesysError

from atk_perception.frames import BagReport, check_bag
from atk_perception.robot_description import RobotDescription

UNFINISHED_SUFFIX = ".recording"
ROBOT_FILE = "robot.yaml"


class RecordingError(RuntimeError):
    """A demonstration cannot be recorded; the message says why and what to do."""


class DemonstrationWriter:
    """One demonstration being written.

    Args:
        path: folder of the finished bag; must not exist.
        topics: topic -> ROS message type, such as ``sensor_msgs/msg/JointState``.
        robot: stored beside the messages, since it says what the topics mean.
        definitions: text of message definitions that ROS 2 Jazzy itself does not have, by type.

    Raises:
        RecordingError: the bag exists already, or a type is unknown.
    """

    def __init__(
        self,
        path: Path,
        topics: Mapping[str, str],
        robot: RobotDescription,
        definitions: Mapping[str, str] | None = None,
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
        self._writer.open()
        self._connections: dict[str, Any] = {}
        for topic, msgtype in topics.items():
            try:
                self._connections[topic] = self._writer.add_connection(
                    f"/{topic.lstrip('/')}", msgtype, typestore=typestore
                )
            except (WriterError, TypesysError) as error:
                self.discard()
                raise RecordingError(
                    f"messages of type {msgtype} ({topic}) cannot be recorded: {error}"
                ) from error
        (self._partial / ROBOT_FILE).write_text(robot.dump())

    def write(self, topic: str, log_ns: int, cdr: bytes) -> None:
        """Append one serialised message; `log_ns` is the ROS clock at its arrival [ns]."""
        self._writer.write(self._connections[topic], log_ns, cdr)

    def keep(self) -> BagReport:
        """Finish the bag and check it.

        Returns:
            The check; a bag with problems is kept too, for a person to judge.

        Raises:
            BagError: what was written cannot serve as a demonstration at all (a topic is empty);
                it stays in the `.recording` folder.
        """
        self._writer.close()
        report = check_bag(self._partial, self._robot)
        self._partial.rename(self._path)
        return replace(report, path=self._path)

    def close_unfinished(self) -> None:
        """Finish the file but leave it in the `.recording` folder: nobody said what it is worth."""
        self._writer.close()

    def discard(self) -> None:
        """Delete what was written."""
        self._writer.close()
        shutil.rmtree(self._partial)

"""A demonstration's folder is a whole demonstration; what was cut off stays apart and is kept."""

from __future__ import annotations

import pytest
from bag_writing import ROBOT, write_demonstration
from rosbags.highlevel import AnyReader

from atk_perception.frames import BagError, check_bag, read_frames
from atk_perception.recording import DemonstrationWriter, RecordingError
from atk_perception.robot_description import RobotDescription


@pytest.fixture
def source(tmp_path):
    """(topics, [(topic, log time, CDR bytes)]) of a small demonstration."""
    bag, _ = write_demonstration(tmp_path / "source", steps=12)
    with AnyReader([bag]) as reader:
        topics = {c.topic.lstrip("/"): c.msgtype for c in reader.connections}
        rows = [(c.topic.lstrip("/"), stamp, bytes(raw)) for c, stamp, raw in reader.messages()]
    return topics, rows


def write(path, source) -> DemonstrationWriter:
    topics, rows = source
    writer = DemonstrationWriter(path, topics, ROBOT)
    for row in rows:
        writer.write(*row)
    return writer


def test_a_kept_demonstration_reads_back_and_holds_its_robot(tmp_path, source):
    path = tmp_path / "demonstrations" / "one"
    report = write(path, source).keep()
    assert report.ok
    assert report.path == path
    assert check_bag(path, ROBOT).ok
    assert len(list(read_frames(path, ROBOT))) == 12
    assert RobotDescription.load(path / "robot.yaml") == ROBOT
    assert not list(path.parent.glob("*.recording"))


def test_a_discarded_demonstration_leaves_nothing(tmp_path, source):
    write(tmp_path / "one", source).discard()
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_unfinished_demonstration_is_kept_apart(tmp_path, source):
    write(tmp_path / "one", source).close_unfinished()
    assert not (tmp_path / "one").exists()
    assert len(list(read_frames(tmp_path / "one.recording", ROBOT))) == 12
    with pytest.raises(RecordingError, match=r"one\.recording exists already"):
        write(tmp_path / "one", source)


def test_nothing_is_overwritten(tmp_path, source):
    write(tmp_path / "one", source).keep()
    with pytest.raises(RecordingError, match="exists already"):
        write(tmp_path / "one", source)


def test_a_demonstration_without_commands_is_not_called_one(tmp_path, source):
    topics, rows = source
    writer = DemonstrationWriter(tmp_path / "one", topics, ROBOT)
    for row in rows:
        if row[0] != ROBOT.topics.command:
            writer.write(*row)
    with pytest.raises(BagError, match=ROBOT.topics.command):
        writer.keep()
    assert not (tmp_path / "one").exists()
    assert (tmp_path / "one.recording").is_dir()


def test_an_unknown_message_type_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="my_msgs/msg/Odd"):
        DemonstrationWriter(tmp_path / "one", {"odd": "my_msgs/msg/Odd"}, ROBOT)
    assert not (tmp_path / "one.recording").exists()

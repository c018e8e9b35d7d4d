"""A demonstration's folder is a whole demonstration; what was cut off stays apart and is kept."""

from __future__ import annotations

import pytest
from bag_writing import ROBOT, write_demonstration
from rosbags.highlevel import AnyReader

from atk_perception.frames import BagError, bag_label, bag_robot, check_bag, read_frames
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


def test_an_episode_says_how_it_ended(tmp_path, source):
    write(tmp_path / "one", source).keep()
    assert bag_label(tmp_path / "one") == "success"
    aside = write(tmp_path / "two", source).set_aside()
    assert aside == tmp_path / "two.discarded"
    assert bag_label(aside) == "discard"
    assert len(list(read_frames(aside, ROBOT))) == 12
    write(tmp_path / "three", source).close_unfinished()
    assert bag_label(tmp_path / "three.recording") == ""


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (
            {"camera": ROBOT.camera.model_copy(update={"name": "left"})},
            r"camera.name: left here.*, camera there",
        ),
        ({"joints": ROBOT.joints.model_copy(update={"names": tuple("abcdefg")})}, r"joints\.names: \('a'"),
    ],
)
def test_a_bag_of_another_robot_is_refused_and_told_what_differs(tmp_path, source, update, message):
    write(tmp_path / "one", source).keep()
    other = ROBOT.model_copy(update={"name": "other", **update})
    for read in (
        lambda: next(read_frames(tmp_path / "one", other)),
        lambda: check_bag(tmp_path / "one", other),
    ):
        with pytest.raises(BagError, match=rf"recorded with robot 'sim_panda', which differs.*{message}"):
            read()


def test_a_policy_may_run_at_another_rate_than_the_recording_said(tmp_path, source):
    write(tmp_path / "one", source).keep()
    slow = ROBOT.model_copy(update={"control_rate_hz": 10.0})
    assert len(list(read_frames(tmp_path / "one", slow))) == 6


def test_a_bag_of_ros2_bag_record_names_no_robot_and_is_read(tmp_path):
    bag, _ = write_demonstration(tmp_path / "source", steps=12)
    assert bag_robot(bag) is None
    assert len(list(read_frames(bag, ROBOT))) == 12


def test_an_unreadable_robot_in_a_bag_is_named(tmp_path):
    bag, _ = write_demonstration(
        tmp_path / "source", steps=3, custom_data={"atk_robot_file": "format_version: 99"}
    )
    with pytest.raises(BagError, match=r"inside bag .*source has format_version 99"):
        next(read_frames(bag, ROBOT))

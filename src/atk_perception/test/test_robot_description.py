"""A robot description is read whole or refused with the entry, the line and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from bag_writing import ROBOT, ROBOT_FILE

from atk_perception.robot_description import RobotDescription, RobotDescriptionError

TEXT = ROBOT_FILE.read_text()


def test_a_description_survives_its_own_dump():
    assert RobotDescription.parse(ROBOT.dump(), "dump") == ROBOT
    assert RobotDescription.parse(ROBOT.dump(), "dump").fingerprint() == ROBOT.fingerprint()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("control_rate_hz: 20.0", "control_rate_hz: 40.0", "above the camera's rate_hz"),
        ("width: 640", "width: -1", r"camera\.width: .* \(line \d+\)"),
        ("format_version: 1", "format_version: 7", "format_version 7; this version of ATK reads 1"),
        ("min_m: 0.0", "mim_m: 0.0", r"gripper\.min_m: Field required"),
        (
            "[0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785]",
            "[0.0, -0.785, 0.0]",
            "home_rad has 3 values for 7 joints",
        ),
        (
            "[0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785]",
            "[9.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785]",
            "outside its limits",
        ),
        ("panda_joint2, panda_joint3", "panda_joint2, panda_joint2", "joint names repeat"),
        ("velocity_max_rad_s: [2.175,", "velocity_max_rad_s: [.nan,", r"velocity_max_rad_s\.0"),
        ("image_topic: camera/image_raw", "image_topic: 'camera image'", r"camera\.image_topic"),
        ("joints:", "joints: [", "not valid YAML"),
        ("opening_per_joint_m: 2.0", "opening_per_joint_m: 0.0", "opening_per_joint_m is 0"),
        ("max_m: 0.08", "max_m: 0.08\n  sink: gripper_command", "needs 'action'"),
        ("sink: forward_position", "sink: follow_joint_trajectory", "needs 'command_action'"),
        ("tip: tip", "tipp: tip", r"kinematics\.tip: Field required"),
        (
            "moveit_group: panda_arm",
            "moveit_group: [panda_arm]",
            r"kinematics\.moveit_group: .* \(line \d+\)",
        ),
        ("[0.20, -0.40, -0.02]", "[0.20, 0.45, -0.02]", r"workspace along y: 0.45 is not below 0.45"),
    ],
)
def test_a_wrong_entry_is_named(old, new, message):
    assert old in TEXT
    with pytest.raises(RobotDescriptionError, match=message):
        RobotDescription.parse(TEXT.replace(old, new), "robot.yaml")


@pytest.mark.parametrize("entry", ["scene_check: model", "command_sink: servo_twist"])
def test_what_needs_a_model_of_the_arm_is_refused_without(entry):
    key, value = entry.split(": ")
    content = {**yaml.safe_load(TEXT), "scene_check": "none", key: value}
    del content["kinematics"]
    with pytest.raises(RobotDescriptionError, match="needs the entry 'kinematics'"):
        RobotDescription.parse(yaml.safe_dump(content), "robot.yaml")


# -- where the model lies ----------------------------------------------------------------------------

MODEL = "package://atk_bringup/config/robots/models/panda_on_table.xml"


def write(folder: Path, model: str) -> Path:
    assert MODEL in TEXT
    (folder / "robot.yaml").write_text(TEXT.replace(MODEL, model))
    return folder / "robot.yaml"


def test_a_model_beside_the_description_is_found_from_anywhere_and_after_a_copy(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "arm.xml").touch()
    path = write(tmp_path, "models/arm.xml")
    monkeypatch.chdir(tmp_path)
    robot = RobotDescription.load(path.name)
    monkeypatch.chdir("/")
    assert robot.kinematics.model_file() == tmp_path / "models" / "arm.xml"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "robot.yaml").write_text(robot.dump())
    assert RobotDescription.load(tmp_path / "run" / "robot.yaml") == robot


def test_a_model_of_a_package_stays_so_in_copies_and_is_found_where_it_is_installed(tmp_path):
    robot = RobotDescription.load(write(tmp_path, MODEL))
    assert robot.kinematics.model == MODEL
    assert (
        robot.kinematics.model_file().read_bytes()
        == (ROBOT_FILE.parent / "models" / "panda_on_table.xml").read_bytes()
    )


def test_where_the_model_lies_is_no_part_of_what_a_recording_was_made_for(tmp_path):
    (tmp_path / "arm.xml").touch()
    here, there = (
        RobotDescription.load(write(tmp_path, "arm.xml")),
        RobotDescription.load(write(tmp_path, MODEL)),
    )
    assert here.fingerprint() == there.fingerprint()
    other = TEXT.replace("workspace_min_m: [0.20", "workspace_min_m: [0.25")
    assert RobotDescription.parse(other, "other").fingerprint() != ROBOT.fingerprint()


def test_a_missing_model_is_named_with_its_line(tmp_path):
    with pytest.raises(
        RobotDescriptionError, match=r"kinematics\.model: there is no file .*/nowhere\.xml \(line \d+\)"
    ):
        RobotDescription.load(write(tmp_path, "nowhere.xml"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("package://no_such_package/arm.xml", "package 'no_such_package' is not installed"),
        ("package://atk_bringup/nowhere.xml", r"there is no file .*/atk_bringup/nowhere\.xml"),
        ("package://", "package '' is not installed"),
        ("/nowhere/arm.xml", "name the model as package://PACKAGE/PATH"),
    ],
)
def test_a_model_that_another_machine_had_is_named_when_it_is_needed(tmp_path, model, message):
    kinematics = RobotDescription.load(write(tmp_path, model)).kinematics
    with pytest.raises(RobotDescriptionError, match=message):
        kinematics.model_file()


def test_a_relative_model_of_a_text_is_refused():
    kinematics = RobotDescription.parse(TEXT.replace(MODEL, "arm.xml"), "text").kinematics
    with pytest.raises(RobotDescriptionError, match=r"use RobotDescription\.load"):
        kinematics.model_file()


# ----------------------------------------------------------------------------------------------------


def test_a_gripper_may_close_as_its_joint_grows():
    text = TEXT.replace("opening_per_joint_m: 2.0", "opening_per_joint_m: -0.1\n  opening_at_zero_m: 0.08")
    gripper = RobotDescription.parse(text, "robot.yaml").gripper
    assert gripper.opening_m(0.0) == 0.08
    assert gripper.opening_m(0.8) == pytest.approx(0.0)
    assert gripper.joint_position(gripper.opening_m(0.3)) == pytest.approx(0.3)


def test_a_missing_or_empty_file_is_named(tmp_path):
    with pytest.raises(RobotDescriptionError, match=r"nowhere\.yaml cannot be read"):
        RobotDescription.load(tmp_path / "nowhere.yaml")
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(RobotDescriptionError, match="holds no entries"):
        RobotDescription.load(tmp_path / "empty.yaml")


def test_differences_that_a_policy_depends_on_are_named():
    assert ROBOT.differences(ROBOT) == []
    other = ROBOT.model_copy(
        update={"control_rate_hz": 10.0, "topics": ROBOT.topics.model_copy(update={"command": "x"})}
    )
    assert ROBOT.differences(other) == ["control_rate_hz: 20.0 here, 10.0 there"]


# ----------------------------------------------------------------------------------- several cameras

TWO_TEXT = ROBOT_FILE.with_name("sim_panda_two_cameras.yaml").read_text()
TWO = RobotDescription.parse(TWO_TEXT, "two")


def line_of(text: str, entry: str) -> int:
    return text[: text.index(entry)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: left", "name: camera", r"more_cameras\.0\.name: camera is that of camera 'camera' too"),
        ("name: left", "name: my-left", r"more_cameras\.0\.name: 'my-left' is no name for a namespace"),
        (
            "image_topic: left/camera/image_raw",
            "image_topic: /camera/image_raw",
            r"more_cameras\.0\.image_topic: camera/image_raw is that of camera 'camera' too; each camera needs its own",
        ),
        (
            "recorded_topic: left/camera/image_raw/compressed",
            "recorded_topic: camera/image_raw/compressed",
            r"more_cameras\.0\.recorded_topic",
        ),
    ],
)
def test_cameras_that_cannot_be_told_apart_are_refused_with_the_line(old, new, message):
    assert TWO_TEXT.count(old) == 1
    text = TWO_TEXT.replace(old, new)
    with pytest.raises(RobotDescriptionError, match=rf"{message}.* \(line {line_of(TWO_TEXT, old)}\)"):
        RobotDescription.parse(text, "two")


def test_every_camera_is_as_fast_as_control():
    slow = TWO_TEXT.replace("rate_hz: 20.0\n\ntopics", "rate_hz: 10.0\n\ntopics")
    with pytest.raises(RobotDescriptionError, match=r"above the camera's rate_hz 10\.0"):
        RobotDescription.parse(slow, "two")


def test_a_robot_is_seen_by_some_of_its_cameras():
    assert RobotDescription.parse(TWO.dump(), "dump") == TWO
    left = TWO.seen_by("left")
    assert (left.camera.name, left.more_cameras) == ("left", ())
    assert [camera.name for camera in TWO.seen_by("left", "camera").cameras] == ["left", "camera"]
    assert TWO.seen_by("camera", "left") == TWO
    with pytest.raises(RobotDescriptionError, match=r"no camera \['right'\]; it has \['camera', 'left'\]"):
        TWO.seen_by("right")


def test_cameras_that_are_not_looked_through_are_no_difference():
    one = TWO.seen_by("camera")
    assert one.differences(TWO) == []
    assert TWO.differences(one) == ["camera.name: left here, camera there"]


def test_a_robot_with_one_camera_is_known_again_by_what_older_releases_noted():
    assert "more_cameras" not in ROBOT.dump()
    # As computed by the release before there were several cameras.
    assert ROBOT.fingerprint() == "4953da4a6bb16c15"

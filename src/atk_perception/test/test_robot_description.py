"""A robot description is read whole or refused with the entry, the line and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from bag_writing import ROBOT, ROBOT_FILE

from atk_perception.robot_description import RobotDescription, RobotDescriptionError

TEXT = ROBOT_FILE.read_text()


def line_of(text: str, entry: str) -> int:
    return text[: text.index(entry)].count("\n") + 1


def test_a_description_survives_its_own_dump():
    assert RobotDescription.parse(ROBOT.dump(), "dump") == ROBOT
    assert RobotDescription.parse(ROBOT.dump(), "dump").fingerprint() == ROBOT.fingerprint()


HOME = "home_rad: [0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785]"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format_version: 1", "format_version: 7", "format_version 7{line}; this version of ATK reads 1"),
        ("width: 640", "width: -1", r"camera\.width: .*{line}"),
        ("image_topic: camera/image_raw", "image_topic: 'camera image'", r"camera\.image_topic: .*{line}"),
        ("velocity_max_rad_s: [2.175,", "velocity_max_rad_s: [.nan,", r"velocity_max_rad_s\.0: .*{line}"),
        (
            "moveit_group: panda_arm",
            "moveit_group: [panda_arm]",
            r"kinematics\.moveit_group: .*{line}",
        ),
        # What does not fit together.
        (
            "control_rate_hz: 20.0",
            "control_rate_hz: 40.0",
            r"control_rate_hz: .*above camera\.rate_hz.*{line}",
        ),
        (HOME, "home_rad: [0.0, -0.785]", "home_rad: 2 values for 7 joints{line}"),
        (
            HOME,
            HOME.replace("1.571", "9.0"),
            r"home_rad\.5: 9\.0 is outside the limits of panda_joint6.*{line}",
        ),
        ("panda_joint2, panda_joint3", "panda_joint2, panda_joint2", r"names\.2: .*named twice{line}"),
        (
            "position_max_rad: [2.8973, 1.7628,",
            "position_max_rad: [",
            "position_max_rad: 5 values for 7.*{line}",
        ),
        ("jerk_max_rad_s3: [7500.0,", "jerk_max_rad_s3: [", r"joints\.jerk_max_rad_s3: 6 values.*{line}"),
        (
            "position_min_rad: [-2.8973,",
            "position_min_rad: [3.0,",
            r"position_min_rad\.0: 3\.0 is not.*{line}",
        ),
        ("min_m: 0.0", "min_m: 0.08", r"gripper\.min_m: 0\.08 is not below max_m{line}"),
        ("opening_per_joint_m: 2.0", "opening_per_joint_m: 0.0", r"opening_per_joint_m: is 0; .*{line}"),
        (
            "  gripper_command: gripper_position_controller/commands\n",
            "",
            "topics: gripper.sink position needs topics.gripper_command.*{line-3}",
        ),
        ("min_m: 0.0", "min_m: 0.0\n  sink: gripper_command", "gripper.sink: .*needs 'action'.*{line+1}"),
        (
            "command_sink: forward_position",
            "command_sink: follow_joint_trajectory",
            "'command_action'.*{line}",
        ),
        (
            "command_sink: forward_position",
            "command_sink: servo_twist",
            r"needs kinematics\.base_frame.*{line}",
        ),
        (
            "workspace_min_m: [0.20, -0.40, -0.02]",
            "workspace_min_m: [0.20, 0.45, -0.02]",
            r"workspace_min_m\.1: along y, 0\.45 is not below.*{line}",
        ),
        ("normal: [0.0, 0.0, 1.0]", "normal: [0.0, 0.0, 0.0]", r"work_plane\.normal: is 0; give.*{line}"),
        # What is missing, unknown or there twice: the line of what should hold it, or does.
        ("min_m: 0.0", "mim_m: 0.0", r"gripper\.mim_m: Extra inputs.*{line}"),
        ("tip: tip", "tipp: tip", r"kinematics\.tipp: Extra inputs.*{line}"),
        ("joint_states: joint_states", "joint_state: x", r"topics\.joint_states: Field required{line-1}"),
        ("name: sim_panda", "nome: sim_panda", r" name: Field required{line-1}"),
        (
            "control_rate_hz: 20.0",
            "control_rate_hz: 20.0\nname: other",
            "'name' is given twice(.|\n)*{line+1}",
        ),
        ("width: 640", "width: 640\n  width: 320", "'width' is given twice, first in line(.|\n)*{line+1}"),
        ("joints:", "joints: [", "not valid YAML: (.|\n)*line"),
    ],
)
def test_every_error_names_its_line(old, new, message):
    assert TEXT.count(old) >= 1
    wrong = TEXT.replace(old, new, 1)
    line = line_of(TEXT, old)
    for shift in ("-3", "-1", "", "+1"):
        number = line + int(shift or 0)
        # YAML's own errors say 'line N, column M'.
        message = message.replace(f"{{line{shift}}}", rf"(.* \(line {number}\)|line {number}, column)")
    with pytest.raises(RobotDescriptionError, match=message):
        RobotDescription.parse(wrong, "robot.yaml")


def test_all_that_is_wrong_is_said_at_once():
    wrong = TEXT.replace("width: 640", "width: -1").replace("min_m: 0.0", "min_m: 0.08")
    with pytest.raises(RobotDescriptionError, match=r"gripper\.min_m: (.|\n)*camera\.width: "):
        RobotDescription.parse(wrong, "robot.yaml")


@pytest.mark.parametrize("entry", ["scene_check: model", "command_sink: servo_twist"])
def test_what_needs_a_model_of_the_arm_is_refused_without(entry):
    key, value = entry.split(": ")
    content = {**yaml.safe_load(TEXT), "scene_check": "none", key: value}
    del content["kinematics"]
    text = yaml.safe_dump(content)
    with pytest.raises(
        RobotDescriptionError,
        match=rf"{key}: {value} needs the entry 'kinematics'.* \(line {line_of(text, entry)}\)",
    ):
        RobotDescription.parse(text, "robot.yaml")


def test_a_moveit_group_is_needed_where_moveit_checks():
    text = TEXT.replace("scene_check: model", "scene_check: moveit").replace(
        "  moveit_group: panda_arm\n", ""
    )
    with pytest.raises(RobotDescriptionError, match=rf"line {line_of(TEXT, 'scene_check: model')}\)"):
        RobotDescription.parse(text, "robot.yaml")


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
    line = line_of(TEXT, "control_rate_hz")
    assert ROBOT.differences(other) == [f"control_rate_hz: 20.0 here (line {line}), 10.0 there (line {line})"]
    made = RobotDescription.model_validate(yaml.safe_load(TEXT.replace("panda_joint1", "shoulder")))
    (difference,) = ROBOT.differences(made)
    assert f"here (line {line_of(TEXT, 'names: [')}), ('shoulder'" in difference
    assert difference.endswith("there")  # no file, no line


def test_where_a_description_was_read_is_no_part_of_it():
    elsewhere = RobotDescription.parse(f"# moved down\n\n{TEXT}", "elsewhere.yaml")
    assert elsewhere.origin.name == "elsewhere.yaml"
    assert elsewhere == RobotDescription.parse(TEXT, "robot.yaml")
    assert hash(elsewhere) == hash(RobotDescription.parse(TEXT, "robot.yaml"))


# ----------------------------------------------------------------------------------- several cameras

TWO_TEXT = ROBOT_FILE.with_name("sim_panda_two_cameras.yaml").read_text()
TWO = RobotDescription.parse(TWO_TEXT, "two")


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
    with pytest.raises(RobotDescriptionError, match=r"above more_cameras\.0\.rate_hz 10\.0.* \(line 4\)"):
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
    left, camera = line_of(TWO_TEXT, "name: left"), line_of(TWO_TEXT, "name: camera")
    assert TWO.differences(one) == [f"camera.name: left here (line {left}), camera there (line {camera})"]
    assert TWO.seen_by("left", "camera").where_camera("left", "width") == f" (line {left + 5})"


def test_a_robot_with_one_camera_is_known_again_by_what_older_releases_noted():
    assert "more_cameras" not in ROBOT.dump()
    # As computed by the release before there were several cameras.
    assert ROBOT.fingerprint() == "4953da4a6bb16c15"

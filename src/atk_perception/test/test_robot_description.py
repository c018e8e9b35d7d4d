"""A robot description is read whole or refused with the entry, the line and the fix."""

from __future__ import annotations

import pytest
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
        (
            "sink: forward_position",
            "sink: forward_position\nscene_check: model",
            "needs the entry 'kinematics'",
        ),
    ],
)
def test_a_wrong_entry_is_named(old, new, message):
    assert old in TEXT
    with pytest.raises(RobotDescriptionError, match=message):
        RobotDescription.parse(TEXT.replace(old, new), "robot.yaml")


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

"""Messages obey the rules of the ros2_control controllers that take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atk_perception.robot_description import RobotDescription
from atk_policy.command_plan import CommandPlan
from atk_policy.command_sinks import make_command_sink

ROBOT = RobotDescription.load(
    Path(__file__).parents[2] / "atk_bringup" / "config" / "robots" / "sim_panda.yaml"
)
POSITION = np.stack([np.append(np.linspace(0, 0.6, 7) + 0.01 * k, 0.08 - 0.01 * k) for k in range(4)])
VELOCITY = np.vstack([np.full((3, 8), 0.2), np.zeros((1, 8))])
PLAN = CommandPlan(50_000_000 * np.arange(1, 5), POSITION, VELOCITY)


def test_forward_position_sends_joints_in_order_and_the_opening():
    sink = make_command_sink(ROBOT)
    arm, gripper = sink.messages(PLAN)
    assert [c.topic for c in sink.channels] == [ROBOT.topics.command, ROBOT.topics.gripper_command]
    assert np.array_equal(arm.data, POSITION[0, :-1])
    assert list(gripper.data) == [0.08]


def test_a_trajectory_is_a_whole_chunk_with_increasing_times_and_rest_at_its_end():
    robot = ROBOT.model_copy(update={"command_sink": "joint_trajectory"})
    arm, gripper = make_command_sink(robot).messages(PLAN)
    assert arm.joint_names == list(ROBOT.joints.names)
    assert (arm.header.stamp.sec, arm.header.stamp.nanosec) == (0, 0), "stamp 0 means now"
    times_s = [p.time_from_start.sec + p.time_from_start.nanosec / 1e9 for p in arm.points]
    assert times_s == pytest.approx([0.05, 0.10, 0.15, 0.20])
    assert np.allclose([p.positions for p in arm.points], POSITION[:, :-1])
    assert np.allclose(arm.points[1].velocities, 0.2), "0.01 rad per 0.05 s"
    assert not np.any(arm.points[-1].velocities)
    assert list(gripper.data) == [0.08]


def test_a_hold_is_one_point_at_rest():
    robot = ROBOT.model_copy(update={"command_sink": "joint_trajectory"})
    arm, _ = make_command_sink(robot).messages(CommandPlan.hold(POSITION[0], 50_000_000))
    assert len(arm.points) == 1
    assert not np.any(arm.points[0].velocities)


def test_an_unknown_sink_is_named():
    with pytest.raises(ValueError, match="unknown command sink 'servo'"):
        make_command_sink(ROBOT.model_copy(update={"command_sink": "servo"}))

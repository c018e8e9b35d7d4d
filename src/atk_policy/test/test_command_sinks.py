"""What the sinks make of a plan; whether controllers take it is tested in test_command_output.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from command_plans import (
    ACTION_ROBOT,
    JOG_ROBOT,
    PARALLEL_ROBOT,
    ROBOT,
    ROBOT_PATH,
    SERVO_ROBOT,
    TRAJECTORY_ROBOT,
    plans,
    robot_with,
)

from atk_perception.robot_description import Gripper, RobotDescription
from atk_policy.command_plan import CommandPlan
from atk_policy.command_sinks import ARM_SINKS, GRIPPER_SINKS, in_replay, make_arm_sink, make_gripper_sink
from atk_policy.command_sinks.gripper_goals import PERIOD_S, RETRY_S, SETTLED_S, GripperGoals
from atk_policy.command_sinks.protocol import Moment, Topic
from atk_policy.command_sinks.servo import CORRECTION_SHARE, command_type, joint_velocity
from atk_policy.kinematics import KinematicModel

pytestmark = pytest.mark.system

POSITION = np.stack([np.append(np.linspace(0, 0.6, 7) + 0.01 * k, 0.08 - 0.01 * k) for k in range(4)])
VELOCITY = np.vstack([np.full((3, 8), 0.2), np.zeros((1, 8))])
PLAN = CommandPlan(50_000_000 * np.arange(1, 5), POSITION, VELOCITY)
NOW = Moment(3_500_000_000)
VELOCITY_MAX = np.array(ROBOT.joints.velocity_max_rad_s)


def test_every_sink_that_a_robot_description_may_name_exists_and_is_documented():
    assert set(ARM_SINKS) == set(get_args(RobotDescription.model_fields["command_sink"].annotation))
    assert set(GRIPPER_SINKS) == set(get_args(Gripper.model_fields["sink"].annotation))
    table = (Path(__file__).parents[1] / "README.md").read_text()
    for name in (*ARM_SINKS, *GRIPPER_SINKS):
        assert f"| `{name}` |" in table


SHIPPED = sorted(ROBOT_PATH.parent.glob("*.yaml"))


@pytest.mark.parametrize(
    "robot",
    [
        *map(RobotDescription.load, SHIPPED),
        TRAJECTORY_ROBOT,
        ACTION_ROBOT,
        PARALLEL_ROBOT,
        JOG_ROBOT,
        SERVO_ROBOT,
        robot_with(command="/servo_node/delta_joint_cmds", command_sink="servo_joint"),
    ],
    ids=lambda robot: f"{robot.name}-{robot.command_sink}-{robot.gripper.sink}",
)
def test_in_replay_every_command_is_a_topic_under_replay_and_nobody_is_asked_first(robot):
    moved = in_replay(robot)
    arm, gripper = make_arm_sink(moved), make_gripper_sink(moved)
    for sink in (arm, gripper):
        assert isinstance(sink.target, Topic)
        assert sink.target.name.startswith("replay/")
    assert arm.target.name != gripper.target.name
    assert arm.preparation is None


def test_forward_position_sends_joints_in_order_and_the_opening():
    sink, gripper = make_arm_sink(ROBOT), make_gripper_sink(ROBOT)
    assert (sink.target.name, gripper.target.name) == (ROBOT.topics.command, ROBOT.topics.gripper_command)
    assert np.array_equal(sink.command(PLAN, NOW).data, POSITION[0, :-1])
    assert list(gripper.command(0.08).data) == [0.08]


def test_a_trajectory_is_a_whole_chunk_with_increasing_times_and_rest_at_its_end():
    arm = make_arm_sink(TRAJECTORY_ROBOT).command(PLAN, NOW)
    assert arm.joint_names == list(ROBOT.joints.names)
    assert (arm.header.stamp.sec, arm.header.stamp.nanosec) == (0, 0), "stamp 0 means now"
    times_s = [p.time_from_start.sec + p.time_from_start.nanosec / 1e9 for p in arm.points]
    assert times_s == pytest.approx([0.05, 0.10, 0.15, 0.20])
    assert np.allclose([p.positions for p in arm.points], POSITION[:, :-1])
    assert np.allclose(arm.points[1].velocities, 0.2), "0.01 rad per 0.05 s"
    assert not np.any(arm.points[-1].velocities)


def test_a_hold_is_one_point_at_rest():
    arm = make_arm_sink(TRAJECTORY_ROBOT).command(CommandPlan.hold(POSITION[0], 50_000_000), NOW)
    assert len(arm.points) == 1
    assert not np.any(arm.points[0].velocities)


def test_the_action_gets_the_same_trajectory_and_knows_failure_from_replacement():
    action = pytest.importorskip("control_msgs.action").FollowJointTrajectory
    sink = make_arm_sink(ACTION_ROBOT)
    assert sink.command(PLAN, NOW).trajectory == make_arm_sink(TRAJECTORY_ROBOT).command(PLAN, NOW)
    failure = sink.target.failure
    preempted = action.Result(error_code=action.Result.INVALID_GOAL, error_string="preempted")
    violated = action.Result(error_code=action.Result.PATH_TOLERANCE_VIOLATED, error_string="joint 1")
    assert failure(preempted, True) == ""
    assert failure(preempted, False) == "INVALID_GOAL: preempted"
    assert failure(violated, True) == failure(violated, False) == "PATH_TOLERANCE_VIOLATED: joint 1"


# -- grippers --------------------------------------------------------------------------------------


def test_gripper_actions_take_the_joints_position_not_the_opening():
    pytest.importorskip("control_msgs")
    franka = make_gripper_sink(ACTION_ROBOT).command(0.06).command
    assert (franka.position, franka.max_effort) == (0.03, 20.0), (
        "half the opening, as franka_gripper takes it"
    )
    # A Robotiq's joint grows from 0 to 0.7929 rad as it shuts.
    changes = {"joint": "knuckle", "opening_at_zero_m": 0.085, "opening_per_joint_m": -0.1072, "max_m": 0.085}
    entries = {**PARALLEL_ROBOT.gripper.model_dump(), **changes}
    robotiq = make_gripper_sink(robot_with(gripper=entries))
    assert list(robotiq.command(0.085).command.position) == [0.0]
    shut = robotiq.command(0.0).command
    assert (shut.name, list(shut.effort)) == (["knuckle"], [20.0])
    assert shut.position[0] == pytest.approx(0.7929, abs=1e-4)
    assert (
        list(
            make_gripper_sink(robot_with(gripper=entries | {"max_effort": None})).command(0.0).command.effort
        )
        == []
    )


def goals_of(openings_m: list[float], period_s: float = 0.05) -> list[tuple[int, float]]:
    """(period, opening) of what would be sent."""
    goals = GripperGoals(0.08)
    return [(k, m) for k, m in enumerate(openings_m) if goals.take(m, 10.0 + k * period_s)]


def test_a_gripper_that_stays_gets_one_goal():
    assert goals_of([0.08] * 100) == [(0, 0.08)]
    noise = np.random.default_rng(0).uniform(-1e-4, 1e-4, 100)
    assert len(goals_of((0.04 + noise).tolist())) == 1


def test_a_step_is_sent_at_once_and_a_slow_change_not_in_every_period():
    assert goals_of([0.08] * 20 + [0.0] * 20) == [(0, 0.08), (20, 0.0)]
    ramp = goals_of(np.linspace(0.08, 0.0, 41).tolist() + [0.0] * 20)
    sent_at = [k * 0.05 for k, _ in ramp]
    assert np.diff(sent_at).min() >= PERIOD_S - 1e-9
    assert ramp[-1][1] == 0.0, "in the end all the way"


def test_a_small_change_is_sent_once_it_has_settled():
    sent = goals_of([0.04] * 10 + [0.042] * 20)
    assert [m for _, m in sent] == [0.04, 0.042]
    assert (sent[1][0] - 10) * 0.05 == pytest.approx(SETTLED_S)


def test_a_goal_that_came_to_nothing_is_sent_again_after_a_pause_and_a_run_begins_anew():
    goals = GripperGoals(0.08)
    assert goals.take(0.08, 0.0)
    goals.retry(1.0)
    assert not goals.take(0.08, 1.0)
    assert goals.take(0.08, 1.0 + RETRY_S)
    assert not goals.take(0.08, 9.0)
    goals.begin()
    assert goals.take(0.08, 9.0)


# -- MoveIt Servo ----------------------------------------------------------------------------------


def test_an_arm_that_follows_is_given_the_velocities_of_the_plan():
    due_now = PLAN.command[:-1] - 0.2 * 0.05
    for moment in (NOW, replace(NOW, measured=due_now)):
        assert np.allclose(joint_velocity(PLAN, moment, VELOCITY_MAX), 0.2)


def test_what_an_arm_is_off_is_made_up_for_slowly():
    due_now = PLAN.command[:-1] - 0.2 * 0.05
    off = np.array([0.01, -0.01, 0.3, -0.3, 0.0, 0.0, 0.0])
    correction = joint_velocity(PLAN, replace(NOW, measured=due_now - off), VELOCITY_MAX) - 0.2
    limit = CORRECTION_SHARE * VELOCITY_MAX
    assert np.allclose(correction, [0.02, -0.02, limit[2], -limit[3], 0, 0, 0])


def test_velocities_that_lead_back_to_the_plan_bring_a_drifting_arm_there():
    period_s = ROBOT.control_period_ns / 1e9
    arm = np.array(ROBOT.home_rad) + 0.02
    for plan in plans(2.0):
        final = plan
        arm = arm + period_s * joint_velocity(plan, replace(NOW, measured=arm), VELOCITY_MAX)
    assert np.abs(arm - final.command[:-1]).max() < 0.01, "0.02 off at first"


def test_a_plan_at_rest_is_exactly_zero_wherever_the_arm_is():
    hold = CommandPlan.hold(POSITION[0], 50_000_000)
    assert not joint_velocity(hold, replace(NOW, measured=np.ones(7)), VELOCITY_MAX).any()


def test_beyond_a_limit_all_joints_are_slowed_alike():
    fast = replace(PLAN, velocity=np.vstack([np.linspace(0.5, 5.0, 8), VELOCITY[1:]]))
    velocity = joint_velocity(fast, NOW, VELOCITY_MAX)
    assert np.max(velocity / VELOCITY_MAX) == pytest.approx(1.0)
    assert np.allclose(velocity / velocity[0], fast.velocity[0, :-1] / 0.5)


def test_joint_commands_are_stamped_and_named():
    pytest.importorskip("control_msgs")
    message = make_arm_sink(JOG_ROBOT).command(PLAN, NOW)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (3, 500_000_000)
    assert message.joint_names == list(ROBOT.joints.names)
    assert np.allclose(message.velocities, 0.2)
    assert len(message.displacements) == 0


def test_twists_are_the_velocity_of_the_tip_in_axes_of_the_base():
    model = KinematicModel(SERVO_ROBOT)
    at, step_s = np.array(ROBOT.home_rad), 1e-6
    message = make_arm_sink(SERVO_ROBOT).command(PLAN, replace(NOW, measured=at))
    velocity = joint_velocity(PLAN, replace(NOW, measured=at), VELOCITY_MAX)
    before, after = model.tip_pose(at), model.tip_pose(at + step_s * velocity)
    moved = (after - before) / step_s
    turned = moved[:3, :3] @ before[:3, :3].T  # skew-symmetric: the angular velocity
    linear, angular = message.twist.linear, message.twist.angular
    assert np.allclose([linear.x, linear.y, linear.z], moved[:3, 3], atol=1e-5)
    assert np.allclose(
        [angular.x, angular.y, angular.z], [turned[2, 1], turned[0, 2], turned[1, 0]], atol=1e-5
    )
    assert message.header.frame_id == "panda_link0"
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (3, 500_000_000)


def test_servo_is_switched_at_the_node_of_the_topic():
    pytest.importorskip("moveit_msgs")
    preparation = command_type("arm/servo_node/delta_twist_cmds", "TWIST")
    assert preparation.service == "arm/servo_node/switch_command_type"
    assert preparation.request.command_type == 1
    with pytest.raises(ValueError, match=r"'delta_joint_cmds'; for MoveIt Servo give a topic of its node"):
        command_type("delta_joint_cmds", "JOINT_JOG")


# -- what cannot be made ---------------------------------------------------------------------------


def test_an_unknown_sink_is_named():
    with pytest.raises(ValueError, match=r"unknown command_sink 'servo'; known: follow_joint_trajectory"):
        make_arm_sink(ROBOT.model_copy(update={"command_sink": "servo"}))


def test_servo_twist_needs_the_frame_of_the_base():
    content = JOG_ROBOT.model_dump(mode="json") | {
        "command_sink": "servo_twist",
        "kinematics": {
            "model": "panda.xml",
            "tip": "tip",
            "workspace_min_m": [-1, -1, 0],
            "workspace_max_m": [1, 1, 1],
        },
    }
    with pytest.raises(ValueError, match=r"servo_twist needs kinematics\.base_frame"):
        RobotDescription.model_validate(content)

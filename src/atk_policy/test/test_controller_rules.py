"""The judges can fail: each rule that they know is broken here once, and named."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from builtin_interfaces.msg import Duration
from command_plans import PERIOD_NS, ROBOT, SERVO_ROBOT
from controller_rules import ForwardPositionJudge, GripperJudge, ServoJudge, TrajectoryJudge
from geometry_msgs.msg import TwistStamped
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

HOME = list(ROBOT.home_rad)
STEP = 0.5 * ROBOT.joints.velocity_max_rad_s[0] / ROBOT.control_rate_hz


def trajectory(**changes) -> JointTrajectory:
    """A faultless one of two points, but for `changes` to message or points ('p0', 'p1')."""
    points = [
        JointTrajectoryPoint(
            positions=[HOME[0] + k * STEP, *HOME[1:]],
            velocities=[0.1 * (1 - k)] * 7,
            time_from_start=Duration(nanosec=(k + 1) * PERIOD_NS),
        )
        for k in range(2)
    ]
    message = JointTrajectory(joint_names=list(ROBOT.joints.names), points=points)
    for name, value in changes.items():
        if name in ("p0", "p1"):
            for field, content in value.items():
                setattr(points[int(name[1])], field, content)
        elif name == "stamp":
            message.header.stamp.sec = value
        else:
            setattr(message, name, value)
    return message


def forward(*data: float) -> Float64MultiArray:
    return Float64MultiArray(data=list(data))


def test_a_forward_position_controller_names_every_violation():
    for bad, text in (
        (forward(*HOME[:-1]), "ERROR"),
        (forward(np.nan, *HOME[1:]), "not finite"),
        (forward(HOME[0] + 0.2, *HOME[1:]), "jump of 0.2000 rad"),
    ):
        judge = ForwardPositionJudge(ROBOT)
        judge.take(forward(*HOME))
        judge.take(forward(HOME[0] + STEP, *HOME[1:]))
        assert judge.violations == []
        judge.take(forward(*HOME))
        judge.take(bad)
        assert len(judge.violations) == 1
        assert text in judge.violations[0]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"points": []}, "empty"),
        ({"stamp": 5}, "only 0 means now"),
        ({"joint_names": [f"joint_{k}" for k in range(7)]}, "unknown joints"),
        ({"joint_names": list(ROBOT.joints.names)[:-1]}, "6 joints, the controller has 7"),
        ({"p1": {"positions": HOME[:-1]}}, "sizes"),
        ({"p1": {"velocities": []}}, "sizes"),
        ({"p1": {"effort": [0.0] * 7}}, "effort"),
        ({"p1": {"positions": [np.inf, *HOME[1:]]}}, "not finite"),
        ({"p1": {"time_from_start": Duration(nanosec=PERIOD_NS)}}, "strictly increase"),
        ({"p0": {"time_from_start": Duration()}}, "strictly increase"),
        ({"p1": {"velocities": [0.0] * 6 + [0.01]}}, "last velocity is not 0"),
        ({"p0": {"velocities": [9.0] * 7}}, "velocity beyond the limit"),
        ({"p1": {"positions": [HOME[0] + 0.5, *HOME[1:]]}}, "jump between points"),
    ],
)
def test_a_trajectory_controller_names_every_violation(changes, text):
    judge = TrajectoryJudge(ROBOT)
    assert judge.take(trajectory())
    assert not judge.take(trajectory(**changes))
    assert len(judge.violations) == 1
    assert text in judge.violations[0]


def test_a_trajectory_that_begins_far_from_the_one_before_is_a_jump():
    judge = TrajectoryJudge(ROBOT)
    judge.take(trajectory())
    far = [[p + 0.3 for p in point.positions] for point in trajectory().points]
    judge.take(trajectory(p0={"positions": far[0]}, p1={"positions": far[1]}))
    assert judge.violations == ["2: jump of 0.3000 rad in one period"]


def gripper_goal(position, effort=20.0):
    return SimpleNamespace(command=SimpleNamespace(position=position, max_effort=effort))


def parallel_goal(position, effort=(20.0,), name=(ROBOT.gripper.joint,)):
    return SimpleNamespace(command=SimpleNamespace(name=name, position=position, effort=effort))


def test_gripper_controllers_name_every_violation():
    for bad, at_s, text in (
        (gripper_goal(0.08), 1.0, "outside 0 to 0.04: aborted"),
        (gripper_goal(np.nan), 1.0, "position not finite"),
        (gripper_goal(0.01, effort=-1.0), 1.0, "effort"),
        (gripper_goal(0.02), 1.0, "preempts itself"),
        (gripper_goal(0.01), 0.05, "0.050 s after"),
    ):
        judge = GripperJudge(ROBOT)
        assert judge.take_command(gripper_goal(0.02), 0.0)
        assert judge.violations == []
        judge.take_command(bad, at_s)
        assert len(judge.violations) == 1
        assert text in judge.violations[0]
    for bad, text in (
        (parallel_goal(position=[0.01, 0.01]), "2 positions"),
        (parallel_goal(position=[]), "0 positions"),
        (parallel_goal(position=[0.01], name=["other"]), "names"),
    ):
        judge = GripperJudge(ROBOT)
        judge.take_parallel(parallel_goal(position=[0.02]), 0.0)
        assert judge.violations == []
        judge.take_parallel(bad, 1.0)
        assert len(judge.violations) == 1
        assert text in judge.violations[0]


def jog(stamp_s=10.0, names=ROBOT.joints.names, velocities=(0.1,) * 7, displacements=()):
    stamp = SimpleNamespace(sec=int(stamp_s), nanosec=round(stamp_s % 1 * 1e9))
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp),
        joint_names=names,
        velocities=velocities,
        displacements=displacements,
    )


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (jog(stamp_s=0.0), "stale"),
        (jog(stamp_s=9.95), "older than the one before"),
        (jog(displacements=(0.1,) * 7), "displacements"),
        (jog(names=("a", *ROBOT.joints.names[1:])), "unknown joints"),
        (jog(velocities=(0.1,)), "1 velocities for 7 joints"),
        (jog(velocities=(np.nan,) * 7), "not finite"),
        (jog(velocities=(5.0,) * 7), "velocity beyond the limit"),
    ],
)
def test_servo_names_every_violation_of_joint_commands(bad, text):
    judge = ServoJudge(ROBOT, command_type=0, timeout_s=0.1)
    judge.switch(0)
    judge.take_jog(jog(), 10.0)
    assert judge.violations == []
    judge.take_jog(bad, 10.0)
    assert any(text in violation for violation in judge.violations)
    if "stale" not in text:
        assert len(judge.violations) == 1


def twist(x=0.1, frame="panda_link0"):
    message = TwistStamped()
    message.header.stamp.sec, message.header.frame_id, message.twist.linear.x = 10, frame, x
    return message


def test_servo_names_every_violation_of_twists_and_of_its_use():
    judge = ServoJudge(SERVO_ROBOT, command_type=1, timeout_s=0.1)
    judge.take_twist(twist(), 10.0)
    assert "cannot accept input" in judge.violations.pop()
    assert not judge.switch(7)
    assert "unknown command type 7" in judge.violations.pop()
    judge.switch(1)
    judge.take_twist(twist(), 10.0)
    assert judge.violations == []
    judge.finish()
    assert "not zero" in judge.violations.pop()
    judge.take_twist(twist(frame=""), 10.0)
    assert "no transform" in judge.violations.pop()
    judge.take_twist(twist(x=np.nan), 10.0)
    assert "not finite" in judge.violations.pop()
    judge.take_twist(twist(x=0.0), 10.0)
    judge.finish()
    assert judge.violations == []

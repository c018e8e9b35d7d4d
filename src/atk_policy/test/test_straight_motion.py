"""The way home: straight, inside its share of every limit, and braked anywhere on it without leaving the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atk_perception.robot_description import RobotDescription
from atk_policy.straight_motion import StraightMotion

ROBOTS = {
    name: RobotDescription.load(
        Path(__file__).parents[2] / "atk_bringup" / "config" / "robots" / f"{name}.yaml"
    )
    for name in ("sim_panda", "panda", "ur5e_robotiq")
}
ROBOT = ROBOTS["sim_panda"]
HOME = np.array(ROBOT.home_rad)

shares_of_range = arrays(np.float64, 7, elements=st.floats(0.0, 1.0))


def limits_of(robot, share):
    joints = robot.joints
    return [
        share * np.array(limit)
        for limit in (joints.velocity_max_rad_s, joints.acceleration_max_rad_s2, joints.jerk_max_rad_s3)
    ]


def start_of(robot, shares):
    low, high = (np.array(limit) for limit in (robot.joints.position_min_rad, robot.joints.position_max_rad))
    return np.append(low + shares[: robot.joint_count] * (high - low), 0.03)


def assert_inside(path, step_s, robot, share):
    """Differences of samples cannot exceed the bounds of the derivatives; from rest to rest."""
    path = np.vstack([path[:1], path[:1], path[:1], path, path[-1:], path[-1:], path[-1:]])[:, :-1]
    for order, limit in enumerate(limits_of(robot, share), start=1):
        derivative = np.diff(path, n=order, axis=0) / step_s**order
        assert (np.abs(derivative) <= limit * (1 + 1e-6) + 1e-6 / step_s**order * 1e-6).all(), order


def assert_on_the_line(path, start, goal):
    change = np.append(goal - start[:-1], 0.0)
    along = (path - start) @ change / max(change @ change, 1e-12)
    assert np.abs(path - (start + np.outer(along, change))).max() < 1e-9
    assert along.min() >= -1e-9
    assert along.max() <= 1 + 1e-9


@given(st.sampled_from(sorted(ROBOTS)), shares_of_range, st.floats(0.05, 1.0), st.sampled_from([1.0, 0.3]))
@settings(max_examples=40, deadline=None)
def test_the_way_is_straight_inside_all_limits_and_ends_at_rest_at_the_goal(name, shares, share, part):
    robot = ROBOTS[name]
    start, goal = start_of(robot, shares), np.array(robot.home_rad)
    motion, step_s = StraightMotion(start, goal, robot, share), part * robot.control_period_ns / 1e9
    path = [motion.position]
    while not motion.arrived:
        assert motion.advance(step_s) == ""
        path.append(motion.position)
        assert len(path) < 20_000
    assert np.allclose(path[-1], np.append(goal, 0.03))
    assert np.array_equal(motion.plan().position, motion.position[None]), "nothing more to do"
    assert_on_the_line(np.array(path), start, goal)
    assert_inside(np.array(path), step_s, robot, share)


@given(shares_of_range, st.floats(0.05, 1.0), st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_it_brakes_anywhere_inside_all_limits_and_on_the_line(shares, share, steps):
    start, period_s = start_of(ROBOT, shares), ROBOT.control_period_ns / 1e9
    motion = StraightMotion(start, HOME, ROBOT, share)
    path = [motion.position]
    for _ in range(steps):
        motion.advance(period_s)
        path.append(motion.position)
    while not motion.at_rest:
        motion.brake(period_s)
        path.append(motion.position)
    assert len(path) - steps < 2 + 1.0 / period_s, "a brake, not a way"
    assert_on_the_line(np.array(path), start, HOME)
    assert_inside(np.array(path), period_s, ROBOT, share)


@given(shares_of_range, st.floats(0.05, 1.0), st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_a_plan_reaches_two_periods_and_a_brake_and_is_what_becomes_of_the_arm_when_nobody_sends_more(
    shares, share, steps
):
    start, period_s = start_of(ROBOT, shares), ROBOT.control_period_ns / 1e9
    motion = StraightMotion(start, HOME, ROBOT, share)
    path = [motion.position]
    for _ in range(steps):
        motion.advance(period_s)
        path.append(motion.position)
    plan = motion.plan()
    assert np.array_equal(plan.command, motion.position)
    assert not plan.velocity[-1].any()
    assert np.array_equal(plan.time_ns, ROBOT.control_period_ns * np.arange(1, len(plan.position) + 1))
    velocity, acceleration, _ = limits_of(ROBOT, share)
    brake_s = (velocity / acceleration).max() + np.sqrt(4 * velocity / limits_of(ROBOT, share)[2]).max()
    assert len(plan.position) <= 3 + brake_s / period_s
    assert_on_the_line(plan.position, start, HOME)
    assert_inside(np.vstack([path[:-1], plan.position]), period_s, ROBOT, share)


def test_a_brake_sends_nothing_that_goes_on():
    motion, period_s = StraightMotion(np.append(HOME + 0.5, 0.03), HOME, ROBOT, 0.2), 0.05
    for _ in range(10):
        motion.advance(period_s)
    motion.brake(period_s)
    plan = motion.plan()
    while not motion.at_rest:
        motion.brake(period_s)
    assert np.allclose(plan.position[-1], motion.position)
    assert not motion.arrived


def test_an_arm_that_is_at_home_already_stays():
    motion = StraightMotion(np.append(HOME, 0.03), HOME, ROBOT, 0.2)
    assert motion.arrived
    assert np.array_equal(motion.plan().position, np.append(HOME, 0.03)[None])


@pytest.mark.parametrize(
    ("start", "goal", "share", "message"),
    [
        (np.zeros(7), HOME, 0.2, "expected 8 values"),
        (np.full(8, np.nan), HOME, 0.2, "not finite"),
        (np.zeros(8), HOME, 0.0, "give a share"),
    ],
)
def test_a_way_that_cannot_be_is_refused(start, goal, share, message):
    with pytest.raises(ValueError, match=message):
        StraightMotion(start, goal, ROBOT, share)

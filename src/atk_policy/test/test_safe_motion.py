"""What goes over the wire stays inside every limit, whatever is asked for and whenever it is asked."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atk_policy.safe_motion import MotionLimits, SafeMotion

JOINTS = 3
LIMITS = MotionLimits(
    np.array([-1.0, -0.5, -2.0]),
    np.array([1.0, 0.5, 0.2]),
    np.array([2.0, 1.0, 2.6]),
    np.array([15.0, 7.5, 20.0]),
    np.array([7500.0, 500.0, 100.0]),
)
PERIOD_S = 0.05
# Finite differences of a trajectory's samples cannot exceed the bounds of its derivatives; this is for rounding.
SLACK = 1.0 + 1e-6

numbers = st.floats(-3.0, 3.0)
vectors = st.lists(numbers, min_size=JOINTS, max_size=JOINTS).map(np.array)
requests = st.lists(
    st.one_of(
        st.tuples(st.just("go"), vectors, vectors, st.sampled_from([1.0, 0.9, 0.5, 0.1, 0.0])),
        st.tuples(st.just("brake"), vectors, vectors, st.sampled_from([1.0, 0.7])),
    ),
    min_size=1,
    max_size=40,
)


class Wall:
    """Joint 0 must stay below 0.6 rad."""

    def scene_fault(self, positions_rad):
        outside = np.flatnonzero(positions_rad[:, 0] > 0.6)
        return ("wall", int(outside[0])) if len(outside) else ("", -1)


def drive(motion, asked):
    """Times and setpoints on the wire, brought to rest in the end."""
    times, wire = [0.0], [motion.position.copy()]
    for kind, wanted, velocity, share in asked:
        elapsed_s = max(share * PERIOD_S, 1e-3)
        motion.advance(wanted, velocity, elapsed_s) if kind == "go" else motion.brake(elapsed_s)
        times.append(times[-1] + elapsed_s)
        wire.append(motion.position.copy())
    for _ in range(400):
        if motion.at_rest:
            break
        motion.brake(PERIOD_S)
        times.append(times[-1] + PERIOD_S)
        wire.append(motion.position.copy())
    assert motion.at_rest
    return np.array(times), np.array(wire)


def assert_inside(times, wire):
    assert (wire >= LIMITS.position_min - 2e-4).all()
    assert (wire <= LIMITS.position_max + 2e-4).all()
    speed = np.diff(wire, axis=0) / np.diff(times)[:, None]
    assert (np.abs(speed) <= LIMITS.velocity_max * SLACK + 1e-9).all()
    # Divided differences: mean values of the derivatives over each stencil, for any spacing.
    middle = (times[1:] + times[:-1]) / 2
    acceleration = np.diff(speed, axis=0) / np.diff(middle)[:, None]
    assert (np.abs(acceleration) <= LIMITS.acceleration_max * SLACK + 1e-6).all()
    if len(times) > 3:
        jerk = 3.0 * np.diff(acceleration / 2.0, axis=0) * 2.0 / (times[3:] - times[:-3])[:, None]
        assert (np.abs(jerk) <= LIMITS.jerk_max * SLACK + 1e-3).all()


@given(asked=requests)
@settings(max_examples=150, deadline=None)
def test_every_limit_holds_for_any_requests_at_any_times(asked):
    assert_inside(*drive(SafeMotion(LIMITS), asked))


@given(asked=requests)
@settings(max_examples=75, deadline=None)
def test_the_scene_is_kept_clear_while_moving_and_while_stopping(asked):
    times, wire = drive(SafeMotion(LIMITS, Wall()), asked)
    assert_inside(times, wire)
    assert wire[:, 0].max() <= 0.6 + 1e-9


@given(asked=requests)
@settings(max_examples=50, deadline=None)
def test_a_plan_ends_at_rest_inside_the_limits(asked):
    motion = SafeMotion(LIMITS)
    for kind, wanted, velocity, share in asked:
        motion.advance(wanted, velocity, share * PERIOD_S) if kind == "go" else motion.brake(share * PERIOD_S)
    plan = motion.plan(0.04, 50_000_000, then=(asked[-1][1], asked[-1][2]))
    assert np.array_equal(plan.command, np.append(motion.position, 0.04))
    assert (np.diff(plan.time_ns) > 0).all()
    assert not plan.velocity[-1].any()
    times = np.concatenate([[0.0], plan.time_ns / 1e9])[1:]
    if len(times) > 1:
        assert (
            np.abs(np.diff(plan.position[:, :-1], axis=0)) <= LIMITS.velocity_max * 0.05 * SLACK + 1e-9
        ).all()
    assert (plan.position[:, :-1] <= LIMITS.position_max + 2e-4).all()


def test_a_reachable_wish_is_met_exactly():
    motion = SafeMotion(LIMITS)
    path = [0.3 * np.sin(0.1 * k) * np.ones(JOINTS) * [1, 0.5, 0.3] for k in range(60)]
    for now, after in pairwise(path):
        assert motion.advance(now, (after - now) / PERIOD_S, PERIOD_S) == ""
    assert motion.position == pytest.approx(path[-2], abs=1e-9)


def test_a_wish_out_of_reach_is_approached_and_reached():
    motion = SafeMotion(LIMITS)
    for _ in range(60):
        assert motion.advance(np.array([0.9, 0.4, 5.0]), np.zeros(3), PERIOD_S) == ""
    assert motion.position == pytest.approx([0.9, 0.4, 0.2], abs=1e-6)
    assert motion.at_rest


def test_the_scene_names_what_stopped_the_arm():
    motion = SafeMotion(LIMITS, Wall())
    causes = {motion.advance(np.array([0.9, 0.0, 0.0]), np.zeros(3), PERIOD_S) for _ in range(60)}
    assert causes == {"", "wall"}
    assert 0.5 < motion.position[0] <= 0.6


def test_an_arm_that_was_pushed_outside_comes_back_and_goes_no_further():
    motion = SafeMotion(LIMITS)
    motion.reset(np.array([1.2, 0.0, 0.0]))
    wire = []
    for _ in range(40):
        motion.advance(np.array([0.5, 0.0, 0.0]), np.zeros(3), PERIOD_S)
        wire.append(motion.position[0])
    assert max(wire) <= 1.2
    assert wire[-1] == pytest.approx(0.5)


def test_nothing_can_begin_at_a_position_that_is_not_finite():
    with pytest.raises(ValueError, match="not finite"):
        SafeMotion(LIMITS).reset(np.array([0.0, np.nan, 0.0]))

"""The safety layer, for any input: nothing outside the limits, never NaN, a named cause for every hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atk_perception.keypoint_tracker import TrackerState
from atk_perception.robot_description import RobotDescription
from atk_policy.safety import Evidence, SafetyLimits, clamp, judge

ROBOT = RobotDescription.load(
    Path(__file__).parents[2] / "atk_bringup" / "config" / "robots" / "sim_panda.yaml"
)
LIMITS = SafetyLimits.of(ROBOT)
PERIOD_S = ROBOT.control_period_ns / 1e9
HOME = np.append(ROBOT.home_rad, 0.04)
FRESH = Evidence(0, 0, 0, TrackerState.TRACKING, 8, HOME)

anything = arrays(np.float64, ROBOT.action_size, elements=st.floats(allow_nan=True, allow_infinity=True))
inside = arrays(np.float64, ROBOT.action_size, elements=st.floats(0, 1)).map(
    lambda share: LIMITS.action_min + share * (LIMITS.action_max - LIMITS.action_min)
)
ages_ns = st.integers(-(10**9), 10**9)
evidences = st.builds(
    Evidence, ages_ns, ages_ns, ages_ns, st.sampled_from(TrackerState), st.integers(0, 20), anything
)


@given(evidences, st.none() | anything, inside)
def test_whatever_comes_in_what_goes_out_is_finite_and_within_all_limits(evidence, wanted, previous):
    verdict = judge(LIMITS, evidence, wanted, previous, PERIOD_S)
    assert np.isfinite(verdict.command).all()
    assert (verdict.command >= LIMITS.action_min - 1e-12).all()
    assert (verdict.command <= LIMITS.action_max + 1e-12).all()
    step = np.abs(verdict.command - previous)
    assert (step[:-1] <= LIMITS.velocity_max[:-1] * PERIOD_S + 1e-12).all()


@given(evidences, st.none() | anything, inside)
def test_a_hold_repeats_the_last_command_and_names_its_cause(evidence, wanted, previous):
    verdict = judge(LIMITS, evidence, wanted, previous, PERIOD_S)
    if verdict.is_hold:
        assert np.array_equal(verdict.command, previous)
        assert verdict.cause.replace("_", "").isalpha()
    else:
        assert wanted is not None
        assert evidence.tracker_state is TrackerState.TRACKING
        assert evidence.keypoints_age_ns <= LIMITS.keypoints_age_max_ns


@given(inside, inside)
def test_a_reachable_wish_is_granted_unchanged(wanted, previous):
    near = clamp(LIMITS, wanted, previous, PERIOD_S)
    assert np.array_equal(clamp(LIMITS, near, previous, PERIOD_S), near)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"image_age_ns": LIMITS.image_age_max_ns + 1}, "image_stale"),
        ({"keypoints_age_ns": LIMITS.keypoints_age_max_ns + 1}, "keypoints_stale"),
        ({"joint_state_age_ns": LIMITS.joint_state_age_max_ns + 1}, "joint_state_stale"),
        ({"measured": np.full(8, np.nan)}, "joint_state_not_finite"),
        ({"tracker_state": TrackerState.LOST}, "tracker_lost"),
        ({"tracker_state": TrackerState.UNINITIALISED}, "tracker_uninitialised"),
        ({"tracker_state": TrackerState.TRANSFER_FAILED}, "tracker_transfer_failed"),
        ({"visible": 0}, "too_few_keypoints"),
        ({"measured": HOME + np.array([0.5, 0, 0, 0, 0, 0, 0, 0])}, "tracking_gap"),
    ],
)
def test_every_violation_has_its_name(change, cause):
    verdict = judge(LIMITS, replace(FRESH, **change), HOME, HOME, PERIOD_S)
    assert verdict.cause == cause


def test_what_the_policy_lacks_or_garbles_is_held():
    assert judge(LIMITS, FRESH, None, HOME, PERIOD_S).cause == "no_action"
    garbled = np.append(np.nan, HOME[1:])
    assert judge(LIMITS, FRESH, garbled, HOME, PERIOD_S).cause == "action_not_finite"
    assert judge(LIMITS, FRESH, HOME, HOME, PERIOD_S).cause == ""


def test_there_is_always_something_finite_to_hold():
    with pytest.raises(ValueError, match="not finite"):
        judge(LIMITS, FRESH, HOME, np.full(8, np.nan), PERIOD_S)


def test_a_velocity_scale_makes_steps_smaller_and_must_be_a_share():
    slow = SafetyLimits.of(ROBOT, velocity_scale=0.1)
    far = HOME + 1.0
    step = clamp(slow, far, HOME, PERIOD_S) - HOME
    assert step[0] == pytest.approx(0.1 * ROBOT.joints.velocity_max_rad_s[0] * PERIOD_S)
    with pytest.raises(ValueError, match="velocity_scale"):
        SafetyLimits.of(ROBOT, velocity_scale=1.5)

"""What must hold before a command: every violation has a name, and nothing but all in order passes."""

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
from atk_policy.safety import Evidence, SafetyLimits, violation

ROBOT = RobotDescription.load(
    Path(__file__).parents[2] / "atk_bringup" / "config" / "robots" / "sim_panda.yaml"
)
LIMITS = SafetyLimits.of(ROBOT, visible_min=3)
HOME = np.append(ROBOT.home_rad, 0.04)
FRESH = Evidence(0, 0, 0, TrackerState.TRACKING, 8, HOME)

anything = arrays(np.float64, ROBOT.action_size, elements=st.floats(allow_nan=True, allow_infinity=True))
ages_ns = st.integers(-(10**9), 10**9)
evidences = st.builds(
    Evidence, ages_ns, ages_ns, ages_ns, st.sampled_from(TrackerState), st.integers(0, 20), anything
)


@given(evidences)
def test_only_fresh_finite_tracked_and_followed_inputs_pass(evidence):
    cause = violation(LIMITS, evidence, HOME[:-1])
    in_order = (
        bool(np.isfinite(evidence.measured).all())
        and abs(evidence.image_age_ns) <= LIMITS.image_age_max_ns
        and evidence.keypoints_age_ns <= LIMITS.keypoints_age_max_ns
        and abs(evidence.joint_state_age_ns) <= LIMITS.joint_state_age_max_ns
        and evidence.tracker_state is TrackerState.TRACKING
        and evidence.visible >= LIMITS.visible_min
        and bool((np.abs(evidence.measured - HOME)[:-1] <= LIMITS.tracking_gap_max_rad).all())
    )
    assert (cause == "") == in_order
    assert cause == "" or cause.replace("_", "").isalpha()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"image_age_ns": 10**9}, "image_stale"),
        ({"image_age_ns": -(10**9)}, "image_from_future"),
        ({"keypoints_age_ns": 10**9}, "keypoints_stale"),
        ({"joint_state_age_ns": 10**9}, "joint_state_stale"),
        ({"joint_state_age_ns": -(10**9)}, "joint_state_from_future"),
        ({"tracker_state": TrackerState.LOST}, "tracker_lost"),
        ({"tracker_state": TrackerState.UNINITIALISED}, "tracker_uninitialised"),
        ({"tracker_state": TrackerState.TRANSFER_FAILED}, "tracker_transfer_failed"),
        ({"visible": 2}, "too_few_keypoints"),
        ({"measured": HOME + np.eye(8)[2]}, "tracking_gap"),
        ({"measured": np.full(8, np.nan)}, "joint_state_not_finite"),
        ({"measured": HOME + 0.05 * np.eye(8)[7]}, ""),
    ],
)
def test_every_violation_is_named(change, cause):
    assert violation(LIMITS, replace(FRESH, **change), HOME[:-1]) == cause


def test_the_velocity_scale_slows_the_arm_only():
    slow = SafetyLimits.of(ROBOT, velocity_scale=0.1)
    assert np.allclose(slow.motion.velocity_max, 0.1 * LIMITS.motion.velocity_max)
    assert np.array_equal(slow.motion.acceleration_max, LIMITS.motion.acceleration_max)
    with pytest.raises(ValueError, match=r"velocity_scale is 1\.5"):
        SafetyLimits.of(ROBOT, velocity_scale=1.5)

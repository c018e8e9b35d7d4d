"""What may be sent to the robot: a command inside its limits, or a hold with a named cause.

Pure: numbers in, a verdict out. The policy node asks before every command, and what is refused here
never reaches the wire.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atk_perception.keypoint_tracker import TrackerState
from atk_perception.robot_description import RobotDescription

FloatArray = npt.NDArray[np.float64]

# A Franka arm under position control lags its command by some 0.1 rad in fast motion; three times
# that is an arm that something holds back.
TRACKING_GAP_MAX_RAD = 0.35


@dataclass(frozen=True)
class SafetyLimits:
    """What a command must respect; J joints, the gripper opening last where there are J + 1 values.

    Attributes:
        action_min, action_max: (J + 1,) [rad, m].
        velocity_max: (J + 1,) [rad/s, m/s]; infinite for the gripper, whose drive limits its own speed.
        tracking_gap_max_rad: how far the measured joints may be from the last command.
        image_age_max_ns, keypoints_age_max_ns, joint_state_age_max_ns: deadlines on the ROS clock.
        visible_min: keypoints that must be seen.
    """

    action_min: FloatArray
    action_max: FloatArray
    velocity_max: FloatArray
    tracking_gap_max_rad: float
    image_age_max_ns: int
    keypoints_age_max_ns: int
    joint_state_age_max_ns: int
    visible_min: int

    @classmethod
    def of(
        cls,
        robot: RobotDescription,
        *,
        visible_min: int = 1,
        velocity_scale: float = 1.0,
        tracking_gap_max_rad: float = TRACKING_GAP_MAX_RAD,
    ) -> SafetyLimits:
        """Limits of a robot description, its velocities scaled by `velocity_scale` in (0, 1].

        Raises:
            ValueError: a scale outside (0, 1].
        """
        if not 0.0 < velocity_scale <= 1.0:
            raise ValueError(
                f"velocity_scale is {velocity_scale}; give a share of the robot's limit in (0, 1]"
            )
        deadlines = robot.deadlines_s
        return cls(
            robot.action_min,
            robot.action_max,
            np.append(velocity_scale * np.array(robot.joints.velocity_max_rad_s), np.inf),
            tracking_gap_max_rad,
            round(deadlines.image * 1e9),
            round(deadlines.keypoints * 1e9),
            round(deadlines.joint_states * 1e9),
            visible_min,
        )


@dataclass(frozen=True)
class Evidence:
    """What is known when a command is about to be sent.

    Attributes:
        image_age_ns: ROS clock now minus the stamp of the image behind the keypoints.
        keypoints_age_ns: since the keypoints arrived.
        joint_state_age_ns: ROS clock now minus the stamp of the newest joint state.
        tracker_state: as the tracker said with these keypoints.
        visible: keypoints seen.
        measured: (J + 1,) robot now [rad, m].
    """

    image_age_ns: int
    keypoints_age_ns: int
    joint_state_age_ns: int
    tracker_state: TrackerState
    visible: int
    measured: FloatArray


@dataclass(frozen=True)
class Verdict:
    """(J + 1,) what to command; `cause` names the violated rule when it is a hold, else it is empty."""

    command: FloatArray
    cause: str

    @property
    def is_hold(self) -> bool:
        """Some rule was violated."""
        return bool(self.cause)


def violation(limits: SafetyLimits, evidence: Evidence, previous: FloatArray) -> str:
    """Name of the first violated rule about the inputs, or ''.

    The causes: image_stale, keypoints_stale, joint_state_stale, joint_state_not_finite,
    tracker_uninitialised, tracker_lost, tracker_transfer_failed, too_few_keypoints, tracking_gap.
    """
    if not np.isfinite(evidence.measured).all():
        return "joint_state_not_finite"
    if evidence.image_age_ns > limits.image_age_max_ns:
        return "image_stale"
    if evidence.keypoints_age_ns > limits.keypoints_age_max_ns:
        return "keypoints_stale"
    if evidence.joint_state_age_ns > limits.joint_state_age_max_ns:
        return "joint_state_stale"
    if evidence.tracker_state is not TrackerState.TRACKING:
        return f"tracker_{evidence.tracker_state.name.lower()}"
    if evidence.visible < limits.visible_min:
        return "too_few_keypoints"
    gap_rad = np.abs(evidence.measured[:-1] - previous[:-1]).max()
    if gap_rad > limits.tracking_gap_max_rad:
        return "tracking_gap"
    return ""


def clamp(limits: SafetyLimits, wanted: FloatArray, previous: FloatArray, period_s: float) -> FloatArray:
    """(J + 1,) the nearest to `wanted` that position and velocity limits allow after `previous`.

    Where `previous` itself lies outside the position limits (an arm that a person pushed there), the
    way back inside is taken no faster than the velocity limit.
    """
    reach = limits.velocity_max * period_s
    inside = np.clip(wanted, limits.action_min, limits.action_max)
    result: FloatArray = np.clip(inside, previous - reach, previous + reach)
    return result


def judge(
    limits: SafetyLimits,
    evidence: Evidence,
    wanted: FloatArray | None,
    previous: FloatArray,
    period_s: float,
) -> Verdict:
    """Decide what is sent: `wanted` inside the limits, or a hold of `previous`.

    Args:
        wanted: (J + 1,) the policy's action, None when it has none for this time.
        previous: (J + 1,) last command, or the measured position before the first; finite.
        period_s: time since `previous` was sent, at most one control period.

    Raises:
        ValueError: `previous` is not finite; there would be nothing to hold.
    """
    if not np.isfinite(previous).all():
        raise ValueError(f"the position to hold is not finite: {previous.tolist()}")
    cause = violation(limits, evidence, previous)
    if cause:
        return Verdict(previous, cause)
    if wanted is None:
        return Verdict(previous, "no_action")
    if not np.isfinite(wanted).all():
        return Verdict(previous, "action_not_finite")
    return Verdict(clamp(limits, wanted, previous, period_s), "")

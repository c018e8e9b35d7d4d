"""What must hold before the robot may be commanded, and the name of what does not.

Pure: numbers in, a cause out. How the arm moves, and how it stops, is `safe_motion.py`'s affair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atk_perception.keypoint_tracker import TrackerState
from atk_perception.robot_description import RobotDescription
from atk_policy.safe_motion import MotionLimits

FloatArray = npt.NDArray[np.float64]

# A Franka arm under position control lags its command by some 0.1 rad in fast motion; three times
# that is an arm that something holds back.
TRACKING_GAP_MAX_RAD = 0.35
# What the tracker itself calls more likely right than wrong.
CONFIDENCE_MIN = 0.5


@dataclass(frozen=True)
class SafetyLimits:
    """What a command must respect; J joints.

    Attributes:
        motion: of the joints.
        gripper_min_m, gripper_max_m: opening; its drive limits its own speed.
        tracking_gap_max_rad: how far the measured joints may be from the last command.
        image_age_max_ns, keypoints_age_max_ns, joint_state_age_max_ns: deadlines on the ROS clock.
        visible_min: keypoints that must be seen.
        confidence_min: below this a keypoint does not count as seen.
    """

    motion: MotionLimits
    gripper_min_m: float
    gripper_max_m: float
    tracking_gap_max_rad: float
    image_age_max_ns: int
    keypoints_age_max_ns: int
    joint_state_age_max_ns: int
    visible_min: int
    confidence_min: float = CONFIDENCE_MIN

    @classmethod
    def of(
        cls,
        robot: RobotDescription,
        *,
        visible_min: int = 1,
        confidence_min: float = CONFIDENCE_MIN,
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
        joints, deadlines = robot.joints, robot.deadlines_s
        return cls(
            MotionLimits(
                np.array(joints.position_min_rad),
                np.array(joints.position_max_rad),
                velocity_scale * np.array(joints.velocity_max_rad_s),
                np.array(joints.acceleration_max_rad_s2),
                np.array(joints.jerk_max_rad_s3),
            ),
            robot.gripper.min_m,
            robot.gripper.max_m,
            tracking_gap_max_rad,
            round(deadlines.image * 1e9),
            round(deadlines.keypoints * 1e9),
            round(deadlines.joint_states * 1e9),
            visible_min,
            confidence_min,
        )


@dataclass(frozen=True)
class Evidence:
    """What is known when a command is about to be sent.

    Attributes:
        image_age_ns: ROS clock now minus the stamp of the image behind the keypoints.
        keypoints_age_ns: since the keypoints arrived.
        joint_state_age_ns: ROS clock now minus the stamp of the newest joint state.
        tracker_state: as the tracker said with these keypoints.
        visible: keypoints seen with enough confidence.
        measured: (J + 1,) robot now [rad, m].
    """

    image_age_ns: int
    keypoints_age_ns: int
    joint_state_age_ns: int
    tracker_state: TrackerState
    visible: int
    measured: FloatArray


def violation(limits: SafetyLimits, evidence: Evidence, setpoint_rad: FloatArray) -> str:
    """Name of the first violated rule about the inputs, or ''.

    The causes: joint_state_not_finite, image_stale, image_from_future, keypoints_stale,
    joint_state_stale, joint_state_from_future, tracker_uninitialised, tracker_lost,
    tracker_transfer_failed, too_few_keypoints, tracking_gap.

    Args:
        setpoint_rad: (J,) last commanded.
    """
    if not np.isfinite(evidence.measured).all():
        return "joint_state_not_finite"
    # A stamp from the future is a clock that was set, or two machines whose clocks differ.
    if evidence.image_age_ns < -limits.image_age_max_ns:
        return "image_from_future"
    if evidence.image_age_ns > limits.image_age_max_ns:
        return "image_stale"
    if evidence.keypoints_age_ns > limits.keypoints_age_max_ns:
        return "keypoints_stale"
    if evidence.joint_state_age_ns < -limits.joint_state_age_max_ns:
        return "joint_state_from_future"
    if evidence.joint_state_age_ns > limits.joint_state_age_max_ns:
        return "joint_state_stale"
    if evidence.tracker_state is not TrackerState.TRACKING:
        return f"tracker_{evidence.tracker_state.name.lower()}"
    if evidence.visible < limits.visible_min:
        return "too_few_keypoints"
    if np.abs(evidence.measured[:-1] - setpoint_rad).max() > limits.tracking_gap_max_rad:
        return "tracking_gap"
    return ""

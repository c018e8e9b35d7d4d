"""The straight way from one position to another, from rest to rest, inside all limits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atk_perception.robot_description import RobotDescription
from atk_policy.command_plan import CommandPlan

FloatArray = npt.NDArray[np.float64]

# Of the quintic s(u) = 10 u^3 - 15 u^4 + 6 u^5 over u in [0, 1]: greatest first, second, third derivative.
PEAK_VELOCITY, PEAK_ACCELERATION, PEAK_JERK = 15 / 8, 10 / np.sqrt(3), 60.0


def rest_to_rest(
    start: FloatArray, goal_rad: FloatArray, robot: RobotDescription, share: float
) -> CommandPlan:
    """Setpoints every control period from (J + 1,) `start` [rad, m] to (J,) `goal_rad`; the gripper stays.

    All joints begin and end together on one quintic (minimum jerk: Flash and Hogan 1985), as slow as the strictest of
    the limits demands.

    Args:
        share: of velocity, acceleration and jerk limits that may be used, in (0, 1].

    Raises:
        ValueError: another number of joints, a value that is not finite, or a share outside (0, 1].
    """
    joints = robot.joints
    start, goal_rad = np.asarray(start, dtype=np.float64), np.asarray(goal_rad, dtype=np.float64)
    if start.shape != (robot.action_size,) or goal_rad.shape != (robot.joint_count,):
        raise ValueError(
            f"expected {robot.action_size} values of the start and {robot.joint_count} of the goal; got "
            f"{start.shape} and {goal_rad.shape}"
        )
    if not (np.isfinite(start).all() and np.isfinite(goal_rad).all()):
        raise ValueError(f"start {start.tolist()} or goal {goal_rad.tolist()} is not finite")
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share is {share}; give a share of the limits in (0, 1]")
    change = np.append(goal_rad - start[:-1], 0.0)
    far = np.abs(change[:-1])
    duration_s = max(
        (PEAK_VELOCITY * far / (share * np.array(joints.velocity_max_rad_s))).max(),
        np.sqrt(PEAK_ACCELERATION * far / (share * np.array(joints.acceleration_max_rad_s2))).max(),
        np.cbrt(PEAK_JERK * far / (share * np.array(joints.jerk_max_rad_s3))).max(),
    )
    period_s = robot.control_period_ns / 1e9
    count = max(1, int(np.ceil(duration_s / period_s - 1e-9)))
    u = np.arange(1, count + 1)[:, None] / count
    position = start + (10 * u**3 - 15 * u**4 + 6 * u**5) * change
    velocity = 30 * u**2 * (1 - u) ** 2 * change / (count * period_s)
    return CommandPlan(robot.control_period_ns * np.arange(1, count + 1), position, velocity)

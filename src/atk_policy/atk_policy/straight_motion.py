"""The straight way from one position to another, from rest to rest, that can be ended anywhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atk_perception.robot_description import RobotDescription
from atk_policy.command_plan import CommandPlan
from atk_policy.safe_motion import MotionLimits, SafeMotion

FloatArray = npt.NDArray[np.float64]


class StraightMotion:
    """All joints as one: a `SafeMotion` along the line, so that its brake too stays on the line.

    The coordinate is how far the joint with the longest way has come [rad]. Time passes only through `advance` and `brake`.

    Args:
        start: (J + 1,) [rad, m], at rest; the gripper stays.
        goal_rad: (J,) where it ends.
        robot: its limits hold, and its control period.
        share: of velocity, acceleration and jerk limits that may be used, in (0, 1].

    Raises:
        ValueError: another number of joints, a value that is not finite, or a share outside (0, 1].
    """

    def __init__(
        self, start: FloatArray, goal_rad: FloatArray, robot: RobotDescription, share: float
    ) -> None:
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
        self._start, self._period_ns = start, robot.control_period_ns
        change = goal_rad - start[:-1]
        far_rad = np.abs(change).max()
        self._far = np.array([far_rad])
        # (J + 1,) what everything moves by while the coordinate moves by one; the joint with the longest way by +-1.
        self._direction = np.append(change / far_rad if far_rad else 0.0 * change, 0.0)
        moves = np.abs(self._direction[:-1])
        joints = robot.joints
        velocity, acceleration, jerk = (
            # Where nothing moves, any limit will do.
            np.array(
                [share * min((limit / m for limit, m in zip(limits, moves, strict=True) if m), default=1.0)]
            )
            for limits in (
                joints.velocity_max_rad_s,
                joints.acceleration_max_rad_s2,
                joints.jerk_max_rad_s3,
            )
        )
        self._motion = SafeMotion(MotionLimits(np.zeros(1), self._far, velocity, acceleration, jerk))
        self._motion.reset(np.zeros(1))
        self._goes_on = False

    @property
    def position(self) -> FloatArray:
        """(J + 1,) present setpoint [rad, m]."""
        position: FloatArray = self._start + self._motion.position * self._direction
        return position

    @property
    def at_rest(self) -> bool:
        """It stands, here or at the goal."""
        return self._motion.at_rest

    @property
    def arrived(self) -> bool:
        """It stands at the goal."""
        return self.at_rest and bool(np.abs(self._motion.position - self._far).max() < 1e-9)

    def advance(self, elapsed_s: float) -> str:
        """Go on for `elapsed_s`; '' or why that could not be done (see `SafeMotion.advance`)."""
        self._goes_on = True
        return self._motion.advance(self._far, np.zeros(1), elapsed_s)

    def brake(self, elapsed_s: float) -> None:
        """Follow the way to a stop for `elapsed_s`; at rest, stay."""
        self._goes_on = False
        self._motion.brake(elapsed_s)

    def plan(self) -> CommandPlan:
        """The present setpoint, due in one period; one more period of the way, unless it brakes; and the way to a stop."""
        then = (self._far, np.zeros(1)) if self._goes_on and not self.arrived else None
        line = self._motion.plan(0.0, self._period_ns, then)
        return CommandPlan(
            line.time_ns,
            self._start + line.position[:, :1] * self._direction,
            line.velocity[:, :1] * self._direction,
        )

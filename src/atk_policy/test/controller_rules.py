"""What the controllers on the other side document (and, where they do not, what their sources do), as judges of what they get.

A judge takes what arrives and notes every violation in words. Sources: ros2_controllers of Jazzy
(forward_command_controller, joint_trajectory_controller, gripper_controllers, parallel_gripper_controller), franka_gripper
and moveit_servo of Jazzy. Beyond their rules, setpoints must not jump: a robot would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from atk_perception.robot_description import RobotDescription

# Rounding of periods to nanoseconds.
SLACK = 1.0 + 1e-6


class Judge:
    """Counts what arrived and keeps what was wrong with it."""

    def __init__(self, robot: RobotDescription) -> None:
        self.robot = robot
        self.count = 0
        self.violations: list[str] = []

    def finish(self) -> None:
        """Nothing follows any more."""

    def _note(self, violated: bool, text: str) -> bool:
        if violated:
            self.violations.append(f"{self.count}: {text}")
        return violated

    def _check_jump(self, previous: np.ndarray | None, position: np.ndarray) -> None:
        """Between setpoints of two successive control periods."""
        if previous is None:
            return
        reach = np.array(self.robot.joints.velocity_max_rad_s) / self.robot.control_rate_hz * SLACK
        step = np.abs(position - previous)
        self._note(bool((step > reach).any()), f"jump of {step.max():.4f} rad in one period")


class ForwardPositionJudge(Judge):
    """forward_command_controller: `data` in the order of its `joints`, finite; a wrong size is an ERROR."""

    def __init__(self, robot: RobotDescription) -> None:
        super().__init__(robot)
        self._previous: np.ndarray | None = None

    def take(self, message: Any) -> None:
        """A std_msgs/Float64MultiArray."""
        self.count += 1
        values = np.array(message.data)
        if self._note(
            values.shape != (self.robot.joint_count,), f"{values.size} values: the controller is in ERROR"
        ):
            return
        if self._note(not np.isfinite(values).all(), "not finite: dropped"):
            return
        self._check_jump(self._previous, values)
        self._previous = values


class TrajectoryJudge(Judge):
    """joint_trajectory_controller, `validate_trajectory_msg`, with its default parameters."""

    def __init__(self, robot: RobotDescription) -> None:
        super().__init__(robot)
        self._previous: np.ndarray | None = None

    def take(self, message: Any) -> bool:
        """A trajectory_msgs/JointTrajectory; whether the controller accepts it."""
        self.count += 1
        before = len(self.violations)
        self._judge(message)
        return len(self.violations) == before

    def _judge(self, message: Any) -> None:
        names, points = list(message.joint_names), message.points
        joints = list(self.robot.joints.names)
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        self._note(stamp != (0, 0), f"stamp {stamp}: only 0 means now")
        if self._note(not points, "empty"):
            return
        if self._note(len(names) != len(joints), f"{len(names)} joints, the controller has {len(joints)}"):
            return
        unknown = sorted(set(names) - set(joints))
        if self._note(bool(unknown), f"unknown joints {unknown}"):
            return
        sizes = {(len(p.positions), len(p.velocities)) for p in points}
        if self._note(sizes != {(len(names), len(names))}, f"sizes {sizes} of positions and velocities"):
            return
        self._note(any(len(p.effort) for p in points), "effort for a controller without effort interface")
        times = np.array([p.time_from_start.sec + p.time_from_start.nanosec / 1e9 for p in points])
        positions, velocities = (
            np.array([getattr(p, n) for p in points]) for n in ("positions", "velocities")
        )
        if self._note(
            not (np.isfinite(positions).all() and np.isfinite(velocities).all()), "not finite: the spline too"
        ):
            return
        if self._note(bool(times[0] <= 0 or (np.diff(times) <= 0).any()), "times do not strictly increase"):
            return
        self._note(bool(np.abs(velocities[-1]).max() > np.finfo(np.float32).eps), "last velocity is not 0")
        limit = np.array(self.robot.joints.velocity_max_rad_s)
        self._note(bool((np.abs(velocities) > limit * SLACK).any()), "velocity beyond the limit")
        speeds = np.abs(np.diff(positions, axis=0)) / np.diff(times)[:, None]
        self._note(bool((speeds > limit * SLACK).any()), "jump between points beyond the velocity limit")
        ordered = positions[0][[names.index(joint) for joint in joints]]
        self._check_jump(self._previous, ordered)
        self._previous = ordered


class GripperJudge(Judge):
    """Both gripper actions: a position that the joint has, and a goal only when there is something new to do."""

    # A goal more often than this [s] would preempt the one before while the gripper has hardly moved.
    PERIOD_S = 0.15

    def __init__(self, robot: RobotDescription) -> None:
        super().__init__(robot)
        self._previous: tuple[float, float] | None = None
        ends = [robot.gripper.joint_position(m) for m in (robot.gripper.min_m, robot.gripper.max_m)]
        self._low, self._high = min(ends), max(ends)

    def take_command(self, goal: Any, now_s: float) -> bool:
        """A control_msgs/GripperCommand goal; whether the controller accepts it."""
        return self._take([goal.command.position], [goal.command.max_effort], now_s)

    def take_parallel(self, goal: Any, now_s: float) -> bool:
        """A control_msgs/ParallelGripperCommand goal; whether the controller accepts it."""
        self._note(list(goal.command.name) != [self.robot.gripper.joint], f"names {list(goal.command.name)}")
        return self._take(goal.command.position, goal.command.effort, now_s)

    def _take(self, position: Sequence[float], effort: Sequence[float], now_s: float) -> bool:
        self.count += 1
        if self._note(len(position) != 1, f"{len(position)} positions, expects 1: rejected"):
            return False
        value = float(position[0])
        if self._note(not math.isfinite(value), "position not finite"):
            return True
        inside = self._low - 1e-9 <= value <= self._high + 1e-9
        self._note(not inside, f"position {value:.4f} outside {self._low:g} to {self._high:g}: aborted")
        self._note(not all(math.isfinite(e) and e >= 0 for e in effort), f"effort {list(effort)}")
        if self._previous is not None:
            was, at_s = self._previous
            self._note(value == was, "the same goal again: it preempts itself")
            self._note(now_s - at_s < self.PERIOD_S, f"a goal {now_s - at_s:.3f} s after the one before")
        self._previous = (value, now_s)
        return True

    def forget(self) -> None:
        """The goal was refused or came to nothing: it may come again."""
        self._previous = None


class ServoJudge(Judge):
    """moveit_servo's servo_node: type switched first, fresh stamps, speed units, and rest as the last word.

    Args:
        robot: the arm.
        command_type: what the node must have been switched to.
        timeout_s: `incoming_command_timeout`; 0.1 on a robot, more where tests share a busy machine.
    """

    def __init__(self, robot: RobotDescription, command_type: int, timeout_s: float) -> None:
        super().__init__(robot)
        self._wanted, self._type = command_type, -1
        self._timeout_s = timeout_s
        self._last: np.ndarray | None = None
        self._stamp_s = 0.0

    def switch(self, command_type: int) -> bool:
        """The service switch_command_type; its `success`."""
        self._type = command_type
        return not self._note(not 0 <= command_type <= 2, f"unknown command type {command_type}")

    def take_jog(self, message: Any, now_s: float) -> None:
        """A control_msgs/JointJog."""
        names, velocities = list(message.joint_names), np.array(message.velocities)
        self._arrive(message, now_s)
        self._note(len(message.displacements) > 0, "displacements are not supported")
        unknown = sorted(set(names) - set(self.robot.joints.names))
        self._note(bool(unknown), f"unknown joints {unknown}: invalid")
        if self._note(
            velocities.shape != (len(names),), f"{velocities.size} velocities for {len(names)} joints"
        ):
            return
        if self._note(not np.isfinite(velocities).all(), "not finite: invalid"):
            return
        if not unknown:
            limits = dict(zip(self.robot.joints.names, self.robot.joints.velocity_max_rad_s, strict=True))
            limit = np.array([limits[name] for name in names])
            self._note(bool((np.abs(velocities) > limit * SLACK).any()), "velocity beyond the limit")
        self._last = velocities

    def take_twist(self, message: Any, now_s: float) -> None:
        """A geometry_msgs/TwistStamped."""
        self._arrive(message, now_s)
        parts = (message.twist.linear, message.twist.angular)
        twist = np.array([getattr(part, axis) for part in parts for axis in "xyz"])
        known = self.robot.kinematics.base_frame if self.robot.kinematics else ""
        self._note(message.header.frame_id != known, f"no transform from frame '{message.header.frame_id}'")
        if not self._note(not np.isfinite(twist).all(), "not finite: invalid"):
            self._last = twist

    def finish(self) -> None:
        """Servo stops by itself when nothing follows; it should have been told."""
        if self._last is not None:
            self._note(bool(self._last.any()), f"the last command is {self._last.tolist()}, not zero")

    def _arrive(self, message: Any, now_s: float) -> None:
        self.count += 1
        self._note(self._type != self._wanted, f"command type is {self._type}: cannot accept input")
        stamp_s = message.header.stamp.sec + message.header.stamp.nanosec / 1e9
        self._note(abs(now_s - stamp_s) >= self._timeout_s, f"{now_s - stamp_s:.3f} s old: stale")
        self._note(stamp_s < self._stamp_s, "older than the one before")
        self._stamp_s = stamp_s

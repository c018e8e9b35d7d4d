"""ros2_control's joint_trajectory_controller: the whole plan, replaced every control period.

Single points would make the arm stop at each; a chunk with velocities lets the controller
interpolate through them. Set `interpolate_from_desired_state: true` in the controller.
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from atk_perception.robot_description import RobotDescription
from atk_policy.command_sinks.protocol import Channel, FloatArray


class JointTrajectorySink:
    """Arm: a trajectory that starts when it arrives (stamp 0). Gripper: its opening [m]."""

    def __init__(self, robot: RobotDescription) -> None:
        self._names = list(robot.joints.names)
        self._period_ns = robot.control_period_ns
        self.channels = (
            Channel(robot.topics.command, JointTrajectory),
            Channel(robot.topics.gripper_command, Float64MultiArray),
        )

    def messages(self, plan: Sequence[FloatArray]) -> list[Any]:
        """See `CommandSink`: point k is to be reached (k + 1) periods from now; the last one at rest."""
        positions = np.stack(plan)[:, :-1]
        velocities = np.zeros_like(positions)
        if len(positions) > 2:
            velocities[1:-1] = (positions[2:] - positions[:-2]) / (2e-9 * self._period_ns)
        if len(positions) > 1:
            velocities[0] = (positions[1] - positions[0]) / (1e-9 * self._period_ns)
        points = []
        for k, (position, velocity) in enumerate(zip(positions, velocities, strict=True)):
            seconds, nanoseconds = divmod((k + 1) * self._period_ns, 1_000_000_000)
            points.append(
                JointTrajectoryPoint(
                    positions=array.array("d", position),
                    velocities=array.array("d", velocity),
                    time_from_start=Duration(sec=int(seconds), nanosec=int(nanoseconds)),
                )
            )
        return [
            JointTrajectory(joint_names=self._names, points=points),
            Float64MultiArray(data=array.array("d", plan[0][-1:])),
        ]

"""ros2_control's joint_trajectory_controller by its topic: the whole plan, replaced every control period.

Single points would make the arm stop at each; a chunk with velocities lets the controller
interpolate through them. Set `interpolate_from_desired_state: true` in the controller.
"""

from __future__ import annotations

import array
from collections.abc import Sequence

from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from atk_perception.robot_description import RobotDescription
from atk_policy.command_plan import CommandPlan
from atk_policy.command_sinks.protocol import Moment, Topic


class JointTrajectorySink:
    """Every setpoint with its velocity and its time from now; the last is at rest, as the controller demands."""

    preparation = None

    def __init__(self, robot: RobotDescription) -> None:
        self._names = robot.joints.names
        self.target = Topic(robot.topics.command, JointTrajectory)

    def command(self, plan: CommandPlan, _: Moment) -> JointTrajectory:
        """See `ArmSink`."""
        return trajectory_message(self._names, plan)


def trajectory_message(names: Sequence[str], plan: CommandPlan) -> JointTrajectory:
    """The arm's part of a plan; stamp 0: it starts when it arrives."""
    points = []
    for time_ns, position, velocity in zip(
        plan.time_ns, plan.position[:, :-1], plan.velocity[:, :-1], strict=True
    ):
        seconds, nanoseconds = divmod(int(time_ns), 1_000_000_000)
        points.append(
            JointTrajectoryPoint(
                positions=array.array("d", position),
                velocities=array.array("d", velocity),
                time_from_start=Duration(sec=seconds, nanosec=nanoseconds),
            )
        )
    return JointTrajectory(joint_names=list(names), points=points)

"""ros2_control's forward_position_controller: the present joint positions, again and again.

It has no timeout and no notion of time: a wrong number of values puts it in ERROR, and what it was told last it
holds for ever.
"""

from __future__ import annotations

import array

from std_msgs.msg import Float64MultiArray

from atk_perception.robot_description import RobotDescription
from atk_policy.command_plan import CommandPlan
from atk_policy.command_sinks.protocol import Moment, Topic


class ForwardPositionSink:
    """(J,) joint positions [rad] in the order of the robot description, which must be the controller's `joints`."""

    preparation = None

    def __init__(self, robot: RobotDescription) -> None:
        self.target = Topic(robot.topics.command, Float64MultiArray)

    def command(self, plan: CommandPlan, _: Moment) -> Float64MultiArray:
        """See `ArmSink`; only the setpoint for now is used."""
        return Float64MultiArray(data=array.array("d", plan.command[:-1]))

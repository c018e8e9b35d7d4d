"""A gripper that listens to its opening, as the simulated one does: published with every plan, like an arm's position."""

from __future__ import annotations

import array

from std_msgs.msg import Float64MultiArray

from atk_perception.robot_description import RobotDescription
from atk_policy.command_sinks.protocol import Topic


class GripperPositionSink:
    """One value: the opening [m]. It is also what a demonstration holds, whichever way the gripper is driven."""

    def __init__(self, robot: RobotDescription) -> None:
        self.target = Topic(robot.topics.gripper_command, Float64MultiArray)

    def command(self, opening_m: float) -> Float64MultiArray:
        """See `GripperSink`."""
        return Float64MultiArray(data=array.array("d", [opening_m]))

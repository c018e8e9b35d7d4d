"""A gripper that listens to its opening, as the simulated one does: published with every plan, like an arm's position."""

from __future__ import annotations

import array

from std_msgs.msg import Float64MultiArray

from atk_perception.robot_description import RobotDescription
from atk_policy.command_sinks.protocol import Topic


class GripperPositionSink:
    """One value: the opening [m]. Demonstrations hold the same, where there is such a topic.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, robot: RobotDescription) -> None:
        if robot.topics.gripper_command is None:
            raise ValueError("gripper.sink position needs topics.gripper_command, where the gripper listens")
        self.target = Topic(robot.topics.gripper_command, Float64MultiArray)

    def command(self, opening_m: float) -> Float64MultiArray:
        """See `GripperSink`."""
        return Float64MultiArray(data=array.array("d", [opening_m]))

"""ros2_control's forward_position_controller: the present joint positions, again and again."""

from __future__ import annotations

import array
from typing import Any

from std_msgs.msg import Float64MultiArray

from atk_perception.robot_description import RobotDescription
from atk_policy.command_plan import CommandPlan
from atk_policy.command_sinks.protocol import Channel


class ForwardPositionSink:
    """Arm: joint positions in the controller's order. Gripper: its opening [m]."""

    def __init__(self, robot: RobotDescription) -> None:
        self.channels = (
            Channel(robot.topics.command, Float64MultiArray),
            Channel(robot.topics.gripper_command, Float64MultiArray),
        )

    def messages(self, plan: CommandPlan) -> list[Any]:
        """See `CommandSink`; only the setpoint for now is used."""
        action = plan.command
        return [
            Float64MultiArray(data=array.array("d", action[:-1])),
            Float64MultiArray(data=array.array("d", action[-1:])),
        ]

"""ros2_control's forward_position_controller: the present joint positions, again and again."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

from std_msgs.msg import Float64MultiArray

from atk_perception.robot_description import RobotDescription
from atk_policy.command_sinks.protocol import Channel, FloatArray


class ForwardPositionSink:
    """Arm: joint positions in the controller's order. Gripper: its opening [m]."""

    def __init__(self, robot: RobotDescription) -> None:
        self.channels = (
            Channel(robot.topics.command, Float64MultiArray),
            Channel(robot.topics.gripper_command, Float64MultiArray),
        )

    def messages(self, plan: Sequence[FloatArray]) -> list[Any]:
        """See `CommandSink`; only the first action is used."""
        action = plan[0]
        return [
            Float64MultiArray(data=array.array("d", action[:-1])),
            Float64MultiArray(data=array.array("d", action[-1:])),
        ]

"""Command sinks by the name that a robot description gives (`command_sink`)."""

from __future__ import annotations

from collections.abc import Callable

from atk_perception.robot_description import RobotDescription
from atk_policy.command_sinks.forward_position import ForwardPositionSink
from atk_policy.command_sinks.joint_trajectory import JointTrajectorySink
from atk_policy.command_sinks.protocol import CommandSink

COMMAND_SINKS: dict[str, Callable[[RobotDescription], CommandSink]] = {
    "forward_position": ForwardPositionSink,
    "joint_trajectory": JointTrajectorySink,
}


def make_command_sink(robot: RobotDescription) -> CommandSink:
    """The sink that `robot.command_sink` names.

    Raises:
        ValueError: no such sink.
    """
    if robot.command_sink not in COMMAND_SINKS:
        raise ValueError(
            f"unknown command sink '{robot.command_sink}'; known: {', '.join(sorted(COMMAND_SINKS))}"
        )
    return COMMAND_SINKS[robot.command_sink](robot)

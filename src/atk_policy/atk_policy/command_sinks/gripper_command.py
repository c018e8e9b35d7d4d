"""control_msgs/GripperCommand: ros2_control's older gripper_action_controller, and Franka's gripper.

The position is that of the gripper's joint: gripper_action_controller passes it on to the joint, and franka_gripper takes
half of the opening (its `gripper_action` moves to a width of twice the position). A grasp ends as a stall, which
gripper_action_controller calls aborted unless `allow_stalling` is set: an object between the fingers is no failure.
"""

from __future__ import annotations

from typing import Any

from control_msgs.action import GripperCommand

from atk_perception.robot_description import RobotDescription
from atk_policy.command_sinks.protocol import Action


class GripperCommandSink:
    """Position of the gripper's joint [rad or m]; `max_effort` 0, where none is given, is the controller's default."""

    def __init__(self, robot: RobotDescription) -> None:
        self._gripper = robot.gripper
        self.target = Action(action_name(robot), GripperCommand, grasp_failure)

    def command(self, opening_m: float) -> GripperCommand.Goal:
        """See `GripperSink`."""
        goal = GripperCommand.Goal()
        goal.command.position = self._gripper.joint_position(opening_m)
        goal.command.max_effort = self._gripper.max_effort or 0.0
        return goal


def action_name(robot: RobotDescription) -> str:
    """Of the gripper's action server, as the robot description names it."""
    if robot.gripper.action is None:
        raise ValueError(
            f"gripper.sink {robot.gripper.sink} needs 'action', the name of the gripper's action server, such as "
            "gripper_controller/gripper_cmd"
        )
    return robot.gripper.action


def grasp_failure(result: Any, replaced: bool) -> str:
    """What went wrong with a gripper's goal that ended without success: '' where it stalled or a newer one came."""
    if replaced or result.stalled:
        return ""
    return "the gripper neither reached its goal nor stalled on an object"

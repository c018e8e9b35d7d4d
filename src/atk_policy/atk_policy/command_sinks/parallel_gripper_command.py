"""control_msgs/ParallelGripperCommand: ros2_control's parallel_gripper_action_controller.

The position is that of the gripper's joint; exactly one is taken, any other number is rejected. Effort is only heeded
where the controller claims `max_effort_interface`.
"""

from __future__ import annotations

import array

from control_msgs.action import ParallelGripperCommand

from atk_perception.robot_description import RobotDescription
from atk_policy.command_sinks.gripper_command import action_name, grasp_failure
from atk_policy.command_sinks.protocol import Action


class ParallelGripperCommandSink:
    """Position of the gripper's joint [rad or m], and its effort where the robot description limits it."""

    def __init__(self, robot: RobotDescription) -> None:
        self._gripper = robot.gripper
        self.target = Action(action_name(robot), ParallelGripperCommand, grasp_failure)

    def command(self, opening_m: float) -> ParallelGripperCommand.Goal:
        """See `GripperSink`."""
        goal = ParallelGripperCommand.Goal()
        goal.command.name = [self._gripper.joint]
        goal.command.position = array.array("d", [self._gripper.joint_position(opening_m)])
        if self._gripper.max_effort is not None:
            goal.command.effort = array.array("d", [self._gripper.max_effort])
        return goal

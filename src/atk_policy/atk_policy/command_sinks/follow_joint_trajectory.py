"""ros2_control's joint_trajectory_controller by its action: as the topic, and the controller says when it gives up.

Each plan is a goal that replaces the one before, which the controller then aborts: that is no failure. What is one:
a tolerance that was violated, whichever goal it struck, and an end without success of the newest goal.
"""

from __future__ import annotations

from typing import Any

from control_msgs.action import FollowJointTrajectory

from atk_perception.robot_description import RobotDescription
from atk_policy.command_plan import CommandPlan
from atk_policy.command_sinks.joint_trajectory import trajectory_message
from atk_policy.command_sinks.protocol import Action, Moment

_CODES = {
    getattr(FollowJointTrajectory.Result, name): name
    for name in (
        "INVALID_GOAL",
        "INVALID_JOINTS",
        "OLD_HEADER_TIMESTAMP",
        "PATH_TOLERANCE_VIOLATED",
        "GOAL_TOLERANCE_VIOLATED",
    )
}
_VIOLATED = (
    FollowJointTrajectory.Result.PATH_TOLERANCE_VIOLATED,
    FollowJointTrajectory.Result.GOAL_TOLERANCE_VIOLATED,
)


class FollowJointTrajectorySink:
    """The same trajectories as `JointTrajectorySink`; tolerances are those of the controller's parameters."""

    preparation = None

    def __init__(self, robot: RobotDescription) -> None:
        if robot.command_action is None:
            raise ValueError(
                "command_sink follow_joint_trajectory needs 'command_action', the action's name, such as "
                "joint_trajectory_controller/follow_joint_trajectory"
            )
        self._names = robot.joints.names
        self.target = Action(robot.command_action, FollowJointTrajectory, _failure)

    def command(self, plan: CommandPlan, _: Moment) -> FollowJointTrajectory.Goal:
        """See `ArmSink`."""
        return FollowJointTrajectory.Goal(trajectory=trajectory_message(self._names, plan))


def _failure(result: Any, replaced: bool) -> str:
    if replaced and result.error_code not in _VIOLATED:
        return ""
    code = _CODES.get(result.error_code, f"error code {result.error_code}")
    return f"{code}: {result.error_string}" if result.error_string else code

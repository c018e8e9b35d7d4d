"""Arm and gripper sinks by the names that a robot description gives (`command_sink`, `gripper.sink`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

from atk_perception.robot_description import RobotDescription
from atk_policy.command_sinks.protocol import ArmSink, GripperSink

Made = TypeVar("Made", bound=ArmSink | GripperSink)


@dataclass(frozen=True)
class SinkKind(Generic[Made]):
    """One implementation and what choosing it means. Message packages are imported when it is made.

    Attributes:
        make: builds it.
        summary: one line.
        whole_plan: commands carry the plan to its rest; else only what is for now, and the controller
            is left with that when nothing follows.
        monitored: a controller that is missing, refuses or gives up is heard of.
    """

    make: Callable[[RobotDescription], Made]
    summary: str
    whole_plan: bool
    monitored: bool


def _made_by(module: str, name: str) -> Callable[[RobotDescription], Any]:
    return lambda robot: getattr(import_module(f"{__name__}.{module}"), name)(robot)


def _servo_twist(robot: RobotDescription) -> ArmSink:
    from atk_policy.command_sinks.servo_twist import ServoTwistSink
    from atk_policy.kinematics import KinematicModel  # with MuJoCo, which no other sink needs

    return ServoTwistSink(robot, KinematicModel(robot))


ARM_SINKS: dict[str, SinkKind[ArmSink]] = {
    "forward_position": SinkKind(
        _made_by("forward_position", "ForwardPositionSink"),
        "positions to forward_position_controller",
        whole_plan=False,
        monitored=False,
    ),
    "joint_trajectory": SinkKind(
        _made_by("joint_trajectory", "JointTrajectorySink"),
        "whole plans to joint_trajectory_controller's topic",
        whole_plan=True,
        monitored=False,
    ),
    "follow_joint_trajectory": SinkKind(
        _made_by("follow_joint_trajectory", "FollowJointTrajectorySink"),
        "whole plans to joint_trajectory_controller's action",
        whole_plan=True,
        monitored=True,
    ),
    "servo_joint": SinkKind(
        _made_by("servo_joint", "ServoJointSink"),
        "joint velocities to MoveIt Servo",
        whole_plan=False,
        monitored=False,
    ),
    "servo_twist": SinkKind(
        _servo_twist, "velocity of the tip to MoveIt Servo", whole_plan=False, monitored=False
    ),
}

GRIPPER_SINKS: dict[str, SinkKind[GripperSink]] = {
    "position": SinkKind(
        _made_by("gripper_position", "GripperPositionSink"),
        "the opening to a topic",
        whole_plan=False,
        monitored=False,
    ),
    "gripper_command": SinkKind(
        _made_by("gripper_command", "GripperCommandSink"),
        "goals to gripper_action_controller or franka_gripper",
        whole_plan=True,
        monitored=True,
    ),
    "parallel_gripper_command": SinkKind(
        _made_by("parallel_gripper_command", "ParallelGripperCommandSink"),
        "goals to parallel_gripper_action_controller",
        whole_plan=True,
        monitored=True,
    ),
}


def make_arm_sink(robot: RobotDescription) -> ArmSink:
    """The sink that `robot.command_sink` names.

    Raises:
        ValueError: no such sink, the robot description lacks what it needs, or a package is not installed.
    """
    return _make(ARM_SINKS, "command_sink", robot.command_sink, robot)


def make_gripper_sink(robot: RobotDescription) -> GripperSink:
    """The sink that `robot.gripper.sink` names.

    Raises:
        ValueError: no such sink, the robot description lacks what it needs, or a package is not installed.
    """
    return _make(GRIPPER_SINKS, "gripper.sink", robot.gripper.sink, robot)


def in_replay(robot: RobotDescription) -> RobotDescription:
    """`robot` with sinks that are topics under replay/ alone, where no controller listens, whichever it has."""
    topics = robot.topics
    moved = topics.model_copy(
        update={
            "command": f"replay/{topics.command.lstrip('/')}",
            "gripper_command": f"replay/{(topics.gripper_command or 'gripper_command').lstrip('/')}",
        }
    )
    return robot.model_copy(
        update={
            "topics": moved,
            "command_sink": "joint_trajectory"
            if ARM_SINKS[robot.command_sink].whole_plan
            else "forward_position",
            "gripper": robot.gripper.model_copy(update={"sink": "position"}),
        }
    )


def _make(kinds: Mapping[str, SinkKind[Made]], entry: str, name: str, robot: RobotDescription) -> Made:
    if name not in kinds:
        raise ValueError(f"unknown {entry} '{name}'; known: {', '.join(sorted(kinds))}")
    try:
        return kinds[name].make(robot)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{entry} '{name}' needs '{error.name}', which is not installed here. Messages of ROS come with apt, as in "
            "ros-jazzy-control-msgs; without them choose a sink with messages of common_interfaces, such as "
            f"{'joint_trajectory' if entry == 'command_sink' else 'position'}"
        ) from error

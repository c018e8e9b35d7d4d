"""The topics of a demonstration and what their messages say: one definition for recorder, reader and check.

Works on rclpy messages and on those that `rosbags` reads from a bag.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atk_perception.robot_description import RobotDescription

FloatArray = npt.NDArray[np.float64]

# Where who writes demonstrations of a robot without a gripper topic puts what its gripper was told.
GRIPPER_TOPIC = "gripper_commands"
ARRAY = "std_msgs/msg/Float64MultiArray"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"


class CommandError(ValueError):
    """A command says no positions of this robot's joints, or no opening of its gripper."""


@dataclass(frozen=True)
class NeededTopic:
    """What a topic is for, the message types that say it, and what to do where it holds another."""

    what: str
    types: tuple[str, ...]
    advice: str

    def refusal(self, topic: str, found: str) -> str:
        """What is wrong with messages of the type `found`, in words."""
        return f"{topic} holds {found}, not {self.what} ({' or '.join(self.types)}). {self.advice}"


IMAGES = NeededTopic(
    "images",
    ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"),
    "Name the camera's image topic in the robot description",
)
CAMERA_INFO = NeededTopic(
    "camera information",
    ("sensor_msgs/msg/CameraInfo",),
    "Correct camera_info_topic in the robot description",
)
JOINT_STATES = NeededTopic(
    "joint states",
    ("sensor_msgs/msg/JointState",),
    "Name the topic of the joint state broadcaster in topics.joint_states",
)
ARM_COMMANDS = NeededTopic(
    "joint positions of the arm",
    (ARRAY, TRAJECTORY),
    "Record the positions or trajectories that reach the controller, as MoveIt Servo publishes them on its "
    "command_out_topic, and name that topic in topics.recorded_command",
)
GRIPPER_COMMANDS = NeededTopic(
    "openings of the gripper [m]",
    (ARRAY,),
    "Publish the opening there, or leave topics.gripper_command out: then it follows from the gripper's joint",
)


def needed_topics(robot: RobotDescription, *, with_actions: bool = True) -> dict[str, NeededTopic]:
    """By topic, as the robot description names it: what a demonstration cannot do without, beside images."""
    topics = robot.topics
    needed = {topics.joint_states: JOINT_STATES}
    if with_actions:
        needed[topics.recorded_arm_command] = ARM_COMMANDS
        if topics.gripper_command is not None:
            needed[topics.gripper_command] = GRIPPER_COMMANDS
    return needed


def with_gripper_topic(robot: RobotDescription) -> tuple[RobotDescription, str]:
    """The same robot with a topic for the opening of its gripper, and that topic.

    For who writes demonstrations and knows what the gripper was told, which is better than what was measured.
    """
    topic = robot.topics.gripper_command or GRIPPER_TOPIC
    topics = robot.topics.model_copy(update={"gripper_command": topic})
    return robot.model_copy(update={"topics": topics}), topic


def refusals(needed: Mapping[str, NeededTopic], offered: Mapping[str, Collection[str]]) -> list[str]:
    """What is wrong with the types that are offered, by topic; a topic that is not offered is no matter of its type."""
    return [
        topic.refusal(name, found)
        for name, topic in needed.items()
        for found in sorted(offered.get(name, ()))
        if found not in topic.types
    ]


@dataclass(frozen=True)
class ArmCommand:
    """What a command tells the arm.

    Attributes:
        position_rad: (P, J) in command order; one row of a command without times, none of a trajectory without points, which
            controllers reject.
        time_from_start_ns: P times of a trajectory, counted from `stamp_ns`; empty of a command without times.
        stamp_ns: when a trajectory begins; 0: when it arrives.
    """

    position_rad: FloatArray
    time_from_start_ns: tuple[int, ...] = ()
    stamp_ns: int = 0


def arm_command_from_message(message: Any, robot: RobotDescription) -> ArmCommand:
    """Read a JointTrajectory, or a Float64MultiArray with the joints in command order.

    Raises:
        CommandError: a joint is missing, there are more or fewer values than joints, or one is not finite.
    """
    if hasattr(message, "points"):
        return _arm_command_from_trajectory(message, robot)
    values = np.asarray(message.data, dtype=np.float64)
    if values.shape != (robot.joint_count,) or not np.isfinite(values).all():
        raise CommandError(
            f"an arm command holds {values.tolist()}; expected {robot.joint_count} finite joint positions [rad]"
        )
    return ArmCommand(values[None])


def _arm_command_from_trajectory(message: Any, robot: RobotDescription) -> ArmCommand:
    names = list(message.joint_names)
    missing = [name for name in robot.joints.names if name not in names]
    if missing:
        raise CommandError(
            f"a trajectory for {names} lacks {missing}; correct joints.names in the robot description, or "
            "who commands the arm"
        )
    order = [names.index(name) for name in robot.joints.names]
    points = [np.asarray(point.positions, dtype=np.float64) for point in message.points]
    if not all(point.size == len(names) and np.isfinite(point).all() for point in points):
        raise CommandError(f"a trajectory has a point without finite positions for {names}")
    offsets_ns = tuple(
        int(point.time_from_start.sec) * 1_000_000_000 + int(point.time_from_start.nanosec)
        for point in message.points
    )
    stamp = message.header.stamp
    positions = np.array([point[order] for point in points]).reshape(-1, robot.joint_count)
    return ArmCommand(positions, offsets_ns, int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec))


def opening_from_message(message: Any) -> float:
    """Opening of the gripper [m] out of a Float64MultiArray.

    Raises:
        CommandError: it does not hold one finite value.
    """
    values = np.asarray(message.data, dtype=np.float64)
    if values.shape != (1,) or not np.isfinite(values).all():
        raise CommandError(
            f"a gripper command holds {values.tolist()}; expected one finite value, the opening [m]"
        )
    return float(values[0])

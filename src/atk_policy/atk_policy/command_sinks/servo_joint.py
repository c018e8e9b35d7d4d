"""MoveIt Servo by joint velocities: Servo adds its collision checks, limits and smoothing."""

from __future__ import annotations

import array

import numpy as np
from control_msgs.msg import JointJog

from atk_perception.robot_description import RobotDescription
from atk_policy.command_plan import CommandPlan
from atk_policy.command_sinks.protocol import Moment, Topic
from atk_policy.command_sinks.servo import command_type, joint_velocity, stamp_of


class ServoJointSink:
    """Velocities [rad/s] by joint name; displacements stay empty, since Servo ignores them with a warning."""

    def __init__(self, robot: RobotDescription) -> None:
        self._names = list(robot.joints.names)
        self._velocity_max = np.array(robot.joints.velocity_max_rad_s)
        self.target = Topic(robot.topics.command, JointJog)
        self.preparation = command_type(robot.topics.command, "JOINT_JOG")

    def command(self, plan: CommandPlan, moment: Moment) -> JointJog:
        """See `ArmSink`."""
        velocity = joint_velocity(plan, moment, self._velocity_max)
        message = JointJog(joint_names=self._names, velocities=array.array("d", velocity))
        message.header.stamp = stamp_of(moment)
        return message

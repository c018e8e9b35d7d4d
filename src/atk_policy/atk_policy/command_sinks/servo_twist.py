"""MoveIt Servo by the velocity of the tip: for arms of which Servo alone is to choose the joints' motion.

Servo adds its singularity handling to what `servo_joint` has. A seventh joint moves as Servo's inverse kinematics likes.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from geometry_msgs.msg import TwistStamped, Vector3

from atk_perception.robot_description import RobotDescription
from atk_policy.command_plan import CommandPlan
from atk_policy.command_sinks.protocol import FloatArray, Moment, Topic
from atk_policy.command_sinks.servo import command_type, joint_velocity, stamp_of


class TipJacobian(Protocol):
    """Who knows how the tip moves."""

    def tip_jacobian(self, q: FloatArray) -> FloatArray:
        """(6, J) velocity [m/s] and angular velocity [rad/s] of the tip in base axes per joint velocity, at (J,) `q`."""
        ...


class ServoTwistSink:
    """Velocity [m/s] and angular velocity [rad/s] of the tip along the axes of the arm's base frame.

    `kinematics.tip` must be where the planning group of Servo has its tip: elsewhere, turning would shift it.

    Raises:
        ValueError: no base frame is named, in which Servo is to understand the twist.
    """

    def __init__(self, robot: RobotDescription, model: TipJacobian) -> None:
        if robot.kinematics is None or not robot.kinematics.base_frame:
            raise ValueError(
                "command_sink servo_twist needs kinematics.base_frame: the TF frame of the arm's base, such as panda_link0"
            )
        self._frame = robot.kinematics.base_frame
        self._model = model
        self._velocity_max = np.array(robot.joints.velocity_max_rad_s)
        self.target = Topic(robot.topics.command, TwistStamped)
        self.preparation = command_type(robot.topics.command, "TWIST")

    def command(self, plan: CommandPlan, moment: Moment) -> TwistStamped:
        """See `ArmSink`."""
        at = plan.command[:-1] if moment.measured is None else moment.measured
        velocity = joint_velocity(plan, moment, self._velocity_max)
        twist = self._model.tip_jacobian(at) @ velocity
        message = TwistStamped()
        message.header.stamp = stamp_of(moment)
        message.header.frame_id = self._frame
        message.twist.linear = Vector3(**dict(zip("xyz", map(float, twist[:3]), strict=True)))
        message.twist.angular = Vector3(**dict(zip("xyz", map(float, twist[3:]), strict=True)))
        return message

"""A scripted, privileged expert: where the hand should go is the task's to say, how it gets there is here.

The command is a function of the present state alone, so a policy that sees the objects and the robot can
imitate it, and a push off the path is answered as anyone would: by going on from there.
"""

from __future__ import annotations

from dataclasses import dataclass

import mink
import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_perception.robot_description import RobotDescription
from atk_sim.robots.panda import ARM_JOINTS, TCP_SITE, kinematic_model

FloatArray = NDArray[np.float64]

# The servos follow with a first-order lag of this [s]: to move at v, the command leads by v times it.
SERVO_LAG_S = 0.1
LINEAR_SPEED_M_S = 0.42
ANGULAR_SPEED_RAD_S = 1.6
APPROACH_RATE_1_S = 8.0  # speed per distance on the last centimetres
SPEED_SHARE = 0.6  # of the robot's own joint velocity limits


@dataclass(frozen=True)
class ExpertGoal:
    """Hand position (3,) [m] in the world, yaw of the hand [rad] (None keeps it), gripper opening to command [m].

    `rotation` (3, 3) of the hand's tool centre point in the world replaces the yaw; None: pointing down. A yaw is met by
    the nearer of the two half turns that look alike, a rotation as it is.
    """

    position_m: FloatArray
    yaw_rad: float | None
    opening_m: float
    rotation: FloatArray | None = None


class Expert:
    """Differential inverse kinematics (mink) from the measured state towards the task's goal."""

    def __init__(self, robot: RobotDescription) -> None:
        self._robot = robot
        self._configuration = mink.Configuration(kinematic_model())
        self._hand = mink.FrameTask(
            TCP_SITE, "site", position_cost=1.0, orientation_cost=0.3, lm_damping=1e-3
        )
        # Where the arm is free to choose, it stays near its home.
        self._posture = mink.PostureTask(self._configuration.model, cost=2e-3)
        self._posture.set_target(np.concatenate([robot.home_rad, [0.04, 0.04]]))
        speed = dict(zip(ARM_JOINTS, SPEED_SHARE * np.array(robot.joints.velocity_max_rad_s), strict=True))
        self._limits = [
            mink.ConfigurationLimit(self._configuration.model),
            mink.VelocityLimit(self._configuration.model, speed),
        ]

    def command(self, joint_position_rad: FloatArray, opening_m: float, goal: ExpertGoal) -> FloatArray:
        """(J + 1,) joint positions [rad] and gripper opening [m] to command from this state.

        Raises:
            mink.NoSolutionFound: the joint limits leave no way on.
        """
        self._configuration.update(np.concatenate([joint_position_rad, [opening_m / 2, opening_m / 2]]))
        hand = self._configuration.get_transform_frame_to_world(TCP_SITE, "site")
        position = hand.translation()
        velocity = APPROACH_RATE_1_S * (goal.position_m - position)
        velocity *= min(1.0, LINEAR_SPEED_M_S / max(1e-9, float(np.linalg.norm(velocity))))
        target = mink.SE3.from_rotation_and_translation(
            _turned_towards(goal, hand.rotation()), position + velocity * SERVO_LAG_S
        )
        self._hand.set_target(target)
        solution = mink.solve_ik(
            self._configuration,
            [self._hand, self._posture],
            SERVO_LAG_S,
            "daqp",
            damping=1e-6,
            limits=self._limits,
        )
        arm = joint_position_rad + SERVO_LAG_S * solution[: len(joint_position_rad)]
        low, high = self._robot.action_min, self._robot.action_max
        action: FloatArray = np.clip(np.append(arm, goal.opening_m), low, high)
        return action


def observed(data: mujoco.MjData) -> tuple[FloatArray, float]:
    """Measured joint positions (7,) [rad] and gripper opening [m]."""
    q = np.array([float(data.joint(name).qpos[0]) for name in ARM_JOINTS])
    return q, float(data.joint("panda_finger_joint1").qpos[0] + data.joint("panda_finger_joint2").qpos[0])


def pointing_down(yaw_rad: float) -> FloatArray:
    """(3, 3) rotation of a hand that points down with its x axis at `yaw_rad` about the world's z."""
    rotation: FloatArray = _pointing_down(yaw_rad).as_matrix()
    return rotation


def _turned_towards(goal: ExpertGoal, hand: mink.SO3) -> mink.SO3:
    """The rotation to command: as far towards the goal's as the servos' lag takes."""
    if goal.rotation is not None:
        turn = (mink.SO3.from_matrix(goal.rotation) @ hand.inverse()).log()
        rate = APPROACH_RATE_1_S * turn
        rate *= min(1.0, ANGULAR_SPEED_RAD_S / max(1e-9, float(np.linalg.norm(rate))))
        return mink.SO3.exp(rate * SERVO_LAG_S) @ hand
    matrix = hand.as_matrix()
    yaw_rad = float(np.arctan2(matrix[1, 0], matrix[0, 0]))
    turn_rad = 0.0 if goal.yaw_rad is None else _shortest(goal.yaw_rad - yaw_rad)
    bounded = float(np.clip(APPROACH_RATE_1_S * turn_rad, -ANGULAR_SPEED_RAD_S, ANGULAR_SPEED_RAD_S))
    return _pointing_down(yaw_rad + bounded * SERVO_LAG_S)


def _shortest(angle_rad: float) -> float:
    """Into [-pi/2, pi/2): two fingers look the same after half a turn."""
    return (angle_rad + np.pi / 2) % np.pi - np.pi / 2


def _pointing_down(yaw_rad: float) -> mink.SO3:
    """Hand frame with z down and x at `yaw_rad` about the world's z."""
    return mink.SO3.from_z_radians(yaw_rad) @ mink.SO3.from_x_radians(np.pi)

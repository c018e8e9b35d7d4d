"""Physics of one episode: stepping, the robot's servos, and the questions that tasks and experts ask."""

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim.robots.panda import ARM_JOINTS, FINGER_JOINTS, GRIPPER_ACTUATOR, ROBOT_PREFIX, TCP_SITE

FloatArray = NDArray[np.float64]

PHYSICS_STEP_S = 0.002


class World:
    """A compiled scene with a Panda in it. Positions are in the world frame: the robot's base, x forward, z up."""

    def __init__(self, spec: mujoco.MjSpec, arm_position_rad: FloatArray, opening_m: float) -> None:
        spec.option.timestep = PHYSICS_STEP_S
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.cone = (
            mujoco.mjtCone.mjCONE_ELLIPTIC
        )  # a pinched piece creeps out under the pyramidal cone
        spec.option.impratio = 10
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._arm_qpos = [self.model.joint(name).qposadr[0] for name in ARM_JOINTS]
        self._arm_dof = [self.model.joint(name).dofadr[0] for name in ARM_JOINTS]
        self._finger_qpos = [self.model.joint(name).qposadr[0] for name in FINGER_JOINTS]
        self._arm_servo = [self.model.actuator(name).id for name in ARM_JOINTS]
        self._gripper_servo = self.model.actuator(GRIPPER_ACTUATOR).id
        self._is_robot = np.array(
            [self.model.body(body).name.startswith(ROBOT_PREFIX) for body in range(self.model.nbody)]
        )
        self.data.qpos[self._arm_qpos] = arm_position_rad
        self.data.qpos[self._finger_qpos] = opening_m / 2
        self.set_servos(arm_position_rad, opening_m)
        mujoco.mj_forward(self.model, self.data)

    def set_servos(self, arm_position_rad: FloatArray, opening_m: float) -> None:
        """Where the position servos pull from now on; MuJoCo clips to the joints' ranges."""
        self.data.ctrl[self._arm_servo] = arm_position_rad
        self.data.ctrl[self._gripper_servo] = opening_m / 2

    def advance(self, duration_s: float) -> None:
        """Let physics run; afterwards every position, velocity and contact is that of the new state."""
        mujoco.mj_step(self.model, self.data, nstep=round(duration_s / PHYSICS_STEP_S))
        mujoco.mj_forward(self.model, self.data)

    @property
    def arm_position_rad(self) -> FloatArray:
        """(7,) in the order of ARM_JOINTS."""
        return np.array(self.data.qpos[self._arm_qpos])

    @property
    def arm_velocity_rad_s(self) -> FloatArray:
        """(7,) in the order of ARM_JOINTS."""
        return np.array(self.data.qvel[self._arm_dof])

    @property
    def opening_m(self) -> float:
        """Free width between the fingers' pads."""
        return float(self.data.qpos[self._finger_qpos].sum())

    @property
    def tcp_position_m(self) -> FloatArray:
        """(3,) of the point between the fingertips."""
        return np.array(self.data.site(TCP_SITE).xpos)

    @property
    def tcp_yaw_rad(self) -> float:
        """Heading of the hand's x axis; the fingers close across it."""
        x_axis = self.data.site(TCP_SITE).xmat.reshape(3, 3)[:, 0]
        return float(np.arctan2(x_axis[1], x_axis[0]))

    def body_pose(self, name: str) -> FloatArray:
        """(4, 4) T_world_body."""
        pose = np.eye(4)
        body = self.data.body(name)
        pose[:3, :3] = body.xmat.reshape(3, 3)
        pose[:3, 3] = body.xpos
        return pose

    def body_position_m(self, name: str) -> FloatArray:
        """(3,) of the body's origin."""
        return np.array(self.data.body(name).xpos)

    def body_speed(self, name: str) -> float:
        """Linear speed of the body's centre of mass [m/s]."""
        return float(np.linalg.norm(self.data.body(name).cvel[3:]))

    def touching(self, first: str, second: str) -> bool:
        """Whether two bodies are in contact."""
        wanted = {self.model.body(first).id, self.model.body(second).id}
        return any({a, b} == wanted for a, b in self._contact_bodies())

    def touches_robot(self, name: str) -> bool:
        """Whether a body is in contact with any part of the robot."""
        body = self.model.body(name).id
        return any(
            (a == body and self._is_robot[b]) or (b == body and self._is_robot[a])
            for a, b in self._contact_bodies()
        )

    def _contact_bodies(self) -> list[tuple[int, int]]:
        pairs = self.data.contact.geom[: self.data.ncon]
        return [(int(self.model.geom_bodyid[a]), int(self.model.geom_bodyid[b])) for a, b in pairs]

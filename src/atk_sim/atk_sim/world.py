"""The physical and visual world of one episode: robot, task, disturbances, camera."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_perception.image_codec import DepthImage, RgbImage
from atk_perception.robot_description import RobotDescription
from atk_sim.camera import FloatArray
from atk_sim.disturbances import add_background, add_distractors, add_lights
from atk_sim.experts import observed
from atk_sim.robots.panda import (
    ARM_ACTUATORS,
    ARM_JOINTS,
    FINGER_JOINTS,
    GRIPPER_ACTUATOR,
    TCP_SITE,
    add_panda,
)
from atk_sim.scene import stream
from atk_sim.tasks.protocol import Task

PHYSICS_STEP_S = 0.002  # unless the task's objects need another
CAMERA = "camera"
INITIAL_JOINT_SPREAD_RAD = 0.03
FINGER_OPEN_M = 0.04


class World:
    """One episode's MuJoCo model and state.

    Args:
        robot: gives the home position and the camera's image size.
        task, disturbance, seed: together they decide everything; see `disturbances`.
    """

    def __init__(self, robot: RobotDescription, task: Task, disturbance: str, seed: int) -> None:
        self.task, self._robot = task, robot
        self.layout = task.layout(seed)
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        spec.option.timestep = PHYSICS_STEP_S
        # The stiff servos and the fingers' contacts need an implicit integrator at this step.
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        spec.option.impratio = 10
        spec.visual.global_.offwidth, spec.visual.global_.offheight = robot.camera.width, robot.camera.height
        spec.visual.quality.offsamples = 0  # multisampling doubles the cost of a frame on a CPU
        spec.visual.map.znear, spec.visual.map.zfar = 0.02, 4.0
        add_panda(spec)
        add_background(spec, disturbance, seed)
        task.add_objects(spec, self.layout)
        add_distractors(spec, self.layout, disturbance, seed, task.clearance_m)
        add_lights(spec, disturbance, seed)
        self._add_camera(spec)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._place_robot(stream(seed, "arm"))
        mujoco.mj_forward(self.model, self.data)

    def _add_camera(self, spec: mujoco.MjSpec) -> None:
        placement = self.task.camera
        pose = placement.T_world_camera
        # MuJoCo's cameras look along -z with y up; the optical frame (REP 103) looks along z with y down.
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, (pose[:3, :3] @ np.diag([1.0, -1.0, -1.0])).ravel())
        camera = spec.worldbody.add_camera(name=CAMERA, pos=pose[:3, 3], quat=quaternion)
        camera.fovy = np.degrees(
            placement.vertical_field_rad
        )  # always degrees, whatever the compiler's angles

    def _place_robot(self, rng: np.random.Generator) -> None:
        home = np.array(self._robot.home_rad)
        start = home + rng.uniform(-INITIAL_JOINT_SPREAD_RAD, INITIAL_JOINT_SPREAD_RAD, home.shape)
        for name, value in zip(ARM_JOINTS, start, strict=True):
            self.data.joint(name).qpos[0] = value
            self.data.actuator(name).ctrl[0] = value
        for name in FINGER_JOINTS:
            self.data.joint(name).qpos[0] = FINGER_OPEN_M
        self.data.actuator(GRIPPER_ACTUATOR).ctrl[0] = FINGER_OPEN_M

    # -- robot -------------------------------------------------------------------------------------

    def measured(self) -> FloatArray:
        """(J + 1,) joint positions [rad] and gripper opening [m]."""
        q, opening_m = observed(self.data)
        return np.append(q, opening_m)

    def command(self, action: FloatArray) -> None:
        """Set the servos: (J + 1,) joint positions [rad] and gripper opening [m]."""
        for name, value in zip(ARM_ACTUATORS, action[:-1], strict=True):
            self.data.actuator(name).ctrl[0] = value
        self.data.actuator(GRIPPER_ACTUATOR).ctrl[0] = np.clip(action[-1] / 2, 0.0, FINGER_OPEN_M)

    def step(self, seconds: float) -> None:
        """Advance physics."""
        for _ in range(round(seconds / self.model.opt.timestep)):
            mujoco.mj_step(self.model, self.data)

    def success(self) -> bool:
        """Whether the task is done now."""
        return self.task.success(self.model, self.data)

    @property
    def hand_position_m(self) -> FloatArray:
        """(3,) position of the hand's tool centre point in the world [m]."""
        return np.array(self.data.site(TCP_SITE).xpos)


class CameraRenderer:
    """Renders a world's camera off screen; keep one and `show` it each new world.

    The images are what `camera_info` describes: pixel centres at integers, no distortion.
    """

    def __init__(self, width: int, height: int) -> None:
        self._size = (height, width)
        self._renderer: mujoco.Renderer | None = None

    def show(self, world: World) -> None:
        """Render this world from now on."""
        self.close()
        self._world = world
        self._renderer = mujoco.Renderer(world.model, *self._size)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = False

    def _updated(self) -> mujoco.Renderer:
        if self._renderer is None:
            raise RuntimeError("no world to render; call show(world) first")
        self._renderer.update_scene(self._world.data, CAMERA)
        return self._renderer

    def rgb(self) -> RgbImage:
        """(H, W, 3) uint8."""
        image: RgbImage = self._updated().render().copy()
        return image

    def depth(self) -> DepthImage:
        """(H, W) float32 distance along the optical axis [m]."""
        renderer = self._updated()
        renderer.enable_depth_rendering()
        try:
            depth_m: DepthImage = renderer.render().astype(np.float32)
        finally:
            renderer.disable_depth_rendering()
        return depth_m

    def segmentation(self) -> NDArray[np.int32]:
        """(H, W) geom id of every pixel, -1 where there is none."""
        return self.surfaces()[0]

    def surfaces(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(H, W) geom id and (H, W) flex id of every pixel, -1 where there is none."""
        renderer = self._updated()
        renderer.enable_segmentation_rendering()
        try:
            ids = renderer.render()
        finally:
            renderer.disable_segmentation_rendering()
        geoms, flexes = (
            np.where(ids[..., 1] == kind, ids[..., 0], -1).astype(np.int32)
            for kind in (mujoco.mjtObj.mjOBJ_GEOM, mujoco.mjtObj.mjOBJ_FLEX)
        )
        return geoms, flexes

    def close(self) -> None:
        """Release the graphics context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

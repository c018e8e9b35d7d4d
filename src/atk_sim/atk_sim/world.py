"""The physical and visual world of one episode: robot, task, disturbances, camera."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_perception.image_codec import DepthImage, RgbImage
from atk_perception.robot_description import RobotDescription
from atk_sim.camera import CameraPlacement, FloatArray
from atk_sim.disturbances import (
    DISTRACTOR_AREA_M,
    OCCLUDER,
    Disturbance,
    Occluder,
    add_background,
    add_distractors,
    add_lights,
    moved_camera,
)
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
from atk_sim.tasks.protocol import Furnished, Task, camera_placements

PHYSICS_STEP_S = 0.002  # unless the task's objects need another
CAMERA = "camera"
INITIAL_JOINT_SPREAD_RAD = 0.03
FINGER_OPEN_M = 0.04


def camera_name(number: int) -> str:
    """In the model, of a robot's camera; 0 is the first."""
    return f"{CAMERA}{number}" if number else CAMERA


def _add_camera(spec: mujoco.MjSpec, name: str, placement: CameraPlacement) -> None:
    pose = placement.T_world_camera
    # MuJoCo's cameras look along -z with y up; the optical frame (REP 103) looks along z with y down.
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, (pose[:3, :3] @ np.diag([1.0, -1.0, -1.0])).ravel())
    camera = spec.worldbody.add_camera(name=name, pos=pose[:3, 3], quat=quaternion)
    camera.fovy = np.degrees(placement.vertical_field_rad)  # always degrees, whatever the compiler's angles


class World:
    """One episode's MuJoCo model and state.

    Args:
        robot: gives the home position and the cameras' image sizes.
        task, disturbance, seed: together they decide everything; see `disturbances`.

    Raises:
        ValueError: unknown disturbance.
    """

    def __init__(self, robot: RobotDescription, task: Task, disturbance: str, seed: int) -> None:
        self.task, self._robot = task, robot
        disturbed = Disturbance.parse(disturbance)
        self.camera = moved_camera(task.camera, disturbed, seed)
        self.layout = task.layout(seed)
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        spec.option.timestep = PHYSICS_STEP_S
        # The stiff servos and the fingers' contacts need an implicit integrator at this step.
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        spec.option.impratio = 10
        spec.visual.global_.offwidth = max(camera.width for camera in robot.cameras)
        spec.visual.global_.offheight = max(camera.height for camera in robot.cameras)
        spec.visual.quality.offsamples = 0  # multisampling doubles the cost of a frame on a CPU
        spec.visual.map.znear, spec.visual.map.zfar = 0.02, 4.0
        add_panda(spec)
        add_background(spec, disturbed, seed)
        task.add_objects(spec, self.layout)
        area_m = task.distractor_area_m if isinstance(task, Furnished) else DISTRACTOR_AREA_M
        add_distractors(spec, self.layout, disturbed, seed, task.clearance_m, area_m)
        add_lights(spec, disturbed, seed)
        self._occluder = Occluder(self.camera, disturbed, seed, robot.camera.width, robot.camera.height)
        self._occluder.add(spec)
        # What moves the task's own camera leaves the others where they are.
        self.placements = [self.camera, *camera_placements(task, len(robot.cameras))[1:]]
        for number, placement in enumerate(self.placements):
            _add_camera(spec, camera_name(number), placement)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._place_robot(stream(seed, "arm"))
        mujoco.mj_forward(self.model, self.data)

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
        if self._occluder.share:
            self.data.mocap_pos[self.model.body(OCCLUDER).mocapid[0]] = self._occluder.position_m(
                self.data.time
            )

    @property
    def positions(self) -> FloatArray:
        """(nq,) MuJoCo's positions: with them everything stands where it stands now."""
        return np.array(self.data.qpos)

    def show(self, positions: FloatArray) -> None:
        """Put everything where it was, to be looked at; nothing moves."""
        self.data.qpos[:] = positions
        self.data.qvel[:] = 0.0
        mujoco.mj_forward(self.model, self.data)

    def success(self) -> bool:
        """Whether the task is done now."""
        return self.task.success(self.model, self.data)

    @property
    def hand_position_m(self) -> FloatArray:
        """(3,) position of the hand's tool centre point in the world [m]."""
        return np.array(self.data.site(TCP_SITE).xpos)


class CameraRenderer:
    """Renders one of a world's cameras off screen; keep one and `show` it each new world.

    The images are what `camera_info` describes: pixel centres at integers, no distortion.
    """

    def __init__(self, width: int, height: int, number: int = 0) -> None:
        self._size = (height, width)
        self._camera = camera_name(number)
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
        self._renderer.update_scene(self._world.data, self._camera)
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

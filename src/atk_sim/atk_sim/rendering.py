"""Pictures of a world: RGB, metric depth, and which body each pixel shows."""

from types import TracebackType
from typing import Self

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim.camera import CameraPlacement
from atk_sim.world import World

CAMERA = "camera"


def add_camera(spec: mujoco.MjSpec, placement: CameraPlacement, width: int, height: int) -> None:
    """Put the camera into the scene and set what is rendered with: no multisampling, no shadow, a tight depth range."""
    pose = placement.T_world_camera
    right, down, forward = pose[:3, 0], pose[:3, 1], pose[:3, 2]
    quaternion = np.empty(4)
    # MuJoCo's cameras look along -z with y up; the optical frame looks along z with y down.
    mujoco.mju_mat2Quat(quaternion, np.stack([right, -down, -forward], axis=1).reshape(-1))
    spec.worldbody.add_camera(
        name=CAMERA, pos=pose[:3, 3], quat=quaternion, fovy=np.degrees(placement.vertical_field_rad)
    )
    spec.visual.quality.offsamples = 0
    spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
    spec.stat.extent, spec.visual.map.znear, spec.visual.map.zfar = 1.0, 0.05, 6.0


class CameraRenderer:
    """Renders one world's camera. Belongs to the thread that made it (an OpenGL context does); close it after use."""

    def __init__(self, world: World, width: int, height: int) -> None:
        self._world = world
        self._renderer = mujoco.Renderer(world.model, height, width)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = [1, 0, 1, 0, 0, 0]  # what is seen, not what collides

    def rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8."""
        picture: NDArray[np.uint8] = self._render().copy()
        return picture

    def depth_m(self) -> NDArray[np.float32]:
        """(H, W) float32 along the optical axis [m]."""
        self._renderer.enable_depth_rendering()
        try:
            return np.array(self._render(), dtype=np.float32)
        finally:
            self._renderer.disable_depth_rendering()

    def body_ids(self) -> NDArray[np.int32]:
        """(H, W) id of the body that each pixel shows; -1 where there is nothing."""
        self._renderer.enable_segmentation_rendering()
        try:
            ids = self._render()
        finally:
            self._renderer.disable_segmentation_rendering()
        is_geom = ids[..., 1] == mujoco.mjtObj.mjOBJ_GEOM
        bodies = self._world.model.geom_bodyid[np.where(is_geom, ids[..., 0], 0)]
        return np.where(is_geom, bodies, -1).astype(np.int32)

    def _render(self) -> NDArray[np.generic]:
        self._renderer.update_scene(self._world.data, CAMERA, self._options)
        picture: NDArray[np.generic] = self._renderer.render()
        return picture

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

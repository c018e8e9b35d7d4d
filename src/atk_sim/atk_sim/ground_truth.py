"""Exact tracks of image points: what a tracker should have said.

Depth and segmentation of a reference frame attach each pixel to a point on a body; the body's later poses give its
later pixels, and the later depth image says whether something is in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atk_perception.robot_description import Camera
from atk_sim.camera import FloatArray, back_project, project
from atk_sim.world import CameraRenderer, World

# A point this much nearer to the camera than what is rendered there is on that surface, not behind it.
DEPTH_TOLERANCE_M = 0.004


@dataclass(frozen=True)
class AttachedPoints:
    """N image points fixed to bodies: ids (N,) and coordinates (N, 3) [m] in the body frames."""

    body_ids: NDArray[np.int32]
    position_body_m: FloatArray


def attach(world: World, renderer: CameraRenderer, uv_px: FloatArray) -> AttachedPoints:
    """Attach pixels (N, 2) of the world's present image to the bodies seen there.

    Raises:
        ValueError: a pixel lies outside the image, or shows nothing (infinitely far background).
    """
    depth_m, geoms = renderer.depth(), renderer.segmentation()
    height, width = depth_m.shape
    column, row = np.rint(uv_px).astype(int).T
    if ((column < 0) | (column >= width) | (row < 0) | (row >= height)).any():
        raise ValueError(
            f"points must lie in the {width}x{height} image; got {uv_px.min(axis=0)} to {uv_px.max(axis=0)}"
        )
    seen = geoms[row, column]
    if (seen < 0).any():
        raise ValueError(f"{(seen < 0).sum()} points show no object; choose points on surfaces")
    K = world.camera.intrinsics(width, height)
    # The depth is that of the pixel's centre, so that is where the point is taken to be.
    centres = np.stack([column, row], axis=1).astype(np.float64)
    in_world = back_project(centres, depth_m[row, column].astype(np.float64), world.camera.T_world_camera, K)
    bodies = world.model.geom_bodyid[seen]
    offset = in_world - world.data.xpos[bodies]
    rotation = world.data.xmat[bodies].reshape(-1, 3, 3)
    return AttachedPoints(bodies.astype(np.int32), np.einsum("nji,nj->ni", rotation, offset))


def locate(
    world: World, renderer: CameraRenderer, points: AttachedPoints
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Pixels (N, 2) of attached points now, and whether each is visible (N,)."""
    in_world = _in_world(world, points)
    depth_m = renderer.depth()
    height, width = depth_m.shape
    uv_px, distance_m = project(in_world, world.camera.T_world_camera, world.camera.intrinsics(width, height))
    column, row = np.rint(uv_px).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (distance_m > 0)
    surface_m = np.full(len(uv_px), -np.inf)
    # At a silhouette the centre of the pixel may already show what is behind: the nearest of 3x3 counts.
    for du in (-1, 0, 1):
        for dv in (-1, 0, 1):
            near = depth_m[np.clip(row + dv, 0, height - 1), np.clip(column + du, 0, width - 1)]
            surface_m = np.maximum(surface_m, near)
    return uv_px, inside & (distance_m < surface_m + DEPTH_TOLERANCE_M)


def project_attached(world: World, points: AttachedPoints, camera: Camera) -> FloatArray:
    """Pixels (N, 2) of attached points now, hidden or not; needs no rendering."""
    K = world.camera.intrinsics(camera.width, camera.height)
    uv_px, _ = project(_in_world(world, points), world.camera.T_world_camera, K)
    return uv_px


def _in_world(world: World, points: AttachedPoints) -> FloatArray:
    rotation = world.data.xmat[points.body_ids].reshape(-1, 3, 3)
    place: FloatArray = world.data.xpos[points.body_ids] + np.einsum(
        "nij,nj->ni", rotation, points.position_body_m
    )
    return place

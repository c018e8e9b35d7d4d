"""Exact tracks of image points: what a tracker should have said.

Depth and segmentation of a reference frame attach each pixel to a point on a body, or to a triangle of a cloth; their
later poses give its later pixels, and the later depth image says whether something is in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atk_perception.robot_description import Camera
from atk_sim.camera import FloatArray, back_project, project
from atk_sim.world import CameraRenderer, World

# A point this much nearer to the camera than what is rendered there is on that surface, not behind it.
DEPTH_TOLERANCE_M = 0.004
# Folded cloth lies on itself, some 4 mm apart.
CLOTH_TOLERANCE_M = 0.002
CLOTH = "(cloth)"  # in the place of a body's name


@dataclass(frozen=True)
class AttachedPoints:
    """N image points fixed to bodies or to cloth.

    On a body: its id (N,) and the point's coordinates (N, 3) [m] in its frame. On cloth the id is -1, and the point is
    the mean of three vertices of the skin (N, 3), -1 elsewhere, weighted by (N, 3); `sides` (N,) says which of the
    cloth's two faces it is on, 1 or -1, and 0 on a body.
    """

    body_ids: NDArray[np.int32]
    position_body_m: FloatArray
    skin_vertices: NDArray[np.int32]
    weights: FloatArray
    sides: NDArray[np.int32]


def attach(world: World, renderer: CameraRenderer, uv_px: FloatArray) -> AttachedPoints:
    """Attach pixels (N, 2) of the world's present image to the bodies and the cloth seen there.

    Raises:
        ValueError: a pixel lies outside the image, or shows nothing (infinitely far background).
    """
    depth_m = renderer.depth()
    geoms, flexes = renderer.surfaces()
    height, width = depth_m.shape
    column, row = np.rint(uv_px).astype(int).T
    if ((column < 0) | (column >= width) | (row < 0) | (row >= height)).any():
        raise ValueError(
            f"points must lie in the {width}x{height} image; got {uv_px.min(axis=0)} to {uv_px.max(axis=0)}"
        )
    seen, on_cloth = geoms[row, column], flexes[row, column] >= 0
    nothing = (seen < 0) & ~on_cloth
    if nothing.any():
        raise ValueError(f"{nothing.sum()} points show no object; choose points on surfaces")
    K = world.camera.intrinsics(width, height)
    # The depth is that of the pixel's centre, so that is where the point is taken to be.
    centres = np.stack([column, row], axis=1).astype(np.float64)
    in_world = back_project(centres, depth_m[row, column].astype(np.float64), world.camera.T_world_camera, K)
    bodies = np.where(on_cloth, -1, world.model.geom_bodyid[seen])
    offset = in_world - world.data.xpos[bodies]
    rotation = world.data.xmat[bodies].reshape(-1, 3, 3)
    vertices, weights, sides = _on_skin(world, in_world, on_cloth)
    return AttachedPoints(
        bodies.astype(np.int32), np.einsum("nji,nj->ni", rotation, offset), vertices, weights, sides
    )


def body_names(world: World, points: AttachedPoints) -> list[str]:
    """Names of the bodies that attached points are on: ids differ between episodes with more or fewer objects, names do not."""
    return [world.model.body(int(body)).name if body >= 0 else CLOTH for body in points.body_ids]


def found_again(
    world: World, points: AttachedPoints, names: Sequence[str]
) -> tuple[AttachedPoints, NDArray[np.bool_]]:
    """The points in another episode's world, by the names of their bodies, and (N,) whose body is there; cloth always is."""
    model = world.model
    known = {CLOTH: -1, **{model.body(k).name: k for k in range(model.nbody)}}
    there = np.array([name in known for name in names])
    ids = np.array([known.get(name, 0) for name in names], np.int32)
    return replace(points, body_ids=ids), there


def locate(
    world: World, renderer: CameraRenderer, points: AttachedPoints
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Pixels (N, 2) of attached points now, and whether each is visible (N,)."""
    in_world = world_positions(world, points)
    on_cloth = points.sides != 0
    turned_away = np.zeros(len(on_cloth), np.bool_)
    if on_cloth.any():
        corners = _corners(world, points)
        outwards = _normals(corners) * points.sides[on_cloth, None]
        towards = world.camera.T_world_camera[:3, 3] - in_world[on_cloth]
        turned_away[on_cloth] = np.einsum("nj,nj->n", outwards, towards) <= 0
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
    tolerance_m = np.where(on_cloth, CLOTH_TOLERANCE_M, DEPTH_TOLERANCE_M)
    return uv_px, inside & ~turned_away & (distance_m < surface_m + tolerance_m)


def project_attached(world: World, points: AttachedPoints, camera: Camera) -> FloatArray:
    """Pixels (N, 2) of attached points now, hidden or not; needs no rendering."""
    K = world.camera.intrinsics(camera.width, camera.height)
    uv_px, _ = project(world_positions(world, points), world.camera.T_world_camera, K)
    return uv_px


def world_positions(world: World, points: AttachedPoints) -> FloatArray:
    """(N, 3) where attached points are in the world now [m]."""
    rotation = world.data.xmat[points.body_ids].reshape(-1, 3, 3)
    place: FloatArray = world.data.xpos[points.body_ids] + np.einsum(
        "nij,nj->ni", rotation, points.position_body_m
    )
    on_cloth = points.sides != 0
    if on_cloth.any():
        place[on_cloth] = np.einsum("nk,nkj->nj", points.weights[on_cloth], _corners(world, points))
    return place


def _corners(world: World, points: AttachedPoints) -> FloatArray:
    """(M, 3, 3) corners of the skin triangles of the M points that are on cloth."""
    on_cloth = points.sides != 0
    corners: FloatArray = _skin(world)[points.sides[on_cloth, None] // 2, points.skin_vertices[on_cloth]]
    return corners


def _triangles(world: World) -> NDArray[np.int32]:
    """(T, 3) vertices of all cloths' triangles, numbered through."""
    model = world.model
    parts = []
    for flex in range(model.nflex):
        start, count = model.flex_elemdataadr[flex], 3 * model.flex_elemnum[flex]
        parts.append(model.flex_elem[start : start + count].reshape(-1, 3) + model.flex_vertadr[flex])
    return np.concatenate(parts).astype(np.int32)


def _normals(corners_m: FloatArray) -> FloatArray:
    """(N, 3) unit normals of triangles (N, 3, 3)."""
    normal = np.cross(corners_m[:, 1] - corners_m[:, 0], corners_m[:, 2] - corners_m[:, 0])
    unit: FloatArray = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return unit


def _skin(world: World) -> FloatArray:
    """(2, V, 3) vertices of the upper (0) and lower (-1) face that MuJoCo draws, a radius off the cloth's middle [m]."""
    model, middle = world.model, world.data.flexvert_xpos
    triangles = _triangles(world)
    normal = np.zeros_like(middle)
    np.add.at(normal, triangles.reshape(-1), np.repeat(_normals(middle[triangles]), 3, axis=0))
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    radius_m = np.repeat(model.flex_radius, model.flex_vertnum)[:, None]
    return np.stack([middle + radius_m * normal, middle - radius_m * normal])


def _on_skin(
    world: World, in_world: FloatArray, on_cloth: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], FloatArray, NDArray[np.int32]]:
    """Three skin vertices (N, 3), their weights (N, 3) and the side (N,) of each point that is on cloth."""
    vertices = np.full((len(in_world), 3), -1, np.int32)
    weights, sides = np.zeros((len(in_world), 3)), np.zeros(len(in_world), np.int32)
    if not on_cloth.any():
        return vertices, weights, sides
    triangles = _triangles(world)
    corners = _skin(world)[:, triangles].reshape(-1, 3, 3)  # upper faces, then lower
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = _normals(corners)
    # Rows of the inverse: a point's two in-plane coordinates and its distance from the plane.
    inverse = np.linalg.inv(np.stack([first, second, normal], axis=2))
    for point in np.flatnonzero(on_cloth):
        b, c, off_m = np.einsum("tij,tj->it", inverse, in_world[point] - corners[:, 0])
        inside = np.minimum.reduce([b, c, 1.0 - b - c])
        # A point at a rim may lie a hair outside every triangle: a tenth of an edge counts as a millimetre.
        best = int(np.argmin(np.abs(off_m) + 0.01 * np.maximum(-inside, 0.0)))
        vertices[point] = triangles[best % len(triangles)]
        weights[point] = 1.0 - b[best] - c[best], b[best], c[best]
        sides[point] = 1 if best < len(triangles) else -1
    return vertices, weights, sides

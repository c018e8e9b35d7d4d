"""What tasks and disturbances put into a MuJoCo scene, and small helpers to do so."""

import zlib
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim.robots.panda import SCENE_CONTACT
from atk_sim.shapes import TexturedMesh
from atk_sim.textures import Texture


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose of one episode: drawing more for one never changes another."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


@dataclass(frozen=True)
class Placement:
    """Where one object starts, on the table or above it, and the room it takes."""

    name: str
    position_m: tuple[float, float, float]  # of the body's origin, in the world
    yaw_rad: float
    radius_m: float  # of a vertical cylinder around the object
    height_m: float

    @property
    def xy_m(self) -> NDArray[np.float64]:
        """(2,) horizontal position in the world [m]."""
        return np.array(self.position_m[:2])

    def clear_of(self, other: "Placement", margin_m: float) -> bool:
        """Whether the two cylinders are at least `margin_m` apart, seen from above."""
        distance_m = float(np.linalg.norm(self.xy_m - other.xy_m))
        return distance_m >= self.radius_m + other.radius_m + margin_m


Layout = dict[str, Placement]


def yaw_quaternion(yaw_rad: float) -> list[float]:
    """Quaternion (w, x, y, z) of a turn about z."""
    return [float(np.cos(yaw_rad / 2)), 0.0, 0.0, float(np.sin(yaw_rad / 2))]


def add_body(spec: mujoco.MjSpec, placement: Placement, *, free: bool) -> mujoco.MjsBody:
    """A body at its place; `free` gives it the six degrees of freedom of a thing that can be picked up."""
    body = spec.worldbody.add_body(
        name=placement.name, pos=placement.position_m, quat=yaw_quaternion(placement.yaw_rad)
    )
    if free:
        body.add_freejoint(name=placement.name)
    return body


def add_textured_material(
    spec: mujoco.MjSpec, name: str, texture: Texture, *, specular: float = 0.15, shininess: float = 0.3
) -> str:
    """A material that shows `texture`; returns its name. Materials of the same name are added once."""
    if spec.material(name) is None:
        height, width = texture.shape[:2]
        added = spec.add_texture(
            name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=width, height=height, nchannel=3
        )
        added.data = texture.tobytes()
        material = spec.add_material(name=name, specular=specular, shininess=shininess)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    return name


def add_visual_mesh(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    mesh_name: str,
    mesh: TexturedMesh,
    material: str,
    position_m: tuple[float, float, float] = (0.0, 0.0, 0.0),
    yaw_rad: float = 0.0,
) -> None:
    """Show `mesh` on `body`; it neither weighs nor collides. Meshes of the same name are added once."""
    if spec.mesh(mesh_name) is None:
        mesh.add_to(spec, mesh_name)
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=mesh_name,
        material=material,
        pos=position_m,
        quat=yaw_quaternion(yaw_rad),
        contype=0,
        conaffinity=0,
        group=2,
        mass=0,
    )


def add_collision(
    body: mujoco.MjsBody,
    shape: mujoco.mjtGeom,
    size_m: tuple[float, ...],
    position_m: tuple[float, float, float],
    *,
    mass_kg: float,
    friction: float = 0.8,
) -> None:
    """An unseen geom (MuJoCo's half sizes) that carries the mass and the contacts of `body`."""
    body.add_geom(
        type=shape,
        size=[*size_m, *([0.0] * (3 - len(size_m)))],
        pos=position_m,
        mass=mass_kg,
        friction=[friction, 0.01, 0.001],
        condim=4,
        group=3,
        solref=[0.004, 1],
        **SCENE_CONTACT,
    )

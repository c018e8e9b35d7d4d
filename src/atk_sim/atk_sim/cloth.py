"""Cloth in a MuJoCo scene: a flex of triangles whose edge is sewn to a rigid handle that fingers can hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim.scene import Placement, yaw_quaternion

FloatArray = NDArray[np.float64]

TIMESTEP_S = 0.005
AREA_DENSITY_KG_M2 = 0.9  # a thick terry towel, damp
RADIUS_M = 0.002  # half the thickness that contacts see
YOUNG_PA = 6e4
THICKNESS_M = 0.003  # with the above, a strip bends under its own weight over some 3 cm
FRICTION = (0.8, 0.01, 0.001)

# Bits of contype/conaffinity beside those of the robot and the scene (robots.panda). The scene meets the cloth at small
# spheres, one a vertex: a flex makes six contacts where one is enough, and costs twice the time. What is thinner than
# the mesh (fingers, pegs, the cloth itself) has to meet its triangles: those carry this bit.
CLOTH_BIT = 4
_ROBOT_BIT = 2


@dataclass(frozen=True)
class Grid:
    """A rectangle of columns x rows vertices in the cloth's own frame: x along the sewn edge, y away from it."""

    width_m: float
    length_m: float
    columns: int
    rows: int

    @property
    def rest_m(self) -> FloatArray:
        """(rows, columns, 2) vertices, the sewn edge (row 0) at y = -length / 2."""
        x, y = np.meshgrid(
            np.linspace(-0.5, 0.5, self.columns) * self.width_m,
            np.linspace(-0.5, 0.5, self.rows) * self.length_m,
        )
        return np.stack([x, y], axis=2)

    @property
    def triangles(self) -> NDArray[np.int32]:
        """(T, 3) vertex numbers; the diagonals alternate, so that the cloth shears alike both ways."""
        faces = []
        for row in range(self.rows - 1):
            for column in range(self.columns - 1):
                a = row * self.columns + column
                b, c, d = a + 1, a + self.columns, a + self.columns + 1
                faces += [[a, b, d], [a, d, c]] if (row + column) % 2 else [[a, b, c], [b, d, c]]
        return np.array(faces, np.int32)


def use_cloth_physics(spec: mujoco.MjSpec) -> None:
    """Choose the integrator that flex elasticity needs in MuJoCo 4 ("discrete"; the others refuse or go unstable)."""
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_DISCRETE
    spec.option.timestep = TIMESTEP_S
    spec.option.tolerance = 1e-5


def add_cloth(
    spec: mujoco.MjSpec,
    placement: Placement,
    grid: Grid,
    material: str,
    handle: mujoco.MjsBody,
    handle_from_cloth: Callable[[FloatArray], FloatArray],
    sewn_half_width_m: float,
    *,
    meets_robot: bool,
) -> None:
    """Lay a cloth flat, `placement.name`, and sew the middle of its first row to `handle`.

    Args:
        material: shown on both sides, the picture's left to right along x.
        handle: a body with a free joint.
        handle_from_cloth: takes a point (3,) of the cloth's frame to the handle's frame [m].
        sewn_half_width_m: vertices of the first row this far from its middle belong to the handle.
        meets_robot: whether fingers push the cloth. A finger that is pressed onto it can get caught beneath a triangle.
    """
    name = placement.name
    turn = np.array(
        [
            [np.cos(placement.yaw_rad), -np.sin(placement.yaw_rad)],
            [np.sin(placement.yaw_rad), np.cos(placement.yaw_rad)],
        ]
    )
    mass_kg = AREA_DENSITY_KG_M2 * grid.width_m * grid.length_m / (grid.rows * grid.columns)
    bodies: list[str] = []
    vertices: list[float] = []
    for row, line in enumerate(grid.rest_m):
        for column, rest in enumerate(line):
            if row == 0 and abs(rest[0]) <= sewn_half_width_m:
                bodies.append(handle.name)
                vertices.extend(handle_from_cloth(np.array([*rest, 0.0])))
                continue
            body = spec.worldbody.add_body(
                name=f"{name}_{row}_{column}",
                pos=[*(placement.xy_m + turn @ rest), placement.position_m[2] + RADIUS_M + 0.0002],
                quat=yaw_quaternion(placement.yaw_rad),
                mass=mass_kg,
                inertia=[mass_kg * 1e-4] * 3,
                explicitinertial=True,
            )
            for axis in np.eye(3):
                body.add_joint(type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_SPHERE,
                size=[RADIUS_M, 0, 0],
                mass=0,
                group=3,
                friction=FRICTION,
                condim=3,
                solref=[0.006, 1.0],
                contype=CLOTH_BIT,
                conaffinity=1,
            )
            bodies.append(body.name)
            vertices.extend([0.0, 0.0, 0.0])
    flex = spec.add_flex(name=name, dim=2, radius=RADIUS_M)
    flex.material = [material]
    flex.vertbody, flex.vert, flex.elem = bodies, vertices, grid.triangles.reshape(-1).tolist()
    uv = (grid.rest_m / (grid.width_m, grid.length_m) + 0.5).reshape(-1, 2)
    flex.texcoord = uv.reshape(-1).tolist()
    flex.elemtexcoord = grid.triangles.reshape(-1).tolist()
    flex.contype, flex.conaffinity = CLOTH_BIT, CLOTH_BIT | (_ROBOT_BIT if meets_robot else 0)
    flex.condim, flex.friction, flex.solref = 3, FRICTION, [0.006, 1.0]
    flex.selfcollide = mujoco.mjtFlexSelf.mjFLEXSELF_NONE
    flex.elastic2d, flex.young, flex.poisson, flex.thickness = 3, YOUNG_PA, 0.2, THICKNESS_M
    flex.damping = 0.02


def vertices_m(data: mujoco.MjData, model: mujoco.MjModel, name: str, grid: Grid) -> FloatArray:
    """(rows, columns, 3) the cloth's vertices in the world [m]."""
    start = model.flex_vertadr[mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_FLEX, name)]
    found: FloatArray = data.flexvert_xpos[start : start + grid.rows * grid.columns]
    return found.reshape(grid.rows, grid.columns, 3).copy()

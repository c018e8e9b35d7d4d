"""The paper's disturbances, each adding to the one before: RP, RB, RO, Light (method.md, published results).

Every one is a pure function of task, disturbance and seed, drawn from pools that no demonstration shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim import textures
from atk_sim.robots.panda import SCENE_CONTACT
from atk_sim.scene import (
    Layout,
    Placement,
    add_body,
    add_textured_material,
    stream,
)

# RP: random object pose. RB: and random background. RO: and random distractor objects. Light: and changed light.
DISTURBANCES = ("RP", "RB", "RO", "Light")

TABLE_HALF_M = (0.55, 0.75, 0.02)
TABLE_CENTRE_M = (0.45, 0.0, -0.02)
DISTRACTOR_COUNT = (3, 6)
# Where distractors may stand, (x, y) of two corners [m], unless the task says otherwise (`protocol.Furnished`).
DISTRACTOR_AREA_M = ((0.30, -0.32), (0.64, 0.36))


def check_disturbance(name: str) -> None:
    """Raise ValueError, listing the known names, unless `name` is one."""
    if name not in DISTURBANCES:
        raise ValueError(f"unknown disturbance '{name}'; known: {', '.join(DISTURBANCES)}")


def includes(disturbance: str, part: str) -> bool:
    """Whether `disturbance` contains `part`: each adds to the one before."""
    return DISTURBANCES.index(disturbance) >= DISTURBANCES.index(part)


@dataclass(frozen=True)
class _Light:
    direction: tuple[float, float, float]
    diffuse: tuple[float, float, float]
    specular: float


def add_background(spec: mujoco.MjSpec, disturbance: str, seed: int) -> None:
    """Table and the wall behind the robot, in the demonstrations' look or (RB) in another."""
    table_texture, wall_texture = textures.demo_table(), textures.demo_backdrop()
    if includes(disturbance, "RB"):
        rng = stream(seed, "background")
        table_texture, wall_texture = textures.random_surface(rng), textures.random_surface(rng)
    table = spec.worldbody.add_body(name="table", pos=TABLE_CENTRE_M)
    material = add_textured_material(spec, "table", table_texture, specular=0.05, shininess=0.1)
    table.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=TABLE_HALF_M, material=material, **SCENE_CONTACT)
    wall = spec.worldbody.add_body(name="wall", pos=(-0.6, 0, 0.4))
    material = add_textured_material(spec, "wall", wall_texture, specular=0.0, shininess=0.0)
    wall.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.02, 2.5, 1.6), material=material, contype=0, conaffinity=0
    )


def add_distractors(
    spec: mujoco.MjSpec,
    layout: Layout,
    disturbance: str,
    seed: int,
    clearance_m: float,
    area_m: tuple[tuple[float, float], tuple[float, float]] = DISTRACTOR_AREA_M,
) -> None:
    """(RO) Objects of random shape, size and look where they hide and block nothing."""
    if not includes(disturbance, "RO"):
        return
    rng = stream(seed, "distractors")
    placed = list(layout.values())
    shapes = (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_ELLIPSOID)
    wanted = int(rng.integers(*DISTRACTOR_COUNT, endpoint=True))
    for number in range(wanted):
        shape = shapes[rng.integers(len(shapes))]
        half = rng.uniform(0.015, 0.035, 3)
        radius_m = float(np.hypot(half[0], half[1]))
        for _ in range(200):
            xy = rng.uniform(*area_m)
            place = Placement(
                f"distractor_{number}", (*xy, 0.0), float(rng.uniform(-np.pi, np.pi)), radius_m, 2 * half[2]
            )
            if all(place.clear_of(other, clearance_m) for other in placed) and not _hides(place, placed):
                placed.append(place)
                body = add_body(spec, place, free=False)
                material = add_textured_material(
                    spec, place.name, textures.random_surface(rng, 256), specular=0.3, shininess=0.4
                )
                body.add_geom(type=shape, size=half, pos=(0, 0, half[2]), material=material, **SCENE_CONTACT)
                break


def _hides(place: Placement, others: list[Placement]) -> bool:
    """Whether `place` stands between the camera (in front, at +x) and another object."""
    return any(
        0.0 < place.xy_m[0] - other.xy_m[0] < 0.12
        and abs(place.xy_m[1] - other.xy_m[1]) < place.radius_m + other.radius_m
        for other in others
    )


def add_lights(spec: mujoco.MjSpec, disturbance: str, seed: int) -> None:
    """The demonstrations' two lamps, or (Light) one to three of another colour, direction and strength."""
    lights = [
        _Light((-0.4, 0.25, -1.0), (0.62, 0.61, 0.59), 0.3),
        _Light((-0.2, -0.7, -0.8), (0.16, 0.17, 0.19), 0.0),
    ]
    ambient = 0.30
    if includes(disturbance, "Light"):
        rng = stream(seed, "light")
        count = int(rng.integers(1, 4))
        strength = rng.uniform(0.35, 0.85) * rng.dirichlet(np.full(count, 3.0))
        lights = []
        for share in strength:
            hue = 1.0 + rng.uniform(-0.28, 0.28, 3)
            colour = share * hue / hue.mean()
            direction = (rng.uniform(-1.0, 0.3), rng.uniform(-1.1, 1.1), -1.0)
            lights.append(_Light(direction, tuple(colour.tolist()), float(rng.uniform(0.0, 0.5))))
        ambient = float(rng.uniform(0.18, 0.38))
    spec.visual.headlight.ambient = [ambient] * 3
    spec.visual.headlight.diffuse = [0.0] * 3
    spec.visual.headlight.specular = [0.0] * 3
    for light in lights:
        spec.worldbody.add_light(
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            pos=(0.5, 0, 2.0),
            dir=light.direction,
            diffuse=light.diffuse,
            specular=[light.specular] * 3,
            castshadow=False,
        )


def luminance(image_rgb: NDArray[np.uint8]) -> float:
    """Mean brightness of an image, 0 to 255 (ITU-R BT.601)."""
    return float((image_rgb.reshape(-1, 3) @ np.array([0.299, 0.587, 0.114])).mean())

"""What an episode shows that no demonstration did.

The paper's columns, each adding to the one before: RP random object pose, RB and random background, RO and
random distractor objects, Light and changed light (method.md, published results). And three of ours, each on
top of RP: the camera was moved, something passes in front of it, its stream stalls.

Every one is a pure function of task, disturbance and seed, drawn from pools that no demonstration shows. How much
of it there is, is a number, written behind the name: `Light` is `Light:1`, `camera:0.5` is half as far.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import cv2
import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim import textures
from atk_sim.camera import CameraPlacement, FloatArray
from atk_sim.robots.panda import SCENE_CONTACT
from atk_sim.scene import (
    Layout,
    Placement,
    add_body,
    add_textured_material,
    stream,
)

DISTURBANCES = ("RP", "RB", "RO", "Light")
STRESSES = ("camera", "occlusion", "freeze")
SEVERITY_MAX = 2.0

TABLE_HALF_M = (0.55, 0.75, 0.02)
TABLE_CENTRE_M = (0.45, 0.0, -0.02)
DISTRACTOR_COUNT = (3, 6)
# Where distractors may stand, (x, y) of two corners [m], unless the task says otherwise (`protocol.Furnished`).
# What is behind every scene, and is exchanged by `RB`.
TABLE, WALL = "table", "wall"
DISTRACTOR_AREA_M = ((0.30, -0.32), (0.64, 0.36))

# At severity 1.
CAMERA_TURN_RAD = np.deg2rad(15.0)
CAMERA_SHIFT_M = 0.10
OCCLUDED_SHARE = 0.3  # of the image's width
FREEZE_S = 0.5

OCCLUDER = "occluder"
OCCLUDER_DISTANCE_M = 0.2  # from the camera
OCCLUDER_CROSSING_S = 2.0
STARTS_WITHIN_S = (1.0, 4.0)  # of the episode: while the hand is on its way


@dataclass(frozen=True)
class Disturbance:
    """A name and how much of it: 0 is as in the demonstrations, 1 as in the paper (or, for ours, as above)."""

    name: str
    severity: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read NAME or NAME:SEVERITY.

        Raises:
            ValueError: no such name, or a severity that is no number from 0 to 2.
        """
        name, colon, severity = text.partition(":")
        if name not in DISTURBANCES + STRESSES:
            raise ValueError(
                f"unknown disturbance '{name}'; known: {', '.join(DISTURBANCES + STRESSES)}, each with an optional "
                "severity such as camera:0.5"
            )
        try:
            value = float(severity) if colon else 1.0
        except ValueError:
            value = float("nan")
        if not 0.0 <= value <= SEVERITY_MAX:
            raise ValueError(
                f"disturbance '{text}': the severity is '{severity}'; expected a number from 0 to {SEVERITY_MAX:g}"
            )
        return cls(name, value)

    def amount(self, part: str) -> float:
        """How much of `part` there is: the paper's columns contain those before them."""
        if self.name in DISTURBANCES and part in DISTURBANCES:
            return self.severity if DISTURBANCES.index(self.name) >= DISTURBANCES.index(part) else 0.0
        return self.severity if self.name == part else 0.0


@dataclass(frozen=True)
class _Light:
    direction: tuple[float, float, float]
    diffuse: tuple[float, float, float]
    specular: float


def add_background(spec: mujoco.MjSpec, disturbance: Disturbance, seed: int) -> None:
    """Table and the wall behind the robot, in the demonstrations' look or (RB) in another."""
    table_texture, wall_texture = textures.demo_table(), textures.demo_backdrop()
    amount = disturbance.amount("RB")
    if amount:
        rng = stream(seed, "background")
        table_texture = _mixed(table_texture, textures.random_surface(rng), amount)
        wall_texture = _mixed(wall_texture, textures.random_surface(rng), amount)
    table = spec.worldbody.add_body(name=TABLE, pos=TABLE_CENTRE_M)
    material = add_textured_material(spec, "table", table_texture, specular=0.05, shininess=0.1)
    table.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=TABLE_HALF_M, material=material, **SCENE_CONTACT)
    wall = spec.worldbody.add_body(name=WALL, pos=(-0.6, 0, 0.4))
    material = add_textured_material(spec, "wall", wall_texture, specular=0.0, shininess=0.0)
    wall.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.02, 2.5, 1.6), material=material, contype=0, conaffinity=0
    )


def _mixed(usual: textures.Texture, other: textures.Texture, share: float) -> textures.Texture:
    """`share` of the other picture over the usual one."""
    if share >= 1.0:
        return other
    under = cv2.resize(usual, other.shape[1::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.addWeighted(under, 1.0 - share, other, share, 0.0), np.uint8)


def add_distractors(
    spec: mujoco.MjSpec,
    layout: Layout,
    disturbance: Disturbance,
    seed: int,
    clearance_m: float,
    area_m: tuple[tuple[float, float], tuple[float, float]] = DISTRACTOR_AREA_M,
) -> None:
    """(RO) Objects of random shape, size and look where they hide and block nothing."""
    amount = disturbance.amount("RO")
    if not amount:
        return
    rng = stream(seed, "distractors")
    placed = list(layout.values())
    shapes = (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_ELLIPSOID)
    wanted = round(amount * int(rng.integers(*DISTRACTOR_COUNT, endpoint=True)))
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


def add_lights(spec: mujoco.MjSpec, disturbance: Disturbance, seed: int) -> None:
    """The demonstrations' two lamps, or (Light) one to three of another colour, direction and strength."""
    lights = [
        _Light((-0.4, 0.25, -1.0), (0.62, 0.61, 0.59), 0.3),
        _Light((-0.2, -0.7, -0.8), (0.16, 0.17, 0.19), 0.0),
    ]
    ambient = 0.30
    amount = disturbance.amount("Light")
    if amount:
        rng = stream(seed, "light")
        usual = [replace(lamp, diffuse=_times(lamp.diffuse, 1.0 - amount)) for lamp in lights]
        lights = usual if amount < 1.0 else []
        count = int(rng.integers(1, 4))
        strength = rng.uniform(0.35, 0.85) * rng.dirichlet(np.full(count, 3.0))
        for share in strength:
            hue = np.maximum(1.0 + amount * rng.uniform(-0.28, 0.28, 3), 0.1)
            colour = min(amount, 1.0) * share * hue / hue.mean()
            direction = (rng.uniform(-1.0, 0.3), rng.uniform(-1.1, 1.1), -1.0)
            lights.append(_Light(direction, tuple(colour.tolist()), float(rng.uniform(0.0, 0.5))))
        ambient += min(amount, 1.0) * (float(rng.uniform(0.18, 0.38)) - ambient)
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


def _times(colour: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


# ------------------------------------------------------------------------------------------------ ours


def moved_camera(camera: CameraPlacement, disturbance: Disturbance, seed: int) -> CameraPlacement:
    """(camera) Somebody bumped into the tripod: `CAMERA_SHIFT_M` aside, aimed again, `CAMERA_TURN_RAD` turned in all.

    What aiming again leaves of the turn is roll about the optical axis, so the scene stays in the picture.
    """
    amount = disturbance.amount("camera")
    if not amount:
        return camera
    rng = stream(seed, "camera")
    direction = rng.normal(size=3)
    direction *= amount * CAMERA_SHIFT_M / np.linalg.norm(direction)
    shifted = np.add(camera.position_m, direction)
    moved = replace(camera, position_m=(float(shifted[0]), float(shifted[1]), float(shifted[2])))
    # Aiming again rolls a little by itself; go on in that sense, so that the turn grows with the roll.
    ways = {side: _angle_between(camera, replace(moved, roll_rad=side * 0.01)) for side in (-1.0, 1.0)}
    side = max(ways, key=lambda way: ways[way])
    low_rad, high_rad = 0.0, amount * CAMERA_TURN_RAD
    for _ in range(40):
        middle_rad = (low_rad + high_rad) / 2
        turned = _angle_between(camera, replace(moved, roll_rad=side * middle_rad))
        low_rad, high_rad = (
            (middle_rad, high_rad) if turned < amount * CAMERA_TURN_RAD else (low_rad, middle_rad)
        )
    return replace(moved, roll_rad=side * low_rad)


def _angle_between(one: CameraPlacement, other: CameraPlacement) -> float:
    turn = one.T_world_camera[:3, :3].T @ other.T_world_camera[:3, :3]
    return float(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1.0, 1.0)))


class Occluder:
    """(occlusion) Something tall passes close before the camera, from one side to the other, and touches nothing.

    Args:
        width, height: of the image [px].
    """

    def __init__(
        self, camera: CameraPlacement, disturbance: Disturbance, seed: int, width: int, height: int
    ) -> None:
        self.share = disturbance.amount("occlusion") * OCCLUDED_SHARE
        rng = stream(seed, "occlusion")
        self._texture = textures.random_surface(rng, 256)
        self._side = float(rng.choice((-1.0, 1.0)))
        self.start_s = float(rng.uniform(*STARTS_WITHIN_S))
        self._pose = camera.T_world_camera
        self._half_height_m = OCCLUDER_DISTANCE_M * float(np.tan(camera.vertical_field_rad / 2))
        self._half_width_m = self._half_height_m * width / height

    def add(self, spec: mujoco.MjSpec) -> None:
        """Put it into the scene, if there is one."""
        if not self.share:
            return
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, self._pose[:3, :3].ravel())
        body = spec.worldbody.add_body(name=OCCLUDER, mocap=True, pos=self.position_m(0.0), quat=quaternion)
        material = add_textured_material(spec, OCCLUDER, self._texture)
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[self.share * self._half_width_m, 1.5 * self._half_height_m, 0.002],
            material=material,
            contype=0,
            conaffinity=0,
            mass=0,
        )

    def position_m(self, time_s: float) -> FloatArray:
        """(3,) of its centre in the world, `time_s` into the episode."""
        progress = float(np.clip((time_s - self.start_s) / OCCLUDER_CROSSING_S, 0.0, 1.0))
        reach_m = (1.0 + 1.2 * self.share) * self._half_width_m  # out of the picture at both ends
        along = self._side * reach_m * (2.0 * progress - 1.0)
        place: FloatArray = self._pose[:3, 3] + self._pose[:3, :3] @ np.array(
            [along, 0.0, OCCLUDER_DISTANCE_M]
        )
        return place


@dataclass(frozen=True)
class Stall:
    """(freeze) For a while the camera gives its last image again (`repeats`), or none at all.

    Attributes:
        start_s, duration_s: in the episode.
    """

    start_s: float
    duration_s: float
    repeats: bool

    @classmethod
    def of(cls, disturbance: Disturbance, seed: int) -> Self:
        """The stall of an episode; one of no duration where there is none."""
        rng = stream(seed, "freeze")
        start_s, repeats = float(rng.uniform(*STARTS_WITHIN_S)), bool(rng.integers(2))
        return cls(start_s, disturbance.amount("freeze") * FREEZE_S, repeats)

    def at(self, time_s: float) -> bool:
        """Whether the camera stalls, `time_s` into the episode."""
        return self.start_s <= time_s < self.start_s + self.duration_s


def luminance(image_rgb: NDArray[np.uint8]) -> float:
    """Mean brightness of an image, 0 to 255 (ITU-R BT.601)."""
    return float((image_rgb.reshape(-1, 3) @ np.array([0.299, 0.587, 0.114])).mean())

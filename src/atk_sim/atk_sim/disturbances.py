"""The four disturbances of the paper, each adding to the one before: RP, RB, RO, Light.

RP (random object pose) is the task's own `sample_layout`. The rest, the surroundings, is drawn here as plain data and
then put into the scene. Everything is a pure function of (task, disturbance, seed), and what one disturbance draws stays
the same under the next.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import mujoco
import numpy as np

from atk_sim import textures
from atk_sim.camera import CameraPlacement, project
from atk_sim.scene import (
    SCENE_CONTACT,
    Layout,
    Placement,
    add_body,
    add_collision,
    add_textured_material,
    add_visual_mesh,
    stream,
)
from atk_sim.shapes import TexturedMesh, lathe, rounded_box
from atk_sim.textures import Texture

TABLE = "table"


class Disturbance(IntEnum):
    """How much of the scene differs from the demonstrations; each level holds the ones below."""

    RP = 1  # random object pose
    RB = 2  # random background and table texture
    RO = 3  # random distractor objects
    Light = 4  # random lights: number, direction, colour, intensity


def find_disturbance(name: str) -> Disturbance:
    """The disturbance called `name`; ValueError names the ones there are."""
    if name not in Disturbance.__members__:
        raise ValueError(
            f"there is no disturbance '{name}'; the disturbances are: {', '.join(Disturbance.__members__)}"
        )
    return Disturbance[name]


@dataclass(frozen=True)
class Lamp:
    """A directional light without shadow; a shadow would cost a CPU more than all the rest of the picture."""

    direction: tuple[float, float, float]
    diffuse: tuple[float, float, float]
    specular: tuple[float, float, float]


@dataclass(frozen=True)
class Lighting:
    """Ambient light and lamps."""

    ambient: tuple[float, float, float]
    lamps: tuple[Lamp, ...]

    def brightness(self) -> float:
        """Mean light on a level surface, 1 showing a texture as it is drawn."""
        total = np.mean(self.ambient)
        for lamp in self.lamps:
            total += max(-lamp.direction[2] / np.linalg.norm(lamp.direction), 0.0) * np.mean(lamp.diffuse)
        return float(total)


DEMO_LIGHTING = Lighting(
    ambient=(0.40, 0.40, 0.41),
    lamps=(
        Lamp((-0.55, 0.45, -0.9), (0.50, 0.49, 0.46), (0.35, 0.35, 0.33)),
        Lamp((-0.3, -0.8, -0.6), (0.20, 0.21, 0.24), (0.1, 0.1, 0.1)),
        Lamp((0.8, 0.1, -0.5), (0.12, 0.12, 0.13), (0.0, 0.0, 0.0)),
    ),
)


@dataclass(frozen=True)
class Distractor:
    """An object that has nothing to do with the task."""

    placement: Placement
    mesh: TexturedMesh
    texture: Texture
    shininess: float


@dataclass(frozen=True)
class Surroundings:
    """Everything in the picture but robot and task objects."""

    table: Texture
    backdrop: Texture
    distractors: tuple[Distractor, ...]
    lighting: Lighting


def sample_surroundings(
    disturbance: Disturbance, seed: int, layout: Layout, camera: CameraPlacement
) -> Surroundings:
    """Draw the surroundings of one episode; those of RP are the ones that demonstrations are recorded in."""
    surroundings = Surroundings(textures.demo_table(), textures.demo_backdrop(), (), DEMO_LIGHTING)
    if disturbance >= Disturbance.RB:
        rng = stream(seed, "background")
        surroundings = replace(
            surroundings, table=textures.random_surface(rng), backdrop=textures.random_surface(rng)
        )
    if disturbance >= Disturbance.RO:
        surroundings = replace(
            surroundings, distractors=_sample_distractors(stream(seed, "distractors"), layout, camera)
        )
    if disturbance >= Disturbance.Light:
        surroundings = replace(surroundings, lighting=_sample_lighting(stream(seed, "light")))
    return surroundings


def _sample_lighting(rng: np.random.Generator) -> Lighting:
    ambient = rng.uniform(0.12, 0.45) * _tint(rng, 0.12)
    lamps = []
    for _ in range(rng.integers(1, 4)):
        azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(np.radians(25), np.radians(85))
        direction = (
            -np.cos(azimuth) * np.cos(elevation),
            -np.sin(azimuth) * np.cos(elevation),
            -np.sin(elevation),
        )
        lamps.append((direction, rng.uniform(0.25, 0.8) * _tint(rng, 0.3), rng.uniform(0.0, 0.6)))
    drawn = Lighting(_triple(ambient), tuple(Lamp(d, _triple(c), _triple(c * s)) for d, c, s in lamps))
    # Neither black nor washed out: the drawn lamps keep their ratio, the level on the table stays in this range.
    gain = rng.uniform(0.7, 1.25) / drawn.brightness()
    return Lighting(
        _triple(gain * ambient), tuple(Lamp(d, _triple(gain * c), _triple(gain * c * s)) for d, c, s in lamps)
    )


def _tint(rng: np.random.Generator, strength: float) -> np.ndarray:
    colour = 1.0 + rng.uniform(-strength, strength, 3)
    return np.asarray(colour / colour.mean())


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _sample_distractors(
    rng: np.random.Generator, layout: Layout, camera: CameraPlacement
) -> tuple[Distractor, ...]:
    """Three to six objects on the table, clear of the task's objects and never in front of them in the picture."""
    wanted = int(rng.integers(3, 7))
    placed: list[Distractor] = []
    for _ in range(400):
        if len(placed) == wanted:
            break
        mesh, radius_m, height_m = _sample_shape(rng)
        place = Placement(
            f"distractor_{len(placed)}",
            (rng.uniform(0.28, 0.70), rng.uniform(-0.24, 0.32), 0.0005),
            rng.uniform(-np.pi, np.pi),
            radius_m,
            height_m,
        )
        texture, shininess = textures.random_surface(rng, 256), rng.uniform(0.1, 0.7)
        # The open hand reaches 10 cm to each side of a grasp, above 5 cm: taller things stand further away.
        margin_m = 0.035 if height_m < 0.045 else 0.075
        task_clear = all(
            place.clear_of(thing, margin_m) and not _hides(place, thing, camera) for thing in layout.values()
        )
        if task_clear and all(place.clear_of(other.placement, 0.01) for other in placed):
            placed.append(Distractor(place, mesh, texture, shininess))
    return tuple(placed)


def _sample_shape(rng: np.random.Generator) -> tuple[TexturedMesh, float, float]:
    """A mesh with its radius and height [m]: a box, a pebble, a jar, a cone or a bowl."""
    kind = rng.integers(5)
    height_m = rng.uniform(0.02, 0.07)
    radius_m = rng.uniform(0.018, 0.036)
    if kind < 2:
        length_m, width_m = 2 * radius_m, rng.uniform(1.0, 2.0) * radius_m
        squareness = 9.0 if kind == 0 else rng.uniform(2.0, 3.0)
        return (
            rounded_box(length_m, width_m, height_m, squareness),
            float(np.hypot(length_m, width_m) / 2),
            height_m,
        )
    profiles = {
        2: [(0, 1), (0.55, 1), (0.6, 0.85), (0.95, 0.75), (1, 0.6), (1, 0.05), (0.9, 0), (0, 0)],
        3: [(0, 1), (0.12, 0.97), (0.55, 0.5), (0.95, 0.06), (0.95, 0), (0, 0)],
        4: [(0, 0.35), (0.6, 0.4), (0.9, 0.95), (1, 1), (0.95, 0.8), (0.6, 0), (0, 0)],
    }
    profile = np.array(profiles[int(kind)]) * [radius_m, height_m]
    return lathe(profile, segments=28), radius_m, height_m


def _hides(front: Placement, behind: Placement, camera: CameraPlacement) -> bool:
    """Whether the cylinder `front` covers any of the cylinder `behind` in the camera's picture (bounding boxes)."""
    front_low, front_high, front_depth = _picture_box(front, camera)
    behind_low, behind_high, behind_depth = _picture_box(behind, camera)
    overlap = bool((front_low < behind_high).all() and (behind_low < front_high).all())
    return overlap and front_depth < behind_depth


def _picture_box(thing: Placement, camera: CameraPlacement) -> tuple[np.ndarray, np.ndarray, float]:
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = thing.xy_m + thing.radius_m * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.concatenate([np.column_stack([ring, np.full(len(ring), z)]) for z in (0.0, thing.height_m)])
    uv_px, depth_m = project(points, camera.T_world_camera, camera.intrinsics(640, 480))
    return uv_px.min(axis=0), uv_px.max(axis=0), float(depth_m.mean())


def add_surroundings(spec: mujoco.MjSpec, surroundings: Surroundings) -> None:
    """Table, wall, floor, distractors and lights."""
    table = add_textured_material(spec, "table", surroundings.table, specular=0.1, shininess=0.2)
    wall = add_textured_material(spec, "backdrop", surroundings.backdrop, specular=0.0)
    body = spec.worldbody.add_body(name=TABLE)
    box = mujoco.mjtGeom.mjGEOM_BOX
    body.add_geom(
        type=box,
        size=[0.60, 0.80, 0.02],
        pos=[0.35, 0, -0.02],
        material=table,
        friction=[0.8, 0.01, 0.001],
        **SCENE_CONTACT,
    )
    unseen = {"contype": 0, "conaffinity": 0}
    body.add_geom(
        type=box,
        size=[1.6, 1.2, 0.02],
        pos=[-0.9, 0, 0.3],
        quat=[0.5, 0.5, 0.5, 0.5],
        material=wall,
        **unseen,
    )
    for distractor in surroundings.distractors:
        place = distractor.placement
        thing = add_body(spec, place, free=True)
        material = add_textured_material(spec, place.name, distractor.texture, shininess=distractor.shininess)
        add_visual_mesh(spec, thing, place.name, distractor.mesh, material)
        half_m = (0.8 * place.radius_m, place.height_m / 2)
        add_collision(thing, mujoco.mjtGeom.mjGEOM_CYLINDER, half_m, (0, 0, place.height_m / 2), mass_kg=0.1)
    _add_lighting(spec, surroundings.lighting)


def _add_lighting(spec: mujoco.MjSpec, lighting: Lighting) -> None:
    headlight = spec.visual.headlight
    headlight.ambient, headlight.diffuse, headlight.specular = lighting.ambient, (0, 0, 0), (0, 0, 0)
    for lamp in lighting.lamps:
        spec.worldbody.add_light(
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            pos=[0.5, 0, 2.0],
            dir=lamp.direction,
            diffuse=lamp.diffuse,
            specular=lamp.specular,
            ambient=[0, 0, 0],
            castshadow=False,
        )

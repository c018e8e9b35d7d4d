"""Held-out sequences by difficulty, from the generator but never from the seeds that training draws."""

from __future__ import annotations

from atk_perception.training.clip import Clip
from atk_perception.training.generator import FIRST_HELD_OUT_SEED
from atk_perception.training.photometry import PhotometricStrength
from atk_perception.training.planar import PlanarClass, planar_clip
from atk_perception.training.robot_scenes import RobotClass, robot_clip

WIDTH, HEIGHT = 640, 480


def _planar(
    *,
    light: float = 0.15,
    blur: float = 0.0,
    speed_px: float = 2.5,
    roll_rad: float = 0.3,
    scale_log: float = 0.12,
    perspective: float = 0.15,
    occluders: tuple[int, int] = (0, 0),
    plain_fraction: float = 0.0,
) -> PlanarClass:
    return PlanarClass(
        objects=(2, 4),
        object_px=(45.0, 110.0),
        speed_px=speed_px,
        roll_rad=roll_rad,
        scale_log=scale_log,
        perspective=perspective,
        occluders=occluders,
        plain_fraction=plain_fraction,
        photometric=PhotometricStrength(light=light, blur=blur, noise=3.0),
        new_scene_fraction=0.0,
        background_point_fraction=0.0,
    )


PLANAR_CLASSES: dict[str, PlanarClass] = {
    "easy": _planar(),
    "blur": _planar(blur=1.2, speed_px=4.0),
    "light": _planar(light=1.3),
    "lowtex": _planar(plain_fraction=1.0),
    "occlusion": _planar(occluders=(2, 3)),
    "rotscale": _planar(roll_rad=2.8, scale_log=0.45),
    "combined": _planar(
        light=1.0, blur=0.8, speed_px=3.5, roll_rad=1.5, scale_log=0.3, occluders=(1, 2), plain_fraction=0.3
    ),
}

ROBOT_CLASSES: dict[str, RobotClass] = {
    "robot_textured": RobotClass(plain_fraction=0.0, new_scene_fraction=0.0, background_point_fraction=0.0),
    "robot_plain": RobotClass(plain_fraction=1.0, new_scene_fraction=0.0, background_point_fraction=0.0),
}

CLASSES = (*PLANAR_CLASSES, *ROBOT_CLASSES)


def tracking_clip(name: str, number: int, length: int, points: int = 48) -> Clip:
    """Sequence `number` of a class, of a seed that nothing was trained or tuned on; see `class_clip`."""
    return class_clip(name, FIRST_HELD_OUT_SEED + number, length, points)


def class_clip(name: str, seed: int, length: int, points: int) -> Clip:
    """A sequence of a class, 640x480, all points on objects and visible in frame 0.

    Raises:
        ValueError: no such class.
    """
    if name in PLANAR_CLASSES:
        return planar_clip(seed, length, HEIGHT, WIDTH, PLANAR_CLASSES[name], points)
    if name in ROBOT_CLASSES:
        return robot_clip(seed, length, HEIGHT, WIDTH, ROBOT_CLASSES[name], points)
    raise ValueError(f"unknown class '{name}'; known: {', '.join(CLASSES)}")


def transfer_pair(number: int, points: int = 64) -> Clip:
    """Two frames, template and scene: objects elsewhere, other light, often another background; odd numbers are 3-D."""
    seed = FIRST_HELD_OUT_SEED + 500_000 + number
    if number % 2:
        return robot_clip(
            seed, 2, HEIGHT, WIDTH, RobotClass(new_scene_fraction=1.0, background_point_fraction=0.0), points
        )
    kind = PlanarClass(
        object_px=(30.0, 110.0), new_scene_fraction=1.0, background_point_fraction=0.0, occluders=(0, 1)
    )
    return planar_clip(seed, 2, HEIGHT, WIDTH, kind, points)

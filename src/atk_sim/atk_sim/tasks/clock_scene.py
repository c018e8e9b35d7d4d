"""The clock of the paper's two clock tasks: one scene and one reset, so that only the task tells which points matter.

What physics and a hand that points down ask for: the clock lies on its back and does not slide (rubber feet); its hand
is carried by a disc that turns with it, as on a timer, and has a peg to take hold of.
"""

from __future__ import annotations

import cv2
import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim.camera import CameraPlacement
from atk_sim.scene import (
    Layout,
    Placement,
    add_body,
    add_collision,
    add_textured_material,
    add_visual_mesh,
    stream,
    yaw_quaternion,
)
from atk_sim.shapes import lathe, printed_box, printed_disc
from atk_sim.textures import Texture, blend, confetti, to_texture, value_noise

FloatArray = NDArray[np.float64]

# In the clock's frame 6 o'clock is at +x, 3 o'clock at +y; seen by the camera 12 is up.
LENGTH_M, WIDTH_M, HEIGHT_M = 0.160, 0.124, 0.034
DIAL_X_M = 0.022
DIAL_RADIUS_M = 0.054
DISC_RADIUS_M = 0.035
DISC_TOP_M = HEIGHT_M + 0.003
PEG_RADIUS_M, PEG_HEIGHT_M, PEG_AT_M = 0.0055, 0.024, 0.024
BUTTON_X_M = -0.058
BUTTON_SIZE_M = (0.024, 0.056, 0.014)  # above the housing
BUTTON_TRAVEL_M = 0.008
CLOCK, DISC, PEG, BUTTON = "clock", "disc", "peg", "button"

CAMERA = CameraPlacement((0.90, 0.0, 0.50), (0.485, 0.0, 0.03), np.deg2rad(33.0))
PIXELS_PER_M = 8000


def clock_layout(seed: int) -> Layout:
    """The clock within 6 cm and 35 degrees, its hand between 6:30 and 10 o'clock."""
    rng = stream(seed, "layout")
    xy = rng.uniform((0.43, -0.07), (0.54, 0.07))
    yaw_rad = float(rng.uniform(-np.deg2rad(35), np.deg2rad(35)))
    hour_rad = float(rng.uniform(np.deg2rad(195), np.deg2rad(300)))  # clockwise from 12
    place = (float(xy[0]), float(xy[1]), 0.0)
    return {
        CLOCK: Placement(CLOCK, place, yaw_rad, float(np.hypot(LENGTH_M, WIDTH_M) / 2), HEIGHT_M),
        DISC: Placement(DISC, place, np.pi - hour_rad, DISC_RADIUS_M, DISC_TOP_M + PEG_HEIGHT_M),
    }


def add_clock(spec: mujoco.MjSpec, layout: Layout) -> None:
    """Housing with its dial, the disc with hand and peg on a hinge, the button on a spring."""
    clock = add_body(spec, layout[CLOCK], free=False)
    print_material = add_textured_material(
        spec, "clock_print", _housing_print(), specular=0.25, shininess=0.5
    )
    add_visual_mesh(spec, clock, "clock_housing", printed_box(LENGTH_M, WIDTH_M, HEIGHT_M), print_material)
    half = (LENGTH_M / 2, WIDTH_M / 2, HEIGHT_M / 2)
    add_collision(clock, mujoco.mjtGeom.mjGEOM_BOX, half, (0, 0, HEIGHT_M / 2), mass_kg=0.4)
    _add_disc(spec, clock, layout[DISC].yaw_rad)
    _add_button(spec, clock)
    for part in (
        DISC,
        BUTTON,
    ):  # they move inside the housing; MuJoCo only leaves out contacts with a parent that moves
        spec.add_exclude(bodyname1=CLOCK, bodyname2=part)


def _add_disc(spec: mujoco.MjSpec, clock: mujoco.MjsBody, angle_rad: float) -> None:
    disc = clock.add_body(name=DISC, pos=(DIAL_X_M, 0.0, 0.0), quat=yaw_quaternion(angle_rad))
    disc.add_joint(
        name=DISC,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, 0, 1],  # stiff, as a timer's: it hardly coasts
        damping=0.020,
        frictionloss=0.020,
        armature=0.0005,
    )
    material = add_textured_material(spec, "clock_disc", _disc_print(), specular=0.3, shininess=0.6)
    add_visual_mesh(
        spec, disc, "clock_disc", printed_disc(DISC_RADIUS_M, HEIGHT_M - 0.002, DISC_TOP_M), material
    )
    peg = add_textured_material(spec, "clock_peg", _peg_print(), specular=0.5, shininess=0.7)
    profile = np.array([[0.0, 1.0], [0.75, 1.0], [1.0, 0.94], [1.0, 0.0], [0.0, 0.0]]) * (
        PEG_RADIUS_M,
        PEG_HEIGHT_M,
    )
    # It turns in its hole, as a crank's knob does: fingers that push or hold it do not hold the disc.
    knob = disc.add_body(name=PEG, pos=(PEG_AT_M, 0.0, DISC_TOP_M))
    knob.add_joint(
        name=PEG, type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1], damping=0.0002, armature=0.00001
    )
    add_visual_mesh(spec, knob, "clock_peg", lathe(profile, 24), peg)
    thickness = (DISC_TOP_M - HEIGHT_M) / 2
    cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
    add_collision(
        disc, cylinder, (DISC_RADIUS_M, thickness), (0, 0, HEIGHT_M + thickness), mass_kg=0.02, friction=0.3
    )
    peg_half = PEG_HEIGHT_M / 2
    add_collision(knob, cylinder, (PEG_RADIUS_M, peg_half), (0, 0, peg_half), mass_kg=0.01)


def _add_button(spec: mujoco.MjSpec, clock: mujoco.MjsBody) -> None:
    button = clock.add_body(name=BUTTON, pos=(BUTTON_X_M, 0.0, HEIGHT_M))
    button.add_joint(
        name=BUTTON,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[0, 0, 1],
        range=[-BUTTON_TRAVEL_M, 0.0],
        limited=True,
        stiffness=500.0,
        springref=0.0015,
        damping=3.0,
        armature=0.02,
    )
    length, width, height = BUTTON_SIZE_M
    material = add_textured_material(spec, "clock_button", _button_print(), specular=0.3, shininess=0.5)
    mesh = printed_box(length, width, height + BUTTON_TRAVEL_M)
    add_visual_mesh(spec, button, "clock_button", mesh, material, (0, 0, -BUTTON_TRAVEL_M))
    half = (length / 2, width / 2, height / 2)
    add_collision(button, mujoco.mjtGeom.mjGEOM_BOX, half, (0, 0, height / 2), mass_kg=0.03)


# ------------------------------------------------------------------------------------------------ state


def clockwise_to_go_rad(data: mujoco.MjData) -> float:
    """How far the hand still has to turn clockwise to 12, -pi to pi."""
    clock, disc = data.body(CLOCK), data.body(DISC)
    relative = clock.xmat.reshape(3, 3).T @ disc.xmat.reshape(3, 3)
    angle_rad = float(np.arctan2(relative[1, 0], relative[0, 0]))
    return _wrapped(angle_rad - np.pi)


def _wrapped(angle_rad: float) -> float:
    return float((angle_rad + np.pi) % (2 * np.pi) - np.pi)


def yaw_of(data: mujoco.MjData) -> float:
    """Yaw of the clock in the world [rad]."""
    matrix = data.body(CLOCK).xmat
    return float(np.arctan2(matrix[3], matrix[0]))


def on_dial(data: mujoco.MjData, turn_rad: float) -> FloatArray:
    """(3,) where the peg's foot is in the world after the disc has turned by `turn_rad` from where it is."""
    disc = data.body(DISC)
    radius = disc.xmat.reshape(3, 3) @ np.array(
        [PEG_AT_M * np.cos(turn_rad), PEG_AT_M * np.sin(turn_rad), DISC_TOP_M]
    )
    place: FloatArray = disc.xpos + radius
    return place


# -------------------------------------------------------------------------------------------- appearance


def _canvas(length_m: float, width_m: float, colour: tuple[int, int, int]) -> Texture:
    shape = (round(length_m * PIXELS_PER_M), round(width_m * PIXELS_PER_M), 3)
    return np.full(shape, colour, np.uint8)


def _speckled(picture: Texture, seed: int, strength: float) -> Texture:
    """Grain, wear and dust, as on anything that has been used."""
    side = max(picture.shape[:2])
    rng = np.random.default_rng(seed)
    grain = value_noise(rng, side, 40, 3)[: picture.shape[0], : picture.shape[1], None] - 0.5
    worn = np.clip(picture.astype(np.float32) * (1.0 + strength * grain), 0, 255)
    return np.asarray(worn, np.uint8)


def _write(
    picture: Texture, text: str, centre: tuple[float, float], height_px: float, colour: tuple[int, int, int]
) -> None:
    scale = height_px / 22.0
    thickness = max(2, round(2.4 * scale))
    (width, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, thickness)
    origin = (round(centre[0] - width / 2), round(centre[1] + tall / 2))
    cv2.putText(picture, text, origin, cv2.FONT_HERSHEY_DUPLEX, scale, colour, thickness, cv2.LINE_AA)


def _housing_print() -> Texture:
    """Teal housing, a cream dial with ticks and digits, a brand, screws, a speaker grille."""
    picture = _canvas(LENGTH_M, WIDTH_M, (34, 92, 104))
    middle = (picture.shape[1] / 2, (LENGTH_M / 2 + DIAL_X_M) * PIXELS_PER_M)
    centre = (round(middle[0]), round(middle[1]))
    radius = DIAL_RADIUS_M * PIXELS_PER_M
    cv2.circle(picture, centre, round(radius * 1.05), (208, 176, 92), -1, cv2.LINE_AA)
    cv2.circle(picture, centre, round(radius), (240, 232, 206), -1, cv2.LINE_AA)
    for minute in range(60):
        angle = minute * np.pi / 30
        direction = np.array([np.sin(angle), -np.cos(angle)])
        inner = 0.90 if minute % 5 == 0 else 0.94
        start, end = (np.array(middle) + direction * radius * r for r in (inner, 0.98))
        cv2.line(
            picture,
            tuple(int(v) for v in start),
            tuple(int(v) for v in end),
            (30, 30, 36),
            12 if minute % 5 == 0 else 5,
            cv2.LINE_AA,
        )
    for hour in range(1, 13):
        angle = hour * np.pi / 6
        at = np.array(middle) + np.array([np.sin(angle), -np.cos(angle)]) * radius * 0.79
        _write(
            picture,
            str(hour),
            (float(at[0]), float(at[1])),
            58,
            (26, 26, 32) if hour != 12 else (176, 28, 30),
        )
    _write(picture, "TEMPO", (picture.shape[1] * 0.20, 330), 40, (236, 222, 180))
    _write(picture, "quartz", (picture.shape[1] * 0.82, 330), 34, (236, 222, 180))
    for row in range(4):  # the grille, beside the button
        for column in range(9):
            hole = (60 + 28 * column, 60 + 34 * row)
            cv2.circle(picture, hole, 8, (12, 40, 48), -1, cv2.LINE_AA)
    for corner in ((60, -60), (-60, -60), (-60, 60)):
        at_px = (corner[0] % picture.shape[1], corner[1] % picture.shape[0])
        cv2.circle(picture, at_px, 26, (150, 150, 150), -1, cv2.LINE_AA)
        cv2.line(
            picture,
            (at_px[0] - 17, at_px[1] - 11),
            (at_px[0] + 17, at_px[1] + 11),
            (40, 40, 40),
            7,
            cv2.LINE_AA,
        )
    return _speckled(picture, 41, 0.22)


def _disc_print() -> Texture:
    """A dark disc with a print of confetti, so that every turn of it looks different; the hand: a red arrow to the rim on +x."""
    picture = _canvas(2 * DISC_RADIUS_M, 2 * DISC_RADIUS_M, (44, 46, 70))
    half = picture.shape[0] / 2
    centre = (round(half), round(half))
    colours = ((226, 196, 112), (122, 168, 190), (206, 210, 220), (214, 112, 84), (120, 168, 110))
    confetti(picture, np.random.default_rng(41), 0.92 * half, colours)
    # The hand points along the picture's rows (+x).
    arrow = np.array(
        [
            [-26, -60],
            [26, -60],
            [26, 0.50 * half],
            [70, 0.50 * half],
            [0, 0.97 * half],
            [-70, 0.50 * half],
            [-26, 0.50 * half],
        ]
    )
    cv2.fillPoly(picture, [(arrow + half).astype(np.int32)], (198, 34, 38), cv2.LINE_AA)
    cv2.polylines(picture, [(arrow + half).astype(np.int32)], True, (250, 240, 226), 6, cv2.LINE_AA)
    cv2.circle(picture, centre, 40, (224, 190, 96), -1, cv2.LINE_AA)
    _write(picture, "SWISS", (half, 0.62 * half), 30, (236, 236, 240))
    return _speckled(picture, 43, 0.25)


def _button_print() -> Texture:
    """An orange button that says what it does."""
    length, width, _ = BUTTON_SIZE_M
    picture = _canvas(length, width, (232, 120, 34))
    rows, columns = picture.shape[:2]
    cv2.rectangle(picture, (14, 14), (columns - 14, rows - 14), (250, 214, 160), 8, cv2.LINE_AA)
    _write(picture, "SNOOZE", (columns / 2, rows / 2), 62, (40, 24, 12))
    return _speckled(picture, 47, 0.22)


def _peg_print() -> Texture:
    """Brass with a knurl."""
    rng = np.random.default_rng(53)
    brass = to_texture(blend(value_noise(rng, 256, 24), (168, 128, 56), (232, 200, 116)))
    brass[:, ::16] = (96, 70, 28)
    return brass

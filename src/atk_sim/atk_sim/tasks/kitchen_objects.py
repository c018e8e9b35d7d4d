"""What is handled in the kitchen: frying pan, bunch of grapes, sushi. Origin of each below its middle, on what it stands on."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim import textures
from atk_sim import textures_kitchen as printed
from atk_sim.robots.panda import FINGER_BODIES, SCENE_CONTACT
from atk_sim.scene import Placement, add_body, add_collision, add_textured_material, add_visual_mesh
from atk_sim.shapes import lathe, rounded_box
from atk_sim.shapes_kitchen import balls, rectangle, sheet

FloatArray = NDArray[np.float64]

# (radius, height) [m]: inside from the middle to the rim (entry PAN_RIM), then outside.
PAN_PROFILE_M = np.array(
    [
        [0.0, 0.004],
        [0.034, 0.004],
        [0.067, 0.005],
        [0.073, 0.010],
        [0.085, 0.031],
        [0.088, 0.031],
        [0.076, 0.006],
        [0.070, 0.0],
        [0.0, 0.0],
    ]
)
PAN_RIM = 5
PAN_RADIUS_M = 0.088
PAN_FLOOR_RADIUS_M, PAN_FLOOR_M = 0.070, 0.004
PAN_HANDLE_M = (0.084, 0.185)  # from and to, along x
PAN_HANDLE_WIDTH_M, PAN_HANDLE_THICKNESS_M, PAN_HANDLE_TOP_M = 0.024, 0.014, 0.036
PAN_GRIP_M = np.array([0.138, 0.0, PAN_HANDLE_TOP_M - PAN_HANDLE_THICKNESS_M / 2])

# A bunch is one rigid body, see `add_grapes`.
GRAPES_SIZE_M = (0.068, 0.042, 0.040)  # of the solid core: length, width, height


def add_pan(spec: mujoco.MjSpec, place: Placement) -> None:
    """A frying pan that can be lifted by its handle, which points along local x; origin below the middle."""
    pan = add_body(spec, place, free=True)
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(PAN_PROFILE_M, axis=0).T))])
    rim = float(way[PAN_RIM] / way[-1])
    stone = add_textured_material(
        spec, "pan_stone", printed.stone_pan(rim=round(rim, 3)), specular=0.25, shininess=0.4
    )
    wood = add_textured_material(spec, "pan_handle", printed.pan_handle(), specular=0.15, shininess=0.3)
    add_visual_mesh(spec, pan, "kitchen_pan", lathe(PAN_PROFILE_M, segments=56), stone)
    start, end = PAN_HANDLE_M
    outline = rectangle(start, -PAN_HANDLE_WIDTH_M / 2, end, PAN_HANDLE_WIDTH_M / 2)
    handle = sheet([outline], PAN_HANDLE_THICKNESS_M, (1, 0, 0), (0, 1, 0))
    add_visual_mesh(spec, pan, "kitchen_pan_handle", handle, wood, (0.0, 0.0, PAN_HANDLE_TOP_M))
    solid = {"group": 3, "friction": [0.7, 0.01, 0.001], "solref": [0.004, 1], "condim": 4}
    pan.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[PAN_FLOOR_RADIUS_M, PAN_FLOOR_M / 2, 0],
        pos=[0, 0, PAN_FLOOR_M / 2],
        mass=0.11,
        **solid,
        **SCENE_CONTACT,
    )
    for k in range(14):  # the wall, as short boxes that lean outwards
        angle = 2 * np.pi * k / 14
        turn = np.zeros(4)
        lean = [np.cos(0.28), 0.0, np.sin(0.28), 0.0]
        mujoco.mju_mulQuat(turn, np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)]), np.array(lean))
        pan.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.0025, 0.0185, 0.015],
            pos=[0.0785 * np.cos(angle), 0.0785 * np.sin(angle), 0.0165],
            quat=turn,
            mass=0.002,
            **solid,
            **SCENE_CONTACT,
        )
    pan.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[(end - start) / 2, PAN_HANDLE_WIDTH_M / 2, PAN_HANDLE_THICKNESS_M / 2],
        pos=[(start + end) / 2, 0, PAN_HANDLE_TOP_M - PAN_HANDLE_THICKNESS_M / 2],
        mass=0.03,
        **solid,
        **SCENE_CONTACT,
    )


def add_grapes(spec: mujoco.MjSpec, place: Placement) -> None:
    """A bunch of grapes, its stem along local x, resting on z = 0.

    One rigid body: loose berries on a bending stem would cost dozens of contacts for a look that hardly differs.
    It is drawn as balls, and collides as a box around their middles, which fingers grasp without its rolling away.
    """
    body = add_body(spec, place, free=True)
    centres, radii = _bunch()
    skins = add_textured_material(
        spec, "grape_skins", printed.grapes(len(radii)), specular=0.45, shininess=0.7
    )
    leaf = add_textured_material(spec, "vine_leaf", printed.vine_leaf(), specular=0.1, shininess=0.2)
    spec.add_material(name="vine_stem", rgba=[0.42, 0.33, 0.16, 1], specular=0.1, shininess=0.2)
    add_visual_mesh(spec, body, "kitchen_grapes", balls(centres, radii), skins)
    length, width, height = GRAPES_SIZE_M
    angle = np.linspace(0, 2 * np.pi, 11, endpoint=False)
    petal = 0.020 * np.stack([np.cos(angle), 0.85 * np.sin(angle)], axis=1)
    leaf_mesh = sheet([petal], 0.0012, (0.0, 1.0, 0.0), (-0.94, 0.0, 0.34))
    add_visual_mesh(spec, body, "kitchen_leaf", leaf_mesh, leaf, (length / 2 + 0.004, 0.006, height + 0.001))
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[length / 2 - 0.012, 0, height * 0.75, length / 2 + 0.016, -0.003, height + 0.004],
        size=[0.0024, 0, 0],
        material="vine_stem",
        contype=0,
        conaffinity=0,
        group=2,
        mass=0,
    )
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[length / 2, width / 2, height / 2],
        pos=[0, 0, height / 2],
        mass=0.04,
        friction=[1.0, 0.01, 0.001],
        condim=4,
        group=3,
        solref=[0.004, 1],
        **SCENE_CONTACT,
    )


def _bunch() -> tuple[FloatArray, FloatArray]:
    """Centres (N, 3) and radii (N,) [m] of the berries: broad at the stem, narrow at the tip."""
    rng = np.random.default_rng(151)
    centres = []
    rings = (
        (-0.033, 1, 0.0),
        (-0.020, 3, 0.0100),
        (-0.004, 5, 0.0130),
        (0.012, 5, 0.0130),
        (0.026, 3, 0.0095),
    )
    for x, ring, spread in rings:
        turn = rng.uniform(0, np.pi)
        for k in range(ring):
            angle = turn + 2 * np.pi * k / ring
            centres.append([x, spread * np.cos(angle), 0.0195 + 0.9 * spread * np.sin(angle)])
    points = np.array(centres) + rng.normal(0, 0.0008, (len(centres), 3))
    radii = rng.uniform(0.0096, 0.0112, len(points))
    points[:, 2] = np.maximum(points[:, 2], radii)
    return points, radii


SUSHI_SIZE_M = (0.072, 0.036, 0.034)  # length, width, height


def add_sushi(spec: mujoco.MjSpec, place: Placement) -> None:
    """A salmon nigiri, long along local x: that of the sushi task."""
    body = add_body(spec, place, free=True)
    length, width, height = SUSHI_SIZE_M
    rice = add_textured_material(spec, "rice", textures.rice())
    salmon = add_textured_material(spec, "salmon", textures.salmon(), specular=0.3, shininess=0.6)
    add_visual_mesh(spec, body, "nigiri_rice", rounded_box(length * 0.9, width * 0.94, height * 0.68), rice)
    slice_mesh = rounded_box(length, width, height * 0.42, bend_m=0.004)
    add_visual_mesh(spec, body, "nigiri_topping", slice_mesh, salmon, (0, 0, height * 0.58))
    half = (length * 0.45, width / 2, height * 0.48)
    add_collision(body, mujoco.mjtGeom.mjGEOM_BOX, half, (0, 0, half[2]), mass_kg=0.035, friction=1.0)


def held(model: mujoco.MjModel, data: mujoco.MjData, name: str) -> bool:
    """Whether a finger touches that body."""
    wanted = model.body(name).id
    fingers = {model.body(finger).id for finger in FINGER_BODIES}
    for contact in data.contact:
        bodies = {int(model.geom_bodyid[geom]) for geom in contact.geom}
        if wanted in bodies and bodies & fingers:
            return True
    return False


def at_rest(data: mujoco.MjData, name: str) -> bool:
    """Whether that body hardly moves (0.1 m/s and rad/s)."""
    return float(np.abs(data.body(name).cvel).max()) < 0.1

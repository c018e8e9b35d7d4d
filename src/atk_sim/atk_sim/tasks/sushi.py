"""Sushi pick-and-place: grasp the salmon nigiri among other pieces and put it on the plate (paper, task 1)."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim import textures
from atk_sim.camera import CameraPlacement
from atk_sim.experts import ExpertGoal
from atk_sim.robots.panda import FINGER_BODIES, TCP_SITE
from atk_sim.scene import (
    Layout,
    Placement,
    add_body,
    add_collision,
    add_textured_material,
    add_visual_mesh,
    stream,
)
from atk_sim.shapes import TexturedMesh, lathe, rounded_box

FloatArray = NDArray[np.float64]

# (radius, height) [m] from the top pole over the rim to the bottom pole.
PLATE_PROFILE_M = np.array(
    [
        [0.0, 0.006],
        [0.03, 0.006],
        [0.058, 0.007],
        [0.07, 0.013],
        [0.083, 0.017],
        [0.085, 0.015],
        [0.06, 0.0],
        [0.0, 0.0],
    ]
)
PLATE_RADIUS_M = 0.085
PLATE_FLOOR_M = 0.006
PIECE_SIZE_M = (0.072, 0.036, 0.034)  # length, width, height of the salmon nigiri

GRASP_HEIGHT_M = 0.017  # of the fingertips' centre above the piece's underside
TRAVEL_HEIGHT_M = 0.13
PLACING_YAW_RAD = 0.0  # the hand turns the piece straight on its way
SHUT_M = PIECE_SIZE_M[1] + 0.0015  # an opening below this means that the piece is between the fingers


class SushiPickAndPlace:
    """The salmon nigiri lies in front of the robot, the plate at its left, other pieces around."""

    name = "sushi"
    instruction = "pick up the salmon nigiri and put it on the plate"
    picked_uv_px = (
        (260, 214),
        (277, 212),
        (262, 237),
        (275, 232),
        (456, 249),
        (506, 267),
        (439, 212),
        (538, 237),
    )
    max_duration_s = 9.0
    clearance_m = 0.05
    # From the front and above: the hand comes from behind and hides neither the piece nor the plate before it is there.
    camera = CameraPlacement((0.98, 0.02, 0.60), (0.485, 0.045, 0.02), np.deg2rad(35.0))

    def layout(self, seed: int) -> Layout:
        """The piece within 8 cm and 45 degrees, the plate within 4 cm, clutter where there is room."""
        rng = stream(seed, "layout")
        piece_xy = rng.uniform((0.42, -0.15), (0.56, 0.0))
        plate_xy = rng.uniform((0.43, 0.15), (0.51, 0.22))
        placements = [
            Placement("piece", (*piece_xy, 0.0), float(rng.uniform(-np.pi / 4, np.pi / 4)), 0.042, 0.04),
            Placement(
                "plate", (*plate_xy, 0.0), float(rng.uniform(-np.pi / 6, np.pi / 6)), PLATE_RADIUS_M, 0.02
            ),
        ]
        for name, radius_m in (("tuna", 0.042), ("omelette", 0.042), ("maki", 0.025)):
            for _ in range(400):
                xy = rng.uniform((0.36, -0.24), (0.62, 0.30))
                other = Placement(name, (*xy, 0.0), float(rng.uniform(-np.pi, np.pi)), radius_m, 0.04)
                # The open hand is 20 cm wide but its fingers only 10: the clutter keeps clear of these.
                if all(other.clear_of(p, 0.045 if p.name == "piece" else 0.012) for p in placements):
                    placements.append(other)
                    break
        return {placement.name: placement for placement in placements}

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """Pieces that can be picked up, on a plate that stands."""
        plate = add_body(spec, layout["plate"], free=False)
        material = add_textured_material(
            spec, "porcelain", textures.porcelain(), specular=0.35, shininess=0.6
        )
        add_visual_mesh(spec, plate, "plate", lathe(PLATE_PROFILE_M, segments=64), material)
        add_collision(
            plate,
            mujoco.mjtGeom.mjGEOM_CYLINDER,
            (0.058, PLATE_FLOOR_M / 2),
            (0, 0, PLATE_FLOOR_M / 2),
            mass_kg=0.3,
        )
        for k in range(16):  # the rim, as short boxes
            angle = 2 * np.pi * k / 16
            plate.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=[0.012, 0.015, 0.005],
                pos=[0.07 * np.cos(angle), 0.07 * np.sin(angle), 0.008],
                quat=[np.cos(angle / 2), 0, 0, np.sin(angle / 2)],
                group=3,
            )
        toppings = {"piece": textures.salmon(), "tuna": textures.fish(True), "omelette": textures.omelette()}
        for name, topping in toppings.items():
            if name in layout:
                self._add_nigiri(spec, layout[name], topping)
        if "maki" in layout:
            self._add_maki(spec, layout["maki"])

    def _add_nigiri(self, spec: mujoco.MjSpec, placement: Placement, topping: textures.Texture) -> None:
        length, width, height = PIECE_SIZE_M
        body = add_body(spec, placement, free=True)
        rice = add_textured_material(spec, "rice", textures.rice())
        fish = add_textured_material(spec, f"{placement.name}_topping", topping, specular=0.3, shininess=0.6)
        add_visual_mesh(
            spec, body, "nigiri_rice", rounded_box(length * 0.9, width * 0.94, height * 0.68), rice
        )
        slice_mesh = rounded_box(length, width, height * 0.42, bend_m=0.004)
        add_visual_mesh(spec, body, "nigiri_topping", slice_mesh, fish, (0, 0, height * 0.58))
        half = (length * 0.45, width / 2, height * 0.48)
        add_collision(body, mujoco.mjtGeom.mjGEOM_BOX, half, (0, 0, half[2]), mass_kg=0.035, friction=1.0)

    def _add_maki(self, spec: mujoco.MjSpec, placement: Placement) -> None:
        body = add_body(spec, placement, free=True)
        material = add_textured_material(spec, "maki", textures.maki())
        profile = np.array(
            [[0.0, 0.03], [0.021, 0.03], [0.022, 0.029], [0.022, 0.001], [0.021, 0.0], [0.0, 0.0]]
        )
        mesh: TexturedMesh = lathe(profile)
        add_visual_mesh(spec, body, "maki", mesh, material)
        add_collision(body, mujoco.mjtGeom.mjGEOM_CYLINDER, (0.022, 0.015), (0, 0, 0.015), mass_kg=0.03)

    def success(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """The piece rests on the plate, upright, and no finger touches it."""
        piece, plate = data.body("piece"), data.body("plate")
        apart_m = float(np.linalg.norm(piece.xpos[:2] - plate.xpos[:2]))
        height_m = float(piece.xpos[2] - plate.xpos[2])
        slow = float(np.abs(piece.cvel).max()) < 0.1
        upright = float(piece.xmat[8]) > 0.9
        return (
            apart_m < 0.055
            and abs(height_m - PLATE_FLOOR_M) < 0.012
            and upright
            and slow
            and not _held(model, data)
        )

    def expert_goal(self, model: mujoco.MjModel, data: mujoco.MjData, opening_m: float) -> ExpertGoal:
        """Above the piece, down, close; lift, above the plate, down, open; up. The state says which."""
        tcp = data.site(TCP_SITE).xpos
        piece, plate = data.body("piece"), data.body("plate")
        yaw_rad = float(np.arctan2(piece.xmat[3], piece.xmat[0]))
        on_plate = float(np.linalg.norm(piece.xpos[:2] - plate.xpos[:2])) < 0.05
        carried = opening_m < SHUT_M and float(np.linalg.norm(tcp - piece.xpos)) < 0.035

        if on_plate and not carried and piece.xpos[2] < plate.xpos[2] + 0.02:
            return self._leave(tcp, piece.xpos, opening_m)
        if not carried:
            grasp = piece.xpos + (0.0, 0.0, GRASP_HEIGHT_M)
            aside_m = float(np.linalg.norm(tcp[:2] - grasp[:2]))
            if aside_m < 0.010 and tcp[2] < grasp[2] + 0.008:
                return ExpertGoal(grasp, yaw_rad, opening_m - 0.016)
            # A cone over the piece: the further aside, the higher.
            height_m = grasp[2] + float(np.clip(2.5 * (aside_m - 0.006), 0.0, TRAVEL_HEIGHT_M))
            return ExpertGoal(np.array([*grasp[:2], height_m]), yaw_rad, 0.08)

        place = plate.xpos + (0.0, 0.0, PLATE_FLOOR_M + GRASP_HEIGHT_M + 0.003)
        aside_m = float(np.linalg.norm(tcp[:2] - place[:2]))
        if aside_m < 0.020 and tcp[2] < place[2] + 0.010:
            return ExpertGoal(place, PLACING_YAW_RAD, 0.08)
        floor_m = place[2] + float(np.clip(2.0 * (aside_m - 0.014), 0.0, TRAVEL_HEIGHT_M - 0.02))
        # Sideways only as far as the piece is off the table: it must not drag, nor hit the rim.
        lifted = float(np.clip((tcp[2] - 0.035) / 0.05, 0.0, 1.0))
        sideways = tcp[:2] + lifted * (place[:2] - tcp[:2])
        return ExpertGoal(np.array([*sideways, floor_m]), PLACING_YAW_RAD, 0.0)

    def _leave(self, tcp: FloatArray, piece: FloatArray, opening_m: float) -> ExpertGoal:
        away = np.array([0.44, 0.05, 0.22])
        if opening_m < 0.06 and np.linalg.norm(tcp[:2] - piece[:2]) < 0.03 and tcp[2] < 0.06:
            return ExpertGoal(tcp.copy(), None, 0.08)
        if tcp[2] < 0.10:
            return ExpertGoal(np.array([*tcp[:2], 0.16]), None, 0.08)
        return ExpertGoal(away, 0.0, 0.08)


def _held(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    """Whether a finger touches the piece."""
    piece = model.body("piece").id
    fingers = {model.body(name).id for name in FINGER_BODIES}
    for contact in data.contact:
        bodies = {int(model.geom_bodyid[geom]) for geom in contact.geom}
        if piece in bodies and bodies & fingers:
            return True
    return False

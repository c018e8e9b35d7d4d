"""Shoe lacing: take a lace by its tip (the aglet) and put it through a 5 mm eyelet of a shoe (paper, 1.7 mm tolerance).

What physics forced: the lace is a chain of stiff capsules, bent over as a waxed lace is, and short; the aglet, 3.3 mm
thick, stands in a small block, because a lace that lies flat cannot be stood up by a hand that points down. The
eyelet is a metal ring with a rounded rim, level on top of the shoe, built of a ring of capsules. Aglet, ring and fingers
meet by contact alone.
"""

from __future__ import annotations

from itertools import pairwise

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim import textures_cloth
from atk_sim.camera import CameraPlacement
from atk_sim.experts import ExpertGoal
from atk_sim.robots.panda import SCENE_CONTACT, TCP_SITE
from atk_sim.scene import Layout, Placement, add_body, add_textured_material, add_visual_mesh, stream
from atk_sim.shapes import TexturedMesh, lathe, rounded_box

FloatArray = NDArray[np.float64]

EYELET_RADIUS_M = 0.0025
AGLET_RADIUS_M = 0.00165  # 1.7 mm of play
AGLET_LENGTH_M = 0.028
RIM_M = 0.0015  # radius of the ring's wire
EYELET_HEIGHT_M = 0.075  # of the ring's middle above the table
THROUGH_M = 0.008  # so far the tip has to be below the ring's middle

LACE_RADIUS_M = 0.0014
# (length [m], bend against the link before [rad]) from the aglet on: up, over, down.
LACE = ((0.012, 0.0), *((0.008, np.pi / 6),) * 6, *((0.010, 0.0),) * 3)
BLOCK_HEIGHT_M = 0.032
BLOCK_DEPTH_M = 0.013
BLOCK_HOLE_M = 0.00195  # radius
BLOCK_PROFILE_M = np.array(
    [[0.0, BLOCK_HEIGHT_M], [0.010, BLOCK_HEIGHT_M], [0.013, 0.028], [0.020, 0.004], [0.020, 0.0], [0.0, 0.0]]
)

HOLD_M = 0.026  # from the tip up to the fingertips' centre
OPEN_M = 0.03
SHUT_M = 2 * AGLET_RADIUS_M + 0.0025
HOVER_M = 0.005  # of the tip above the ring's middle, until it is in line
READY_M = 0.002  # in line: the ring's rounded rim leads in what is this far aside
STRIDE_M = 0.025  # the goal lies at most this far aside of the hand: some 0.2 m/s
DOWN_M = 0.012  # and this far below


class ShoeLacing:
    """The lace stands in its block at the camera's left, the shoe at the right, toe to the camera."""

    name = "shoe_lacing"
    instruction = "take the lace by its tip and put it through the shoe's eyelet"
    picked_uv_px = (
        (202, 275),
        (186, 302),
        (219, 305),
        (202, 323),
        (501, 239),
        (476, 219),
        (537, 224),
        (476, 262),
        (534, 267),
    )
    max_duration_s = 14.0
    clearance_m = 0.05
    camera = CameraPlacement((0.86, -0.01, 0.38), (0.465, 0.0, 0.065), np.deg2rad(31.0))

    def layout(self, seed: int) -> Layout:
        """Block and shoe within 5 cm; the lace's bend within 40 degrees of the camera, the shoe within 24."""
        rng = stream(seed, "layout")
        block_xy = rng.uniform((0.44, -0.12), (0.49, -0.07))
        shoe_xy = rng.uniform((0.45, 0.06), (0.50, 0.11))
        turn_rad = rng.uniform(-1.0, 1.0, 2) * np.deg2rad((20, 12))
        return {
            "block": Placement("block", (*block_xy, 0.0), float(turn_rad[0]), 0.035, 0.09),
            "shoe": Placement("shoe", (*shoe_xy, 0.0), float(turn_rad[1]), 0.10, 0.09),
        }

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """A shoe and a block that stay where they are, and the lace."""
        self._add_shoe(spec, layout["shoe"])
        self._add_block(spec, layout["block"])
        self._add_lace(spec, layout["block"])

    def _add_shoe(self, spec: mujoco.MjSpec, placement: Placement) -> None:
        shoe = add_body(spec, placement, free=False)
        canvas = add_textured_material(
            spec, "shoe", textures_cloth.shoe_canvas(), specular=0.05, shininess=0.1
        )
        add_visual_mesh(spec, shoe, "shoe", _shoe_mesh(), canvas)
        patch = add_textured_material(spec, "patch", textures_cloth.patch(), specular=0.1, shininess=0.2)
        plate = (0.052, 0.040, 2 * RIM_M)
        add_visual_mesh(
            spec,
            shoe,
            "patch",
            rounded_box(*plate, squareness=9.0),
            patch,
            (0.0, 0.0, EYELET_HEIGHT_M - RIM_M - 0.0004),
        )
        box = mujoco.mjtGeom.mjGEOM_BOX
        inner = EYELET_RADIUS_M + RIM_M
        half_x, half_y = (plate[0] / 2 - inner) / 2, (plate[1] / 2 - inner) / 2
        sides = [
            ((inner + half_x, 0.0), (half_x, plate[1] / 2)),
            ((-inner - half_x, 0.0), (half_x, plate[1] / 2)),
            ((0.0, inner + half_y), (inner, half_y)),
            ((0.0, -inner - half_y), (inner, half_y)),
        ]
        for (x, y), (along, across) in sides:
            shoe.add_geom(
                type=box, size=[along, across, RIM_M], pos=[x, y, EYELET_HEIGHT_M], group=3, **SCENE_CONTACT
            )
        for x, half, high in ((0.065, 0.035, 0.05), (-0.075, 0.045, 0.065)):  # toe and heel; hollow between
            shoe.add_geom(
                type=box, size=[half, 0.034, high / 2], pos=[x, 0, high / 2], group=3, **SCENE_CONTACT
            )
        spec.add_material(name="brass", rgba=[0.86, 0.70, 0.34, 1], specular=0.8, shininess=0.8)
        count = 16
        corner = [
            (inner * np.cos(angle), inner * np.sin(angle), EYELET_HEIGHT_M)
            for angle in 2 * np.pi * np.arange(count + 1) / count
        ]
        for start, end in pairwise(corner):
            shoe.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CAPSULE,
                fromto=[*start, *end],
                size=[RIM_M, 0, 0],
                material="brass",
                friction=[0.2, 0.005, 0.0001],
                solref=[0.004, 1],
                group=2,
                **SCENE_CONTACT,
            )
        shoe.add_site(name="eyelet", pos=[0, 0, EYELET_HEIGHT_M], size=[0.001] * 3, group=4)

    def _add_block(self, spec: mujoco.MjSpec, placement: Placement) -> None:
        block = add_body(spec, placement, free=False)
        wood = add_textured_material(
            spec, "block", textures_cloth.turned_wood(512, 109), specular=0.2, shininess=0.4
        )
        add_visual_mesh(spec, block, "block", lathe(BLOCK_PROFILE_M), wood)
        floor_m = BLOCK_HEIGHT_M - BLOCK_DEPTH_M
        block.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=[0.014, floor_m / 2, 0],
            pos=[0, 0, floor_m / 2],
            group=3,
            **SCENE_CONTACT,
        )
        post_m = 0.003
        for angle in 2 * np.pi * np.arange(8) / 8:
            block.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CYLINDER,
                size=[post_m, BLOCK_DEPTH_M / 2, 0],
                pos=[
                    (BLOCK_HOLE_M + post_m) * np.cos(angle),
                    (BLOCK_HOLE_M + post_m) * np.sin(angle),
                    floor_m + BLOCK_DEPTH_M / 2,
                ],
                friction=[0.2, 0.005, 0.0001],
                group=3,
                **SCENE_CONTACT,
            )

    def _add_lace(self, spec: mujoco.MjSpec, block: Placement) -> None:
        tip_m = BLOCK_HEIGHT_M - BLOCK_DEPTH_M + 0.0003
        aglet = add_body(
            spec,
            Placement("aglet", (*block.position_m[:2], tip_m), block.yaw_rad + np.pi, 0.0, 0.0),
            free=True,
        )
        spec.add_material(name="aglet", rgba=[0.10, 0.12, 0.30, 1], specular=0.6, shininess=0.6)
        capsule = mujoco.mjtGeom.mjGEOM_CAPSULE
        aglet.add_geom(
            type=capsule,
            fromto=[0, 0, AGLET_RADIUS_M, 0, 0, AGLET_LENGTH_M],
            size=[AGLET_RADIUS_M, 0, 0],
            mass=0.002,
            friction=[0.2, 0.005, 0.0001],
            condim=4,
            solref=[0.004, 1],
            material="aglet",
            **SCENE_CONTACT,
        )
        weave = add_textured_material(spec, "lace", textures_cloth.tape(), specular=0.05, shininess=0.1)
        before, offset_m = aglet, AGLET_LENGTH_M
        for number, (length_m, bend_rad) in enumerate(LACE):
            link = before.add_body(
                name=f"lace_{number}",
                pos=[0, 0, offset_m],
                quat=[np.cos(bend_rad / 2), 0, np.sin(bend_rad / 2), 0],
            )
            for axis in ("x", "y"):
                link.add_joint(
                    name=f"lace_{number}_{axis}",
                    type=mujoco.mjtJoint.mjJNT_HINGE,
                    axis=[float(axis == "x"), float(axis == "y"), 0],
                    stiffness=0.004,
                    damping=1e-4,
                    armature=1e-6,
                )
            link.add_geom(
                type=capsule,
                fromto=[0, 0, 0, 0, 0, length_m],
                size=[LACE_RADIUS_M, 0, 0],
                mass=0.0002,
                material=weave,
                **SCENE_CONTACT,
            )
            before, offset_m = link, length_m

    def success(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """The aglet goes through the eyelet, its tip well below the ring."""
        return bool(_through_m(data) > THROUGH_M)

    def expert_goal(self, model: mujoco.MjModel, data: mujoco.MjData, opening_m: float) -> ExpertGoal:
        """Above the aglet, down, close; up, above the eyelet, wait until in line, down. The state says which."""
        tcp = data.site(TCP_SITE).xpos
        aglet, eyelet = data.body("aglet"), data.site("eyelet").xpos
        hold = aglet.xpos + HOLD_M * aglet.xmat.reshape(3, 3)[:, 2]
        yaw_rad = float(np.arctan2(aglet.xmat[3], aglet.xmat[0]))
        carried = opening_m < SHUT_M and float(np.linalg.norm(tcp - hold)) < 0.012

        if not carried:
            aside_m = float(np.linalg.norm(tcp[:2] - hold[:2]))
            if aside_m < 0.004 and abs(tcp[2] - hold[2]) < 0.006:
                return ExpertGoal(hold, yaw_rad, opening_m - 0.012)
            # A cone over the aglet: the further aside, the higher; the last centimetres slowly.
            height_m = hold[2] + float(np.clip(5.0 * (aside_m - 0.003), 0.0, 0.10))
            height_m = max(height_m, 0.5 * (tcp[2] + hold[2]) - 0.01)
            return ExpertGoal(np.array([*hold[:2], height_m]), yaw_rad, OPEN_M)

        through_m = _through_m(data)
        turn = data.body("shoe").xmat
        yaw_rad = float(np.arctan2(turn[3], turn[0]))
        aside = eyelet[:2] - aglet.xpos[:2]
        aside_m = float(np.linalg.norm(aside))
        above_m = float(aglet.xpos[2] - eyelet[2])
        if through_m > 0.0:
            # Inside, the ring is a pivot: what is held goes over it, and on.
            over = eyelet[:2] - hold[:2]
            return ExpertGoal(tcp + (*over, -THROUGH_M - 0.006 - above_m), yaw_rad, 0.0)
        if aside_m < READY_M and above_m < HOVER_M + 0.002:
            return ExpertGoal(tcp + (*aside, -DOWN_M), yaw_rad, 0.0)
        # Over the eyelet: the further aside, the higher; sideways only while the tip is above ring and block.
        wanted_m = HOVER_M + float(np.clip(3.0 * (aside_m - 0.004), 0.0, 0.035))
        clear = float(np.clip((above_m - 0.003) / 0.002, 0.0, 1.0))
        stride = aside * min(1.0, STRIDE_M / max(aside_m, 1e-9))
        return ExpertGoal(tcp + (*(clear * stride), max(wanted_m - above_m, -DOWN_M)), yaw_rad, 0.0)


def _through_m(data: mujoco.MjData) -> float:
    """How far the aglet's tip is below the ring's middle, 0 where the aglet does not go through the ring [m]."""
    tip = data.body("aglet").xpos - data.site("eyelet").xpos
    axis = data.body("aglet").xmat.reshape(3, 3)[:, 2]
    if tip[2] >= 0.0 or tip[2] + AGLET_LENGTH_M * axis[2] <= 0.0:
        return 0.0
    crossing = tip - tip[2] / axis[2] * axis
    return float(-tip[2]) if np.hypot(crossing[0], crossing[1]) < EYELET_RADIUS_M else 0.0


def _shoe_mesh() -> TexturedMesh:
    """A sneaker about the eyelet, toe to +x: sections of a rounded outline from the toe to the heel."""
    # x of the section, half width, height of the top [m]
    stations = np.array(
        [
            [0.105, 0.012, 0.026],
            [0.100, 0.024, 0.034],
            [0.088, 0.035, 0.042],
            [0.065, 0.041, 0.051],
            [0.040, 0.042, 0.062],
            [0.020, 0.041, 0.0715],
            [0.000, 0.040, 0.0735],
            [-0.022, 0.039, 0.0735],
            [-0.040, 0.037, 0.079],
            [-0.055, 0.035, 0.072],
            [-0.085, 0.034, 0.068],
            [-0.108, 0.032, 0.074],
            [-0.120, 0.026, 0.078],
            [-0.126, 0.014, 0.070],
        ]
    )
    segments, widest_m = 48, 0.022
    angle = 2 * np.pi * np.arange(segments) / segments - np.pi / 2
    across, up = np.cos(angle), np.sin(angle)
    rings = []
    for x, half, top in stations:
        y = half * np.sign(across) * np.abs(across) ** 0.65
        upper = widest_m + (top - widest_m) * np.abs(up) ** 0.85
        lower = widest_m * (1 - np.abs(up) ** 0.35)
        rings.append(np.stack([np.full(segments, x), y, np.where(up >= 0, upper, lower)], axis=1))
    poles = np.array([[0.108, 0.0, 0.014], [-0.128, 0.0, 0.03]])
    vertices = np.concatenate([poles[:1], *rings, poles[1:]])
    profile = np.linspace((0.0, 1.0), (0.0, 0.0), len(stations) + 2)
    profile[1:-1, 0] = 1.0
    faces = lathe(profile, segments=segments).faces
    along = (stations[0, 0] - stations[:, 0]) / np.ptp(stations[:, 0])
    around = np.arange(segments) / segments
    uv = np.stack(np.broadcast_arrays(around[None, :], 0.02 + 0.96 * along[:, None]), axis=2).reshape(-1, 2)
    return TexturedMesh(vertices, faces, np.concatenate([[[0.5, 0.0]], uv, [[0.5, 1.0]]]))

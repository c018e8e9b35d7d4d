"""Glass pot, tip lifting: take the lid of a transparent, reflective pot by its small tip and lift it (paper, task 2).

What physics asks for: the pot is heavy and does not slide, so only the lid moves; the paper lifts pot and lid with
chopsticks around the tip. The lid is held by friction and rests on the pot's rim by its own weight.
"""

from __future__ import annotations

import cv2
import mujoco
import numpy as np

from atk_sim.camera import CameraPlacement, FloatArray
from atk_sim.experts import ExpertGoal
from atk_sim.robots.panda import TCP_SITE
from atk_sim.scene import (
    Layout,
    Placement,
    add_body,
    add_collision,
    add_textured_material,
    add_visual_mesh,
    stream,
)
from atk_sim.shapes import lathe, printed_disc, ring
from atk_sim.textures import Texture, blend, to_texture, value_noise

POT, LID = "pot", "lid"
RADIUS_M, HEIGHT_M, WALL_M = 0.066, 0.075, 0.003
CONTENT_M = 0.045  # how high it is filled
LID_RADIUS_M, LID_THICKNESS_M = 0.072, 0.004
TIP_RADIUS_M, TIP_HEIGHT_M = 0.0125, 0.026
TIP_FOOT_M = 0.012  # the lid's dome below it
GRASP_HEIGHT_M = TIP_FOOT_M + 0.016  # of the fingertips' centre above the lid's underside
APPROACH_HEIGHT_M = 0.09
LIFTED_M = 0.06
LIFT_TO_M = 0.095
HELD_M = 2 * TIP_RADIUS_M + 0.002
WIDE_M = 0.07


class PotLid:
    """The lid comes up by its tip and stays level."""

    name = "pot"
    instruction = "take the glass pot's lid by the small tip on top of it and lift it"
    picked_uv_px = ((410, 174), (401, 184), (417, 189), (383, 194), (433, 199), (411, 214))
    max_duration_s = 8.0
    clearance_m = 0.06
    camera = CameraPlacement((0.94, 0.0, 0.52), (0.485, 0.0, 0.06), np.deg2rad(34.0))

    def layout(self, seed: int) -> Layout:
        """The pot within 6 cm and 35 degrees, the lid on it."""
        rng = stream(seed, "layout")
        x_m, y_m = rng.uniform((0.43, -0.08), (0.54, 0.08))
        yaw_rad = float(rng.uniform(-np.deg2rad(35), np.deg2rad(35)))
        turned_rad = yaw_rad + float(rng.uniform(-np.deg2rad(20), np.deg2rad(20)))
        return {
            POT: Placement(POT, (float(x_m), float(y_m), 0.0), yaw_rad, 0.10, HEIGHT_M),
            LID: Placement(LID, (float(x_m), float(y_m), HEIGHT_M), turned_rad, LID_RADIUS_M, 0.05),
        }

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """A pot of glass with soup in it, a lid of glass with a steel rim and a wooden tip."""
        spec.add_material(name="pot_glass", rgba=(0.80, 0.90, 0.94, 0.24), specular=1.0, shininess=0.95)
        steel = add_textured_material(spec, "pot_steel", _steel(), specular=0.8, shininess=0.8)
        self._add_pot(spec, layout[POT], steel)
        self._add_lid(spec, layout[LID], steel)

    def _add_pot(self, spec: mujoco.MjSpec, placement: Placement, steel: str) -> None:
        pot = add_body(spec, placement, free=False)
        soup = add_textured_material(spec, "pot_soup", _soup(), specular=0.3, shininess=0.5)
        inside = RADIUS_M - WALL_M
        add_visual_mesh(spec, pot, "pot_filling", printed_disc(inside, 0.002, CONTENT_M), soup)
        band = add_textured_material(spec, "pot_band", _band(), specular=0.5, shininess=0.6)
        add_visual_mesh(spec, pot, "pot_band", ring(RADIUS_M + 0.0005, 0.004, 0.0, 0.013), band)
        # Glass last: what is behind it must be drawn before.
        wall = np.array(
            [
                [0.0, 0.006],
                [inside, 0.006],
                [inside, HEIGHT_M],
                [RADIUS_M, HEIGHT_M],
                [RADIUS_M, 0.0],
                [0.0, 0.0],
            ]
        )
        add_visual_mesh(spec, pot, "pot_wall", lathe(wall, 48), "pot_glass")
        add_visual_mesh(spec, pot, "pot_rim", ring(RADIUS_M + 0.0005, 0.004, HEIGHT_M - 0.004, 0.004), steel)
        cylinder, box = mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_BOX
        add_collision(pot, cylinder, (RADIUS_M, HEIGHT_M / 2), (0, 0, HEIGHT_M / 2), mass_kg=1.2)
        for side in (-1, 1):  # the handles
            at = (0.0, side * (RADIUS_M + 0.012), HEIGHT_M - 0.018)
            pot.add_geom(
                type=box,
                size=[0.026, 0.013, 0.005],
                pos=at,
                material=steel,
                contype=0,
                conaffinity=0,
                group=2,
                mass=0,
            )
            add_collision(pot, box, (0.026, 0.013, 0.005), at, mass_kg=0.05)

    def _add_lid(self, spec: mujoco.MjSpec, placement: Placement, steel: str) -> None:
        lid = add_body(spec, placement, free=True)
        wood = add_textured_material(spec, "pot_tip", _wood(), specular=0.25, shininess=0.4)
        tip = np.array(
            [
                [0.0, 1.0],
                [0.55, 0.985],
                [0.86, 0.90],
                [1.0, 0.72],
                [0.92, 0.45],
                [0.70, 0.22],
                [0.62, 0.0],
                [0.0, 0.0],
            ]
        ) * (TIP_RADIUS_M, TIP_HEIGHT_M)
        add_visual_mesh(spec, lid, "pot_tip", lathe(tip, 32), wood, (0, 0, TIP_FOOT_M))
        badge = add_textured_material(spec, "pot_badge", _badge(), specular=0.5, shininess=0.6)
        add_visual_mesh(
            spec, lid, "pot_badge", printed_disc(0.027, TIP_FOOT_M - 0.004, TIP_FOOT_M + 0.001), badge
        )
        dome = np.array(
            [
                [0.0, TIP_FOOT_M],
                [0.03, 0.0105],
                [0.055, 0.007],
                [LID_RADIUS_M, 0.003],
                [LID_RADIUS_M, 0.0],
                [0.0, 0.0],
            ]
        )
        add_visual_mesh(spec, lid, "pot_dome", lathe(dome, 48), "pot_glass")
        add_visual_mesh(spec, lid, "pot_lid_rim", ring(LID_RADIUS_M, 0.007, 0.0, 0.006), steel)
        cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
        half = LID_THICKNESS_M / 2
        add_collision(lid, cylinder, (LID_RADIUS_M, half), (0, 0, half), mass_kg=0.12)
        half = (TIP_FOOT_M + TIP_HEIGHT_M - LID_THICKNESS_M) / 2
        add_collision(
            lid, cylinder, (TIP_RADIUS_M, half), (0, 0, LID_THICKNESS_M + half), mass_kg=0.02, friction=1.0
        )

    def success(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """The lid is `LIFTED_M` above its seat, level and at rest."""
        lid = data.body(LID)
        level = float(lid.xmat[8]) > 0.95
        return float(lid.xpos[2]) > HEIGHT_M + LIFTED_M and level and float(np.abs(lid.cvel).max()) < 0.15

    def expert_goal(self, model: mujoco.MjModel, data: mujoco.MjData, opening_m: float) -> ExpertGoal:
        """Above the tip, down, close, up."""
        tcp = data.site(TCP_SITE).xpos
        lid = data.body(LID)
        yaw_rad = float(np.arctan2(lid.xmat[3], lid.xmat[0]))
        grasp: FloatArray = lid.xpos + (0.0, 0.0, GRASP_HEIGHT_M)
        aside_m = float(np.linalg.norm(tcp[:2] - grasp[:2]))
        around = aside_m < 0.012 and abs(float(tcp[2] - grasp[2])) < 0.012
        if around and opening_m < HELD_M:
            return ExpertGoal(np.array([*tcp[:2], HEIGHT_M + LIFT_TO_M + GRASP_HEIGHT_M]), yaw_rad, 0.0)
        if aside_m < 0.008 and tcp[2] < grasp[2] + 0.008:
            return ExpertGoal(grasp, yaw_rad, opening_m - 0.014)
        height_m = grasp[2] + float(np.clip(3.0 * (aside_m - 0.005), 0.0, APPROACH_HEIGHT_M))
        return ExpertGoal(np.array([*grasp[:2], height_m]), yaw_rad, WIDE_M)


# -------------------------------------------------------------------------------------------- appearance


def _steel() -> Texture:
    """Brushed in circles, with wear."""
    rng = np.random.default_rng(61)
    y, x = np.mgrid[0:512, 0:512].astype(np.float32) / 512 - 0.5
    rings = 0.5 + 0.5 * np.sin(260 * np.hypot(x, y) + 6 * value_noise(rng, 512, 5))
    amount = np.clip(0.45 * rings + 0.55 * value_noise(rng, 512, 24, 3), 0, 1).astype(np.float32)
    return to_texture(blend(amount, (104, 106, 110), (226, 228, 230)))


def _soup() -> Texture:
    """Tomato soup with herbs and peas."""
    rng = np.random.default_rng(67)
    picture = to_texture(blend(value_noise(rng, 768, 9), (168, 46, 22), (226, 92, 40)))
    for _ in range(150):
        centre = tuple(int(v) for v in rng.uniform(0, 768, 2))
        if rng.random() < 0.4:
            cv2.circle(picture, centre, int(rng.integers(9, 16)), (112, 168, 58), -1, cv2.LINE_AA)
            cv2.circle(picture, (centre[0] - 3, centre[1] - 3), 4, (176, 214, 120), -1, cv2.LINE_AA)
        else:
            axes = (int(rng.integers(6, 16)), int(rng.integers(3, 6)))
            cv2.ellipse(
                picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, (40, 84, 34), -1, cv2.LINE_AA
            )
    return picture


def _band() -> Texture:
    """The silicone foot."""
    rng = np.random.default_rng(71)
    return to_texture(blend(value_noise(rng, 256, 30), (38, 52, 84), (70, 92, 134)))


def _wood() -> Texture:
    """Turned beech with dark rings."""
    rng = np.random.default_rng(73)
    y, x = np.mgrid[0:512, 0:512].astype(np.float32) / 512 - 0.5
    grain = 0.5 + 0.5 * np.sin(90 * (x + 0.3 * y) + 9 * value_noise(rng, 512, 4))
    picture = to_texture(
        blend(
            (0.6 * grain + 0.4 * value_noise(rng, 512, 20)).astype(np.float32), (128, 74, 34), (222, 168, 104)
        )
    )
    for radius, width in ((62, 9), (150, 7), (205, 12)):
        cv2.circle(picture, (256, 256), radius, (58, 30, 14), width, cv2.LINE_AA)
    cv2.circle(picture, (256, 256), 26, (196, 196, 200), -1, cv2.LINE_AA)  # the screw
    cv2.line(picture, (240, 250), (272, 262), (50, 50, 54), 7, cv2.LINE_AA)
    return picture


def _badge() -> Texture:
    """The printed plate around the tip's foot: maker, size, a scale."""
    picture = np.full((640, 640, 3), (232, 232, 226), np.uint8)
    cv2.circle(picture, (320, 320), 312, (26, 60, 104), 16, cv2.LINE_AA)
    for k in range(48):
        angle = 2 * np.pi * k / 48
        direction = np.array([np.cos(angle), np.sin(angle)])
        start, end = 320 + direction * (240 if k % 4 else 222), 320 + direction * 286
        colour = (26, 60, 104) if k % 4 else (186, 40, 36)
        cv2.line(picture, tuple(int(v) for v in start), tuple(int(v) for v in end), colour, 8, cv2.LINE_AA)
    for text, at in (("GLAS", (214, 208)), ("24 cm", (204, 470)), ("3 L", (90, 344)), ("350", (478, 344))):
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_DUPLEX, 1.7, (20, 34, 60), 4, cv2.LINE_AA)
    rng = np.random.default_rng(79)
    worn = picture.astype(np.float32) * (0.88 + 0.24 * value_noise(rng, 640, 40, 3)[..., None])
    return np.asarray(np.clip(worn, 0, 255), np.uint8)

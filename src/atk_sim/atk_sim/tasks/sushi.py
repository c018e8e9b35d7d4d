"""Sushi pick-and-place: grasp the salmon nigiri among other pieces and put it on the plate."""

from dataclasses import dataclass

import mujoco
import numpy as np

from atk_sim import textures
from atk_sim.camera import CameraPlacement
from atk_sim.experts import Goal, funnel, nearest_half_turn, smoothstep
from atk_sim.scene import (
    Layout,
    Placement,
    add_body,
    add_collision,
    add_textured_material,
    add_visual_mesh,
)
from atk_sim.shapes import lathe, rounded_box
from atk_sim.world import World

PIECE, PLATE, TABLE = "sushi", "plate", "table"
PIECE_LENGTH_M, PIECE_WIDTH_M, PIECE_HEIGHT_M = 0.065, 0.035, 0.030
GRASPED_WIDTH_M = 0.033  # of the rice, which is what the fingers pinch
PLATE_RADIUS_M, PLATE_TOP_M = 0.080, 0.012
OPEN_M, SQUEEZE_M = 0.078, 0.018
GRASP_HEIGHT_M = 0.016  # of the fingertips' centre above the piece's base
CARRY_HEIGHT_M = 0.11  # clears the other pieces (30 mm) and the distractors (70 mm) with the piece in hand

# (radius, height) from the centre of the upper side over the rim to the centre below
PLATE_PROFILE_M = np.array(
    [
        (0.0, 0.0120), (0.030, 0.0120), (0.056, 0.0122), (0.066, 0.0135), (0.076, 0.0165), (0.0795, 0.0172),
        (0.0800, 0.0160), (0.072, 0.0105), (0.055, 0.0030), (0.048, 0.0), (0.0, 0.0),
    ]
)  # fmt: skip
ROLL_PROFILE_M = np.array(
    [(0.0, 0.030), (0.0150, 0.030), (0.0165, 0.0285), (0.0165, 0.0015), (0.015, 0.0), (0.0, 0.0)]
)
OTHER_PIECES = ("tuna_nigiri", "tamago_nigiri", "maki_roll")


@dataclass(frozen=True)
class Sushi:
    """The piece must lie still on the plate, let go of by the hand."""

    name: str = "sushi"
    max_duration_s: float = 12.0
    # In front of the robot and above: the hand comes from behind and over the pieces, and hides them least.
    camera: CameraPlacement = CameraPlacement(
        position_m=(1.02, 0.04, 0.44), target_m=(0.48, 0.04, 0.025), vertical_field_rad=np.radians(33.5)
    )

    def sample_layout(self, rng: np.random.Generator) -> Layout:
        """Piece within 8 cm and 45 degrees, plate within 4 cm of their nominal places; the others anywhere free."""
        piece = Placement(
            PIECE,
            (0.49 + rng.uniform(-0.08, 0.08), -0.08 + rng.uniform(-0.08, 0.08), 0.0005),
            rng.uniform(-np.pi / 4, np.pi / 4),
            radius_m=0.037,
            height_m=PIECE_HEIGHT_M,
        )
        layout = {PIECE: piece}
        while PLATE not in layout:
            position_m = (0.49 + rng.uniform(-0.04, 0.04), 0.155 + rng.uniform(-0.04, 0.04), 0.0005)
            plate = Placement(PLATE, position_m, rng.uniform(-0.35, 0.35), PLATE_RADIUS_M, height_m=0.018)
            if plate.clear_of(piece, 0.02):
                layout[PLATE] = plate
        for name in OTHER_PIECES:
            radius_m = 0.018 if name == "maki_roll" else 0.037
            while name not in layout:
                position_m = (rng.uniform(0.36, 0.64), rng.uniform(-0.20, 0.25), 0.0005)
                other = Placement(name, position_m, rng.uniform(-np.pi, np.pi), radius_m, PIECE_HEIGHT_M)
                # The open hand is 5 cm from the piece's axis to either side: 4 cm of air lets it come down anywhere.
                if all(
                    other.clear_of(placed, 0.04 if placed is piece else 0.012) for placed in layout.values()
                ):
                    layout[name] = other
        return layout

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """Four pieces and a plate, all free to move."""
        rice = add_textured_material(spec, "rice", textures.rice(), specular=0.05)
        salmon = add_textured_material(spec, "salmon", textures.salmon(), specular=0.25, shininess=0.5)
        _add_nigiri(spec, layout[PIECE], rice, salmon)
        _add_nigiri(
            spec, layout["tuna_nigiri"], rice, add_textured_material(spec, "tuna", textures.fish(red=True))
        )
        tamago = add_textured_material(spec, "tamago", textures.omelette())
        seaweed = add_textured_material(spec, "nori", textures.nori())
        _add_nigiri(spec, layout["tamago_nigiri"], rice, tamago, band=seaweed)
        _add_roll(spec, layout["maki_roll"], add_textured_material(spec, "maki", textures.maki()))
        plate = add_body(spec, layout[PLATE], free=True)
        china = add_textured_material(spec, "porcelain", textures.porcelain(), specular=0.2, shininess=0.6)
        add_visual_mesh(spec, plate, "plate", lathe(PLATE_PROFILE_M, segments=48), china)
        cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
        add_collision(
            plate, cylinder, (0.070, PLATE_TOP_M / 2), (0, 0, PLATE_TOP_M / 2), mass_kg=0.45, friction=1.0
        )

    def success(self, world: World) -> bool:
        """On the plate by contact, within its flat, at rest, not held, clear of the table."""
        offset_m = world.body_position_m(PIECE) - world.body_position_m(PLATE)
        return (
            float(np.hypot(*offset_m[:2])) < 0.055
            and world.touching(PIECE, PLATE)
            and not world.touching(PIECE, TABLE)
            and not world.touches_robot(PIECE)
            and world.body_speed(PIECE) < 0.02
        )

    def goal(self, world: World) -> Goal:
        """Over the piece and down, close until the fingers stop, over the plate and down, open, up."""
        tcp_m, opening_m = world.tcp_position_m, world.opening_m
        piece, plate_m = world.body_pose(PIECE), world.body_position_m(PLATE)
        piece_m = piece[:3, 3]
        above_plate_m = piece_m[2] - plate_m[2] - PLATE_TOP_M
        if float(np.hypot(*(piece_m - plate_m)[:2])) < 0.025 and above_plate_m < 0.004:
            return self._let_go(piece_m, tcp_m, opening_m)
        grasp_m = piece_m + np.array([0.0, 0.0, GRASP_HEIGHT_M])
        in_hand = float(np.hypot(*(piece_m - tcp_m)[:2])) < 0.022 and abs(tcp_m[2] - grasp_m[2]) < 0.012
        if in_hand and opening_m < GRASPED_WIDTH_M + 0.002:
            place_m = plate_m + (tcp_m - piece_m) + np.array([0.0, 0.0, PLATE_TOP_M + 0.002])
            return Goal(funnel(tcp_m, place_m, CARRY_HEIGHT_M), 0.0, SQUEEZE_M)
        yaw_rad = nearest_half_turn(float(np.arctan2(piece[1, 0], piece[0, 0])))
        across_rad = abs(nearest_half_turn(world.tcp_yaw_rad - yaw_rad))
        misfit_m = float(np.linalg.norm(tcp_m - grasp_m)) + 0.04 * across_rad
        # The further the fingers have closed, the more misfit is forgiven: a small push never opens them again.
        closed = 1.0 - (opening_m - GRASPED_WIDTH_M) / (OPEN_M - GRASPED_WIDTH_M)
        aligned = misfit_m < 0.009 + 0.015 * closed
        hover_m = funnel(tcp_m, grasp_m, CARRY_HEIGHT_M, extra_misfit_m=0.04 * across_rad)
        return Goal(grasp_m if aligned else hover_m, yaw_rad, SQUEEZE_M if aligned else OPEN_M)

    @staticmethod
    def _let_go(piece_m: np.ndarray, tcp_m: np.ndarray, opening_m: float) -> Goal:
        away_m = tcp_m.copy()
        away_m[2] = piece_m[2] + GRASP_HEIGHT_M + 0.14 * smoothstep((opening_m - 0.045) / 0.02)
        return Goal(away_m, 0.0, OPEN_M)


def _add_nigiri(
    spec: mujoco.MjSpec, placement: Placement, rice: str, topping: str, band: str | None = None
) -> None:
    body = add_body(spec, placement, free=True)
    bed = rounded_box(PIECE_LENGTH_M * 0.93, GRASPED_WIDTH_M, 0.021, squareness=4.0)
    add_visual_mesh(spec, body, "nigiri_rice", bed, rice)
    slice_ = rounded_box(PIECE_LENGTH_M, PIECE_WIDTH_M, 0.012, squareness=3.5, bend_m=0.004)
    add_visual_mesh(spec, body, "nigiri_topping", slice_, topping, (0.0, 0.0, 0.018))
    if band is not None:
        around = rounded_box(0.013, PIECE_WIDTH_M + 0.0015, 0.0312, squareness=8.0)
        add_visual_mesh(spec, body, "nigiri_band", around, band)
    half_m = (PIECE_LENGTH_M * 0.46, GRASPED_WIDTH_M / 2, 0.014)
    add_collision(body, mujoco.mjtGeom.mjGEOM_BOX, half_m, (0, 0, 0.014), mass_kg=0.03, friction=1.0)


def _add_roll(spec: mujoco.MjSpec, placement: Placement, material: str) -> None:
    body = add_body(spec, placement, free=True)
    add_visual_mesh(spec, body, "maki_roll", lathe(ROLL_PROFILE_M, segments=28), material)
    add_collision(
        body, mujoco.mjtGeom.mjGEOM_CYLINDER, (0.0165, 0.015), (0, 0, 0.015), mass_kg=0.02, friction=1.0
    )

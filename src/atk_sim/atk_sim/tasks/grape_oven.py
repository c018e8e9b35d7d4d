"""Grape-oven: put a bunch of grapes into the open oven, then close its door (paper, kitchen set).

Simplified, because of physics: the bunch is one rigid body (see `kitchen_objects.add_grapes`); the oven's mouth is slanted
and its door hinged at the top, so that a hand that points down can load it and push the door shut (see `kitchen_scene`).
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim.camera import CameraPlacement
from atk_sim.experts import ExpertGoal
from atk_sim.robots.panda import TCP_SITE
from atk_sim.scene import Layout, Placement, stream
from atk_sim.tasks.hand_moves import Grasp, bring, carries, fetch, hand_goal, let_go
from atk_sim.tasks.kitchen_objects import GRAPES_SIZE_M, add_grapes, at_rest, held
from atk_sim.tasks.kitchen_scene import (
    DOOR_LENGTH_M,
    DOOR_SLOPE_RAD,
    DOOR_THICKNESS_M,
    HINGE_M,
    KITCHEN_AREA_M,
    OVEN_DEPTH_M,
    OVEN_FLOOR_M,
    OVEN_HEIGHT_M,
    OVEN_WIDTH_M,
    add_kitchen,
    door_angle,
    footprints,
    kitchen_layout,
    to_world,
)

FloatArray = NDArray[np.float64]

DOOR_OPEN_RAD = (2.55, 2.70)  # a little beyond upright
DOOR_SHUT_RAD = np.deg2rad(4.0)

GRASP_HEIGHT_M = 0.017  # of the fingertips' centre above the bunch's underside
SHUT_M = GRAPES_SIZE_M[1] + 0.0015
PLACE_M = np.array(
    [-0.056, 0.0, OVEN_FLOOR_M + GRASP_HEIGHT_M + 0.003]
)  # in the oven's frame, below the mouth
HAND_YAW_RAD = np.pi / 2  # the hand's thin side along the oven's depth
TRAVEL_M = 0.11
CLEAR_M = 0.11  # the fingertips' height at which the bunch passes the lip of the oven

PUSH_AT_M = 0.145  # from the hinge, where the fingers push
FINGER_HALF_M = 0.012  # half a finger's thickness, with a millimetre of air
PUSH_LEAD_RAD = 0.22  # how far ahead of the door the fingers aim
PUSH_AFTER_RAD = 0.08  # the fingers press this far on when the door is shut
BEHIND_M = 0.05  # how far behind the door the hand comes down


class GrapeOven:
    """The bunch lies in front of the robot, the oven stands at its left with its door up."""

    name = "grape_oven"
    instruction = "put the bunch of grapes into the open oven, then close the oven's door"
    picked_uv_px = (
        (309, 311),
        (287, 317),
        (323, 323),
        (339, 297),
        (382, 254),
        (406, 296),
        (431, 344),
        (474, 96),
        (610, 131),
    )
    max_duration_s = 14.0
    clearance_m = 0.035
    distractor_area_m = KITCHEN_AREA_M
    # From the front, right and above: into the oven's mouth, along the fingers, past the arm.
    camera = CameraPlacement((1.10, -0.14, 0.76), (0.40, 0.085, 0.09), np.deg2rad(36.0))

    def layout(self, seed: int) -> Layout:
        """The bunch within 16 cm and 80 degrees, the door within 9 degrees; the furniture stands still."""
        rng = stream(seed, "layout")
        xy = rng.uniform((0.42, -0.09), (0.56, 0.06))
        yaw_rad = float(np.deg2rad(rng.uniform(30.0, 110.0)))
        bunch = Placement("grapes", (*xy, 0.0), yaw_rad, 0.045, GRAPES_SIZE_M[2])
        # The door's angle is part of the layout: a placement's yaw holds it.
        door = Placement(
            "oven_door_start",
            kitchen_layout()["oven"].position_m,
            float(rng.uniform(*DOOR_OPEN_RAD)),
            0.0,
            0.0,
        )
        return {piece.name: piece for piece in (bunch, door, *footprints())}

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """Kitchen and bunch."""
        add_kitchen(spec, layout["oven_door_start"].yaw_rad)
        add_grapes(spec, layout["grapes"])

    def success(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """The bunch rests in the oven, no finger touches it, and the door is shut."""
        return (
            in_oven(data, data.body("grapes").xpos)
            and door_angle(data) < DOOR_SHUT_RAD
            and at_rest(data, "grapes")
            and not held(model, data, "grapes")
        )

    def expert_goal(self, model: mujoco.MjModel, data: mujoco.MjData, opening_m: float) -> ExpertGoal:
        """Fetch the bunch, bring it into the mouth, let go; then up, behind the door, and push it shut."""
        tcp = np.array(data.site(TCP_SITE).xpos)
        bunch = data.body("grapes")
        position, yaw_rad = np.array(bunch.xpos), float(np.arctan2(bunch.xmat[3], bunch.xmat[0]))
        grasp = Grasp(position + (0.0, 0.0, GRASP_HEIGHT_M), yaw_rad, SHUT_M)
        if in_oven(data, position):
            if opening_m < 0.06 and np.linalg.norm(tcp - grasp.position_m) < 0.04:
                return let_go(tcp, HAND_YAW_RAD)
            return self._shut_door(data, tcp)
        if carries(tcp, opening_m, grasp):
            place = to_world(kitchen_layout()["oven"], PLACE_M)
            return bring(tcp, position[:2] - tcp[:2], place, HAND_YAW_RAD, TRAVEL_M, CLEAR_M)
        return fetch(tcp, opening_m, grasp, TRAVEL_M, 0.05)

    def _shut_door(self, data: mujoco.MjData, tcp: FloatArray) -> ExpertGoal:
        oven = kitchen_layout()["oven"]
        local = to_oven(tcp)
        here = local[[0, 2]]
        # Angle of the door above the horizontal, towards the front.
        angle = door_angle(data) - DOOR_SLOPE_RAD
        along, outwards = _directions(angle)
        offset = here - HINGE_M
        behind_m = float(offset @ outwards)
        if behind_m > DOOR_THICKNESS_M and float(offset @ along) < DOOR_LENGTH_M + 0.03:
            along, outwards = _directions(max(angle - PUSH_LEAD_RAD, -DOOR_SLOPE_RAD - PUSH_AFTER_RAD))
            goal = HINGE_M + PUSH_AT_M * along + (DOOR_THICKNESS_M + FINGER_HALF_M) * outwards
        else:
            above = HINGE_M + PUSH_AT_M * along + BEHIND_M * outwards
            top_m = OVEN_HEIGHT_M + DOOR_LENGTH_M + 0.035
            aside_m = float(here[0] - above[0])
            height_m = above[1] + float(np.clip(3.0 * (aside_m - 0.02), 0.0, top_m - above[1]))
            risen = float(np.clip((here[1] - top_m + 0.06) / 0.05, 0.0, 1.0))
            goal = np.array([here[0] + risen * (above[0] - here[0]), height_m])
        return hand_goal(to_world(oven, np.array([goal[0], 0.0, goal[1]])), HAND_YAW_RAD, 0.08)


def _directions(angle_rad: float) -> tuple[FloatArray, FloatArray]:
    """Unit vectors (2,) along the door from its hinge, and out of its outer face, in the oven's x and z."""
    along = np.array([np.cos(angle_rad), np.sin(angle_rad)])
    return along, np.array([-along[1], along[0]])


def to_oven(point_m: FloatArray) -> FloatArray:
    """(3,) a world point in the oven's frame [m]."""
    oven = kitchen_layout()["oven"]
    cosine, sine = np.cos(oven.yaw_rad), np.sin(oven.yaw_rad)
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    local: FloatArray = turn @ (point_m - np.array(oven.position_m))
    return local


def in_oven(data: mujoco.MjData, point_m: FloatArray) -> bool:
    """Whether a point lies in the oven's chamber, close above its tray."""
    x, y, z = to_oven(np.array(point_m))
    return bool(-OVEN_DEPTH_M < x < 0 and abs(y) < OVEN_WIDTH_M / 2 and 0 < z < OVEN_FLOOR_M + 0.012)

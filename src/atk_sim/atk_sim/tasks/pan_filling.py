"""Pan filling: take the frying pan to the burner, then put the sushi and the grapes into it (paper, kitchen set).

Simplified, because of physics: the bunch is one rigid body (see `kitchen_objects.add_grapes`), and the pan weighs 170 g, so
that two flat fingers hold its handle level by friction alone.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim.experts import ExpertGoal
from atk_sim.robots.panda import TCP_SITE
from atk_sim.scene import Layout, Placement, stream
from atk_sim.tasks.hand_moves import Grasp, bring, carries, fetch, hand_goal, let_go
from atk_sim.tasks.kitchen_objects import (
    GRAPES_SIZE_M,
    PAN_FLOOR_M,
    PAN_GRIP_M,
    PAN_HANDLE_M,
    PAN_HANDLE_WIDTH_M,
    PAN_RADIUS_M,
    SUSHI_SIZE_M,
    add_grapes,
    add_pan,
    add_sushi,
    at_rest,
    held,
)
from atk_sim.tasks.kitchen_scene import (
    BURNER_M,
    COUNTER_CAMERA,
    KITCHEN_AREA_M,
    STOVE_HEIGHT_M,
    add_kitchen,
    footprints,
    kitchen_layout,
    to_world,
)

FloatArray = NDArray[np.float64]

BURNER_TOLERANCE_M = 0.030
INSIDE_M = 0.070  # of the pan's middle, where a thing's middle is in the pan
GRASP_HEIGHT_M = 0.017  # of the fingertips' centre above the underside of sushi and bunch
PAN_YAW_RAD = np.deg2rad(70.0)  # of the handle, on the burner
FOOD_YAW_RAD = np.deg2rad(70.0)
# Where the two belong, from the pan's middle: side by side across the handle's direction.
FOOD_PLACES_M = {"sushi": 0.027, "grapes": -0.029}  # to the left of the handle's direction
FOOD_SIZES_M = {"sushi": SUSHI_SIZE_M, "grapes": GRAPES_SIZE_M}
FOOD_OPEN_M = 0.062  # the fingers must fit into the pan beside what they hold
PAN_TRAVEL_M, FOOD_TRAVEL_M = 0.065, 0.11
PAN_CLEAR_M, FOOD_CLEAR_M = 0.08, 0.10


class PanFilling:
    """The pan stands before the robot, sushi and grapes in front of it, the stove on the right."""

    name = "pan_filling"
    instruction = "put the frying pan onto the burner, then the sushi and the grapes into the pan"
    picked_uv_px = (
        (524, 260),
        (454, 222),
        (386, 202),
        (333, 202),
        (161, 229),
        (98, 166),
        (237, 170),
        (454, 330),
        (496, 328),
        (313, 350),
        (287, 343),
        (357, 343),
    )
    max_duration_s = 24.0
    clearance_m = 0.035
    distractor_area_m = KITCHEN_AREA_M
    camera = COUNTER_CAMERA

    def layout(self, seed: int) -> Layout:
        """Pan within 6 cm and 30 degrees, sushi and bunch within 10 cm and 60 degrees."""
        rng = stream(seed, "layout")
        kitchen = footprints()
        while True:
            pan_xy = rng.uniform((0.39, -0.052), (0.45, -0.006))
            pan_yaw_rad = float(np.deg2rad(rng.uniform(55.0, 85.0)))
            handle = np.array([np.cos(pan_yaw_rad), np.sin(pan_yaw_rad)])
            pan = Placement("pan", (*pan_xy, 0.0), pan_yaw_rad, PAN_RADIUS_M, 0.04)
            # The handle's room: cylinders along it, named so that no body is taken for them.
            handle_room = [
                Placement(f"pan_handle_{k}", (*(pan_xy + reach * handle), 0.0), 0.0, 0.022, 0.04)
                for k, reach in enumerate(np.linspace(PAN_HANDLE_M[0] + 0.02, PAN_HANDLE_M[1] - 0.01, 3))
            ]
            sushi = self._food("sushi", rng, (0.57, 0.0), (0.64, 0.085), 0.042)
            grapes = self._food("grapes", rng, (0.57, -0.15), (0.64, -0.05), 0.045)
            pieces = [pan, *handle_room]
            foods = (sushi, grapes)
            apart = sushi.clear_of(grapes, 0.03) and all(f.clear_of(p, 0.03) for f in foods for p in pieces)
            if apart and all(food.clear_of(p, 0.0) for food in foods for p in kitchen):
                return {piece.name: piece for piece in (*pieces, sushi, grapes, *kitchen)}

    def _food(
        self,
        name: str,
        rng: np.random.Generator,
        low: tuple[float, float],
        high: tuple[float, float],
        radius_m: float,
    ) -> Placement:
        yaw_rad = float(np.deg2rad(rng.uniform(40.0, 100.0)))
        return Placement(name, (*rng.uniform(low, high), 0.0), yaw_rad, radius_m, 0.04)

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """Kitchen with the oven shut, pan, sushi, grapes."""
        add_kitchen(spec, door_angle_rad=0.0)
        add_pan(spec, layout["pan"])
        add_sushi(spec, layout["sushi"])
        add_grapes(spec, layout["grapes"])

    def success(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """The pan stands on the burner with sushi and grapes in it, all at rest and untouched by the fingers."""
        things = ("pan", "sushi", "grapes")
        return (
            on_burner(data, BURNER_TOLERANCE_M)
            and all(in_pan(data, name) for name in FOOD_PLACES_M)
            and all(at_rest(data, name) for name in things)
            and not any(held(model, data, name) for name in things)
        )

    def expert_goal(self, model: mujoco.MjModel, data: mujoco.MjData, opening_m: float) -> ExpertGoal:
        """The pan to the burner, the sushi into the pan, the grapes into the pan; the state says which is next."""
        tcp = np.array(data.site(TCP_SITE).xpos)
        pan = data.body("pan")
        pan_turn, pan_yaw_rad = pan.xmat.reshape(3, 3), _yaw(pan)
        grip = Grasp(pan.xpos + pan_turn @ PAN_GRIP_M, pan_yaw_rad, PAN_HANDLE_WIDTH_M + 0.002, open_m=0.06)
        burner = burner_position()
        if carries(tcp, opening_m, grip):
            target = burner + _turn(PAN_YAW_RAD) @ PAN_GRIP_M
            # By the pan itself, not by where the fingers took it.
            offset = pan.xpos + _turn(pan_yaw_rad) @ PAN_GRIP_M - tcp
            return bring(tcp, offset[:2], target, PAN_YAW_RAD, PAN_TRAVEL_M, PAN_CLEAR_M, open_m=0.06)
        if not on_burner(data, 0.022):
            return fetch(tcp, opening_m, grip, FOOD_TRAVEL_M, FOOD_CLEAR_M)
        for name, aside_m in FOOD_PLACES_M.items():
            food = data.body(name)
            grasp = Grasp(
                food.xpos + (0.0, 0.0, GRASP_HEIGHT_M),
                _yaw(food),
                FOOD_SIZES_M[name][1] + 0.0015,
                open_m=FOOD_OPEN_M if in_pan(data, name) else 0.075,
            )
            if carries(tcp, opening_m, grasp):
                height = (0.0, 0.0, PAN_FLOOR_M + GRASP_HEIGHT_M + 0.006)
                place = pan.xpos + pan_turn @ np.array([0.0, aside_m, 0.0]) + height
                offset = food.xpos[:2] - tcp[:2]
                return bring(
                    tcp, offset, place, FOOD_YAW_RAD, FOOD_TRAVEL_M, FOOD_CLEAR_M, open_m=FOOD_OPEN_M
                )
            if in_pan(data, name):
                if opening_m < FOOD_OPEN_M - 0.008 and np.linalg.norm(tcp - grasp.position_m) < 0.04:
                    return let_go(tcp, FOOD_YAW_RAD, FOOD_OPEN_M)
                continue
            return fetch(tcp, opening_m, grasp, FOOD_TRAVEL_M, FOOD_CLEAR_M)
        return hand_goal(np.array([*tcp[:2], 0.25]), FOOD_YAW_RAD, FOOD_OPEN_M)


def burner_position() -> FloatArray:
    """(3,) middle of the large burner [m]."""
    return to_world(kitchen_layout()["stove"], np.array([*BURNER_M, STOVE_HEIGHT_M]))


def on_burner(data: mujoco.MjData, tolerance_m: float) -> bool:
    """Whether the pan stands level on the large burner."""
    pan, burner = data.body("pan"), burner_position()
    apart_m = float(np.linalg.norm(pan.xpos[:2] - burner[:2]))
    level = float(pan.xmat[8]) > 0.995
    return apart_m < tolerance_m and level and abs(float(pan.xpos[2] - burner[2])) < 0.005


def in_pan(data: mujoco.MjData, name: str) -> bool:
    """Whether the middle of that body lies in the pan, close above its floor."""
    pan = data.body("pan")
    local = pan.xmat.reshape(3, 3).T @ (data.body(name).xpos - pan.xpos)
    return float(np.hypot(local[0], local[1])) < INSIDE_M and -0.005 < float(local[2]) < 0.028


def _yaw(body: mujoco.MjData) -> float:
    return float(np.arctan2(body.xmat[3], body.xmat[0]))


def _turn(yaw_rad: float) -> FloatArray:
    cosine, sine = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])

"""Towel folding: grasp the towel by the hem and lay it onto the opposite edge (paper, kitchen set).

What physics forced: a fold that fingertips pinch into a flat cloth is a centimetre wide, and no mesh that runs in real
time resolves it. So the hem is stiff: a rigid rod, 14 mm thick, sewn to the edge but for its corners, which the fingers
hold by friction alone. And fingers meet the rod, not the cloth: a finger that overshoots and presses on the cloth gets
caught beneath a triangle, and takes the towel with it when it leaves. Everything else is cloth: it bends, drags, meets
itself and the table.

The fold goes from the robot towards the camera. Across, the hand's long side would meet the oven; and of a towel that
is folded away from it, the camera would see little but the half that stands up.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim import textures_cloth
from atk_sim.cloth import CLOTH_BIT, Grid, add_cloth, use_cloth_physics, vertices_m
from atk_sim.contacts import fingers_touch
from atk_sim.experts import ExpertGoal
from atk_sim.robots.panda import SCENE_CONTACT, TCP_SITE
from atk_sim.scene import Layout, Placement, add_body, add_textured_material, stream
from atk_sim.tasks.hand_moves import hand_goal
from atk_sim.tasks.kitchen_scene import BESIDE_TOWEL_M, COUNTER_CAMERA, add_kitchen, footprints

FloatArray = NDArray[np.float64]

TOWEL = Grid(width_m=0.18, length_m=0.21, columns=8, rows=9)
HEM_RADIUS_M = 0.007
HEM_HALF_M = 0.065  # of the rod's straight part

GRASP_HEIGHT_M = 0.006  # of the fingertips' centre above the rod's
TRAVEL_HEIGHT_M = 0.10
SHUT_M = 2 * HEM_RADIUS_M + 0.0025  # an opening below this means that the rod is between the fingers
AHEAD_M = 0.03  # the goal runs this far ahead on the arc: some 0.2 m/s
SHORT_M = 0.012  # the rod is put down this much short of the far edge, on the cloth


class TowelFolding:
    """A towel lies between stove and oven; its hem, near the robot, goes onto the edge near the camera."""

    name = "towel_folding"
    instruction = "take the towel by its hem and fold it onto the opposite edge"
    picked_uv_px = ((373, 175), (427, 171), (479, 168), (359, 181), (375, 305), (456, 301), (530, 299))
    max_duration_s = 9.0
    clearance_m = 0.06
    distractor_area_m = BESIDE_TOWEL_M
    camera = COUNTER_CAMERA

    def layout(self, seed: int) -> Layout:
        """The towel within 14 cm and 50 degrees, between stove and oven; the kitchen stands still."""
        rng = stream(seed, "layout")
        xy = rng.uniform((0.40, -0.015), (0.54, 0.055))
        # By a quarter, clockwise: the hem is the edge near the robot.
        yaw_rad = float(np.deg2rad(-90.0 + rng.uniform(-25.0, 25.0)))
        radius_m = float(np.hypot(TOWEL.width_m, TOWEL.length_m)) / 2
        towel = Placement("towel", (*xy, 0.0), yaw_rad, radius_m, 0.01)
        return {piece.name: piece for piece in (towel, *footprints())}

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """Kitchen with the oven shut, the cloth and the rod in its hem."""
        use_cloth_physics(spec)
        add_kitchen(spec, door_angle_rad=0.0)
        place = layout["towel"]
        edge = -TOWEL.length_m / 2
        towards_edge = np.array([-np.sin(place.yaw_rad), np.cos(place.yaw_rad)])
        hem_xy = place.xy_m + edge * towards_edge
        hem = add_body(
            spec,
            Placement("hem", (*hem_xy, HEM_RADIUS_M + 0.0003), place.yaw_rad, 0.0, 0.0),
            free=True,
        )
        material = add_textured_material(spec, "towel", textures_cloth.towel(), specular=0.02, shininess=0.05)
        tab = add_textured_material(spec, "hem", textures_cloth.tape(), specular=0.05, shininess=0.1)
        hem.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            size=[HEM_RADIUS_M, HEM_HALF_M, 0],
            quat=[np.sqrt(0.5), 0, np.sqrt(0.5), 0],
            mass=0.01,
            friction=[0.8, 0.01, 0.003],
            condim=6,  # a roll of cloth does not roll away
            material=tab,
            solref=[0.004, 1],
            **{**SCENE_CONTACT, "contype": SCENE_CONTACT["contype"] | CLOTH_BIT},
        )
        add_cloth(
            spec,
            place,
            TOWEL,
            material,
            hem,
            lambda point: point + (0.0, TOWEL.length_m / 2, 0.002 - HEM_RADIUS_M),
            HEM_HALF_M + HEM_RADIUS_M,
            meets_robot=False,
        )

    def success(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """Hem and corners lie on the opposite edge, flat, still, and no finger touches the hem."""
        points = vertices_m(data, model, "towel", TOWEL)
        apart_m = np.linalg.norm(points[0] - points[-1], axis=1)
        slow = float(np.abs(data.body("hem").cvel[3:]).max()) < 0.05
        return bool(
            apart_m.max() < 0.05
            and points[..., 2].max() < 0.045
            and slow
            and not fingers_touch(model, data, "hem")
        )

    def expert_goal(self, model: mujoco.MjModel, data: mujoco.MjData, opening_m: float) -> ExpertGoal:
        """Above the rod, down, close; over on an arc, down, open; up. The state says which."""
        tcp = data.site(TCP_SITE).xpos
        rod = data.body("hem")
        points = vertices_m(data, model, "towel", TOWEL)
        far = points[-1].mean(axis=0)
        along = (points[-1, -1] - points[-1, 0])[:2]
        along /= np.linalg.norm(along)
        across = np.array([-along[1], along[0]])  # from the hem to the far edge
        place = np.array([*(far[:2] - SHORT_M * across), HEM_RADIUS_M + 0.004 + GRASP_HEIGHT_M])
        to_go_m = float((place[:2] - rod.xpos[:2]) @ across)
        # The rod looks the same after half a turn; the arm's last joint has more room on this side.
        yaw_rad = float(np.arctan2(-along[1], -along[0]))
        carried = opening_m < SHUT_M and float(np.linalg.norm(tcp - rod.xpos)) < 0.03

        if not carried and to_go_m < 0.03:
            return self._leave(tcp, rod.xpos, opening_m)
        if not carried:
            rod_yaw = float(np.arctan2(-rod.xmat[3], -rod.xmat[0]))
            grasp = rod.xpos + (0.0, 0.0, GRASP_HEIGHT_M)
            aside_m = float(np.linalg.norm(tcp[:2] - grasp[:2]))
            if aside_m < 0.012 and tcp[2] < grasp[2] + 0.004:
                return hand_goal(grasp, rod_yaw, opening_m - 0.016)
            # A cone over the rod: the further aside, the higher; the last centimetres slowly, above the cloth.
            height_m = grasp[2] + float(np.clip(2.5 * (aside_m - 0.006), 0.0, TRAVEL_HEIGHT_M))
            height_m = max(height_m, 0.5 * (tcp[2] + grasp[2]) - 0.015)
            return hand_goal(np.array([*grasp[:2], height_m]), rod_yaw, 0.06)

        span_m = TOWEL.length_m - SHORT_M
        hand_to_go_m = float((place[:2] - tcp[:2]) @ across)
        if hand_to_go_m < 0.008 and tcp[2] < place[2] + 0.006:
            return hand_goal(place, yaw_rad, 0.05)
        gone = np.clip(1.0 - (hand_to_go_m - AHEAD_M) / span_m, 0.0, 1.0)  # of the goal, 0 to 1
        height_m = place[2] + 0.85 * span_m / 2 * float(np.sin(np.pi * gone**0.8))
        xy = place[:2] - (1.0 - gone) * span_m * across
        return hand_goal(np.array([*xy, height_m]), yaw_rad, 0.0)

    def _leave(self, tcp: FloatArray, rod: FloatArray, opening_m: float) -> ExpertGoal:
        if opening_m < 0.04 and np.linalg.norm(tcp[:2] - rod[:2]) < 0.03 and tcp[2] < 0.06:
            return ExpertGoal(tcp.copy(), None, 0.05)
        if tcp[2] < 0.12:
            return ExpertGoal(np.array([*tcp[:2], 0.18]), None, 0.06)
        return ExpertGoal(np.array([0.42, 0.0, 0.26]), None, 0.06)

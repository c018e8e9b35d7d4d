"""Towel hanging: take the towel by its loop and hang it on the kitchen's hook (paper, kitchen set).

What physics forced: a cord that bends is too fine for a mesh that runs in real time. So the loop is a frame of thin
rigid cords, sewn to the middle of the towel's edge, that swings freely on a wooden toggle; the fingers hold the toggle
by friction, and the toggle rests on the hook. Everything else is cloth.

What reach forced: the hook is on the wall at the robot's right, not on the rail behind it, and turned towards the room
(see `kitchen_scene`). A finger comes down before the toggle, where the stove would be in its way, so the towel lies
nearer to the oven and measures 15 cm. The camera looks higher than those of the other kitchen tasks: they do not see
the hook.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim import textures_cloth
from atk_sim.camera import CameraPlacement
from atk_sim.cloth import CLOTH_BIT, Grid, add_cloth, use_cloth_physics, vertices_m
from atk_sim.contacts import fingers_touch
from atk_sim.experts import ExpertGoal
from atk_sim.robots.panda import SCENE_CONTACT, TCP_SITE
from atk_sim.scene import Layout, Placement, add_body, add_textured_material, stream
from atk_sim.tasks.kitchen_scene import (
    BESIDE_TOWEL_M,
    HOOK,
    HOOK_HEIGHT_M,
    HOOK_KNOB_RADIUS_M,
    HOOK_LENGTH_M,
    HOOK_RADIUS_M,
    add_kitchen,
    footprints,
)

FloatArray = NDArray[np.float64]

TOWEL = Grid(width_m=0.15, length_m=0.15, columns=7, rows=7)
TOGGLE_RADIUS_M, TOGGLE_HALF_M = 0.006, 0.026
CORD_RADIUS_M = 0.0025
LOOP_HALF_M = 0.024  # from the middle to the cords at the sides
LOOP_LENGTH_M = 0.046  # from the toggle's axis to the sewn cord

GRASP_HEIGHT_M = 0.007  # of the fingertips' centre above the toggle's
OPEN_M = 0.044  # one finger has to fit into the loop
SHUT_M = 2 * TOGGLE_RADIUS_M + 0.0025
TRAVEL_HEIGHT_M = 0.10
INSERT_M = 0.022  # of the toggle's axis above the hook's while the loop goes over it
REST_M = HOOK_RADIUS_M + TOGGLE_RADIUS_M
BEFORE_M = 0.055  # the toggle waits this far before the knob until it is in line


class TowelHanging:
    """The towel lies between stove and oven, its loop towards the stove; the hook is above and behind the stove."""

    name = "towel_hanging"
    instruction = "take the towel by its loop and hang it on the hook"
    picked_uv_px = (
        (380, 315),
        (378, 329),
        (376, 342),
        (411, 323),
        (409, 345),
        (420, 304),
        (412, 371),
        (215, 61),
    )
    max_duration_s = 12.0
    clearance_m = 0.07
    distractor_area_m = BESIDE_TOWEL_M
    camera = CameraPlacement((1.14, 0.06, 0.74), (0.40, -0.135, 0.115), np.deg2rad(38.0))

    def layout(self, seed: int) -> Layout:
        """The towel within 15 cm and 30 degrees; the kitchen stands still."""
        rng = stream(seed, "layout")
        xy = rng.uniform((0.39, 0.020), (0.54, 0.088))
        yaw_rad = float(np.deg2rad(rng.uniform(-15.0, 15.0)))
        radius_m = float(np.hypot(TOWEL.width_m, TOWEL.length_m)) / 2 + 0.02
        towel = Placement("towel", (*xy, 0.0), yaw_rad, radius_m, 0.01)
        return {piece.name: piece for piece in (towel, *footprints())}

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """Kitchen with the oven shut, the towel and its loop."""
        use_cloth_physics(spec)
        add_kitchen(spec, door_angle_rad=0.0)
        place = layout["towel"]
        turn = np.array([-np.sin(place.yaw_rad), np.cos(place.yaw_rad)])
        xy = place.xy_m - (TOWEL.length_m / 2 + LOOP_LENGTH_M) * turn
        toggle = add_body(
            spec,
            Placement("toggle", (*xy, TOGGLE_RADIUS_M + 0.0003), place.yaw_rad, 0.0, 0.0),
            free=True,
        )
        contact = {**SCENE_CONTACT, "contype": SCENE_CONTACT["contype"] | CLOTH_BIT}
        wood = add_textured_material(spec, "toggle", textures_cloth.tape(), specular=0.2, shininess=0.4)
        capsule, quarter = mujoco.mjtGeom.mjGEOM_CAPSULE, np.sqrt(0.5)
        toggle.add_geom(
            type=capsule,
            size=[TOGGLE_RADIUS_M, TOGGLE_HALF_M, 0],
            quat=[quarter, 0, quarter, 0],
            mass=0.008,
            friction=[0.8, 0.01, 0.003],
            condim=6,
            material=wood,
            solref=[0.01, 1],
            **contact,
        )
        loop = toggle.add_body(name="loop")
        loop.add_joint(
            name="loop", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[1, 0, 0], damping=2e-4, armature=1e-6
        )
        cord = add_textured_material(spec, "cord", textures_cloth.tape(), specular=0.05, shininess=0.1)
        low = -(TOGGLE_RADIUS_M - CORD_RADIUS_M)  # the cords lie on the table too
        ends = [
            ((-LOOP_HALF_M, 0, 0), (-LOOP_HALF_M, LOOP_LENGTH_M, low)),
            ((LOOP_HALF_M, 0, 0), (LOOP_HALF_M, LOOP_LENGTH_M, low)),
            ((-LOOP_HALF_M, LOOP_LENGTH_M, low), (LOOP_HALF_M, LOOP_LENGTH_M, low)),
        ]
        for start, end in ends:
            loop.add_geom(
                type=capsule,
                fromto=[*start, *end],
                size=[CORD_RADIUS_M, 0, 0],
                mass=0.002,
                friction=[0.6, 0.01, 0.001],
                material=cord,
                solref=[0.01, 1],
                **contact,
            )
        material = add_textured_material(spec, "towel", textures_cloth.towel(), specular=0.02, shininess=0.05)
        add_cloth(
            spec,
            place,
            TOWEL,
            material,
            loop,
            lambda point: point + (0.0, TOWEL.length_m / 2 + LOOP_LENGTH_M, low),
            LOOP_HALF_M + 0.006,
            meets_robot=True,
        )

    def success(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """The loop is around the hook, the towel off the table and still, and no finger touches the toggle."""
        toggle, loop, hook = data.body("toggle"), data.body("loop"), data.body(HOOK)
        turn = hook.xmat.reshape(3, 3).T
        above = turn @ (toggle.xpos - hook.xpos)  # in the hook's frame, which runs along x
        sewn = turn @ (loop.xpos + loop.xmat.reshape(3, 3) @ (0.0, LOOP_LENGTH_M, 0.0) - hook.xpos)
        on_hook = above[2] > 0.0 > sewn[2] and abs(above[1]) < LOOP_HALF_M and 0.0 < above[0] < HOOK_LENGTH_M
        points = vertices_m(data, model, "towel", TOWEL)
        slow = float(np.abs(toggle.cvel[3:]).max()) < 0.05
        return bool(
            on_hook and points[..., 2].min() > 0.015 and slow and not fingers_touch(model, data, "toggle")
        )

    def expert_goal(self, model: mujoco.MjModel, data: mujoco.MjData, opening_m: float) -> ExpertGoal:
        """Above the toggle, down, close; up, in line with the hook, over it, down, open; up. The state says which."""
        tcp = data.site(TCP_SITE).xpos
        toggle, hook = data.body("toggle"), data.body(HOOK)
        towards_wall = -hook.xmat.reshape(3, 3)[:, 0]
        rest = hook.xpos - 0.5 * HOOK_LENGTH_M * towards_wall
        carried = opening_m < SHUT_M and float(np.linalg.norm(tcp - toggle.xpos)) < 0.03
        hang_yaw = float(np.arctan2(hook.xmat[3], hook.xmat[0])) - np.pi / 2  # the toggle across the hook

        off = toggle.xpos - rest
        along_m = float(off @ towards_wall)  # 0 at the middle of the hook, negative before it
        hung = abs(along_m) < HOOK_LENGTH_M / 2 and 0.0 < off[2] < INSERT_M + 0.01
        if hung and not carried:
            return self._leave(tcp, toggle.xpos, opening_m, hang_yaw)
        if not carried:
            yaw_rad = float(np.arctan2(toggle.xmat[3], toggle.xmat[0]))
            grasp = toggle.xpos + (0.0, 0.0, GRASP_HEIGHT_M)
            aside_m = float(np.linalg.norm(tcp[:2] - grasp[:2]))
            if aside_m < 0.010 and tcp[2] < grasp[2] + 0.006:
                return ExpertGoal(grasp, yaw_rad, opening_m - 0.016)
            # A cone over the toggle: the further aside, the higher; the last centimetres slowly.
            height_m = grasp[2] + float(np.clip(2.5 * (aside_m - 0.006), 0.0, TRAVEL_HEIGHT_M))
            height_m = max(height_m, 0.5 * (tcp[2] + grasp[2]) - 0.015)
            return ExpertGoal(np.array([*grasp[:2], height_m]), yaw_rad, OPEN_M)

        # Where the toggle should be; the hand is as far above it as it is now.
        in_hand = tcp - toggle.xpos
        aside = off - along_m * towards_wall
        aside_m = float(np.linalg.norm(aside - (0.0, 0.0, INSERT_M)))
        over_m = float(np.hypot(aside[0], aside[1]))
        if abs(along_m) < 0.010 and over_m < 0.010:
            lowered = rest + (0.0, 0.0, REST_M + 0.003)
            return ExpertGoal(lowered + in_hand, hang_yaw, OPEN_M if off[2] < REST_M + 0.007 else 0.0)
        waiting_m = -0.5 * HOOK_LENGTH_M - HOOK_KNOB_RADIUS_M - BEFORE_M
        # On along the hook only as far as the toggle is in line with it.
        ready = float(np.clip(1.4 - aside_m / 0.015, 0.0, 1.0))
        ahead_m = 0.03 * ready if along_m > waiting_m - 0.02 else 0.0
        goal_m = float(np.clip(along_m + ahead_m, waiting_m, 0.0))
        wanted = rest + goal_m * towards_wall + (0.0, 0.0, INSERT_M)
        # Sideways only as far as the towel is off the table.
        lifted = float(np.clip((toggle.xpos[2] - 0.04) / 0.14, 0.0, 1.0))
        wanted[:2] = toggle.xpos[:2] + lifted * (wanted[:2] - toggle.xpos[:2])
        return ExpertGoal(wanted + in_hand, hang_yaw, 0.0)

    def _leave(self, tcp: FloatArray, toggle: FloatArray, opening_m: float, yaw_rad: float) -> ExpertGoal:
        near = float(np.linalg.norm(tcp - toggle)) < 0.03
        if near and opening_m < OPEN_M - 0.008:
            return ExpertGoal(tcp.copy(), yaw_rad, OPEN_M)
        if tcp[2] < HOOK_HEIGHT_M + 0.08:
            return ExpertGoal(np.array([*tcp[:2], HOOK_HEIGHT_M + 0.12]), yaw_rad, OPEN_M)
        return ExpertGoal(np.array([0.42, 0.05, HOOK_HEIGHT_M + 0.12]), 0.0, OPEN_M)

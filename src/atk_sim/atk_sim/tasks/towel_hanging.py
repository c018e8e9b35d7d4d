"""Towel hanging: take the towel by its loop and hang it on the peg of a stand (paper, real-robot set).

What physics forced: a cord that bends is too fine for a mesh that runs in real time. So the loop is a frame of thin
rigid cords, sewn to the middle of the towel's edge, that swings freely on a wooden toggle; the fingers hold the toggle
by friction, and the toggle rests on the peg. Everything else is cloth.
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
from atk_sim.scene import Layout, Placement, add_body, add_textured_material, add_visual_mesh, stream
from atk_sim.shapes import lathe

FloatArray = NDArray[np.float64]

TOWEL = Grid(width_m=0.16, length_m=0.19, columns=7, rows=8)
TOGGLE_RADIUS_M, TOGGLE_HALF_M = 0.006, 0.026
CORD_RADIUS_M = 0.0025
LOOP_HALF_M = 0.024  # from the middle to the cords at the sides
LOOP_LENGTH_M = 0.046  # from the toggle's axis to the sewn cord

PEG_HEIGHT_M = 0.30
PEG_LENGTH_M = 0.09
PEG_RADIUS_M = 0.005
KNOB_RADIUS_M = 0.008
POST_PROFILE_M = np.array(
    [
        [0.0, PEG_HEIGHT_M + 0.010],
        [0.007, PEG_HEIGHT_M + 0.009],
        [0.009, PEG_HEIGHT_M],
        [0.009, 0.16],
        [0.009, 0.014],
        [0.054, 0.012],
        [0.060, 0.006],
        [0.060, 0.0],
        [0.0, 0.0],
    ]
)

GRASP_HEIGHT_M = 0.007  # of the fingertips' centre above the toggle's
OPEN_M = 0.044  # one finger has to fit into the loop
SHUT_M = 2 * TOGGLE_RADIUS_M + 0.0025
TRAVEL_HEIGHT_M = 0.10
INSERT_M = 0.022  # of the toggle's axis above the peg's while the loop goes over it
REST_M = PEG_RADIUS_M + TOGGLE_RADIUS_M
BEFORE_M = 0.055  # the toggle waits this far before the knob until it is in line


class TowelHanging:
    """The towel lies at the camera's left, its loop towards the stand at the right."""

    name = "towel_hanging"
    instruction = "take the towel by its loop and hang it on the peg of the stand"
    picked_uv_px = (
        (319, 330),
        (317, 358),
        (290, 330),
        (287, 305),
        (266, 381),
        (445, 117),
        (479, 112),
        (512, 103),
    )
    max_duration_s = 12.0
    clearance_m = 0.07
    camera = CameraPlacement((1.18, 0.0, 0.62), (0.45, 0.05, 0.14), np.deg2rad(36.0))

    def layout(self, seed: int) -> Layout:
        """The towel within 8 cm and 40 degrees, the stand within 6 cm and 24 degrees."""
        rng = stream(seed, "layout")
        towel_xy = rng.uniform((0.43, -0.16), (0.51, -0.09))
        stand_xy = rng.uniform((0.40, 0.23), (0.46, 0.27))
        # The stand is turned so that the camera sees the loop and, in the end, the towel's face.
        turn_rad = np.deg2rad((180, 30) + rng.uniform(-1.0, 1.0, 2) * (20, 12))
        radius_m = float(np.hypot(TOWEL.width_m, TOWEL.length_m)) / 2 + 0.02
        return {
            # Turned by half: the loop points to the stand.
            "towel": Placement("towel", (*towel_xy, 0.0), float(turn_rad[0]), radius_m, 0.01),
            "stand": Placement("stand", (*stand_xy, 0.0), float(turn_rad[1]), 0.09, PEG_HEIGHT_M),
        }

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """A stand that stays where it is, the towel and its loop."""
        use_cloth_physics(spec)
        self._add_stand(spec, layout["stand"])
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

    def _add_stand(self, spec: mujoco.MjSpec, placement: Placement) -> None:
        stand = add_body(spec, placement, free=False)
        wood = add_textured_material(spec, "stand", textures_cloth.turned_wood(), specular=0.2, shininess=0.4)
        add_visual_mesh(spec, stand, "stand", lathe(POST_PROFILE_M, segments=32), wood)
        cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
        for radius_m, low_m, high_m in ((0.060, 0.0, 0.013), (0.009, 0.013, PEG_HEIGHT_M + 0.008)):
            stand.add_geom(
                type=cylinder,
                size=[radius_m, (high_m - low_m) / 2, 0],
                pos=[0, 0, (low_m + high_m) / 2],
                group=3,
                **SCENE_CONTACT,
            )
        peg = add_textured_material(spec, "peg", textures_cloth.tape(), specular=0.2, shininess=0.4)
        contact = {**SCENE_CONTACT, "contype": SCENE_CONTACT["contype"] | CLOTH_BIT}
        stand.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[0, 0, PEG_HEIGHT_M, 0, -PEG_LENGTH_M, PEG_HEIGHT_M],
            size=[PEG_RADIUS_M, 0, 0],
            friction=[0.6, 0.01, 0.001],
            material=peg,
            solref=[0.01, 1],
            **contact,
        )
        stand.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[KNOB_RADIUS_M, 0, 0],
            pos=[0, -PEG_LENGTH_M, PEG_HEIGHT_M],
            material=peg,
            solref=[0.01, 1],
            **contact,
        )

    def success(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """The loop is around the peg, the towel off the table and still, and no finger touches the toggle."""
        toggle, loop, stand = data.body("toggle"), data.body("loop"), data.body("stand")
        turn = stand.xmat.reshape(3, 3).T
        above = turn @ (toggle.xpos - stand.xpos)  # in the stand's frame; the peg runs along -y
        sewn = turn @ (loop.xpos + loop.xmat.reshape(3, 3) @ (0.0, LOOP_LENGTH_M, 0.0) - stand.xpos)
        on_peg = (
            above[2] > PEG_HEIGHT_M > sewn[2]
            and abs(above[0]) < LOOP_HALF_M
            and -PEG_LENGTH_M < above[1] < 0.0
        )
        points = vertices_m(data, model, "towel", TOWEL)
        slow = float(np.abs(toggle.cvel[3:]).max()) < 0.05
        return bool(
            on_peg and points[..., 2].min() > 0.015 and slow and not fingers_touch(model, data, "toggle")
        )

    def expert_goal(self, model: mujoco.MjModel, data: mujoco.MjData, opening_m: float) -> ExpertGoal:
        """Above the toggle, down, close; up, in line with the peg, over it, down, open; up. The state says which."""
        tcp = data.site(TCP_SITE).xpos
        toggle, stand = data.body("toggle"), data.body("stand")
        towards_post = stand.xmat.reshape(3, 3)[:, 1]
        peg = stand.xpos + (0.0, 0.0, PEG_HEIGHT_M)
        rest = peg - 0.5 * PEG_LENGTH_M * towards_post
        carried = opening_m < SHUT_M and float(np.linalg.norm(tcp - toggle.xpos)) < 0.03
        stand_yaw = float(np.arctan2(stand.xmat[3], stand.xmat[0]))

        off = toggle.xpos - rest
        along_m = float(off @ towards_post)  # 0 at the middle of the peg, negative before it
        hung = abs(along_m) < PEG_LENGTH_M / 2 and 0.0 < off[2] < INSERT_M + 0.01
        if hung and not carried:
            return self._leave(tcp, toggle.xpos, opening_m, stand_yaw)
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
        aside = off - along_m * towards_post
        aside_m = float(np.linalg.norm(aside - (0.0, 0.0, INSERT_M)))
        over_m = float(np.hypot(aside[0], aside[1]))
        if abs(along_m) < 0.010 and over_m < 0.010:
            lowered = rest + (0.0, 0.0, REST_M + 0.003)
            return ExpertGoal(lowered + in_hand, stand_yaw, OPEN_M if off[2] < REST_M + 0.007 else 0.0)
        waiting_m = -0.5 * PEG_LENGTH_M - KNOB_RADIUS_M - BEFORE_M
        # On along the peg only as far as the toggle is in line with it.
        ready = float(np.clip(1.4 - aside_m / 0.015, 0.0, 1.0))
        ahead_m = 0.03 * ready if along_m > waiting_m - 0.02 else 0.0
        goal_m = float(np.clip(along_m + ahead_m, waiting_m, 0.0))
        wanted = rest + goal_m * towards_post + (0.0, 0.0, INSERT_M)
        # Sideways only as far as the towel is off the table.
        lifted = float(np.clip((toggle.xpos[2] - 0.04) / 0.14, 0.0, 1.0))
        wanted[:2] = toggle.xpos[:2] + lifted * (wanted[:2] - toggle.xpos[:2])
        return ExpertGoal(wanted + in_hand, stand_yaw, 0.0)

    def _leave(self, tcp: FloatArray, toggle: FloatArray, opening_m: float, yaw_rad: float) -> ExpertGoal:
        near = float(np.linalg.norm(tcp - toggle)) < 0.03
        if near and opening_m < OPEN_M - 0.008:
            return ExpertGoal(tcp.copy(), yaw_rad, OPEN_M)
        if tcp[2] < PEG_HEIGHT_M + 0.08:
            return ExpertGoal(np.array([*tcp[:2], PEG_HEIGHT_M + 0.12]), yaw_rad, OPEN_M)
        return ExpertGoal(np.array([0.42, 0.05, PEG_HEIGHT_M + 0.12]), 0.0, OPEN_M)

"""Clock, hand turning: turn the clock's hand to 12 (paper, task 4)."""

from __future__ import annotations

import mujoco
import numpy as np

from atk_sim.experts import ExpertGoal
from atk_sim.robots.panda import FINGER_BODIES, TCP_SITE
from atk_sim.scene import Layout
from atk_sim.tasks import clock_scene
from atk_sim.tasks.clock_scene import DISC, PEG, PEG_RADIUS_M, clockwise_to_go_rad, on_dial

AT_12_RAD = np.deg2rad(12.0)
# The hand is let go as it passes 12, without a pause: at rest there nothing would tell who learns from it when to open,
# and who learns it in passing does it a little early.
PAST_12_RAD = np.deg2rad(10.0)
LEFT_RAD = np.deg2rad(8.0)  # a hand that was let go is left alone within this
LEAD_RAD = (0.18, 0.55)  # how far ahead on the circle the hand is drawn: against friction, and at most
GRASP_HEIGHT_M = 0.014  # of the fingertips' centre above the disc
APPROACH_HEIGHT_M = 0.09
HELD_M = 2 * PEG_RADIUS_M + 0.002
WIDE_M = 0.045  # open enough around the peg, and clear of the dial's edge


class ClockHand:
    """Take the peg, draw it clockwise to 12, let go."""

    name = "clock_hand"
    instruction = "turn the clock's hand to 12"
    picked_uv_px = (
        (377, 209),
        (375, 233),
        (407, 234),
        (424, 236),
        (394, 198),
        (351, 244),
        (460, 230),
        (419, 280),
    )
    max_duration_s = 9.0
    clearance_m = 0.05
    camera = clock_scene.CAMERA

    def layout(self, seed: int) -> Layout:
        """See clock_scene."""
        return clock_scene.clock_layout(seed)

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """See clock_scene."""
        clock_scene.add_clock(spec, layout)

    def success(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """The hand rests within 12 degrees of 12 and no finger touches it."""
        resting = abs(float(data.joint(DISC).qvel[0])) < 0.1
        return abs(clockwise_to_go_rad(data)) < AT_12_RAD and resting and not _touched(model, data)

    def expert_goal(self, model: mujoco.MjModel, data: mujoco.MjData, opening_m: float) -> ExpertGoal:
        """Above the peg, down, close; along the circle; open; up."""
        tcp = data.site(TCP_SITE).xpos
        yaw_rad = clock_scene.yaw_of(data)
        to_go_rad = clockwise_to_go_rad(data)
        grasp = on_dial(data, 0.0) + (0.0, 0.0, GRASP_HEIGHT_M)
        aside_m = float(np.linalg.norm(tcp[:2] - grasp[:2]))
        low = bool(tcp[2] < grasp[2] + 0.010)
        if -PAST_12_RAD < to_go_rad < 0.0 or (abs(to_go_rad) < LEFT_RAD and opening_m > HELD_M):
            if low and opening_m < WIDE_M - 0.010:
                return ExpertGoal(tcp.copy(), yaw_rad, WIDE_M)
            return ExpertGoal(np.array([*tcp[:2], grasp[2] + APPROACH_HEIGHT_M]), yaw_rad, WIDE_M)
        if low and aside_m < 0.012 and opening_m < HELD_M:
            lead_rad = -float(np.copysign(np.clip(abs(to_go_rad), *LEAD_RAD), to_go_rad))
            return ExpertGoal(on_dial(data, lead_rad) + (0.0, 0.0, GRASP_HEIGHT_M), yaw_rad, 0.0)
        if low and aside_m < 0.008:
            return ExpertGoal(grasp, yaw_rad, opening_m - 0.012)
        height_m = grasp[2] + float(np.clip(3.0 * (aside_m - 0.005), 0.0, APPROACH_HEIGHT_M))
        return ExpertGoal(np.array([*grasp[:2], height_m]), yaw_rad, WIDE_M)


def _touched(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    touchy = {model.body(DISC).id, model.body(PEG).id}
    fingers = {model.body(name).id for name in FINGER_BODIES}
    for contact in data.contact:
        bodies = {int(model.geom_bodyid[geom]) for geom in contact.geom}
        if bodies & touchy and bodies & fingers:
            return True
    return False

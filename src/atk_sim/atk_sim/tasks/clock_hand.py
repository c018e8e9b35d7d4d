"""Clock, hand turning: turn the clock's hand to 12 (paper, task 4)."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim.experts import ExpertGoal
from atk_sim.robots.panda import FINGER_BODIES, TCP_SITE
from atk_sim.scene import Layout
from atk_sim.tasks import clock_scene
from atk_sim.tasks.clock_scene import DISC, PEG, PEG_RADIUS_M, clockwise_to_go_rad, on_dial

FloatArray = NDArray[np.float64]

AT_12_RAD = np.deg2rad(12.0)
# The closed fingers push the peg from behind. Nothing has to be gripped or let go: a hand that lost the peg comes again.
# They go the slower the nearer they are to 12, and stop before they rise: a hand that overshoots would have to come again
# from the other side, and whoever learns from that would have to choose.
DONE_RAD = (np.deg2rad(-10.0), np.deg2rad(4.0))  # the hand is left alone here
# How far ahead on their circle the fingers are sent, of what is left.
LEAD_SHARE, LEAD_RAD = 0.8, (0.05, 0.35)
# Of that circle: the peg's is 24 mm, and the fingers meet it 16 to 21 mm behind its axis.
PUSH_RADIUS_M = 0.031
BEHIND_M = 0.030  # where the fingers come down, from the peg's axis
ASTRAY_M = 0.014  # fingers farther than this off the peg's path would slide off
PUSH_HEIGHT_M = 0.013  # of the fingertips' centre above the disc
# Above that: full ahead, not yet ahead. Fingers that come too high get the peg beneath them.
LOW_M = (0.006, 0.012)
APPROACH_HEIGHT_M = 0.09
DESCENT = (
    0.4  # the share of its height that the hand keeps as its goal, so that it does not run into the disc
)
BACK_M, RISE_M = (
    0.020,
    0.030,
)  # how far its goal is from a hand that leaves: no start that drags the peg along


class ClockHand:
    """Push the peg clockwise to 12, and leave it there."""

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
        """Above the place behind the peg, down, along the circle, back and up; with closed fingers."""
        tcp = data.site(TCP_SITE).xpos
        yaw_rad = clock_scene.yaw_of(data)
        to_go_rad = clockwise_to_go_rad(data)
        sense = 1.0 if to_go_rad > 0.0 else -1.0
        peg = on_dial(data, 0.0) + (0.0, 0.0, PUSH_HEIGHT_M)
        off = (tcp - peg)[:2]
        if DONE_RAD[0] < to_go_rad < DONE_RAD[1]:
            off_m = float(np.linalg.norm(off))
            xy = tcp[:2] + (BACK_M * off / off_m if off_m < BEHIND_M else 0.0)
            return ExpertGoal(np.array([*xy, min(tcp[2] + RISE_M, peg[2] + APPROACH_HEIGHT_M)]), yaw_rad, 0.0)
        along, outwards = _path(data, sense)
        ahead_m, astray_m = float(off @ along), float(off @ outwards)
        low = float(np.interp(tcp[2] - peg[2], LOW_M, (1.0, 0.0)))
        if low and -1.4 * BEHIND_M < ahead_m < -PEG_RADIUS_M and abs(astray_m) < ASTRAY_M:
            lead_rad = low * float(np.clip(LEAD_SHARE * abs(to_go_rad), *LEAD_RAD))
            return ExpertGoal(
                np.array([*_ahead_on_circle(data, tcp, sense * lead_rad), peg[2]]), yaw_rad, 0.0
            )
        start = peg[:2] - BEHIND_M * along
        aside_m = float(np.linalg.norm(tcp[:2] - start))
        height_m = max(1.5 * (aside_m - 0.012), DESCENT * (tcp[2] - peg[2]))
        height_m = float(np.clip(height_m, 0.0, APPROACH_HEIGHT_M))
        return ExpertGoal(np.array([*start, peg[2] + height_m]), yaw_rad, 0.0)


def _touched(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    touchy = {model.body(DISC).id, model.body(PEG).id}
    fingers = {model.body(name).id for name in FINGER_BODIES}
    for contact in data.contact:
        bodies = {int(model.geom_bodyid[geom]) for geom in contact.geom}
        if bodies & touchy and bodies & fingers:
            return True
    return False


def _path(data: mujoco.MjData, sense: float) -> tuple[FloatArray, FloatArray]:
    """(2,) unit vectors along the peg's path (clockwise for `sense` 1) and outwards, where it is."""
    outwards = (on_dial(data, 0.0) - data.body(DISC).xpos)[:2]
    outwards /= np.linalg.norm(outwards)
    return sense * np.array([outwards[1], -outwards[0]]), outwards


def _ahead_on_circle(data: mujoco.MjData, tcp: FloatArray, clockwise_rad: float) -> FloatArray:
    """(2,) where the fingers' circle leads them after that turn about the disc's centre."""
    centre = data.body(DISC).xpos[:2]
    angle_rad = float(np.arctan2(*(tcp[:2] - centre)[::-1])) - clockwise_rad
    ahead: FloatArray = centre + PUSH_RADIUS_M * np.array([np.cos(angle_rad), np.sin(angle_rad)])
    return ahead

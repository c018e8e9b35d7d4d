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
DONE_RAD = (np.deg2rad(-8.0), np.deg2rad(6.0))  # the hand is left alone here
LEAD_SHARE, LEAD_RAD = 0.4, (0.05, 0.35)  # how far ahead on the circle the peg is pushed, of what is left
BEHIND_M = 0.030  # where the fingers come down, from the peg's axis
PRESS_M = 0.009  # from the peg's axis, where the fingers are sent: they meet it at 16 mm, and the arm yields
ASTRAY_M = 0.014  # fingers farther than this off the peg's path would slide off
PUSH_HEIGHT_M = 0.017  # of the fingertips' centre above the disc
APPROACH_HEIGHT_M = 0.09


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
        """Above the place behind the peg, down, along the circle, back, up; with closed fingers."""
        tcp = data.site(TCP_SITE).xpos
        yaw_rad = clock_scene.yaw_of(data)
        to_go_rad = clockwise_to_go_rad(data)
        sense = 1.0 if to_go_rad > 0.0 else -1.0
        up = np.array([0.0, 0.0, PUSH_HEIGHT_M])
        peg = on_dial(data, 0.0) + up
        along, outwards = _path_at(data, 0.0, sense)
        ahead_m, astray_m = float((tcp - peg) @ along), float((tcp - peg) @ outwards)
        low = bool(tcp[2] < peg[2] + 0.012)
        behind = ahead_m < -PEG_RADIUS_M
        if DONE_RAD[0] < to_go_rad < DONE_RAD[1]:
            back_m = 0.02 if behind and ahead_m > -BEHIND_M else 0.0
            return ExpertGoal(
                np.array([*(tcp - back_m * along)[:2], peg[2] + APPROACH_HEIGHT_M]), yaw_rad, 0.0
            )
        if low and behind and ahead_m > -1.4 * BEHIND_M and abs(astray_m) < ASTRAY_M:
            turn_rad = -sense * float(np.clip(LEAD_SHARE * abs(to_go_rad), *LEAD_RAD))
            along, _ = _path_at(data, turn_rad, sense)
            return ExpertGoal(on_dial(data, turn_rad) + up - PRESS_M * along, yaw_rad, 0.0)
        start = peg - BEHIND_M * along
        aside_m = float(np.linalg.norm(tcp[:2] - start[:2]))
        height_m = peg[2] + float(np.clip(1.5 * (aside_m - 0.012), 0.0, APPROACH_HEIGHT_M))
        return ExpertGoal(np.array([*start[:2], height_m]), yaw_rad, 0.0)


def _touched(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    touchy = {model.body(DISC).id, model.body(PEG).id}
    fingers = {model.body(name).id for name in FINGER_BODIES}
    for contact in data.contact:
        bodies = {int(model.geom_bodyid[geom]) for geom in contact.geom}
        if bodies & touchy and bodies & fingers:
            return True
    return False


def _path_at(data: mujoco.MjData, turn_rad: float, sense: float) -> tuple[FloatArray, FloatArray]:
    """(3,) unit vectors along the peg's path (clockwise for `sense` 1) and outwards, after a turn by `turn_rad`."""
    centre = data.body(DISC).xpos
    outwards = on_dial(data, turn_rad) - centre
    outwards[2] = 0.0
    outwards /= np.linalg.norm(outwards)
    along = sense * np.array([outwards[1], -outwards[0], 0.0])
    return along, outwards

"""Clock, top button: press the snooze button down (paper, task 3)."""

from __future__ import annotations

import mujoco
import numpy as np

from atk_sim.camera import FloatArray
from atk_sim.experts import ExpertGoal
from atk_sim.robots.panda import TCP_SITE
from atk_sim.scene import Layout
from atk_sim.tasks import clock_scene
from atk_sim.tasks.clock_scene import BUTTON, BUTTON_SIZE_M, BUTTON_TRAVEL_M

PRESSED_M = 0.005  # of the travel
FINGER_BELOW_TCP_M = 0.009
APPROACH_HEIGHT_M = 0.08


class ClockButton:
    """The closed fingers press the button and stay on it."""

    name = "clock_button"
    instruction = "press the button on top of the alarm clock down"
    picked_uv_px = ((353, 149), (416, 144), (360, 162), (418, 156), (363, 157), (407, 151))
    max_duration_s = 7.0
    clearance_m = 0.05
    camera = clock_scene.CAMERA

    def layout(self, seed: int) -> Layout:
        """See clock_scene."""
        return clock_scene.clock_layout(seed)

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """See clock_scene."""
        clock_scene.add_clock(spec, layout)

    def success(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """The button is down by `PRESSED_M` of its 8 mm."""
        return float(data.joint(BUTTON).qpos[0]) < -PRESSED_M

    def expert_goal(self, model: mujoco.MjModel, data: mujoco.MjData, opening_m: float) -> ExpertGoal:
        """Close the fingers, above the button, down on it."""
        tcp = data.site(TCP_SITE).xpos
        top: FloatArray = data.body(BUTTON).xpos + (0.0, 0.0, BUTTON_SIZE_M[2] + FINGER_BELOW_TCP_M)
        aside_m = float(np.linalg.norm(tcp[:2] - top[:2]))
        # A cone over the button: the further aside, the higher; on its axis, beyond the end of the travel.
        height_m = top[2] + float(np.clip(3.0 * (aside_m - 0.007), 0.0, APPROACH_HEIGHT_M))
        if aside_m < 0.009:
            height_m = top[2] - BUTTON_TRAVEL_M
        return ExpertGoal(np.array([*top[:2], height_m]), clock_scene.yaw_of(data), 0.0)

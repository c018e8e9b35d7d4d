"""Moves that experts of several tasks are made of. Each is a function of the present state alone.

The hand points down all the while. Yaws are those of its x axis (across the direction in which the fingers close) and have
a direction: a goal more than half a turn away is never asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atk_sim.experts import ExpertGoal, pointing_down

FloatArray = NDArray[np.float64]

OPEN_M = 0.08


@dataclass(frozen=True)
class Grasp:
    """Where the fingertips' centre takes hold of a thing, and how."""

    position_m: FloatArray  # (3,) in the world
    yaw_rad: float
    width_m: float  # an opening below this means that the thing is between the fingers
    open_m: float = OPEN_M  # while approaching


def hand_goal(position_m: FloatArray, yaw_rad: float, opening_m: float) -> ExpertGoal:
    """Pointing down at that yaw, which is not answered by its half turn."""
    return ExpertGoal(position_m, None, opening_m, rotation=pointing_down(yaw_rad))


def carries(tcp: FloatArray, opening_m: float, grasp: Grasp, reach_m: float = 0.035) -> bool:
    """Whether the thing is in the hand."""
    return opening_m < grasp.width_m and float(np.linalg.norm(tcp - grasp.position_m)) < reach_m


def fetch(tcp: FloatArray, opening_m: float, grasp: Grasp, travel_m: float, clear_m: float) -> ExpertGoal:
    """Over the thing, down to it, close.

    Far aside the hand flies `travel_m` above the grasp; while it is lower than `clear_m` above the table it rises first,
    so that it leaves what it has just let go of.
    """
    goal = grasp.position_m
    aside_m = float(np.linalg.norm(tcp[:2] - goal[:2]))
    if aside_m < 0.010 and tcp[2] < goal[2] + 0.008:
        return hand_goal(goal, grasp.yaw_rad, opening_m - 0.016)
    height_m = goal[2] + float(np.clip(2.5 * (aside_m - 0.006), 0.0, travel_m))
    risen = float(np.clip((tcp[2] - clear_m + 0.04) / 0.04, 0.0, 1.0))
    near = float(np.clip((0.06 - aside_m) / 0.03, 0.0, 1.0))
    sideways = tcp[:2] + max(risen, near) * (goal[:2] - tcp[:2])
    return hand_goal(np.array([*sideways, height_m]), grasp.yaw_rad, grasp.open_m)


def bring(
    tcp: FloatArray,
    offset_m: FloatArray,
    place_m: FloatArray,
    yaw_rad: float,
    travel_m: float,
    clear_m: float,
    open_m: float = OPEN_M,
) -> ExpertGoal:
    """Lift what the hand holds, over its place, down, open.

    `place_m` is where the fingertips' centre belongs if the thing lies in the hand as it should, `offset_m` (2,) how far
    the thing is off that in the hand. It moves sideways only as far as it is above `clear_m`.
    """
    target = place_m[:2] - offset_m
    aside_m = float(np.linalg.norm(tcp[:2] - target))
    if aside_m < 0.012 and tcp[2] < place_m[2] + 0.008:
        return hand_goal(np.array([*target, place_m[2]]), yaw_rad, open_m)
    height_m = place_m[2] + float(np.clip(2.0 * (aside_m - 0.008), 0.0, travel_m))
    lifted = float(np.clip((tcp[2] - clear_m + 0.05) / 0.05, 0.0, 1.0))
    near = float(np.clip((0.05 - aside_m) / 0.03, 0.0, 1.0))
    sideways = tcp[:2] + max(lifted, near) * (target - tcp[:2])
    return hand_goal(np.array([*sideways, height_m]), yaw_rad, 0.0)


def let_go(tcp: FloatArray, yaw_rad: float, open_m: float = OPEN_M) -> ExpertGoal:
    """Stay and open."""
    return hand_goal(tcp.copy(), yaw_rad, open_m)

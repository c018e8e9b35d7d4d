"""What an independent recorder's file says: were limits kept, when did the arm come to rest, was the cause named."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atk_perception.robot_description import RobotDescription

FloatArray = npt.NDArray[np.float64]

# Between computing a setpoint for a moment and the moment at which DDS notes that it was sent lie the
# policy's inference and the scheduler of a busy machine. What that may look like is not held against it.
TIMING_TOLERANCE_S = 3e-3
# Setpoints that differ by less are one.
REST_RAD = 1e-4
HOLDING = 2


@dataclass(frozen=True)
class Wire:
    """Messages of one stretch of time.

    Attributes:
        command_s: (N,) when setpoints were sent [s].
        command_rad: (N, J); rows that were not finite are NaN.
        causes: (time [s], cause) of every status that said HOLDING.
        states: (time [s], state) of every status.
        faults: (time [s], name) as the injector confirmed them.
    """

    command_s: FloatArray
    command_rad: FloatArray
    causes: list[tuple[float, str]]
    states: list[tuple[float, int]]
    faults: list[tuple[float, str]]

    @classmethod
    def read(cls, lines: Iterable[str], joints: int) -> Wire:
        """From lines as the wire recorder writes them; a last one that is cut short is left out."""
        times, commands, causes, states, faults = [], [], [], [], []
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            t_s, value = entry["t_ns"] / 1e9, entry["value"]
            if entry["what"] == "command":
                times.append(t_s)
                commands.append(value if entry["finite"] else [np.nan] * joints)
            elif entry["what"] == "policy":
                states.append((t_s, value[0]))
                if value[0] == HOLDING:
                    causes.append((t_s, value[1]))
            elif entry["what"] == "fault":
                faults.append((t_s, value))
        return cls(np.array(times), np.array(commands).reshape(-1, joints), causes, states, faults)

    @classmethod
    def load(cls, path: Path, joints: int, since_s: float = 0.0) -> Wire:
        """What was recorded after `since_s` [s]."""
        wire = cls.read(path.read_text().splitlines(), joints)
        later = wire.command_s >= since_s
        return cls(
            wire.command_s[later],
            wire.command_rad[later],
            [c for c in wire.causes if c[0] >= since_s],
            [s for s in wire.states if s[0] >= since_s],
            [f for f in wire.faults if f[0] >= since_s],
        )


def limit_violations(
    wire: Wire, robot: RobotDescription, tolerance_s: float = TIMING_TOLERANCE_S
) -> list[str]:
    """Every setpoint that broke a limit, in words.

    Velocity and acceleration are divided differences of what was sent, at the times at which it was
    sent; an excess counts where no timing error within the tolerance explains it. A setpoint after a
    pause of more than ten periods begins a motion from rest. (Jerk limits of arms lie far above what
    differences at tens of hertz can resolve; `safe_motion.py` is property-tested for them.)
    """
    joints = robot.joints
    low, high = np.array(joints.position_min_rad), np.array(joints.position_max_rad)
    q, t = wire.command_rad, wire.command_s
    outside = ((q < low - REST_RAD) | (q > high + REST_RAD)).any(axis=1)
    found = [f"not finite at {t[k]:.3f} s" for k in np.flatnonzero(~np.isfinite(q).all(axis=1))]
    found += [f"position outside at {t[k]:.3f} s" for k in np.flatnonzero(outside)]
    if len(t) < 3:
        return found
    gap_s = np.maximum(np.diff(t), 1e-6)[:, None]
    velocity = np.diff(q, axis=0) / gap_s
    slack = np.abs(velocity) * 2.0 * tolerance_s / gap_s
    excess = (np.abs(velocity) > np.array(joints.velocity_max_rad_s) + slack).any(axis=1)
    found += [
        f"velocity {np.abs(velocity[k]).max():.2f} rad/s at {t[k + 1]:.3f} s" for k in np.flatnonzero(excess)
    ]
    apart_s = (gap_s[1:] + gap_s[:-1]) / 2.0
    acceleration = np.diff(velocity, axis=0) / apart_s
    slack = (slack[1:] + slack[:-1]) / apart_s + np.abs(acceleration) * 2.0 * tolerance_s / apart_s
    continuous = (gap_s[1:, 0] < 10.0 / robot.control_rate_hz) & (
        gap_s[:-1, 0] < 10.0 / robot.control_rate_hz
    )
    excess = (np.abs(acceleration) > np.array(joints.acceleration_max_rad_s2) + slack).any(axis=1)
    return found + [
        f"acceleration {np.abs(acceleration[k]).max():.1f} rad/s2 at {t[k + 1]:.3f} s"
        for k in np.flatnonzero(excess & continuous)
    ]


def velocity_at(wire: Wire, time_s: float) -> FloatArray:
    """(J,) commanded velocity [rad/s] just before a time; zeros where less than two setpoints were sent."""
    before = np.flatnonzero(wire.command_s <= time_s)[-2:]
    if len(before) < 2:
        return np.zeros(wire.command_rad.shape[1])
    first, last = before
    velocity: FloatArray = (wire.command_rad[last] - wire.command_rad[first]) / max(
        wire.command_s[last] - wire.command_s[first], 1e-3
    )
    return velocity


def last_motion_s(wire: Wire, begin_s: float, end_s: float) -> float | None:
    """When the last setpoint was sent that differs from the one before, within a stretch of time; None: no motion."""
    moved = np.abs(np.diff(wire.command_rad, axis=0)).max(axis=1, initial=0.0) > REST_RAD
    times = wire.command_s[1:][moved]
    times = times[(times > begin_s) & (times <= end_s)]
    return float(times[-1]) if len(times) else None

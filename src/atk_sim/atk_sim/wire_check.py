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
# A joint [rad/s] that is slower than this only settles. Over less time, messages that come in bursts would look fast.
SETTLING_RAD_S = 0.05
SETTLING_OVER_S = 0.05
# States of atk_interfaces/PolicyStatus.
HOLDING, STOPPED = 2, 3
# "... all end in a hold within two control periods."
HOLD_PERIODS = 2.0


@dataclass(frozen=True)
class Wire:
    """Messages of one stretch of time.

    Attributes:
        command_s: (N,) when setpoints were sent [s].
        command_rad: (N, J); rows that were not finite are NaN.
        causes: (time [s], cause) of every status that said HOLDING.
        states: (time [s], state) of every status.
        faults: (time [s], name) as the injector confirmed them.
        joint_s, joint_rad: (M,) and (M, J) where the robot itself says that it was, and when.
    """

    command_s: FloatArray
    command_rad: FloatArray
    causes: list[tuple[float, str]]
    states: list[tuple[float, int]]
    faults: list[tuple[float, str]]
    joint_s: FloatArray
    joint_rad: FloatArray

    @classmethod
    def read(cls, lines: Iterable[str], joints: int, *, as_received: bool = False) -> Wire:
        """From lines as the wire recorder writes them; a last one that is cut short is left out.

        Args:
            as_received: times are those of the recorder's own clock, not of the senders', which may have been set.
        """
        times, commands, causes, states, faults = [], [], [], [], []
        joint_times, positions = [], []
        clock = "received_ns" if as_received else "t_ns"
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            t_s, value = entry[clock] / 1e9, entry["value"]
            if entry["what"] == "command":
                times.append(t_s)
                commands.append(value if entry["finite"] else [np.nan] * joints)
            elif entry["what"] == "joints" and entry["finite"]:
                joint_times.append(t_s)
                positions.append(value[:joints])
            elif entry["what"] == "policy":
                states.append((t_s, value[0]))
                if value[0] == HOLDING:
                    causes.append((t_s, value[1]))
            elif entry["what"] == "fault":
                faults.append((t_s, value))
        return cls(
            np.array(times),
            np.array(commands).reshape(-1, joints),
            causes,
            states,
            faults,
            np.array(joint_times),
            np.array(positions).reshape(-1, joints),
        )

    @classmethod
    def load(cls, path: Path, joints: int, since_s: float = 0.0, *, as_received: bool = False) -> Wire:
        """What was recorded after `since_s` [s]; see `read`."""
        wire = cls.read(path.read_text().splitlines(), joints, as_received=as_received)
        later, moved_later = wire.command_s >= since_s, wire.joint_s >= since_s
        return cls(
            wire.command_s[later],
            wire.command_rad[later],
            [c for c in wire.causes if c[0] >= since_s],
            [s for s in wire.states if s[0] >= since_s],
            [f for f in wire.faults if f[0] >= since_s],
            wire.joint_s[moved_later],
            wire.joint_rad[moved_later],
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


def last_motion_s(wire: Wire, begin_s: float, end_s: float, *, of_joints: bool = False) -> float | None:
    """When the last setpoint was sent that differs from the one before, within a stretch of time; None: no motion.

    Args:
        of_joints: instead, when the robot itself last said so; a joint that is settling does not count.
    """
    if of_joints:
        at_s, at_rad = wire.joint_s, wire.joint_rad
        before = np.searchsorted(at_s, at_s - SETTLING_OVER_S, side="right") - 1
        known = before >= 0
        speed = np.abs(at_rad[known] - at_rad[before[known]]).max(axis=1, initial=0.0) / (
            at_s[known] - at_s[before[known]]
        )
        times = at_s[known][speed > SETTLING_RAD_S]
    else:
        moved = np.abs(np.diff(wire.command_rad, axis=0)).max(axis=1, initial=0.0) > REST_RAD
        times = wire.command_s[1:][moved]
    times = times[(times > begin_s) & (times <= end_s)]
    return float(times[-1]) if len(times) else None


def first_hold(wire: Wire, begin_s: float, end_s: float) -> tuple[float, float] | None:
    """From when to when the policy said within a stretch of time that it holds or has stopped; None: it never did.

    A command is sent before the word for it: what follows the last word of a hold may belong to what comes next.
    """
    within = [(t, s in (HOLDING, STOPPED)) for t, s in wire.states if begin_s < t <= end_s]
    began = next((k for k, (_, is_held) in enumerate(within) if is_held), None)
    if began is None:
        return None
    resumed = next((k for k, (_, is_held) in enumerate(within) if k > began and not is_held), None)
    return within[began][0], end_s if resumed is None else within[resumed - 1][0]


@dataclass(frozen=True)
class Stop:
    """What became of a motion after a fault.

    Attributes:
        hold_s: from the fault to the first word of a hold; None: there was none.
        late_s: by how much that was later than it may be, else None.
        stop_s: from the fault to the last motion; None: it did not move any more.
        moved_s: for how long it moved beyond the deadline, else None.
    """

    hold_s: float | None
    late_s: float | None
    stop_s: float | None
    moved_s: float | None


def stop_after(
    wire: Wire,
    robot: RobotDescription,
    struck_s: float,
    until_s: float,
    detect_s: float,
    *,
    is_mute: bool = False,
    resumes: bool = False,
    follow_s: float | None = None,
) -> Stop:
    """Judge a stop: a hold within two control periods, and then no motion but braking.

    Args:
        struck_s: when the fault struck.
        until_s: until when it must rest.
        detect_s: how long it may take until the fault can be known.
        is_mute: the policy is dead: nobody says that it holds, and nobody brakes.
        resumes: it may go on when the hold is over; what comes then is not judged.
        follow_s: judge by the robot's own motion, which may be so much later than what it was told.
    """
    period_s = 1.0 / robot.control_rate_hz
    deadline_s = struck_s + detect_s + HOLD_PERIODS * period_s
    held = first_hold(wire, struck_s, until_s)
    begin_s = deadline_s if held is None else min(held[0], deadline_s)
    # From the speed at which it began to brake, and to the end of the period in which it came to rest. The first setpoint of a
    # hold, which comes just before the word for it, brakes already.
    speed = np.abs([velocity_at(wire, begin_s - back_s) for back_s in (0.0, period_s)])
    brake_s = 0.0 if is_mute else float((speed / robot.joints.acceleration_max_rad_s2).max()) + period_s
    end_s = held[1] if resumes and held is not None else until_s
    last_s = last_motion_s(wire, struck_s, end_s, of_joints=follow_s is not None)
    rest_s = deadline_s + brake_s + (follow_s or 0.0)
    late_s = None if held is None else held[0] - deadline_s
    return Stop(
        None if held is None else held[0] - struck_s,
        late_s if late_s is not None and late_s > 0.0 else None,
        None if last_s is None else last_s - struck_s,
        None if last_s is None or last_s <= rest_s else last_s - rest_s,
    )

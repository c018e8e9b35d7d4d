"""The judge of the fault campaign catches every violation, and lets a lawful motion pass."""

from __future__ import annotations

import json

import numpy as np
import pytest

from atk_perception.robot_description import RobotDescription
from atk_sim.graph import robot_file
from atk_sim.wire_check import (
    SETTLING_RAD_S,
    Wire,
    first_hold,
    last_motion_s,
    limit_violations,
    stop_after,
    velocity_at,
)

ROBOT = RobotDescription.load(robot_file("sim_panda"))
JOINTS = ROBOT.joint_count
TIMES_S = 100.0 + 0.05 * np.arange(60)


def lines(q, times_s=TIMES_S):
    rows = [
        {"t_ns": int(t * 1e9), "what": "command", "finite": bool(np.isfinite(x).all()), "value": x.tolist()}
        for t, x in zip(times_s, q, strict=True)
    ]
    return [json.dumps(row).replace("NaN", "null") for row in rows]


def smooth():
    phase = np.clip((TIMES_S - 100.5) / 1.5, 0.0, 1.0)
    return np.array(ROBOT.home_rad) + 0.4 * (phase - np.sin(2 * np.pi * phase) / (2 * np.pi))[:, None]


def wire(q, times_s=TIMES_S):
    return Wire.read(lines(q, times_s), JOINTS)


def test_a_smooth_motion_passes_even_with_a_little_jitter():
    assert limit_violations(wire(smooth()), ROBOT) == []
    jitter_s = np.random.default_rng(0).uniform(-0.002, 0.002, len(TIMES_S))
    assert limit_violations(wire(smooth(), TIMES_S + jitter_s), ROBOT) == []


def spoil(what):
    q = smooth()
    if what == "not finite":
        q[20, 3] = np.nan
    elif what == "position":
        q[:, 3] += 3.0
    elif what == "velocity":
        q[20:, 0] += 0.5
    elif what == "acceleration":
        q[20:] = q[20]  # stops dead at its fastest
        q[21:, 1] += 0.05
    return q


@pytest.mark.parametrize("what", ["not finite", "position", "velocity", "acceleration"])
def test_each_violation_is_caught(what):
    assert any(found.startswith(what) for found in limit_violations(wire(spoil(what)), ROBOT))


def test_a_new_start_after_a_pause_is_no_jump():
    later = np.concatenate([TIMES_S, TIMES_S + 60.0])
    q = np.concatenate([smooth(), smooth() + 0.2])
    assert limit_violations(wire(q, later), ROBOT) == []


def test_motion_and_its_speed_are_found():
    w = wire(smooth())
    assert last_motion_s(w, 100.0, 110.0) == pytest.approx(102.0, abs=0.3)
    assert last_motion_s(w, 102.2, 110.0) is None
    assert velocity_at(w, 101.25)[0] == pytest.approx(0.4 * 2 / 1.5, rel=0.1)
    assert not velocity_at(w, 100.2).any()


# -- how an arm stops --------------------------------------------------------------------------------

PERIOD_S = 1.0 / ROBOT.control_rate_hz
SPEED_RAD_S, BRAKE_RAD_S2 = 1.0, 0.8 * ROBOT.joints.acceleration_max_rad_s2[0]
STRUCK_S = 101.0
SAID_S = 2e-4  # the word comes after its command


def stopping(brakes_at_s: float, says_at_s: float | None, again_at_s: float = np.inf) -> Wire:
    """The first joint at a constant speed, until it brakes; and, apart from that, what the policy says of it."""
    t = np.arange(100.0, 104.0, PERIOD_S) + 1e-6
    braking_s = np.clip(t - brakes_at_s, 0.0, SPEED_RAD_S / BRAKE_RAD_S2)
    angle = SPEED_RAD_S * np.minimum(t - 100.0, brakes_at_s - 100.0)
    angle += SPEED_RAD_S * braking_s - 0.5 * BRAKE_RAD_S2 * braking_s**2
    q = np.tile(np.array(ROBOT.home_rad), (len(t), 1))
    q[:, 0] += angle + np.where(t > again_at_s, 0.3 * (t - again_at_s), 0.0)
    holding = np.zeros(len(t), bool) if says_at_s is None else (t >= says_at_s) & (t < again_at_s)
    states = [
        {
            "t_ns": int((x + SAID_S) * 1e9),
            "what": "policy",
            "finite": True,
            "value": [2 if h else 1, "cause" if h else ""],
        }
        for x, h in zip(t, holding, strict=True)
    ]
    joints = [
        {"t_ns": int(x * 1e9), "what": "joints", "finite": True, "value": [*row.tolist(), 0.0, 0.0]}
        for x, row in zip(t + 0.1, q, strict=True)
    ]
    return Wire.read([*lines(q, t), *(json.dumps(row) for row in (*states, *joints))], JOINTS)


def judged(wire: Wire, **how):
    return stop_after(wire, ROBOT, STRUCK_S, 103.5, 0.0, **how)


def test_a_hold_within_two_periods_and_nothing_but_braking_passes():
    stop = judged(stopping(STRUCK_S + PERIOD_S, STRUCK_S + PERIOD_S))
    assert stop.hold_s == pytest.approx(PERIOD_S, abs=1e-3)
    assert stop.stop_s == pytest.approx(PERIOD_S + SPEED_RAD_S / BRAKE_RAD_S2, abs=PERIOD_S)
    assert (stop.late_s, stop.moved_s) == (None, None)


def test_a_hold_that_begins_later_is_late_and_its_motion_too_long():
    stop = judged(stopping(STRUCK_S + 5 * PERIOD_S, STRUCK_S + 5 * PERIOD_S))
    assert stop.late_s == pytest.approx(3 * PERIOD_S, abs=1e-3)
    assert stop.moved_s == pytest.approx(2 * PERIOD_S, abs=PERIOD_S)
    assert judged(stopping(STRUCK_S + 5 * PERIOD_S, None)).hold_s is None


def test_the_first_setpoint_of_a_hold_brakes_already():
    """Sent late, and short: the speed to brake from is that before it."""
    t = STRUCK_S + np.array([-0.12, -0.07, -0.02, 0.03, 0.095, 0.147, 0.202, 0.252])
    q = np.tile(np.array(ROBOT.home_rad), (len(t), 1))
    q[:, 0] += np.cumsum(
        [0.0, 0.075, 0.075, 0.075, 0.03, 0.0135, 0.001, 0.0]
    )  # 1.5 rad/s, then a brake of 15 rad/s2
    said = [(float(x) + SAID_S, 2) for x in t[4:]]
    stop = judged(Wire(t, q, [], said, [], t[:0], q[:0]))
    assert stop.stop_s == pytest.approx(0.202, abs=1e-6)
    assert (stop.late_s, stop.moved_s) == (None, None)


def test_motion_under_the_name_of_a_hold_is_found():
    """It says that it holds, and goes on."""
    stop = judged(stopping(103.0, STRUCK_S + PERIOD_S))
    assert stop.late_s is None
    assert stop.moved_s > 1.0


def test_motion_after_a_hold_is_allowed_to_who_may_resume_alone():
    wire = stopping(STRUCK_S + PERIOD_S, STRUCK_S + PERIOD_S, again_at_s=102.5)
    assert first_hold(wire, STRUCK_S, 103.5) == pytest.approx(
        (STRUCK_S + PERIOD_S, 102.5 - PERIOD_S), abs=1e-3
    )
    assert judged(wire).moved_s == pytest.approx(103.5 - 101.35, abs=0.2)
    assert judged(wire, resumes=True).moved_s is None


def test_a_dead_policy_brakes_no_more():
    still = stopping(STRUCK_S, None)
    moving = still.command_s <= STRUCK_S
    last = Wire(
        still.command_s[moving], still.command_rad[moving], [], [], [], still.joint_s, still.joint_rad
    )
    assert judged(last, is_mute=True).moved_s is None
    assert judged(stopping(STRUCK_S + 2 * PERIOD_S, None), is_mute=True).moved_s > 0.0


def test_an_arm_is_judged_by_its_own_motion_where_it_is_asked_for():
    """It comes a tenth of a second behind its setpoints."""
    wire = stopping(STRUCK_S + PERIOD_S, STRUCK_S + PERIOD_S)
    by_setpoints, by_joints = judged(wire), judged(wire, follow_s=0.1)
    assert by_joints.stop_s == pytest.approx(by_setpoints.stop_s + 0.1, abs=1.5 * PERIOD_S)
    assert by_joints.moved_s is None
    late = stopping(STRUCK_S + 6 * PERIOD_S, STRUCK_S + PERIOD_S)
    assert judged(late, follow_s=0.1).moved_s > 0.0


def test_an_arm_whose_messages_come_in_bursts_does_not_look_fast():
    """It creeps at a tenth of what counts; every five messages are sent within a millisecond."""
    t = 100.0 + 0.05 * np.repeat(np.arange(20), 5) + 2e-4 * np.tile(np.arange(5), 20)
    q = np.tile(np.array(ROBOT.home_rad), (len(t), 1))
    q[:, 0] += 0.1 * SETTLING_RAD_S * 0.01 * np.arange(len(t))
    still = Wire(t[:0], q[:0], [], [], [], t, q)
    assert last_motion_s(still, 100.0, 102.0, of_joints=True) is None
    q[50:, 0] += 2.0 * SETTLING_RAD_S * 0.01 * np.arange(50)
    assert last_motion_s(still, 100.0, 102.0, of_joints=True) == t[-1]


def test_times_may_be_those_of_the_recorder():
    """For senders whose clock was set."""
    row = {"t_ns": 130 * 10**9, "received_ns": 100 * 10**9, "what": "fault", "finite": True, "value": "x"}
    assert Wire.read([json.dumps(row)], JOINTS).faults == [(130.0, "x")]
    assert Wire.read([json.dumps(row)], JOINTS, as_received=True).faults == [(100.0, "x")]


def test_states_causes_and_faults_are_read_and_a_cut_last_line_is_left_out(tmp_path):
    rows = [
        {"t_ns": 10**9, "what": "policy", "finite": True, "value": [1, ""]},
        {"t_ns": 2 * 10**9, "what": "fault", "finite": True, "value": "joints_nan"},
        {"t_ns": 3 * 10**9, "what": "policy", "finite": True, "value": [2, "joint_state_not_finite"]},
    ]
    path = tmp_path / "wire.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + '\n{"t_ns": 4000')
    w = Wire.load(path, JOINTS, since_s=1.5)
    assert w.faults == [(2.0, "joints_nan")]
    assert w.causes == [(3.0, "joint_state_not_finite")]
    assert w.states == [(3.0, 2)]

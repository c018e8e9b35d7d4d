"""The judge of the fault campaign catches every violation, and lets a lawful motion pass."""

from __future__ import annotations

import json

import numpy as np
import pytest

from atk_perception.robot_description import RobotDescription
from atk_sim.graph import robot_file
from atk_sim.wire_check import Wire, last_motion_s, limit_violations, velocity_at

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

"""The runner commands only when asked and only from good frames; every hold repeats the last command."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from run_folders import ROBOT, write_run_folder

from atk_perception.frames import Frame, RobotState
from atk_perception.keypoint_tracker import KeypointObservation, TrackerState
from atk_policy.policy_runner import Arrival, PolicyRunner, RunState

HOME = np.append(ROBOT.home_rad, 0.04)
PERIOD_NS = ROBOT.control_period_ns
IDS = np.arange(10, 14)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run_folder(tmp_path_factory.mktemp("runner") / "run")


@pytest.fixture
def runner(run):
    return PolicyRunner(run, ROBOT)


def frame(k: int, measured=HOME, state=TrackerState.TRACKING, ids=IDS, stamp_ns=None):
    stamp_ns = 10**9 + k * PERIOD_NS if stamp_ns is None else stamp_ns
    uv_px = np.stack([100.0 + 40.0 * np.arange(len(ids)), np.full(len(ids), 200.0)], axis=1)
    seen = KeypointObservation(
        stamp_ns,
        ids,
        uv_px.astype(np.float32),
        np.ones(len(ids), bool),
        np.ones(len(ids), np.float32),
        state,
    )
    return Frame(stamp_ns, seen, RobotState(stamp_ns, measured[:-1], float(measured[-1])), None)


def test_nothing_is_commanded_before_a_start_and_after_a_stop(runner):
    step = runner.step(frame(0))
    assert (step.state, step.command) == (RunState.IDLE, None)
    runner.start()
    assert runner.step(frame(1)).state is RunState.RUNNING
    last = runner.step(frame(2)).command
    hold = runner.stop(frame(2).stamp_ns)
    assert hold.state is RunState.STOPPED
    assert np.array_equal(hold.command, last)
    assert runner.step(frame(3)).command is None


def test_a_run_begins_where_the_robot_is_and_moves_within_its_velocity_limits(runner):
    runner.start()
    previous = HOME
    for k in range(10):
        step = runner.step(frame(k))
        reach = np.array(ROBOT.joints.velocity_max_rad_s) * PERIOD_NS / 1e9
        assert (np.abs(step.command - previous)[:-1] <= reach + 1e-12).all()
        previous = step.command
    assert not np.array_equal(previous, HOME)


def test_a_plan_reaches_ahead_within_the_velocity_limits(runner):
    runner.start()
    plan = runner.step(frame(0)).plan.position
    assert len(plan) > 3
    reach = np.array(ROBOT.joints.velocity_max_rad_s) * PERIOD_NS / 1e9
    assert (np.abs(np.diff(plan[:, :-1], axis=0)) <= reach + 1e-12).all()


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        (lambda k: frame(k, state=TrackerState.LOST), "tracker_lost"),
        (lambda k: frame(k, measured=np.append(np.nan, HOME[1:])), "joint_state_not_finite"),
        (lambda k: frame(k, ids=IDS + 1), "keypoint_set_mismatch"),
        (lambda k: frame(k, measured=HOME + np.append(np.full(7, 0.6), 0.0)), "tracking_gap"),
    ],
)
def test_a_bad_frame_is_held_with_its_cause_and_a_good_one_resumes_without_a_jump(runner, bad, cause):
    runner.start()
    last = runner.step(frame(0)).command
    held = runner.step(bad(1))
    assert (held.state, held.cause) == (RunState.HOLDING, cause)
    assert np.array_equal(held.command, last)
    resumed = runner.step(frame(2))
    assert resumed.state is RunState.RUNNING
    reach = np.array(ROBOT.joints.velocity_max_rad_s) * PERIOD_NS / 1e9
    assert (np.abs(resumed.command - last)[:-1] <= reach + 1e-12).all()


def test_keypoints_that_are_not_numbers_are_held(runner):
    runner.start()
    runner.step(frame(0))
    good = frame(1)
    nan = replace(good, payload=replace(good.payload, uv_px=np.full((4, 2), np.nan, np.float32)))
    assert runner.step(nan).cause == "keypoints_not_finite"


def test_old_inputs_are_held(runner):
    runner.start()
    late_ns = round(2e9 * ROBOT.deadlines_s.keypoints)
    f = frame(0)
    fresh, late = f.stamp_ns, f.stamp_ns - late_ns
    assert runner.step(f, Arrival(fresh + late_ns, fresh + late_ns, fresh + late_ns)).cause == "image_stale"
    f = frame(1)
    assert runner.step(f, Arrival(f.stamp_ns, f.stamp_ns - late_ns, f.stamp_ns)).cause == "keypoints_stale"
    assert runner.step(frame(2), Arrival(fresh, fresh, late)).cause == "joint_state_stale"


def test_a_hold_without_any_joint_state_sends_nothing(runner):
    runner.start()
    step = runner.hold(10**9, "no_joint_state")
    assert (step.state, step.command) == (RunState.HOLDING, None)


def test_after_a_jump_in_time_a_run_begins_again_at_where_the_robot_is(runner):
    runner.start()
    runner.step(frame(0))
    elsewhere = HOME + np.append(np.full(7, 0.5), 0.0)
    step = runner.step(frame(0, measured=elsewhere, stamp_ns=60 * 10**9))
    assert step.state is RunState.RUNNING
    reach = np.array(ROBOT.joints.velocity_max_rad_s) * PERIOD_NS / 1e9
    assert (np.abs(step.command - elsewhere)[:-1] <= reach + 1e-12).all()


def test_the_same_frames_give_the_same_commands(run):
    commands = []
    for _ in range(2):
        runner = PolicyRunner(run, ROBOT)
        runner.start()
        commands.append([runner.step(frame(k)).command for k in range(8)])
    assert np.array_equal(commands[0], commands[1])

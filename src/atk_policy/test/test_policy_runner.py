"""The runner commands only when asked and only from good frames; every hold is a brake with a named cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import ROBOT as SIM_PANDA
from run_folders import write_run_folder

from atk_perception.frames import Frame, RobotState
from atk_perception.keypoint_tracker import KeypointObservation, TrackerState
from atk_policy.kinematics import KinematicModel
from atk_policy.policy_runner import Arrival, PolicyRunner, RunState
from atk_policy.safety import SafetyLimits

# What is around the arm is looked at in tests of its own.
ROBOT = SIM_PANDA.model_copy(update={"scene_check": "none"})
HOME = np.append(ROBOT.home_rad, 0.04)
PERIOD_NS = ROBOT.control_period_ns
PERIOD_S = PERIOD_NS / 1e9
IDS = np.arange(10, 14)
LIMITS = SafetyLimits.of(ROBOT).motion


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run_folder(tmp_path_factory.mktemp("runner") / "run")


@pytest.fixture
def runner(run):
    return PolicyRunner(run, ROBOT)


@pytest.fixture(scope="module")
def hasty_run(tmp_path_factory):
    """Wants more than the limits allow."""
    return write_run_folder(tmp_path_factory.mktemp("runner") / "hasty", haste_rad=0.5)


@pytest.fixture
def hasty(hasty_run):
    return PolicyRunner(hasty_run, ROBOT)


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


def assert_smooth(wire, intervals_s=None):
    """(N, 8) setpoints, one period apart unless (N - 1,) `intervals_s` says otherwise, from rest."""
    wire = np.vstack([wire[:1], wire[:1], wire])[:, :-1]
    given_s = np.full(len(wire) - 3, PERIOD_S) if intervals_s is None else np.asarray(intervals_s)
    times = np.concatenate([[0.0], np.cumsum([PERIOD_S, PERIOD_S, *given_s])])
    velocity = np.diff(wire, axis=0) / np.diff(times)[:, None]
    assert (np.abs(velocity) <= LIMITS.velocity_max + 1e-9).all()
    middle = (times[1:] + times[:-1]) / 2
    acceleration = np.diff(velocity, axis=0) / np.diff(middle)[:, None]
    assert (np.abs(acceleration) <= LIMITS.acceleration_max + 1e-6).all()


def brake(runner, step, k):
    """Setpoints from `step` until the arm is at rest, and the first step with nothing more to send."""
    wire = [step.command]
    while runner.is_moving:
        step = runner.step(frame(k := k + 1))
        assert step.state is RunState.STOPPED
        wire.append(step.command)
    return wire, runner.step(frame(k + 1))


def test_nothing_is_commanded_before_a_start_and_after_the_brake_that_follows_a_stop(hasty):
    step = hasty.step(frame(0))
    assert (step.state, step.command) == (RunState.IDLE, None)
    hasty.start()
    wire = [HOME] + [hasty.step(frame(k)).command for k in range(1, 6)]
    stopped = hasty.stop(frame(5).stamp_ns)
    assert stopped.state is RunState.STOPPED
    braking, after = brake(hasty, stopped, 5)
    assert len(braking) > 1, "an arm in motion cannot stop within one period"
    assert_smooth(np.array(wire + braking))
    assert after.command is None


def test_a_run_begins_where_the_robot_is_and_moves_within_its_limits(hasty):
    hasty.start()
    wire = [HOME] + [hasty.step(frame(k)).command for k in range(6)]
    assert_smooth(np.array(wire))
    assert not np.array_equal(wire[-1], HOME)


def test_setpoints_at_uneven_times_lie_on_one_motion(hasty):
    hasty.start()
    shares = [1.0, 0.2, 1.0, 0.6, 0.9, 0.1, 1.0, 1.0]
    wire = [HOME]
    for k, share in enumerate(shares):
        wire.append(hasty.step(frame(k), elapsed=lambda share=share: share * PERIOD_S).command)
    assert_smooth(wire, PERIOD_S * np.array(shares))


# Who asks, what comes of a frame, and the share of a period until a command is due. A cancelled goal and one whose time is
# over are stops.
requests = st.lists(
    st.tuples(
        st.sampled_from(["start", "stop", "good", "good", "good", "lost", "silence"]),
        st.sampled_from([1.0, 0.9, 0.5, 0.1]),
    ),
    min_size=1,
    max_size=40,
)


@given(asked=requests)
@settings(max_examples=150, deadline=None)
def test_starts_and_stops_in_any_order_never_make_the_arm_jump(hasty_run, asked):
    runner, wire, intervals_s = PolicyRunner(hasty_run, ROBOT), [HOME], []
    runner.start()
    rest = [("stop", 1.0)] + 20 * [("silence", 1.0)]
    for k, (what, share) in enumerate([*asked, *rest]):
        elapsed = lambda share=share: share * PERIOD_S  # noqa: E731
        if what == "start":
            runner.start()
            continue
        if what == "stop":
            step = runner.stop(frame(k).stamp_ns, elapsed)
        elif what == "silence":
            step = runner.hold(frame(k).stamp_ns, "keypoints_stale", elapsed=elapsed)
        else:
            state = TrackerState.TRACKING if what == "good" else TrackerState.LOST
            step = runner.step(frame(k, wire[-1], state), elapsed=elapsed)
        if step.command is not None:
            wire.append(step.command)
            intervals_s.append(elapsed())
    assert not runner.is_moving
    assert_smooth(wire, intervals_s)


def test_a_run_that_is_started_while_the_arm_brakes_goes_on_from_that_motion(hasty):
    hasty.start()
    wire = [HOME] + [hasty.step(frame(k)).command for k in range(5)]
    wire.append(hasty.stop(frame(5).stamp_ns).command)
    assert hasty.is_moving
    hasty.start()
    # An arm under position control lags its setpoint.
    restarted = hasty.step(frame(6, measured=wire[-2]))
    assert restarted.state is RunState.RUNNING
    assert_smooth([*wire, restarted.command])


def test_a_run_that_is_started_while_the_arm_brakes_begins_anew_where_the_arm_was_put_meanwhile(hasty):
    hasty.start()
    wire = [HOME] + [hasty.step(frame(k)).command for k in range(5)]
    wire.append(hasty.stop(frame(5).stamp_ns).command)
    hasty.start()
    elsewhere = HOME + np.append(np.full(7, 0.5), 0.0)
    steps = [hasty.step(frame(6, measured=elsewhere))]
    while hasty.is_moving and steps[-1].state is not RunState.RUNNING:
        steps.append(hasty.step(frame(6 + len(steps), measured=elsewhere)))
    assert {step.cause for step in steps} == {"tracking_gap"}
    assert_smooth(wire + [step.command for step in steps])
    begun = hasty.step(frame(7 + len(steps), measured=elsewhere))
    assert begun.state is RunState.RUNNING
    assert_smooth([elsewhere, begun.command])


def test_a_plan_goes_on_for_a_period_and_ends_at_rest(hasty):
    hasty.start()
    for k in range(4):
        plan = hasty.step(frame(k)).plan
    assert len(plan.position) > 3
    assert np.array_equal(plan.time_ns, PERIOD_NS * np.arange(1, len(plan.position) + 1))
    assert (np.abs(np.diff(plan.position[:, :-1], axis=0)) <= LIMITS.velocity_max * PERIOD_S + 1e-9).all()
    assert not plan.velocity[-1].any()
    assert plan.velocity[0].any()


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        (lambda k: frame(k, state=TrackerState.LOST), "tracker_lost"),
        (lambda k: frame(k, measured=np.append(np.nan, HOME[1:])), "joint_state_not_finite"),
        (lambda k: frame(k, ids=IDS + 1), "keypoint_set_mismatch"),
        (lambda k: frame(k, measured=HOME + np.append(np.full(7, 0.6), 0.0)), "tracking_gap"),
    ],
)
def test_a_bad_frame_is_held_with_its_cause_and_a_good_one_resumes_without_a_jump(hasty, bad, cause):
    hasty.start()
    wire = [HOME] + [hasty.step(frame(k)).command for k in range(4)]
    for k in range(4, 12):
        held = hasty.step(bad(k))
        assert (held.state, held.cause) == (RunState.HOLDING, cause)
        wire.append(held.command)
    assert np.array_equal(wire[-1], wire[-2]), "at rest"
    for k in range(12, 16):
        resumed = hasty.step(frame(k, measured=wire[-1]))
        assert resumed.state is RunState.RUNNING
        wire.append(resumed.command)
    assert_smooth(np.array(wire))


def test_a_run_that_begins_with_somebody_elses_fault_holds_where_the_robot_is(hasty):
    """Who looks at plans must see one before the arm may move."""
    hasty.start()
    held = hasty.step(frame(0), fault="plan_unchecked")
    assert (held.state, held.cause) == (RunState.HOLDING, "plan_unchecked")
    assert np.array_equal(held.plan.position, HOME[None])
    assert hasty.step(frame(1)).state is RunState.RUNNING


def test_keypoints_that_are_not_numbers_are_held(runner):
    runner.start()
    runner.step(frame(0))
    good = frame(1)
    nan = replace(good, payload=replace(good.payload, uv_px=np.full((4, 2), np.nan, np.float32)))
    assert runner.step(nan).cause == "keypoints_not_finite"


def test_old_inputs_are_held(runner):
    runner.start()
    late_ns = round(2e9 * ROBOT.deadlines_s.image)
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


@pytest.mark.parametrize("jump_ns", [60 * 10**9, -10 * 10**9])
def test_a_jump_in_time_is_held_and_the_run_goes_on_without_a_jump_of_the_arm(hasty, jump_ns):
    hasty.start()
    wire = [HOME] + [hasty.step(frame(k)).command for k in range(4)]
    for k in range(4, 8):
        step = hasty.step(frame(k, measured=wire[-1], stamp_ns=20 * 10**9 + jump_ns + k * PERIOD_NS))
        assert (step.cause == "clock_jump") == (k == 4)
        wire.append(step.command)
    assert step.state is RunState.RUNNING
    assert_smooth(np.array(wire))


def test_an_arm_that_was_moved_elsewhere_in_between_is_held(runner):
    runner.start()
    runner.step(frame(0))
    elsewhere = HOME + np.append(np.full(7, 0.5), 0.0)
    assert runner.step(frame(1, measured=elsewhere, stamp_ns=60 * 10**9)).cause == "clock_jump"
    assert runner.step(frame(2, measured=elsewhere, stamp_ns=60 * 10**9 + PERIOD_NS)).cause == "tracking_gap"


def test_a_picture_that_does_not_change_while_the_arm_moves_is_held(run, runner):
    def repeated(k, measured):
        seen = frame(k, measured)
        return replace(seen, payload=replace(seen.payload, repeats=k))

    runner.start()
    still = [runner.step(repeated(k, HOME)).cause for k in range(10)]
    assert set(still) == {""}, "a scene at rest may look the same"
    moved = HOME + np.append(np.full(7, 0.03), 0.0)
    assert runner.step(repeated(10, moved)).cause == "image_frozen"
    assert runner.step(frame(11, moved)).state is RunState.RUNNING
    camera = ROBOT.camera.model_copy(update={"noiseless": True})
    simulated = PolicyRunner(run, ROBOT.model_copy(update={"camera": camera}))
    simulated.start()
    for k in range(10):
        simulated.step(repeated(k, HOME))
    assert simulated.step(repeated(10, moved)).cause == "", (
        "its pictures are alike because they have no noise"
    )


def test_an_arm_that_does_not_follow_is_held(hasty):
    hasty.start()
    causes = [hasty.step(frame(k)).cause for k in range(40)]
    assert "not_following" in causes or "tracking_gap" in causes
    # As a policy that acts relative to where the arm is would have it: a small gap that never grows.
    hasty.start()
    steps = [hasty.step(frame(0))]
    while steps[-1].cause == "" and len(steps) < 60:
        hasty.follow(HOME + np.append(np.full(7, 0.1), 0.0))
        steps.append(hasty.step(frame(len(steps))))
    assert steps[-1].cause == "not_following"
    assert len(steps) * PERIOD_S == pytest.approx(1.0, abs=0.2)


def test_the_scene_of_the_robot_description_is_kept_clear(hasty_run):
    """The random policy leaves the workspace in a hurry; the arm brakes before."""
    runner = PolicyRunner(hasty_run, SIM_PANDA)
    runner.start()
    model = KinematicModel(SIM_PANDA)
    measured, causes = HOME, set()
    for k in range(60):
        step = runner.step(frame(k, measured))
        causes.add(step.cause)
        measured = step.command
        assert model.scene_fault(measured[None, :-1]) == ("", -1)
    assert "workspace" in causes


class NoGo:
    """A scene in which the arm must stay near where it begins."""

    def scene_fault(self, positions_rad):
        return ("no_go", 0) if np.abs(positions_rad - HOME[:-1]).max() > 0.1 else ("", -1)


def test_the_scene_holds_the_arm_before_it_gets_there(hasty_run):
    runner = PolicyRunner(hasty_run, ROBOT, scene=NoGo())
    runner.start()
    steps = [runner.step(frame(k)) for k in range(20)]
    assert {step.cause for step in steps} == {"", "no_go"}
    assert 0.05 < max(np.abs(step.command - HOME)[:-1].max() for step in steps) <= 0.1
    assert_smooth(np.array([HOME] + [step.command for step in steps]))


def test_the_same_frames_give_the_same_commands(run):
    commands = []
    for _ in range(2):
        runner = PolicyRunner(run, ROBOT)
        runner.start()
        commands.append([runner.step(frame(k)).command for k in range(8)])
    assert np.array_equal(commands[0], commands[1])


@pytest.mark.parametrize("execution_horizon", [1, 3])
def test_a_chunk_is_followed_for_as_long_as_the_run_folder_says(tmp_path, execution_horizon):
    """Receding horizon; a lost frame does not shift what is followed, and a hold infers anew."""
    run = write_run_folder(tmp_path / "run", execution_horizon=execution_horizon, ensemble_decay=50.0)
    runner = PolicyRunner(run, ROBOT)
    runner.start()
    inferred = []
    for k in [0, 1, 2, 3, 4, 5, 7, 8]:
        assert runner.step(frame(k)).state is RunState.RUNNING
        inferred.append(runner.last_chunk is not None)
    expected = [True] * 8 if execution_horizon == 1 else [True, False, False, True, False, False, True, False]
    assert inferred == expected
    runner.step(frame(9, state=TrackerState.LOST))
    assert runner.step(frame(10)).state is RunState.RUNNING
    assert runner.last_chunk is not None


def test_an_unknown_inference_backend_is_named(run):
    with pytest.raises(ValueError, match=r"unknown inference_backend 'tpu'; known: onnxruntime, torch"):
        PolicyRunner(run, ROBOT, inference_backend="tpu")

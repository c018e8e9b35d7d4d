"""Frames are the same whatever order messages arrive in, and bad recordings are refused by name."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bag_writing import ROBOT, write_demonstration

from atk_perception.frames import (
    BagError,
    FrameAligner,
    JointStateError,
    RobotState,
    bag_topics,
    check_bag,
    read_frames,
    robot_state_from_message,
)

PERIOD_NS = ROBOT.control_period_ns


def state(stamp_ns: int, value: float) -> RobotState:
    return RobotState(stamp_ns, np.full(ROBOT.joint_count, value), 0.04)


def test_joint_states_in_another_order_give_the_same_robot_state():
    names = [*ROBOT.joints.names, ROBOT.gripper.joint, "another_joint"]
    values = [*np.linspace(0.1, 0.7, 7), 0.02, 9.0]
    shuffled = np.random.default_rng(0).permutation(len(names))
    plain = robot_state_from_message(names, values, ROBOT, 5)
    mixed = robot_state_from_message([names[i] for i in shuffled], [values[i] for i in shuffled], ROBOT, 5)
    np.testing.assert_array_equal(plain.vector(), mixed.vector())
    assert plain.gripper_m == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("names", "values", "cause", "text"),
    [
        (ROBOT.joints.names, [0.0] * 7, "joint_missing", "panda_finger_joint1"),
        (
            [*ROBOT.joints.names, "panda_finger_joint1"],
            [0.0] * 3 + [np.nan] + [0.0] * 4,
            "joint_state_not_finite",
            "panda_joint4",
        ),
        ([*ROBOT.joints.names, "panda_finger_joint1"], [0.0] * 7, "joint_state_malformed", "8 joints"),
    ],
)
def test_unusable_joint_states_are_refused_with_their_cause(names, values, cause, text):
    with pytest.raises(JointStateError, match=text) as caught:
        robot_state_from_message(names, values, ROBOT, 0)
    assert caught.value.cause == cause


def test_frames_do_not_depend_on_the_order_of_arrival():
    events = [("image", k * PERIOD_NS, k) for k in range(20)]
    events += [("state", t * 10_000_000, t) for t in range(110)]

    def run(order: list[int]) -> list[tuple[int, int, bytes]]:
        aligner: FrameAligner[int] = FrameAligner(ROBOT, with_actions=False)
        frames = []
        for index in order:
            kind, stamp_ns, value = events[index]
            if kind == "image":
                frames += aligner.add_payload(stamp_ns, value)
            else:
                frames += aligner.add_robot_state(state(stamp_ns, float(value)))
        return [(f.stamp_ns, f.payload, f.robot.vector().tobytes()) for f in frames]

    in_time = sorted(range(len(events)), key=lambda i: events[i][1])
    images_late = sorted(
        range(len(events)), key=lambda i: events[i][1] + (30_000_000 if events[i][0] == "image" else 0)
    )
    states_late = sorted(
        range(len(events)), key=lambda i: events[i][1] + (35_000_000 if events[i][0] == "state" else 0)
    )
    expected = run(in_time)
    assert [payload for _, payload, _ in expected] == list(range(20))
    assert run(images_late) == expected
    assert run(states_late) == expected


def test_robot_state_is_interpolated_at_the_image_stamp():
    aligner: FrameAligner[str] = FrameAligner(ROBOT, with_actions=False)
    aligner.add_robot_state(state(0, 0.0))
    assert aligner.add_payload(4_000_000, "image") == []
    (frame,) = aligner.add_robot_state(state(10_000_000, 1.0))
    np.testing.assert_allclose(frame.robot.joint_position_rad, 0.4)


def test_a_gap_in_the_joint_states_drops_the_frame_instead_of_guessing():
    aligner: FrameAligner[str] = FrameAligner(ROBOT, with_actions=False)
    aligner.add_robot_state(state(0, 0.0))
    aligner.add_payload(100_000_000, "image")
    assert aligner.add_robot_state(state(600_000_000, 1.0)) == []
    assert aligner.dropped == {"joint_state_gap": 1}


@pytest.mark.parametrize("camera_hz", [20.0, 30.0, 60.0])
def test_a_faster_camera_is_thinned_to_the_control_rate(camera_hz):
    robot = ROBOT.model_copy(update={"camera": ROBOT.camera.model_copy(update={"rate_hz": camera_hz})})
    aligner: FrameAligner[int] = FrameAligner(robot, with_actions=False)
    frames = []
    for k in range(int(camera_hz * 10)):
        stamp_ns = round(k * 1e9 / camera_hz)
        aligner.add_robot_state(state(stamp_ns, 0.0))
        frames += aligner.add_payload(stamp_ns, k)
    assert len(frames) == pytest.approx(10 * robot.control_rate_hz, abs=1)
    gaps_s = np.diff([frame.stamp_ns for frame in frames]) / 1e9
    assert gaps_s.max() <= 1.0 / robot.control_rate_hz + 0.5 / camera_hz + 1e-6


def test_time_that_jumps_back_starts_afresh():
    aligner: FrameAligner[str] = FrameAligner(ROBOT, with_actions=False)
    aligner.add_robot_state(state(10_000_000_000, 1.0))
    assert len(aligner.add_payload(10_000_000_000, "before")) == 1
    aligner.add_robot_state(state(0, 2.0))
    (frame,) = aligner.add_payload(0, "after")
    np.testing.assert_allclose(frame.robot.joint_position_rad, 2.0)


def test_the_action_is_the_first_command_after_the_image(tmp_path):
    bag, expected = write_demonstration(tmp_path / "demo", steps=6)
    frames = list(read_frames(bag, ROBOT))
    assert len(frames) == 6
    for frame, (image, q, action) in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.payload, image)
        np.testing.assert_allclose(frame.robot.vector(), q)
        np.testing.assert_allclose(frame.action, action)


def test_of_a_trajectory_the_action_is_its_first_point_as_a_position_command_would_be(tmp_path):
    bag, expected = write_demonstration(tmp_path / "demo", steps=6, arm_command="trajectory")
    for frame, (_, _, action) in zip(read_frames(bag, ROBOT), expected, strict=True):
        np.testing.assert_allclose(frame.action, action)
    assert check_bag(bag, ROBOT).problems == (), (
        "times of trajectories are those of their arrival, not their stamp 0"
    )


def test_trajectories_and_positions_that_come_at_the_same_uneven_times_are_the_same_actions():
    """The second point of a plan is due when the next plan comes: it must not be taken for it."""
    rng = np.random.default_rng(0)
    plans = rng.uniform(-1, 1, (60, 4, ROBOT.joint_count))
    late_ns = rng.integers(1_000_000, 45_000_000, len(plans))
    offsets_ns = PERIOD_NS * np.arange(1, 5)

    def actions(add) -> list[np.ndarray]:
        aligner: FrameAligner[int] = FrameAligner(ROBOT, with_actions=True)
        frames = []
        for k, plan in enumerate(plans):
            stamp_ns = 10**9 + k * PERIOD_NS
            frames += aligner.add_robot_state(state(stamp_ns, 0.0))
            frames += aligner.add_payload(stamp_ns, k)
            add(aligner, stamp_ns + int(late_ns[k]), plan)
            aligner.add_gripper_command(stamp_ns + int(late_ns[k]), 0.04)
        return [frame.action for frame in [*frames, *aligner.finish()]]

    by_position = actions(lambda aligner, now_ns, plan: aligner.add_command(now_ns, plan[0]))
    by_plan = actions(lambda aligner, now_ns, plan: aligner.add_trajectory_command(now_ns, offsets_ns, plan))
    assert len(by_position) == len(plans)
    np.testing.assert_array_equal(by_plan, by_position)


def test_a_trajectory_that_nothing_replaces_is_followed_point_by_point():
    aligner: FrameAligner[int] = FrameAligner(ROBOT, with_actions=True)
    points = np.arange(4)[:, None] * np.ones(ROBOT.joint_count)
    frames = []
    for k in range(6):
        stamp_ns = 10**9 + k * PERIOD_NS
        frames += aligner.add_robot_state(state(stamp_ns, 0.0))
        frames += aligner.add_payload(stamp_ns, k)
        if k == 0:
            aligner.add_trajectory_command(stamp_ns + 5_000_000, PERIOD_NS * np.arange(1, 5), points)
            aligner.add_gripper_command(stamp_ns + 5_000_000, 0.04)
    frames += aligner.finish()
    assert [frame.action[0] for frame in frames] == [0, 1, 2, 3, 3, 3]


def test_commands_that_say_no_positions_are_refused(tmp_path):
    bag, _ = write_demonstration(tmp_path / "demo", steps=3, arm_command="twist")
    with pytest.raises(BagError, match=r"TwistStamped, which says no joint positions.*command_out_topic"):
        list(read_frames(bag, ROBOT))


def test_a_slower_command_is_held_between_its_messages(tmp_path):
    bag, expected = write_demonstration(tmp_path / "demo", steps=8, command_every=2)
    frames = list(read_frames(bag, ROBOT))
    for earlier, later in list(pairwise(frames))[::2]:
        np.testing.assert_array_equal(earlier.action, later.action)
    np.testing.assert_allclose(frames[2].action, expected[2][2])


def test_every_image_is_observed_even_between_control_frames(tmp_path):
    bag, _ = write_demonstration(tmp_path / "demo", steps=10)
    slow = ROBOT.model_copy(update={"control_rate_hz": 10.0})
    seen = []
    frames = list(
        read_frames(bag, slow, observe=lambda stamp_ns, image: seen.append(stamp_ns) or image.shape)
    )
    assert len(seen) == 10
    assert len(frames) == 5
    assert frames[0].payload == (24, 32, 3)


def test_a_bag_without_images_names_what_it_holds(tmp_path):
    bag, _ = write_demonstration(tmp_path / "demo", steps=3, without={"camera/image_raw/compressed"})
    with pytest.raises(BagError, match="has no images on 'camera/image_raw/compressed'"):
        next(read_frames(bag, ROBOT))


@pytest.mark.parametrize(
    "topic", ["joint_states", "forward_position_controller/commands", "gripper_position_controller/commands"]
)
def test_a_bag_without_a_needed_topic_names_it(tmp_path, topic):
    bag, _ = write_demonstration(tmp_path / "demo", steps=3, without={topic})
    with pytest.raises(BagError, match=topic):
        next(read_frames(bag, ROBOT))


def test_a_recording_cut_short_is_refused_and_left_alone(tmp_path):
    bag, _ = write_demonstration(tmp_path / "demo", steps=40)
    (mcap,) = bag.glob("*.mcap")
    whole = mcap.read_bytes()
    mcap.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BagError, match=r"cut short|damaged"):
        list(read_frames(bag, ROBOT))
    assert mcap.read_bytes() == whole[: len(whole) // 2]
    (bag / "metadata.yaml").unlink()
    with pytest.raises(BagError, match="reindex"):
        list(read_frames(bag, ROBOT))


def test_a_folder_that_is_no_bag_is_refused(tmp_path):
    with pytest.raises(BagError, match="is no folder"):
        bag_topics(tmp_path / "nothing")


def test_log_times_on_another_clock_are_refused(tmp_path):
    bag, _ = write_demonstration(tmp_path / "demo", steps=3, log_offset_ns=10**12)
    with pytest.raises(BagError, match="use-sim-time"):
        list(read_frames(bag, ROBOT))


def test_the_check_finds_a_lost_image(tmp_path):
    whole, _ = write_demonstration(tmp_path / "whole", steps=10)
    assert check_bag(whole, ROBOT).ok
    holed, _ = write_demonstration(tmp_path / "holed", steps=10, lost_images={4})
    report = check_bag(holed, ROBOT)
    assert not report.ok
    assert "one is missing" in report.problems[0]


def test_the_check_finds_a_recorder_that_was_late(tmp_path):
    late_ns = round(2e9 * ROBOT.deadlines_s.image)
    bag, _ = write_demonstration(tmp_path / "late", steps=10, log_offset_ns=late_ns)
    report = check_bag(bag, ROBOT)
    assert len(report.problems) == 1
    assert f"recorded {late_ns / 1e9:.3f} s after its stamp" in report.problems[0]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"image_every_ns": 60_000_000}, r"compressed: 16\.7 Hz; the robot description says 20\.0 Hz"),
        ({"topic_ends": {ROBOT.camera.recorded_topic: 20}}, r"compressed: ends 2\.0 s before the others"),
        ({"topic_ends": {ROBOT.topics.joint_states: 20}}, r"joint_states: ends"),
        ({"topic_ends": {ROBOT.topics.command: 20}}, r"commands: ends"),
        ({"command_every": 25}, r"no command for 1\.250 s, in which the arm was held"),
    ],
)
def test_the_check_finds_topics_that_are_slow_or_silent(tmp_path, how, message):
    bag, _ = write_demonstration(tmp_path / "demo", steps=60, **how)
    report = check_bag(bag, ROBOT)
    assert re.search(message, report.problems[0]), report.problems


def test_the_check_says_how_every_topic_arrived(tmp_path):
    bag, _ = write_demonstration(tmp_path / "demo", steps=21)
    report = check_bag(bag, ROBOT)
    assert str(report.topics[ROBOT.camera.recorded_topic]) == "21 at 20.0 Hz, longest gap 0.050 s"
    assert len(report.topics) == 4


def test_a_bag_is_streamed(tmp_path):
    """The first frames come out before the (damaged) end is read."""
    bag, _ = write_demonstration(tmp_path / "demo", steps=10)
    copy = Path(shutil.copytree(bag, tmp_path / "copy"))
    frames = read_frames(copy, ROBOT)
    assert next(frames).stamp_ns < next(frames).stamp_ns

"""Frames are the same whatever order messages arrive in, and bad recordings are refused by name."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_writing import ROBOT, TYPES, write_demonstration

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
from atk_perception.image_codec import ImageFormatError
from atk_perception.robot_description import RobotDescription

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
    with pytest.raises(
        BagError, match=r"TwistStamped, not joint positions.*command_out_topic.*recorded_command"
    ):
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


# -- what messages say ------------------------------------------------------------------------------

JOINT_STATES, ARM, GRIPPER = (
    ROBOT.topics.joint_states,
    ROBOT.topics.command,
    ROBOT.topics.gripper_command,
)


def changed(topic: str, step: int, **fields):
    """A change of one message, for `write_demonstration`."""
    return lambda t, k, message: replace(message, **fields) if (t, k) == (topic, step) else message


def a_point_without_positions(topic: str, step: int, message):
    if (topic, step) == (ARM, 4):
        message.points[0].positions = np.zeros(0)
    return message


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"change": changed(ARM, 4, data=np.zeros(6))}, rf"{ARM}, 0\.202 s after .*expected 7 finite joint"),
        ({"change": changed(ARM, 4, data=np.full(7, np.inf))}, "expected 7 finite joint positions"),
        ({"change": changed(GRIPPER, 4, data=np.zeros(0))}, r"a gripper command holds \[\]; expected one"),
        ({"change": changed(GRIPPER, 4, data=np.zeros(2))}, r"holds \[0\.0, 0\.0\]; expected one"),
        ({"change": changed(GRIPPER, 4, data=np.array([np.nan]))}, r"holds \[nan\]; expected one finite"),
        ({"change": changed(JOINT_STATES, 4, position=np.full(8, np.nan))}, "not finite for .*panda_joint1"),
        (
            {"change": changed(JOINT_STATES, 4, name=["a"] * 8)},
            rf"{JOINT_STATES}, 0\.200 s after its first message: joint state lacks .*panda_joint1",
        ),
        ({"change": changed(JOINT_STATES, 4, position=np.zeros(3))}, "names 8 joints but holds 3 positions"),
        (
            {"arm_command": "trajectory", "change": changed(ARM, 4, joint_names=list("abcdefg"))},
            r"a trajectory for \['a', .* lacks \['panda_joint1'",
        ),
        (
            {"arm_command": "trajectory", "change": a_point_without_positions},
            "a point without finite positions",
        ),
        ({"arm_command": "twist"}, "TwistStamped, not joint positions"),
        (
            {
                "types": {GRIPPER: "std_msgs/msg/Float64"},
                "change": lambda topic, _, message: FLOAT if topic == GRIPPER else message,
            },
            rf"{GRIPPER} holds std_msgs/msg/Float64, not openings of the gripper .*leave topics\.gripper_command out",
        ),
        (
            {
                "types": {JOINT_STATES: "std_msgs/msg/Float64"},
                "change": lambda topic, _, message: FLOAT if topic == JOINT_STATES else message,
            },
            rf"{JOINT_STATES} holds std_msgs/msg/Float64, not joint states",
        ),
    ],
)
def test_what_cannot_be_read_later_does_not_pass_the_check(tmp_path, how, message):
    bag, _ = write_demonstration(tmp_path / "demo", steps=10, **how)
    with pytest.raises(BagError, match=message):
        check_bag(bag, ROBOT)
    with pytest.raises((BagError, JointStateError), match=message):
        list(read_frames(bag, ROBOT))


FLOAT = TYPES.types["std_msgs/msg/Float64"](data=0.04)


def test_the_check_decodes_no_image(tmp_path):
    """It reads an hour of images as fast as the disk: one that cannot be decoded passes, and is refused by the reader."""
    topic = ROBOT.camera.recorded_topic
    bag, _ = write_demonstration(
        tmp_path / "demo", steps=10, change=changed(topic, 4, data=np.zeros(9, np.uint8))
    )
    assert check_bag(bag, ROBOT).ok
    with pytest.raises(ImageFormatError, match=rf"{topic}, 0\.200 s after its first message: "):
        list(read_frames(bag, ROBOT))


def test_a_bag_without_a_frame_does_not_pass_the_check(tmp_path):
    late = {"topic_ends": {ROBOT.camera.recorded_topic: 1}, "change": lambda *given: given[-1]}
    bag, _ = write_demonstration(tmp_path / "demo", steps=10, lost_images=set(range(9)), **late)
    with pytest.raises(BagError, match="has no images"):
        check_bag(bag, ROBOT)
    ends = dict.fromkeys((JOINT_STATES, ARM, GRIPPER), 3)
    bag, _ = write_demonstration(tmp_path / "apart", steps=10, lost_images=set(range(5)), topic_ends=ends)
    with pytest.raises(BagError, match="no frame in which image, joint state and command overlap"):
        check_bag(bag, ROBOT)


def test_the_check_tells_a_topic_that_was_to_be_recorded_and_stayed_silent(tmp_path):
    """The recorder asks for camera_info, and for what people name; their publishers may say nothing."""
    empty = {ROBOT.camera.camera_info_topic: "sensor_msgs/msg/CameraInfo"}
    bag, _ = write_demonstration(tmp_path / "demo", steps=10, empty_topics=empty)
    assert check_bag(bag, ROBOT).problems == (f"{ROBOT.camera.camera_info_topic}: no message came",)


def test_a_trajectory_without_points_tells_the_arm_nothing(tmp_path):
    bag, expected = write_demonstration(
        tmp_path / "demo", steps=6, arm_command="trajectory", change=changed(ARM, 3, points=[])
    )
    assert check_bag(bag, ROBOT).ok
    actions = [frame.action for frame in read_frames(bag, ROBOT)]
    np.testing.assert_allclose(actions[2], expected[2][2])
    np.testing.assert_allclose(actions[4], expected[4][2])
    assert not np.allclose(actions[3][:-1], expected[3][2][:-1])


# -- robots whose commands are said elsewhere --------------------------------------------------------


def with_topics(**changes) -> RobotDescription:
    content = yaml.safe_load(ROBOT.dump())
    content["topics"] = {k: v for k, v in {**content["topics"], **changes}.items() if v is not None}
    if content["topics"].get("gripper_command") is None:
        content["gripper"] |= {"sink": "gripper_command", "action": "gripper_cmd"}
    return RobotDescription.model_validate(content)


def test_one_robot_file_serves_recording_and_running_through_servo(tmp_path):
    """The policy publishes what Servo takes; demonstrations hold what Servo tells the controller."""
    servo = with_topics(command="servo_node/delta_joint_cmds", recorded_command=ARM)
    bag, expected = write_demonstration(tmp_path / "demo", steps=6, arm_command="trajectory")
    assert check_bag(bag, servo).ok
    for frame, (_, _, action) in zip(read_frames(bag, servo), expected, strict=True):
        np.testing.assert_allclose(frame.action, action)


def test_without_opening_commands_the_action_is_the_opening_at_the_end_of_its_period(tmp_path):
    robot = with_topics(gripper_command=None)
    opening_m = np.linspace(0.01, 0.07, 8)  # it only opens

    def move(topic: str, step: int, message):
        if topic == JOINT_STATES:
            message.position[-1] = ROBOT.gripper.joint_position(opening_m[step])
        return message

    bag, expected = write_demonstration(tmp_path / "demo", steps=8, without={GRIPPER}, change=move)
    assert check_bag(bag, robot).ok
    frames = list(read_frames(bag, robot))
    np.testing.assert_allclose([f.action[-1] for f in frames], [*opening_m[1:], opening_m[-1]])
    np.testing.assert_allclose([f.action[:-1] for f in frames], [action[:-1] for _, _, action in expected])
    with pytest.raises(BagError, match=GRIPPER):
        check_bag(bag, ROBOT)


def test_what_a_gripper_was_seen_to_hold_is_pressed_and_let_go(tmp_path):
    """Closing, stopped by what it holds at 40 mm, opening again; the sensor trembles by half a millimetre."""
    robot = with_topics(gripper_command=None)
    plan_mm = [80, 80, 60, 40, 40, 40, 40, 60, 80, 80]
    rng = np.random.default_rng(0)
    seen_m = [1e-3 * (mm + rng.uniform(-0.5, 0.5)) for mm in plan_mm]
    aligner: FrameAligner[int] = FrameAligner(robot, with_actions=True)
    frames = []
    for k, opening_m in enumerate(seen_m):
        stamp_ns = 10**9 + k * PERIOD_NS
        frames += aligner.add_robot_state(RobotState(stamp_ns, np.zeros(ROBOT.joint_count), opening_m))
        frames += aligner.add_payload(stamp_ns, k)
        aligner.add_command(stamp_ns + 1, np.zeros(ROBOT.joint_count))
    frames += aligner.finish()
    squeeze_m = robot.gripper.squeeze_m
    closing = [False, True, True, True, True, True, False, False, False, False]
    expected = [
        opening_m - squeeze_m * closes
        for opening_m, closes in zip([*seen_m[1:], seen_m[-1]], closing, strict=True)
    ]
    np.testing.assert_allclose([frame.action[-1] for frame in frames], expected)


def test_a_bag_is_streamed(tmp_path):
    """The first frames come out before the (damaged) end is read."""
    bag, _ = write_demonstration(tmp_path / "demo", steps=10)
    copy = Path(shutil.copytree(bag, tmp_path / "copy"))
    frames = read_frames(copy, ROBOT)
    assert next(frames).stamp_ns < next(frames).stamp_ns

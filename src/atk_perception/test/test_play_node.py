"""A bag is played as it was recorded, with its clock; recorded commands reach nobody unless they are named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import rclpy
import yaml
from bag_writing import ROBOT, START_NS, write_demonstration
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from atk_perception.frames import raw_messages
from atk_perception.service_answers import answers_reach

pytestmark = pytest.mark.system

DOMAIN = 14 + os.getpid() % 60
DEEP = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
PLAY = "from atk_perception.play_node import play_command; play_command()"
TOPICS = {
    ROBOT.camera.recorded_topic: CompressedImage,
    ROBOT.topics.joint_states: JointState,
    ROBOT.topics.command: Float64MultiArray,
    ROBOT.topics.gripper_command: Float64MultiArray,
}
COMMANDS = {ROBOT.topics.command, ROBOT.topics.gripper_command}
STEPS = 10


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("play") / "demo"
    return write_demonstration(path, steps=STEPS, custom_data={"atk_robot_file": ROBOT.dump()})[0]


class Listener:
    """Everything that is published, as it is on the wire, in order of arrival per topic."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node("listener", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.heard: dict[str, list[bytes]] = {topic: [] for topic in TOPICS}
        self.clock: list[int] = []
        self.subscriptions = [
            self.node.create_subscription(kind, topic, self.heard[topic].append, DEEP, raw=True)
            for topic, kind in TOPICS.items()
        ]
        self.node.create_subscription(
            Clock, "/clock", lambda m: self.clock.append(m.clock.sec * 10**9 + m.clock.nanosec), DEEP
        )
        self.resume = self.node.create_client(Trigger, "player/resume")

    def until(self, what: str, ready, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            assert time.monotonic() < deadline, f"no {what} within {timeout_s} s"
            self._executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def listener():
    listener = Listener()
    yield listener
    listener.close()


def play(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PLAY, *map(str, arguments)],
        env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def heard_after_resume(listener: Listener, process: subprocess.Popen[str], played: set[str]) -> str:
    """Resume once every publisher is heard; returns what the player said until it ended by itself."""
    try:
        listener.until("service", listener.resume.service_is_ready)
        listener.until("its answers", answers_reach(listener.node, "player"))
        listener.until(
            "publishers",
            lambda: sum(s.get_publisher_count() > 0 for s in listener.subscriptions) == len(played),
        )
        answer = listener.resume.call_async(Trigger.Request())
        listener.until("answer", answer.done)
        listener.until("end", lambda: process.poll() is not None)
        return process.communicate()[0]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)


def recorded(bag, topics) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {topic: [] for topic in topics}
    for topic, _, cdr in raw_messages(bag, topics):
        found[topic].append(cdr)
    return found


def test_what_is_played_is_what_was_recorded_without_the_commands(bag, listener):
    process = play(bag, "--clock", 200, "--start-paused", "--rate", 2)
    output = heard_after_resume(listener, process, set(TOPICS) - COMMANDS)
    assert process.returncode == 0
    assert (
        "left out ['forward_position_controller/commands', 'gripper_position_controller/commands']" in output
    )
    for topic, messages in recorded(bag, set(TOPICS) - COMMANDS).items():
        assert listener.heard[topic] == messages
        assert len(messages) == STEPS
    assert not any(listener.heard[topic] for topic in COMMANDS)
    assert listener.clock == sorted(listener.clock)
    assert listener.clock[0] <= START_NS
    assert listener.clock[-1] >= START_NS + (STEPS - 1) * ROBOT.control_period_ns
    # At 200 Hz of recorded time there are ten ticks in each of the periods of 50 ms.
    assert len(listener.clock) > 5 * STEPS


def test_named_topics_alone_are_played_commands_too(bag, listener):
    process = play(bag, "--start-paused", "--rate", 5, "--topics", "/joint_states", ROBOT.topics.command)
    heard_after_resume(listener, process, {ROBOT.topics.joint_states, ROBOT.topics.command})
    expected = recorded(bag, {ROBOT.topics.joint_states, ROBOT.topics.command})
    assert {t: m for t, m in listener.heard.items() if m} == expected
    assert not listener.clock


def test_excluded_topics_are_not_played(bag, listener):
    process = play(bag, "--start-paused", "--rate", 5, "--exclude-topics", ROBOT.camera.recorded_topic)
    heard_after_resume(listener, process, {ROBOT.topics.joint_states})
    assert {t for t, m in listener.heard.items() if m} == {ROBOT.topics.joint_states}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere"], "is no folder"),
        (["BAG", "--topics", "no_such_topic"], r"has no topics ['no_such_topic']; it holds ['camera/"),
        (["BAG", "--exclude-topics", "joint_states", "camera/image_raw/compressed"], "holds nothing to play"),
        (["BAG", "--lockstep", "--exclude-topics", ROBOT.camera.recorded_topic], "no images to wait for"),
    ],
)
def test_a_bag_that_cannot_be_played_is_named(bag, arguments, message):
    process = play(*[str(bag) if a == "BAG" else a for a in arguments])
    output, _ = process.communicate(timeout=30)
    assert message in output


def test_what_servo_told_the_controller_reaches_no_robot_either(tmp_path):
    content = yaml.safe_load(ROBOT.dump())
    content["topics"] |= {"command": "servo_node/delta_joint_cmds", "recorded_command": ROBOT.topics.command}
    bag, _ = write_demonstration(
        tmp_path / "servo", steps=2, custom_data={"atk_robot_file": yaml.safe_dump(content)}
    )
    output, _ = play(bag, "--rate", 0).communicate(timeout=60)
    assert f"left out ['{ROBOT.topics.command}', '{ROBOT.topics.gripper_command}']" in output

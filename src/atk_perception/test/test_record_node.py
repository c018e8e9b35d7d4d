"""The recorder over DDS: service, joystick and keyboard ask for the same; a full disk loses nothing that was written."""

from __future__ import annotations

import os
import pty
import re
import resource
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from bag_writing import ROBOT, ROBOT_FILE
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, CompressedImage, JointState, Joy
from std_msgs.msg import Float64MultiArray

from atk_interfaces.msg import RecordStatus
from atk_interfaces.srv import RecordEpisode
from atk_perception.frames import bag_label, bag_robot, check_bag, read_frames
from atk_perception.image_codec import fill_png_message
from atk_perception.record_node import STATUS_QOS
from atk_perception.service_answers import answers_reach

pytestmark = pytest.mark.system

DOMAIN = 13 + os.getpid() % 60
NODE = "from atk_perception.record_node import main; main()"
COMMAND = "from atk_perception.record_node import record_command; record_command()"


class Robot:
    """Publishes what a robot and its teleoperation publish, at 20 Hz, and asks the recorder."""

    def __init__(self, image_size: tuple[int, int] = (24, 32)) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node("robot", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._image = np.random.default_rng(0).integers(0, 255, (*image_size, 3), dtype=np.uint8)
        topics = ROBOT.topics
        self._images = self.node.create_publisher(CompressedImage, ROBOT.camera.recorded_topic, 50)
        self._joints = self.node.create_publisher(JointState, topics.joint_states, 50)
        self._arm = self.node.create_publisher(Float64MultiArray, topics.command, 50)
        self._gripper = self.node.create_publisher(Float64MultiArray, topics.gripper_command, 50)
        self._camera_info = self.node.create_publisher(CameraInfo, ROBOT.camera.camera_info_topic, 50)
        self.joy = self.node.create_publisher(Joy, "joy", 10)
        self.joint_rad = 0.1
        self.statuses: list[RecordStatus] = []
        self.node.create_subscription(RecordStatus, "recorder/status", self.statuses.append, STATUS_QOS)
        self.client = self.node.create_client(RecordEpisode, "recorder/episode")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._executor.spin), threading.Thread(target=self._publish)]
        for thread in self._threads:
            thread.start()

    def _publish(self) -> None:
        while not self._stop.wait(0.05):
            stamp = self.node.get_clock().now().to_msg()
            joints = JointState(
                name=[*ROBOT.joints.names, ROBOT.gripper.joint], position=[self.joint_rad] * 8
            )
            joints.header.stamp = stamp
            self._joints.publish(joints)
            image = fill_png_message(CompressedImage(), self._image)
            image.header.stamp = stamp
            self._images.publish(image)
            self._camera_info.publish(CameraInfo(header=image.header))
            self._arm.publish(Float64MultiArray(data=[0.1] * 7))
            self._gripper.publish(Float64MultiArray(data=[0.04]))

    def wait(self, what: str, ready, timeout_s: float = 30.0):
        deadline = time.monotonic() + timeout_s
        while not (value := ready()):
            assert time.monotonic() < deadline, f"no {what} within {timeout_s} s"
            time.sleep(0.02)
        return value

    def ask(self, command: int, name: str = "") -> RecordEpisode.Response:
        self.wait("recorder", self.client.service_is_ready)
        self.wait("its answers", answers_reach(self.node, "recorder"))
        future = self.client.call_async(RecordEpisode.Request(command=command, name=name))
        self.wait("answer", future.done)
        return future.result()

    def recording(self) -> bool:
        return bool(self.statuses) and self.statuses[-1].recording

    def images(self) -> int:
        return self.statuses[-1].images if self.statuses else 0

    def close(self) -> None:
        self._stop.set()
        self._executor.shutdown()
        for thread in self._threads:
            thread.join()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def robot():
    robot = Robot()
    yield robot
    robot.close()


def start(
    output: Path, *parameters: str, code: str = NODE, robot_file: Path = ROBOT_FILE, **options
) -> subprocess.Popen[str]:
    given = [part for p in (f"robot:={robot_file}", f"output:={output}", *parameters) for part in ("-p", p)]
    arguments = ["--ros-args", *given] if code == NODE else list(parameters)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def end(process: subprocess.Popen[str]) -> str:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    return output


def test_an_episode_is_kept_with_its_label_its_robot_and_a_check_that_says_so(robot, tmp_path):
    process = start(tmp_path)
    try:
        assert robot.ask(RecordEpisode.Request.START, "one").success
        robot.wait("images", lambda: robot.images() >= 20)
        answer = robot.ask(RecordEpisode.Request.KEEP)
        assert answer.success
        # Rate and longest gap of every needed topic.
        told = re.findall(r"([\w/]+) (\d+) at (\d+\.\d) Hz, longest gap (\d\.\d{3}) s", answer.message)
        assert {topic for topic, *_ in told} == {
            ROBOT.camera.recorded_topic,
            ROBOT.topics.joint_states,
            ROBOT.topics.command,
            ROBOT.topics.gripper_command,
        }
        assert bag_label(tmp_path / "one") == "success"
        assert bag_robot(tmp_path / "one") == ROBOT
        assert list(read_frames(tmp_path / "one", ROBOT))
        second = robot.ask(RecordEpisode.Request.KEEP)
        assert not second.success
        assert "send START first" in second.message
    finally:
        end(process)


def test_an_episode_that_could_not_be_read_is_not_kept(robot, tmp_path):
    """What selection would refuse weeks later is said while the robot still stands there."""
    process = start(tmp_path)
    try:
        assert robot.ask(RecordEpisode.Request.START, "one").success
        robot.wait("images", lambda: robot.images() >= 6)
        robot.joint_rad = float("nan")
        seen = robot.images()
        robot.wait("images", lambda: robot.images() >= seen + 4)
        answer = robot.ask(RecordEpisode.Request.KEEP)
        assert not answer.success
        assert "joint state holds a position that is not finite for ['panda_joint1'" in answer.message
        assert re.search(r"joint_states, \d+\.\d{3} s after its first message", answer.message)
    finally:
        end(process)
    assert [path.name for path in tmp_path.iterdir()] == ["one.recording"]


def test_a_topic_that_cannot_hold_commands_is_refused_before_anything_is_recorded(robot, tmp_path):
    other = tmp_path / "robot.yaml"
    other.write_text(ROBOT_FILE.read_text().replace(f"command: {ROBOT.topics.command}", "command: joy"))
    process = start(tmp_path / "bags", robot_file=other)
    try:
        answer = robot.ask(RecordEpisode.Request.START, "one")
        assert not answer.success
        assert "joy holds sensor_msgs/msg/Joy, not joint positions of the arm" in answer.message
        assert "topics.recorded_command" in answer.message
    finally:
        end(process)
    assert not (tmp_path / "bags").exists()


def test_a_gripper_that_nobody_commands_by_topic_is_recorded_by_its_joint(robot, tmp_path):
    other = tmp_path / "robot.yaml"
    text = ROBOT_FILE.read_text().replace(f"  gripper_command: {ROBOT.topics.gripper_command}\n", "")
    other.write_text(
        text.replace("  max_m: 0.08", "  max_m: 0.08\n  sink: gripper_command\n  action: gripper_cmd")
    )
    process = start(tmp_path / "bags", robot_file=other)
    try:
        assert robot.ask(RecordEpisode.Request.START, "one").success
        robot.wait("images", lambda: robot.images() >= 6)
        answer = robot.ask(RecordEpisode.Request.KEEP)
        assert answer.success, answer.message
        assert ROBOT.topics.gripper_command not in answer.message
    finally:
        end(process)
    bag = tmp_path / "bags" / "one"
    actions = [frame.action[-1] for frame in read_frames(bag, bag_robot(bag))]
    assert actions
    assert set(actions) == {ROBOT.gripper.opening_m(robot.joint_rad)}


def test_joystick_buttons_start_keep_and_discard(robot, tmp_path):
    process = start(
        tmp_path,
        "joy_start_button:=7",
        "joy_keep_button:=0",
        "joy_discard_button:=1",
        "keep_discarded:=true",
    )
    try:
        robot.wait("the recorder", lambda: robot.joy.get_subscription_count())

        def press(button: int, ready) -> None:
            """As a person does: down, up, and once more where nothing happened (the first state heard is no press)."""
            deadline = time.monotonic() + 60.0
            while not ready():
                assert time.monotonic() < deadline
                for down in (False, True):
                    robot.joy.publish(Joy(buttons=[int(down and k == button) for k in range(8)]))
                    time.sleep(0.25)
            robot.joy.publish(Joy(buttons=[0] * 8))

        press(7, robot.recording)
        robot.wait("images", lambda: robot.images() >= 6)
        press(0, lambda: not robot.recording())
        robot.wait("the first bag", (tmp_path / "episode_0000").is_dir)
        press(7, robot.recording)
        robot.wait("images", lambda: robot.images() >= 6)
        press(1, lambda: not robot.recording())
        robot.wait("the second bag", (tmp_path / "episode_0001.discarded").is_dir)
    finally:
        end(process)
    assert bag_label(tmp_path / "episode_0000") == "success"
    assert bag_label(tmp_path / "episode_0001.discarded") == "discard"


def test_one_button_cannot_mean_two_things(tmp_path):
    process = start(tmp_path, "joy_start_button:=3", "joy_keep_button:=3")
    output, _ = process.communicate(timeout=30)
    assert "joystick buttons [3] are given two meanings" in output


def test_the_command_takes_keys_in_a_terminal_and_ends_with_q(robot, tmp_path):
    """A real pseudo-terminal: s starts, k keeps, s and d discard, q quits and gives the terminal back."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = start(
        tmp_path,
        str(ROBOT_FILE),
        "--output",
        str(tmp_path),
        code=COMMAND,
        stdin=slave,
        start_new_session=True,
    )
    try:
        robot.wait("the recorder", robot.client.service_is_ready)
        robot.wait("unechoed keys", lambda: not termios.tcgetattr(slave)[3] & termios.ICANON)
        os.write(master, b"s")
        robot.wait("a recording", lambda: robot.recording() and robot.images() >= 6)
        os.write(master, b"k")
        robot.wait("the bag", (tmp_path / "episode_0000").is_dir)
        os.write(master, b"s")
        robot.wait("a second recording", lambda: robot.recording() and robot.images() >= 2)
        os.write(master, b"d")
        robot.wait("its end", lambda: not robot.recording())
        os.write(master, b"xq")
        assert process.wait(timeout=30) == 0
        assert termios.tcgetattr(slave)[3] == before[3]
    finally:
        output = end(process)
        os.close(master)
        os.close(slave)
    assert bag_label(tmp_path / "episode_0000") == "success"
    assert not list(tmp_path.glob("episode_0001*"))
    assert output.count("keys: s start, k keep as a success, d discard, q quit") == 2, output


def test_the_command_without_a_terminal_says_so(tmp_path):
    process = start(tmp_path, str(ROBOT_FILE), code=COMMAND, stdin=subprocess.DEVNULL)
    output, _ = process.communicate(timeout=30)
    assert "standard input is no terminal" in output
    assert process.returncode == 1


def test_a_disk_that_is_full_ends_the_episode_with_a_readable_bag(tmp_path):
    """The kernel refuses the recorder's file beyond 2.5 MB, as a full disk would."""
    robot = Robot(image_size=(240, 320))  # noise: 230 KB an image
    process = start(tmp_path / "bags")
    try:
        assert robot.ask(RecordEpisode.Request.START, "one").success
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2_500_000, 2_500_000))
        robot.wait("the end", lambda: robot.images() > 0 and not robot.recording())
        answer = robot.ask(RecordEpisode.Request.KEEP)
        assert not answer.success
        assert "the recording has ended: File too large" in answer.message
        assert "are readable in" in answer.message
        # The next one is refused by the same limit or records as before, but the node lives.
        assert "send START first" in robot.ask(RecordEpisode.Request.KEEP).message
    finally:
        end(process)
        robot.close()
    partial = tmp_path / "bags" / "one.recording"
    report = check_bag(partial, ROBOT)
    assert report.topics[ROBOT.camera.recorded_topic].count >= 4
    assert bag_robot(partial) == ROBOT
    assert bag_label(partial) == ""

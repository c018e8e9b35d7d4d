"""Commanded beside measured joints: the same names and units, and nothing while nobody looks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from run_folders import ROBOT, ROBOT_PATH
from sensor_msgs.msg import Image, JointState

from atk_interfaces.msg import PolicyStatus
from atk_perception.image_codec import rgb_from_message
from atk_policy.joint_plot import COMMANDED, MEASURED, JointPlot

pytestmark = pytest.mark.system

DOMAIN = 15 + os.getpid() % 60
NODE = "from atk_policy.joint_monitor_node import main; main()"
COMMAND = np.append(np.linspace(-0.7, 0.7, ROBOT.joint_count), 0.06)


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Some pixel of about this colour: thin lines are blended with the ground."""
    return bool((np.abs(picture.astype(int) - colour).max(axis=2) < 50).any())


def test_the_picture_shows_both_and_forgets_what_is_old():
    plot = JointPlot(["a", "b", "gripper opening"], window_s=2.0)
    empty = plot.draw("policy IDLE")
    legend_only = empty[30:]
    assert not has(legend_only, COMMANDED)
    for k in range(100):
        plot.add_measured(0.05 * k, np.array([0.1 * k, 0.0, 0.04]))
        plot.add_commanded(0.05 * k, np.array([0.1 * k + 0.05, 0.0, 0.04]))
    picture = plot.draw("policy RUNNING")
    assert has(picture[30:], COMMANDED)
    assert has(picture[30:], MEASURED)
    assert len(plot._measured) == 41
    plot.add_measured(0.0, np.zeros(3))  # another replay
    assert len(plot._measured) == 1
    assert not plot._commanded


@pytest.fixture
def graph():
    process = subprocess.Popen(
        [sys.executable, "-c", NODE, "--ros-args", "-p", f"robot:={ROBOT_PATH}", "-p", "picture_hz:=20.0"],
        env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = rclpy.create_node("peer", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def until(ready, work=lambda: None) -> None:
        deadline = time.monotonic() + 30.0
        while not ready():
            assert time.monotonic() < deadline
            work()
            executor.spin_once(timeout_sec=0.05)

    yield node, until
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)


def test_the_node_speaks_of_the_same_joints_and_only_while_somebody_looks(graph):
    node, until = graph
    statuses = node.create_publisher(PolicyStatus, "policy/status", 50)
    joints = node.create_publisher(JointState, ROBOT.topics.joint_states, 50)
    until(lambda: node.count_publishers("policy/commanded_joint_states"))
    assert node.count_subscribers("policy/status") == 0
    commanded: list[JointState] = []
    pictures: list[Image] = []
    looking = [
        node.create_subscription(JointState, "policy/commanded_joint_states", commanded.append, 50),
        node.create_subscription(Image, "policy/joints_image", pictures.append, 5),
    ]
    until(lambda: statuses.get_subscription_count() and joints.get_subscription_count())
    stamp = 5

    def publish() -> None:
        nonlocal stamp
        stamp += 1
        measured = JointState(name=[*ROBOT.joints.names, ROBOT.gripper.joint], position=[0.1] * 8)
        status = PolicyStatus(state=PolicyStatus.RUNNING, command=COMMAND.tolist())
        measured.header.stamp.sec = status.header.stamp.sec = stamp
        joints.publish(measured)
        statuses.publish(status)

    until(lambda: commanded and any(has(rgb_from_message(p)[30:], COMMANDED) for p in pictures[-3:]), publish)
    assert list(commanded[0].name) == [*ROBOT.joints.names, ROBOT.gripper.joint]
    np.testing.assert_allclose(commanded[0].position[:-1], COMMAND[:-1])
    assert commanded[0].position[-1] == pytest.approx(ROBOT.gripper.joint_position(0.06))
    assert commanded[0].header.stamp.sec > 5
    for subscription in looking:
        node.destroy_subscription(subscription)
    until(lambda: statuses.get_subscription_count() == 0)

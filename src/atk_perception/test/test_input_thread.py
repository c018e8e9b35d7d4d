"""Data reaches its callback beside the executor, and what cannot be heard is named."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64

from atk_perception.input_thread import InputThread

pytestmark = pytest.mark.system

DOMAIN = 12 + os.getpid() % 60
RELIABLE = QoSProfile(depth=200, reliability=ReliabilityPolicy.RELIABLE)

# An executor spins the same node: it must leave the data alone, and serve the timer.
RAISING = """
import rclpy
from std_msgs.msg import Float64
from atk_perception.input_thread import InputThread
rclpy.init()
node = rclpy.create_node("raising")
inputs = InputThread(node, "inputs")
inputs.subscribe(Float64, "value", lambda message: 1 / 0, 10)
inputs.start()
publisher = node.create_publisher(Float64, "value", 10)
node.create_timer(0.1, lambda: publisher.publish(Float64()))
rclpy.spin(node)
"""


UNHEARD = """
import time
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64
from atk_perception import input_thread
input_thread.CHECK_S = 0.3
rclpy.init()
node = rclpy.create_node("unheard")
inputs = input_thread.InputThread(node, "inputs")
inputs.subscribe(Float64, "value", print, QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE))
inputs.start()
node.create_publisher(Float64, "value", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
time.sleep(3.0)
inputs.close()
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    made = rclpy.create_node("input_thread_test", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(made)
    spinning = threading.Thread(target=executor.spin)
    spinning.start()
    yield made
    executor.shutdown(timeout_sec=2.0)
    spinning.join(timeout=2.0)
    made.destroy_node()
    context.try_shutdown()


def until(condition, timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def test_every_message_comes_once_in_order_in_the_thread_of_the_group(node):
    heard: list[tuple[str, float]] = []
    inputs = InputThread(node, "data")
    inputs.subscribe(
        Float64, "value", lambda m: heard.append((threading.current_thread().name, m.data)), RELIABLE
    )
    inputs.start()
    publisher = node.create_publisher(Float64, "value", RELIABLE)
    assert until(publisher.get_subscription_count)
    for k in range(100):
        publisher.publish(Float64(data=float(k)))
    assert until(lambda: len(heard) == 100)
    assert heard == [("data", float(k)) for k in range(100)]
    inputs.close()
    assert inputs.subscriptions == ()
    publisher.publish(Float64(data=-1.0))
    time.sleep(0.3)
    assert len(heard) == 100


def test_publishers_of_another_quality_of_service_are_named():
    outcome = run(UNHEARD)
    assert "nothing is heard on /value" in outcome.stderr
    assert "ros2 topic info -v" in outcome.stderr


def test_a_callback_that_raises_ends_the_process_with_its_cause():
    outcome = run(RAISING)
    assert outcome.returncode != 0
    assert "cannot handle a message: ZeroDivisionError" in outcome.stderr

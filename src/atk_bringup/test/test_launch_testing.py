"""The simulated stack under launch_testing: up, at work, held on request, and down with clean exit codes.

Run by pytest, whose plugin launch_testing brings along (from apt with ROS 2, not from PyPI).
"""

from __future__ import annotations

import os
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system

REASON = "launch_testing is not installed (it comes with ROS 2 from apt, not from PyPI)"
pytest.importorskip("launch_testing", reason=REASON)
pytest.importorskip("launch_ros", reason=REASON)

import launch_testing
import launch_testing.actions
import launch_testing.asserts
import rclpy
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger
from untrained_run import PACKAGE, write_untrained_run

from atk_interfaces.msg import KeypointArray, PolicyStatus
from atk_perception.service_answers import answers_reach

DOMAIN_ID = 60 + (os.getpid() + 17) % 40
PATIENCE_S = 90.0


@pytest.mark.launch_test
def generate_test_description() -> LaunchDescription:
    """What launch_testing launches."""
    run = write_untrained_run(Path(tempfile.mkdtemp(prefix="atk_launch_test_")) / "run")
    sim = PythonLaunchDescriptionSource(str(PACKAGE / "launch" / "sim.launch.py"))
    return LaunchDescription(
        [
            SetEnvironmentVariable("ROS_DOMAIN_ID", str(DOMAIN_ID)),
            IncludeLaunchDescription(sim, launch_arguments={"run_folder": str(run), "seed": "5"}.items()),
            launch_testing.actions.ReadyToTest(),
        ]
    )


class TestTheStackAtWork(unittest.TestCase):
    """While the nodes run."""

    def setUp(self) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=DOMAIN_ID)
        self.node = rclpy.create_node("launch_test_client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def tearDown(self) -> None:
        self.node.destroy_node()
        self._context.try_shutdown()

    def wait_for(self, what: str, ready: Callable[[], Any]) -> None:
        """Spin until `ready()`."""
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            assert time.monotonic() < deadline, f"no {what} within {PATIENCE_S:.0f} s"
            self._executor.spin_once(timeout_sec=0.1)

    def test_every_image_is_answered_and_nothing_moves_without_a_request(self) -> None:
        """Keypoints and a status for the same stamps; the policy is idle."""
        keypoints: list[KeypointArray] = []
        statuses: list[PolicyStatus] = []
        self.node.create_subscription(KeypointArray, "keypoints", keypoints.append, 10)
        self.node.create_subscription(PolicyStatus, "policy/status", statuses.append, 10)

        def answered() -> set[tuple[int, int]]:
            seen, said = (
                {(m.header.stamp.sec, m.header.stamp.nanosec) for m in messages}
                for messages in (keypoints, statuses)
            )
            return seen & said

        self.wait_for("answers to five images", lambda: len(answered()) >= 5)
        assert {status.state for status in statuses} == {PolicyStatus.IDLE}
        assert not any(len(status.command) for status in statuses)

    def test_the_stop_service_answers(self) -> None:
        """Also when nothing runs: a person who presses stop is told that it was heard."""
        client = self.node.create_client(Trigger, "policy/stop")
        self.wait_for("stop service", client.service_is_ready)
        self.wait_for("its answers", answers_reach(self.node, "policy"))
        future = client.call_async(Trigger.Request())
        self.wait_for("answer to stop", future.done)
        assert future.result().success


@launch_testing.post_shutdown_test()
class TestTheStackDown(unittest.TestCase):
    """After launch has ended it."""

    def test_every_node_ended_cleanly(self, proc_info: Any) -> None:
        """Interrupted, not crashed."""
        launch_testing.asserts.assertExitCodes(proc_info)
        assert len(proc_info.process_names()) >= 3

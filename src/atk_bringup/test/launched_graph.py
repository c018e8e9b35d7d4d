"""Helpers of the launch tests: `ros2 launch` as a process, and a node that watches the graph."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from atk_perception.service_answers import answers_reach

# What `ros2 launch FILE ARGUMENTS` does, also where the ros2 command line is not installed.
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
file, *arguments = sys.argv[1:]
service = LaunchService(argv=arguments)
pairs = [tuple(argument.split(":=", 1)) for argument in arguments]
source = AnyLaunchDescriptionSource(file)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=pairs)]))
sys.exit(service.run())
"""
UP_TIMEOUT_S = 180.0
DOWN_TIMEOUT_S = 40.0


class LaunchedGraph:
    """A launch file in a process of its own, and a node `watcher` in the same DDS domain."""

    def __init__(self, file: Path, arguments: dict[str, object], log: Path, domain_id: int) -> None:
        self._log = log
        given = [f"{name}:={value}" for name, value in arguments.items()]
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain_id),
            "ROS_LOG_DIR": str(log.parent / "ros_log"),
        }
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, str(file), *given],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = Node("watcher", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def log(self) -> str:
        """What launch and the nodes have written."""
        return self._log.read_text(errors="replace")

    def wait_for(self, what: str, ready: Callable[[], Any], timeout_s: float = UP_TIMEOUT_S) -> None:
        """Wait until `ready()`; fails with the log when launch ends before, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            ended = self.process.poll()
            assert ended is None, f"launch ended with {ended} before {what}:\n{self.log()}"
            assert time.monotonic() < deadline, f"no {what} after {timeout_s:.0f} s:\n{self.log()}"
            time.sleep(0.1)

    def nodes(self) -> set[str]:
        """Fully qualified names of the nodes, without the watcher and launch's own."""
        found = self.node.get_node_names_and_namespaces()
        others = [(name, namespace) for name, namespace in found if not name.startswith("launch_ros_")]
        return {f"{namespace.rstrip('/')}/{name}" for name, namespace in others if name != "watcher"}

    def pid(self, executable: str) -> int:
        """Of the one process of that executable, as launch has logged it."""
        (found,) = re.findall(rf"\[{executable}-\d+\]: process started with pid \[(\d+)\]", self.log())
        return int(found)

    def wait_for_nodes(self, *names: str) -> None:
        """Wait until exactly these nodes are there."""
        self.wait_for(f"nodes {names}, only {self.nodes()}", lambda: self.nodes() == set(names))

    def published(self) -> dict[str, str]:
        """Type of every topic that a node other than the watcher publishes."""
        graph = self.node.get_topic_names_and_types()
        others = {
            topic
            for topic, _ in graph
            if any(info.node_name != "watcher" for info in self.node.get_publishers_info_by_topic(topic))
        }
        return {topic: types[0] for topic, types in graph if topic in others}

    def received(self, message_type: Any, topic: str) -> list[Any]:
        """Subscribe; what arrives is appended to the list."""
        messages: list[Any] = []
        self.node.create_subscription(message_type, topic, messages.append, 50)
        return messages

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service and wait for its answer."""
        client = self.node.create_client(service_type, name)
        self.wait_for(f"service {name}", client.service_is_ready)
        self.wait_for(f"answers of {name}", answers_reach(self.node, name.rpartition("/")[0]))
        future = client.call_async(request)
        self.wait_for(f"an answer of {name}", future.done)
        return future.result()

    def parameters(self, node: str, names: list[str]) -> list[Any]:
        """Values of parameters of a node, as the node reports them."""
        from rcl_interfaces.srv import GetParameters
        from rclpy.parameter import parameter_value_to_python

        answer = self.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=names))
        return [parameter_value_to_python(value) for value in answer.values]

    def ends(self) -> int:
        """Wait until launch ends by itself; returns its status."""
        return self.process.wait(timeout=UP_TIMEOUT_S)

    def interrupt(self) -> int:
        """Ctrl-C, as a terminal sends it to launch and to every node; returns the status of launch."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout=DOWN_TIMEOUT_S)

    def left_over(self) -> list[int]:
        """Processes of the launched session that still live."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if _session(pid) == self.process.pid]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            try:
                self.interrupt()
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(timeout=2.0)
        self.node.destroy_node()
        self._context.try_shutdown()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None

"""Start a graph of separate node processes, watch over it, and end it.

What `ros2 launch` does on a robot, for tests, benchmarks and the demonstration: they need many
short-lived graphs, in a DDS domain each, also where the launch packages are not installed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from ament_index_python.packages import get_package_prefix, get_package_share_directory

END_GRACE_S = 8.0


class GraphError(RuntimeError):
    """A node process ended or did not come up; the message ends with the tail of its log."""


def executable_path(package: str, executable: str) -> Path:
    """Where colcon installed a node.

    Raises:
        GraphError: the workspace does not hold it.
    """
    path = Path(get_package_prefix(package)) / "lib" / package / executable
    if not path.is_file():
        raise GraphError(
            f"{path} does not exist; build the workspace (tools/setup.sh) and source tools/env.sh"
        )
    return path


def robot_file(name: str) -> Path:
    """A robot description that atk_bringup ships."""
    return Path(get_package_share_directory("atk_bringup")) / "config" / "robots" / f"{name}.yaml"


# Nodes end with the process that started them, however hard that is killed: one that is left over keeps a core busy
# and goes on talking in its domain. Not INT: it is ignored by what runs in the background, until a node has its own handler.
DIE_WITH_PARENT = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


class NodeGraph:
    """Node processes in one DDS domain, each with its own log file.

    Args:
        log_folder: one NAME.log and NAME.params.yaml per node are written here.
        domain_id: ROS_DOMAIN_ID of the graph (0 to 101).
    """

    def __init__(self, log_folder: Path, domain_id: int) -> None:
        self.domain_id = domain_id
        self._log_folder = log_folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        log_folder.mkdir(parents=True, exist_ok=True)

    def start(
        self,
        package: str,
        executable: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        remappings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start one node process; `environment` is added to that of this process."""
        label = name or executable
        params = self._log_folder / f"{label}.params.yaml"
        params.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(parameters or {})}}))
        command = [*DIE_WITH_PARENT, str(executable_path(package, executable))]
        command += ["--ros-args", "--params-file", str(params)]
        for source, target in (remappings or {}).items():
            command += ["-r", f"{source}:={target}"]
        variables = {
            **os.environ,
            "ROS_DOMAIN_ID": str(self.domain_id),
            "PYTHONUNBUFFERED": "1",
            # The image processing of one node must not take both cores of a small machine.
            "OMP_NUM_THREADS": "1",
            **(environment or {}),
        }
        with (self._log_folder / f"{label}.log").open("wb") as log:
            process = subprocess.Popen(  # a session of its own: Ctrl-C is handed on in order, by close()
                command, env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._processes[label] = process
        return process

    def pid(self, label: str) -> int:
        """Process id of a node."""
        return self._processes[label].pid

    def log(self, label: str) -> str:
        """What a node has written so far."""
        return (self._log_folder / f"{label}.log").read_text(errors="replace")

    def check(self) -> None:
        """Raise GraphError when a node process has ended."""
        for label, process in self._processes.items():
            if process.poll() is not None:
                tail = "\n  ".join(self.log(label).splitlines()[-12:])
                raise GraphError(f"{label} ended with status {process.returncode}:\n  {tail}")

    def close(self) -> None:
        """End every process, last started first, as Ctrl-C would; kill what does not end."""
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + END_GRACE_S
        for process in self._processes.values():
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

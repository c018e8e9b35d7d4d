"""A managed node comes up by itself, says why when it cannot, and goes down in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rclpy.utilities import get_rmw_implementation_identifier

from atk_perception.dds_transport import IMAGES_PROFILE, PROFILE_VARIABLE

pytestmark = pytest.mark.system

NODE = """
from atk_perception.managed_node import ManagedNode, run_node
class Example(ManagedNode):
    def __init__(self):
        super().__init__("example")
        self.declare("fail", "", "transition that raises")
    def step(self, name):
        if self.parameter("fail") == name:
            try:
                open("/nowhere/calibration")
            except OSError as error:
                raise RuntimeError(f"no camera for {name}") from error
        if name != "callback":
            print(name, flush=True)
    def configure(self): self.step("configure")
    def activate(self):
        self.step("activate")
        self.create_timer(0.05, lambda: self.step("callback"))
    def deactivate(self): self.step("deactivate")
    def cleanup(self): self.step("cleanup")
run_node(Example, shared_memory=True)
"""


def start(*arguments: str, node: str = NODE, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "ROS_DOMAIN_ID": str(11 + os.getpid() % 80), **variables}
    command = [sys.executable, "-c", node, "--ros-args", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_comes_up_and_goes_down_in_order(number):
    process = start()
    assert process.stdout is not None
    lines = [process.stdout.readline().strip(), process.stdout.readline().strip()]
    process.send_signal(number)
    rest, _ = process.communicate(timeout=20)
    assert [*lines, *rest.split()] == ["configure", "activate", "deactivate", "cleanup"]
    assert process.returncode == 0


@pytest.mark.parametrize(("step", "before"), [("configure", []), ("activate", ["configure"])])
def test_a_refused_transition_is_logged_with_its_cause_and_ends_the_process(step, before):
    process = start("-p", f"fail:={step}")
    output, _ = process.communicate(timeout=30)
    assert f"cannot {step}: no camera for {step}" in output
    assert process.returncode == 1
    assert [line for line in output.splitlines() if line in ("configure", "activate")] == before
    assert "Traceback" not in output


@pytest.mark.parametrize("step", ["configure", "activate"])
def test_at_debug_level_a_refused_transition_is_traced_to_its_cause(step):
    process = start("-p", f"fail:={step}", "--log-level", "debug")
    output, _ = process.communicate(timeout=30)
    assert f"cannot {step}: no camera for {step}" in output
    assert "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/calibration'" in output
    assert f"RuntimeError: no camera for {step}" in output
    assert "TypeError" not in output
    assert process.returncode == 1


def test_a_callback_that_raises_ends_the_node_in_order_with_its_cause():
    process = start("-p", "fail:=callback")
    output, _ = process.communicate(timeout=30)
    assert "a callback failed; the node ends" in output
    assert "no camera for callback" in output
    assert process.returncode == 1
    printed = [
        line for line in output.splitlines() if line in ("configure", "activate", "deactivate", "cleanup")
    ]
    assert printed == ["configure", "activate", "deactivate", "cleanup"]


def test_without_autostart_it_waits_for_a_manager():
    process = start("-p", "autostart:=false")
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert output.split() == []


def a_profile(path: Path) -> Path:
    """A Fast DDS profile that has shared memory and nothing else of its own."""
    path.write_text(
        """<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
        <transport_descriptors><transport_descriptor>
            <transport_id>shm</transport_id><type>SHM</type>
        </transport_descriptor></transport_descriptors>
        <participant profile_name="p" is_default_profile="true"><rtps>
            <userTransports><transport_id>shm</transport_id></userTransports>
            <useBuiltinTransports>false</useBuiltinTransports>
        </rtps></participant></profiles>"""
    )
    return path


@pytest.mark.skipif(
    get_rmw_implementation_identifier() != "rmw_fastrtps_cpp", reason="another middleware has no such memory"
)
@pytest.mark.parametrize(
    ("shared_memory", "profile", "expected"),
    [(True, IMAGES_PROFILE, True), (False, IMAGES_PROFILE, False), (False, "my_own.xml", True)],
)
def test_a_node_may_do_without_shared_memory_unless_a_profile_of_the_users_own_has_it(
    shared_memory, profile, expected, tmp_path
):
    node = NODE.replace("shared_memory=True", f"shared_memory={shared_memory}")
    process = start(node=node, **{PROFILE_VARIABLE: str(a_profile(tmp_path / profile))})
    assert process.stdout is not None
    while process.stdout.readline().strip() != "activate":
        pass
    mapped = Path(f"/proc/{process.pid}/maps").read_text()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert ("/dev/shm/fast" in mapped) == expected

"""The lifecycle that every node of this stack shares.

A node fills in `configure`, `activate`, `deactivate` and `cleanup`; this class turns them into
managed transitions (ROS 2 lifecycle), logs the cause when one fails (rclpy does not), brings the
node up by itself unless a manager is to do it, and publishes its health on /diagnostics.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.executors import MultiThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from atk_perception.dds_transport import leave_shared_memory
from atk_perception.kept_memory import keep_memory
from atk_perception.topic_diagnostic import TopicDiagnostic

OK = DiagnosticStatus.OK
WARN = DiagnosticStatus.WARN
ERROR = DiagnosticStatus.ERROR


class ManagedNode(LifecycleNode):
    """Lifecycle node with logged transitions, declared parameters and diagnostics at 1 Hz."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.declare("autostart", True, "configure and activate without a lifecycle manager", read_only=True)
        self._topic_diagnostics: list[TopicDiagnostic] = []
        self._diagnostic = DiagnosticStatus(level=OK, name=name, message="unconfigured", hardware_id=name)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._diagnostics_timer = self.create_timer(1.0, self._publish_diagnostics)

    # -- to be filled in by a node ---------------------------------------------------------------

    def configure(self) -> None:
        """Read parameters, load files, create publishers and services. Raise to refuse."""

    def activate(self) -> None:
        """Start working: create subscriptions, threads, timers."""

    def deactivate(self) -> None:
        """Stop working; called before `cleanup` and before the process ends."""

    def cleanup(self) -> None:
        """Release what `configure` created."""

    # -- parameters ------------------------------------------------------------------------------

    def declare(
        self,
        name: str,
        default: Any,
        description: str,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        read_only: bool = False,
    ) -> Any:
        """Declare a parameter with its descriptor and return its value (REP-free ROS 2 convention)."""
        descriptor = ParameterDescriptor(description=description, read_only=read_only)
        if minimum is not None and maximum is not None:
            if isinstance(default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(minimum), to_value=float(maximum))
                ]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(minimum), to_value=int(maximum), step=1)
                ]
        return self.declare_parameter(name, default, descriptor).value

    def parameter(self, name: str) -> Any:
        """Present value of a declared parameter."""
        return self.get_parameter(name).value

    # -- diagnostics -----------------------------------------------------------------------------

    def set_diagnostic(self, level: bytes, message: str, **values: object) -> None:
        """What the next /diagnostics message says about this node."""
        self._diagnostic = DiagnosticStatus(
            level=level,
            name=self.get_fully_qualified_name().lstrip("/"),
            message=message,
            hardware_id=self.get_name(),
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )

    def watch_topic(self, name: str, rate_hz: float = 0.0, delay_max_s: float = 0.0) -> TopicDiagnostic:
        """A topic whose rate and age this node's diagnostics tell from now on; `tick` it per message."""
        self._topic_diagnostics.append(TopicDiagnostic(name, rate_hz, delay_max_s))
        return self._topic_diagnostics[-1]

    def unwatch_topics(self) -> None:
        """Tell of no topic any more; for `deactivate`."""
        self._topic_diagnostics.clear()

    def _publish_diagnostics(self) -> None:
        now = self.get_clock().now()
        node = self.get_fully_qualified_name().lstrip("/")
        array = DiagnosticArray(status=[self._diagnostic])
        for topic in tuple(self._topic_diagnostics):
            level, message, values = topic.report(now.nanoseconds)
            status = DiagnosticStatus(
                level=bytes([level]),
                name=f"{node}: {topic.name} topic status",
                message=message,
                hardware_id=self.get_name(),
                values=[KeyValue(key=key, value=value) for key, value in values.items()],
            )
            array.status.append(status)
        array.header.stamp = now.to_msg()
        self._diagnostics_publisher.publish(array)

    # -- lifecycle -------------------------------------------------------------------------------

    def _transition(self, name: str, step: Callable[[], None], superclass_step: Callable[[], Any]) -> Any:
        try:
            step()
            return superclass_step()
        except Exception as error:
            # An assertion that failed has no text; its name at least is a cause.
            cause = str(error) or type(error).__name__
            self.get_logger().error(f"cannot {name}: {cause}")
            # rclpy's logger knows no exc_info.
            self.get_logger().debug(f"cannot {name}\n{traceback.format_exc()}")
            self.set_diagnostic(ERROR, f"cannot {name}: {cause}")
            return TransitionCallbackReturn.FAILURE

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition; see `configure`."""
        return self._transition(
            "configure", self.configure, lambda: super(ManagedNode, self).on_configure(state)
        )

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition; see `activate`. Publishers are live before `activate` runs."""
        result = super().on_activate(state)
        done = self._transition("activate", self.activate, lambda: result)
        # What is loaded by now stays. Left to the garbage collector, it is walked through every few seconds of the
        # executor's allocations: a tenth of a second each time where torch is loaded.
        gc.collect()
        gc.freeze()
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition; see `deactivate`. Publishers are still live while it runs."""
        return self._transition(
            "deactivate", self.deactivate, lambda: super(ManagedNode, self).on_deactivate(state)
        )

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition; see `cleanup`."""
        return self._transition("clean up", self.cleanup, lambda: super(ManagedNode, self).on_cleanup(state))

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: deactivate when active, then clean up."""
        if state.label == "active":
            self._transition("deactivate", self.deactivate, lambda: TransitionCallbackReturn.SUCCESS)
        if state.label in ("active", "inactive"):
            self._transition("clean up", self.cleanup, lambda: TransitionCallbackReturn.SUCCESS)
        return TransitionCallbackReturn.SUCCESS

    def bring_up(self) -> bool:
        """Configure and activate; False when the node refused (the cause is logged)."""
        steps = (self.trigger_configure, self.trigger_activate)
        return all(step() == TransitionCallbackReturn.SUCCESS for step in steps)


def _spin(executor: MultiThreadedExecutor, stop: threading.Event, errors: list[Exception]) -> None:
    """Spin until `stop`. When one thread destroys what another is waiting on, rclpy raises; waiting anew is the answer.

    Any other exception, one of a callback, ends the node: it must not look alive and answer nobody.
    """
    while not stop.is_set():
        try:
            executor.spin()
            return
        except rclpy_implementation.InvalidHandle:
            continue
        except Exception as error:
            errors.append(error)
            stop.set()


def run_node(node_class: Callable[[], ManagedNode], threads: int = 4, *, shared_memory: bool = True) -> None:
    """Body of a console entry: bring the node up, spin until Ctrl-C, take it down in order.

    Ends the process with status 1 when the node refuses to come up.

    Args:
        threads: of the executor.
        shared_memory: send through it (Fast DDS); without, no death of another process stalls this one (dds_transport.py).
    """
    keep_memory()
    if not shared_memory:
        leave_shared_memory()
    # Our own handling of the signals: the node must still publish while it shuts down.
    rclpy.init(args=sys.argv, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    node = node_class()
    executor = MultiThreadedExecutor(num_threads=threads)
    executor.add_node(node)
    errors: list[Exception] = []
    spinning = threading.Thread(target=_spin, args=(executor, stop, errors), name="executor")
    spinning.start()
    refused = False
    try:
        refused = node.parameter("autostart") and not node.bring_up()
        if not refused:
            stop.wait()
        if errors:
            trace = "".join(traceback.format_exception(errors[0]))
            node.get_logger().fatal(f"a callback failed; the node ends\n{trace}")
    finally:
        node.trigger_shutdown()
        executor.shutdown(timeout_sec=2.0)
        spinning.join(timeout=2.0)
        node.destroy_node()
        rclpy.try_shutdown()
    if refused or errors:
        raise SystemExit(1)

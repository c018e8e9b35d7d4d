"""Commanded against measured joints: as a JointState for plotting tools, and as a picture for RViz.

`policy/commanded_joint_states` has the names and units of `joint_states`, so that rqt_plot, PlotJuggler and Foxglove
draw one over the other. Neither is made while nobody looks; the inputs are not even listened to.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

from atk_interfaces.msg import PolicyStatus
from atk_perception.frames import JointStateError, robot_state_from_message, stamp_ns_of
from atk_perception.image_codec import fill_rgb_message
from atk_perception.input_thread import InputThread
from atk_perception.managed_node import OK, WARN, ManagedNode, run_node
from atk_perception.robot_description import RobotDescription, RobotDescriptionError
from atk_policy.joint_plot import JointPlot
from atk_policy.policy_runner import RunState

CHECK_PERIOD_S = 0.5
STATUS_QOS = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)


class JointMonitorNode(ManagedNode):
    """Republishes what the policy commands in the form of what the robot measures."""

    def __init__(self) -> None:
        super().__init__("joint_monitor")
        self.declare("robot", "", "robot description file (YAML)", read_only=True)
        self.declare("window_s", 10.0, "time that the picture spans", minimum=1.0, maximum=600.0)
        self.declare("picture_hz", 5.0, "pictures per second", minimum=0.1, maximum=30.0, read_only=True)
        self._lock = threading.Lock()

    def configure(self) -> None:
        """Read the robot description, offer the topics."""
        path = self.parameter("robot")
        if not path:
            raise RobotDescriptionError(
                "parameter 'robot' is empty; give a robot description file (config/robots/*.yaml)"
            )
        self._robot = robot = RobotDescription.load(path)
        self._names = [*robot.joints.names, robot.gripper.joint]
        self._commanded_publisher = self.create_publisher(JointState, "policy/commanded_joint_states", 50)
        self._picture_publisher = self.create_publisher(Image, "policy/joints_image", 5)

    def activate(self) -> None:
        """Look whether somebody looks."""
        self._inputs: InputThread | None = None
        self._state = "no policy/status yet"
        self._plot = self._new_plot()
        self._own_timers = [
            self.create_timer(CHECK_PERIOD_S, self._check),
            self.create_timer(1.0 / self.parameter("picture_hz"), self._publish_picture),
        ]

    def deactivate(self) -> None:
        """Stop listening."""
        for timer in self._own_timers:
            self.destroy_timer(timer)
        self._listen(False)

    def cleanup(self) -> None:
        """Withdraw the interfaces."""
        self.destroy_publisher(self._commanded_publisher)
        self.destroy_publisher(self._picture_publisher)

    def _new_plot(self) -> JointPlot:
        return JointPlot([*self._robot.joints.names, "gripper opening"], self.parameter("window_s"))

    def _check(self) -> None:
        pictures = self._picture_publisher.get_subscription_count()
        curves = self._commanded_publisher.get_subscription_count()
        self._listen(bool(pictures or curves))
        self.set_diagnostic(OK, f"{curves} listeners to curves, {pictures} to pictures")

    def _listen(self, wanted: bool) -> None:
        if wanted and self._inputs is None:
            self._plot = self._new_plot()
            self._inputs = InputThread(self, "inputs")
            self._inputs.subscribe(PolicyStatus, "policy/status", self._on_status, STATUS_QOS)
            self._inputs.subscribe(
                JointState, self._robot.topics.joint_states, self._on_joint_state, qos_profile_sensor_data
            )
            self._inputs.start()
        elif not wanted and self._inputs is not None:
            self._inputs.close()
            self._inputs = None

    def _on_status(self, message: PolicyStatus) -> None:
        state = RunState(message.state).name
        with self._lock:
            self._state = f"policy {state}: {message.hold_cause}" if message.hold_cause else f"policy {state}"
        if len(message.command) != self._robot.action_size:
            return  # nothing was commanded
        command = np.asarray(message.command, np.float64)
        with self._lock:
            self._plot.add_commanded(stamp_ns_of(message) / 1e9, command)
        if self._commanded_publisher.get_subscription_count():
            commanded = JointState(name=self._names)
            commanded.header.stamp = message.header.stamp
            gripper = self._robot.gripper.joint_position(float(command[-1]))
            commanded.position = [*command[:-1].tolist(), gripper]
            self._commanded_publisher.publish(commanded)

    def _on_joint_state(self, message: JointState) -> None:
        stamp_ns = stamp_ns_of(message)
        try:
            state = robot_state_from_message(message.name, message.position, self._robot, stamp_ns)
        except JointStateError as error:
            self.set_diagnostic(WARN, str(error))
            return
        with self._lock:
            self._plot.add_measured(stamp_ns / 1e9, state.vector())

    def _publish_picture(self) -> None:
        if not self._picture_publisher.get_subscription_count():
            return
        with self._lock:
            picture = self._plot.draw(self._state)
        message: Any = fill_rgb_message(Image(), picture)
        message.header.stamp = self.get_clock().now().to_msg()
        self._picture_publisher.publish(message)


def main() -> None:
    """Console entry."""
    run_node(JointMonitorNode)

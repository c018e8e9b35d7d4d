"""Stands between a robot's drivers and the stack, and spoils what passes: one fault at a time, by name.

    robot/camera/image_raw, robot/joint_states, tracker/keypoints, robot/clock  ->  the same without prefix
    the policy's commands                                                       ->  robot/ + the same
    goals of FollowJointTrajectory, with the parameter `action`                 ->  the arm's trajectory topic

The fault is set by a std_msgs/String on `faults/set` (empty: none) and confirmed on `faults/active`
from the moment it acts. Without a fault, messages pass as the bytes that they are.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from rclpy.action import ActionServer, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from atk_interfaces.msg import KeypointArray
from atk_perception.image_codec import fill_rgb_message, rgb_from_message
from atk_perception.input_thread import InputThread
from atk_perception.managed_node import OK, WARN, ManagedNode, run_node

RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATE_S = 0.5  # ten camera periods
CLOCK_JUMP_NS = 30 * 10**9
# The simulator's clock begins at one second, and may not come to stand at zero.
CLOCK_BACK_NS = 1_500_000_000
ENCODER_GLITCH_RAD = 0.6
KEEP_ONE_IN = 10

IMAGE, JOINTS, KEYPOINTS, CLOCK, ARM = "camera/image_raw", "joint_states", "keypoints", "clock", "arm"


def _shifted(message: Any, shift_ns: int) -> Any:
    stamp = message.clock if isinstance(message, Clock) else message.header.stamp
    stamp_ns = max(0, stamp.sec * 10**9 + stamp.nanosec + shift_ns)
    stamp.sec, stamp.nanosec = divmod(stamp_ns, 10**9)
    return message


def _with_picture(message: Image, change: Callable[[np.ndarray], np.ndarray]) -> Image:
    picture = Image(header=message.header)
    return fill_rgb_message(picture, np.ascontiguousarray(change(rgb_from_message(message))))


def _with_positions(message: JointState, change: Callable[[np.ndarray], Any]) -> JointState:
    message.position = [float(p) for p in change(np.array(message.position))]
    return message


def _reordered(message: JointState) -> JointState:
    order = range(len(message.name) - 1, -1, -1)
    message.name, message.position = (
        [message.name[k] for k in order],
        [message.position[k] for k in order],
    )
    return message


def _without_first_joint(message: JointState) -> JointState:
    message.name, message.position = list(message.name[1:]), list(message.position[1:])
    return message


def _keypoints_not_finite(message: KeypointArray) -> KeypointArray:
    message.uv_px = [float("nan")] * len(message.uv_px)
    return message


def _other_keypoint_set(message: KeypointArray) -> KeypointArray:
    message.set_name = "another"
    return message


def _one_keypoint_less(message: KeypointArray) -> KeypointArray:
    message.ids, message.uv_px = list(message.ids[1:]), list(message.uv_px[2:])
    message.visible, message.confidence = list(message.visible[1:]), list(message.confidence[1:])
    return message


def _small(picture: np.ndarray) -> np.ndarray:
    return picture[:, ::2]


def _noise(picture: np.ndarray) -> np.ndarray:
    return np.random.default_rng().integers(0, 256, picture.shape, dtype=np.uint8)


# Fault -> stream -> what becomes of a message; None: it is dropped.
CHANGES: dict[str, dict[str, Callable[[Any], Any]]] = {
    "image_black": {IMAGE: lambda m: _with_picture(m, np.zeros_like)},
    "image_noise": {IMAGE: lambda m: _with_picture(m, _noise)},
    "image_other_size": {IMAGE: lambda m: _with_picture(m, _small)},
    "image_stamp_old": {IMAGE: lambda m: _shifted(m, -CLOCK_JUMP_NS)},
    "image_stamp_future": {IMAGE: lambda m: _shifted(m, CLOCK_JUMP_NS)},
    "camera_silent": {IMAGE: lambda m: None},
    "joints_silent": {JOINTS: lambda m: None},
    "joints_nan": {JOINTS: lambda m: _with_positions(m, lambda p: p * np.nan)},
    "joints_infinite": {JOINTS: lambda m: _with_positions(m, lambda p: p + np.inf)},
    "joints_reordered": {JOINTS: _reordered},
    "joint_missing": {JOINTS: _without_first_joint},
    "joints_encoder_glitch": {JOINTS: lambda m: _with_positions(m, lambda p: p + ENCODER_GLITCH_RAD)},
    "joints_stamp_old": {JOINTS: lambda m: _shifted(m, -CLOCK_JUMP_NS)},
    "joints_stamp_zero": {JOINTS: lambda m: _shifted(m, -(10**19))},
    "keypoints_not_finite": {KEYPOINTS: _keypoints_not_finite},
    "keypoints_other_set": {KEYPOINTS: _other_keypoint_set},
    "keypoints_one_less": {KEYPOINTS: _one_keypoint_less},
    "keypoints_silent": {KEYPOINTS: lambda m: None},
    "controller_ignores": {ARM: lambda m: None},
    "clock_jump_forward": {s: (lambda m: _shifted(m, CLOCK_JUMP_NS)) for s in (IMAGE, JOINTS, CLOCK)},
    "clock_jump_back": {s: (lambda m: _shifted(m, -CLOCK_BACK_NS)) for s in (IMAGE, JOINTS, CLOCK)},
}
# These need memory of what passed before.
STATEFUL = (
    "camera_frozen",
    "images_late",
    "images_dropped",
    "images_out_of_order",
    "joints_frozen",
    "joints_late",
)
# The controller's own answer.
REJECTS = "controller_rejects"


class FaultInjectorNode(ManagedNode):
    """A relay that can be told to lie."""

    def __init__(self) -> None:
        super().__init__("faults")
        self.declare("command_topic", "forward_position_controller/commands", "the arm's", read_only=True)
        self.declare(
            "action",
            "",
            "also a controller that takes FollowJointTrajectory goals by this name, and carries them out by trajectory_topic; "
            "needs control_msgs",
            read_only=True,
        )
        self.declare(
            "trajectory_topic", "joint_trajectory_controller/joint_trajectory", "the arm's", read_only=True
        )
        self._fault = ""
        self._kept: dict[str, Any] = {}
        self._delayed: dict[str, deque[tuple[float, Any]]] = {IMAGE: deque(), JOINTS: deque()}
        self._images = 0  # since the fault began

    def configure(self) -> None:
        """Offer the relayed topics."""
        command = self.parameter("command_topic")
        streams = {
            IMAGE: (Image, f"robot/{IMAGE}", IMAGE),
            JOINTS: (JointState, f"robot/{JOINTS}", JOINTS),
            KEYPOINTS: (KeypointArray, f"tracker/{KEYPOINTS}", KEYPOINTS),
            CLOCK: (Clock, f"robot/{CLOCK}", f"/{CLOCK}"),
            ARM: (Float64MultiArray, command, f"robot/{command}"),
        }
        self._kinds = {stream: kind for stream, (kind, _, _) in streams.items()}
        self._relays = {
            s: self.create_publisher(kind, out, RELIABLE) for s, (kind, _, out) in streams.items()
        }
        self._active_publisher = self.create_publisher(String, "faults/active", RELIABLE)
        self._inputs = InputThread(self, "relay")
        for stream, (kind, source, _) in streams.items():
            self._inputs.subscribe(kind, source, partial(self._pass, stream), RELIABLE, raw=True)
        self._inputs.subscribe(String, "faults/set", self._on_fault, RELIABLE)
        self._controller: ActionServer | None = None
        if self.parameter("action"):
            self._offer_controller()

    def _offer_controller(self) -> None:
        from control_msgs.action import FollowJointTrajectory

        arm = self.create_publisher(JointTrajectory, self.parameter("trajectory_topic"), RELIABLE)

        def carry_out(goal: Any) -> Any:
            arm.publish(goal.request.trajectory)
            goal.succeed()
            return FollowJointTrajectory.Result()

        self._controller = ActionServer(
            self,
            FollowJointTrajectory,
            self.parameter("action"),
            execute_callback=carry_out,
            goal_callback=lambda _: (GoalResponse.REJECT if self._fault == REJECTS else GoalResponse.ACCEPT),
            callback_group=ReentrantCallbackGroup(),
        )

    def activate(self) -> None:
        """Relay."""
        self._inputs.start()
        self.set_diagnostic(OK, "no fault")

    def deactivate(self) -> None:
        """Stop relaying."""
        self._inputs.close()

    def cleanup(self) -> None:
        """Withdraw the controller."""
        if self._controller is not None:
            self._controller.destroy()

    def _on_fault(self, message: String) -> None:
        known = (*CHANGES, *STATEFUL, REJECTS, "")
        if message.data not in known:
            self.get_logger().error(f"unknown fault '{message.data}'; known: {', '.join(sorted(known))}")
            return
        self._fault, self._images = message.data, 0
        self._kept.clear()
        for waiting in self._delayed.values():
            waiting.clear()
        self._active_publisher.publish(message)
        self.set_diagnostic(WARN if message.data else OK, message.data or "no fault")

    def _pass(self, stream: str, cdr: bytes) -> None:
        if stream in self._delayed:
            self._send_delayed(stream)
        change = CHANGES.get(self._fault, {}).get(stream)
        if change is not None:
            message = change(deserialize_message(cdr, self._kinds[stream]))
            if message is not None:
                self._relays[stream].publish(message)
        elif self._fault in STATEFUL and stream in self._delayed:
            self._pass_stateful(stream, cdr)
        else:
            self._relays[stream].publish(cdr)

    def _pass_stateful(self, stream: str, cdr: bytes) -> None:
        fault, relay = self._fault, self._relays[stream]
        now_s = time.monotonic()
        if (fault, stream) in (("camera_frozen", IMAGE), ("joints_frozen", JOINTS)):
            # The first message that comes is what is repeated, each time with the stamp of the moment.
            kept = self._kept.setdefault(stream, deserialize_message(cdr, self._kinds[stream]))
            kept.header.stamp = deserialize_message(cdr, self._kinds[stream]).header.stamp
            relay.publish(kept)
        elif (fault, stream) in (("images_late", IMAGE), ("joints_late", JOINTS)):
            self._delayed[stream].append((now_s + LATE_S, cdr))
        elif (fault, stream) == ("images_dropped", IMAGE):
            self._images += 1
            if self._images % KEEP_ONE_IN == 0:
                relay.publish(cdr)
        elif (fault, stream) == ("images_out_of_order", IMAGE):
            before = self._kept.pop(stream, None)
            if before is None:
                self._kept[stream] = cdr
            else:
                relay.publish(cdr)
                relay.publish(before)
        else:
            relay.publish(cdr)

    def _send_delayed(self, stream: str) -> None:
        waiting = self._delayed[stream]
        while waiting and waiting[0][0] <= time.monotonic():
            self._relays[stream].publish(waiting.popleft()[1])


def main() -> None:
    """Console entry."""
    run_node(FaultInjectorNode)

"""Record demonstrations from the live graph, whoever drives the robot.

Start and end an episode with the service `~/episode` (atk_interfaces/RecordEpisode), a joystick's
buttons (sensor_msgs/Joy) or, with the command `record`, the keyboard: all three ask for the same. The
bag holds every topic of the robot description, as `ros2 bag record -s mcap` would store it, and is
checked when it is kept. It needs no ros2 bag plugin, so it also runs where ROS 2 came from PyPI.
"""

from __future__ import annotations

import argparse
import os
import signal
import struct
import sys
import threading
import time
from collections import Counter
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Joy

from atk_interfaces.msg import RecordStatus
from atk_interfaces.srv import RecordEpisode
from atk_perception.bag_calibration import TF_TOPIC
from atk_perception.demonstration_topics import CAMERA_INFO, IMAGES, needed_topics, refusals
from atk_perception.frames import BagError
from atk_perception.input_thread import InputThread
from atk_perception.joystick import NO_BUTTON, Buttons
from atk_perception.keyboard import Keyboard
from atk_perception.managed_node import ERROR, OK, WARN, ManagedNode, run_node
from atk_perception.recording import DemonstrationWriter, RecordingError
from atk_perception.robot_description import RobotDescription

# Ten seconds of joint states at 100 Hz may wait for a slow disk before one is lost.
QUEUE_DEPTH = 1000
# How long a publisher that the graph shows may take to be heard.
DISCOVERY_S = 2.0
# Who joins late learns at once whether something is being recorded.
STATUS_QOS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
START, KEEP, DISCARD = RecordEpisode.Request.START, RecordEpisode.Request.KEEP, RecordEpisode.Request.DISCARD
KEYS = {"s": START, "k": KEEP, "d": DISCARD}
KEY_HELP = "keys: s start, k keep as a success, d discard, q quit"


class RecordNode(ManagedNode):
    """Writes one bag per episode."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.declare("robot", "", "robot description file (YAML)", read_only=True)
        self.declare("output", "demonstrations", "folder that the demonstrations are written to")
        self.declare(
            "extra_topics",
            [""],
            "further topics to record; they must have a publisher when an episode starts",
        )
        self.declare(
            "topic_timeout_s",
            5.0,
            "how long a topic may take to appear before an episode is refused",
            minimum=0.0,
            maximum=60.0,
        )
        self.declare(
            "keep_discarded",
            False,
            "discarded episodes stay in NAME.discarded, labelled so, instead of being deleted",
        )
        self.declare("keyboard", False, "take requests from the keys of this terminal", read_only=True)
        self.declare("joy_topic", "joy", "joystick (sensor_msgs/Joy)", read_only=True)
        for what in ("start", "keep", "discard"):
            self.declare(
                f"joy_{what}_button",
                NO_BUTTON,
                f"joystick button for {what}; -1: none",
                minimum=NO_BUTTON,
                maximum=100,
                read_only=True,
            )
        self._lock = threading.Lock()
        self._request_lock = threading.Lock()
        self._ended_by_fault = ""
        self._keyboard: Keyboard | None = None
        self._writer: DemonstrationWriter | None = None
        self._inputs: InputThread | None = None
        self._written: Counter[str] = Counter()
        self._image_stamps: dict[str, tuple[int, int]] = {}  # of every camera's newest image, by topic
        self._bag_path = ""

    def configure(self) -> None:
        """Read the robot description."""
        path = self.parameter("robot")
        if not path:
            raise RecordingError(
                "parameter 'robot' is empty; give a robot description file (config/robots/*.yaml)"
            )
        self._robot = RobotDescription.load(path)
        cameras = self._robot.cameras
        self._image_stamps = {camera.recorded_topic: (0, 0) for camera in cameras}
        self._needed = {
            **{camera.recorded_topic: IMAGES for camera in cameras},
            **{camera.camera_info_topic: CAMERA_INFO for camera in cameras},
            **needed_topics(self._robot),
        }
        # One after the other: a start that still waits for a publisher must not meet the next request.
        requests = MutuallyExclusiveCallbackGroup()
        self._service = self.create_service(
            RecordEpisode, "~/episode", self._on_request, callback_group=requests
        )
        self._status_publisher = self.create_publisher(RecordStatus, "~/status", STATUS_QOS)
        self._buttons = Buttons(
            [
                (self.parameter("joy_start_button"), START),
                (self.parameter("joy_keep_button"), KEEP),
                (self.parameter("joy_discard_button"), DISCARD),
            ]
        )
        self._joy_subscription: Any = None
        if self._buttons:
            self._joy_subscription = self.create_subscription(
                Joy,
                self.parameter("joy_topic"),
                self._on_joy,
                qos_profile_sensor_data,
                callback_group=requests,
            )
        if self.parameter("keyboard"):
            self._keyboard = Keyboard(self._on_key)

    def activate(self) -> None:
        """Wait for the first request."""
        self._publish_status()
        self.set_diagnostic(OK, "ready")
        self.get_logger().info(f"ready to record into {self.parameter('output')}")
        if self._keyboard is not None:
            self._keyboard.start()
            self.get_logger().info(KEY_HELP)

    def deactivate(self) -> None:
        """An episode that nobody ended stays in its .recording folder."""
        if self._keyboard is not None:
            self._keyboard.close()
        with self._lock:
            writer, self._writer = self._writer, None
        if self._inputs is not None:
            self._inputs.close()
        if writer is not None:
            writer.close_unfinished()
            self.get_logger().warning(
                "stopped in the middle of an episode; it stays in its .recording folder"
            )

    def cleanup(self) -> None:
        """Withdraw the interfaces."""
        self.destroy_service(self._service)
        self.destroy_publisher(self._status_publisher)
        if self._joy_subscription is not None:
            self.destroy_subscription(self._joy_subscription)

    # -- requests ----------------------------------------------------------------------------------

    def _on_request(
        self, request: RecordEpisode.Request, response: RecordEpisode.Response
    ) -> RecordEpisode.Response:
        response.success, response.bag_path, response.message = self._serve(request.command, request.name)
        return response

    def _on_joy(self, message: Joy) -> None:
        absent = self._buttons.missing(message.buttons)
        if absent:
            self.get_logger().error(
                f"the joystick has {len(message.buttons)} buttons, so {absent} will never be pressed; correct the "
                "parameters joy_*_button",
                throttle_duration_sec=30.0,
            )
        for command in self._buttons.pressed(message.buttons):
            self._serve(command)

    def _on_key(self, key: str) -> None:
        if key in KEYS:
            self._serve(KEYS[key])
        elif key == "q":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            self.get_logger().info(KEY_HELP)

    def _serve(self, command: int, name: str = "") -> tuple[bool, str, str]:
        """Carry out a request, whoever made it; returns (success, bag, message)."""
        bag = ""
        try:
            with self._request_lock:
                if command == START:
                    bag, message = self._start(name)
                elif command == KEEP:
                    bag, message = self._keep()
                elif command == DISCARD:
                    message = self._discard()
                else:
                    raise RecordingError(f"command {command} is unknown; START is 0, KEEP is 1, DISCARD is 2")
        except (RecordingError, BagError, OSError) as error:
            self.get_logger().error(str(error))
            self.set_diagnostic(ERROR, str(error))
            return False, "", str(error)
        self.get_logger().info(message)
        return True, bag, message

    def _start(self, name: str) -> tuple[str, str]:
        if self._writer is not None:
            raise RecordingError("an episode is being recorded; end it with KEEP or DISCARD first")
        if self._inputs is not None:  # of an episode that a fault has ended
            self._inputs.close()
        topics = self._await_topics()
        wrong = refusals(self._needed, {topic: [msgtype] for topic, msgtype in topics.items()})
        if wrong:
            raise RecordingError("; ".join(wrong))
        output = Path(self.parameter("output")).expanduser()
        path = output / (name or _next_name(output))
        latched = [
            topic for topic in topics if self._qos(topic).durability == DurabilityPolicy.TRANSIENT_LOCAL
        ]
        definitions = {t: _definition(t) for t in topics.values() if t.startswith("atk_interfaces/")}
        with self._lock:
            self._writer = DemonstrationWriter(path, topics, self._robot, definitions, latched)
            self._bag_path = str(path)
            self._ended_by_fault = ""
            self._written.clear()
            self._image_stamps = dict.fromkeys(self._image_stamps, (0, 0))
        # One thread, so that messages are logged in the order in which they are taken.
        self._inputs = inputs = InputThread(self, "messages")
        for topic, msgtype in topics.items():
            on_message = partial(self._on_message, topic)
            inputs.subscribe(message_class(msgtype), topic, on_message, self._qos(topic), raw=True)
        inputs.start()
        self._await_publishers(inputs)
        self._publish_status()
        self.set_diagnostic(OK, f"recording {path.name}")
        return str(path), f"recording {path}"

    def _await_publishers(self, inputs: InputThread) -> None:
        """What is published once START has been answered must not be missed."""
        deadline = time.monotonic() + max(DISCOVERY_S, self.parameter("topic_timeout_s"))
        while unheard := [s.topic_name for s in inputs.subscriptions if not s.get_publisher_count()]:
            if time.monotonic() > deadline:
                self._end().discard()
                raise RecordingError(
                    f"{unheard} have publishers that cannot be heard; compare their quality of service with "
                    "'ros2 topic info -v'"
                )
            time.sleep(0.01)

    def _await_topics(self) -> dict[str, str]:
        """As `_topics`, with time for publishers to be discovered."""
        deadline = time.monotonic() + self.parameter("topic_timeout_s")
        while True:
            try:
                return self._topics()
            except RecordingError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def _topics(self) -> dict[str, str]:
        """Every topic to record, with its type as the graph has it.

        Raises:
            RecordingError: a topic has no publisher.
        """
        robot = self._robot
        wanted = [*self._needed, *(topic for topic in self.parameter("extra_topics") if topic)]
        graph = dict(self.get_topic_names_and_types())
        found: dict[str, str] = {}
        missing = []
        for topic in wanted:
            resolved = self.resolve_topic_name(topic)
            # A publisher that was discovered after `graph` was asked for is found at the next try.
            if self.count_publishers(topic) == 0 or resolved not in graph:
                missing.append(resolved)
            else:
                found[topic] = graph[resolved][0]
        # Where cameras stand, for who moves one later; a demonstration serves without.
        for topic in (*(c.pose_topic for c in robot.cameras), TF_TOPIC):
            resolved = self.resolve_topic_name(topic)
            if resolved in graph and self.count_publishers(topic) and _is_installed(graph[resolved][0]):
                found[topic] = graph[resolved][0]
        if missing:
            raise RecordingError(
                f"nobody publishes {missing}; there are {sorted(graph)}. Start the camera driver, the robot and the "
                "teleoperation first, or correct the topics of the robot description."
            )
        return found

    def _qos(self, topic: str) -> QoSProfile:
        """Reliable where every publisher is, so that nothing is lost; else best effort, which hears all."""
        offers = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
        reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
        # What was said once, before the recording, must be heard too.
        latched = bool(offers) and all(
            offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers
        )
        return QoSProfile(
            depth=QUEUE_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )

    def _on_message(self, topic: str, cdr: bytes) -> None:
        with self._lock:
            if self._writer is None:
                return
            if topic in self._image_stamps:
                self._image_stamps[topic] = stamp_of(cdr)
            try:
                self._writer.write(topic, self._now_ns(), bytes(cdr))
            except RecordingError as error:
                self._writer, self._ended_by_fault = None, str(error)
                self.set_diagnostic(ERROR, str(error))
                self.get_logger().error(str(error))
            else:
                self._written[topic] += 1
        ended = self._writer is None
        if ended or topic in (*self._image_stamps, *self._robot.topics.commands):
            self._publish_status()

    def _now_ns(self) -> int:
        """The ROS clock; simulated, it has come at least as far as the newest image, whatever came of /clock."""
        clock = self.get_clock()
        now_ns = int(clock.now().nanoseconds)
        seconds, nanoseconds = max(self._image_stamps.values())
        return max(now_ns, seconds * 10**9 + nanoseconds) if clock.ros_time_is_active else now_ns

    def _publish_status(self) -> None:
        topics = self._robot.topics
        status = RecordStatus(
            recording=self._writer is not None,
            bag_path=self._bag_path,
            images=self._written[self._robot.camera.recorded_topic],
            arm_commands=self._written[topics.recorded_arm_command],
            gripper_commands=self._written[topics.gripper_command] if topics.gripper_command else 0,
        )
        # Up to there every camera has been written.
        status.header.stamp.sec, status.header.stamp.nanosec = min(self._image_stamps.values())
        self._status_publisher.publish(status)

    def _end(self) -> DemonstrationWriter:
        if self._inputs is not None:
            self._inputs.close()
        with self._lock:
            if self._writer is None:
                fault, self._ended_by_fault = self._ended_by_fault, ""
                raise RecordingError(fault or "no episode is being recorded; send START first")
            writer, self._writer = self._writer, None
        self._publish_status()
        return writer

    def _keep(self) -> tuple[str, str]:
        report = self._end().keep()
        summary = "; ".join(f"{topic} {arrived}" for topic, arrived in report.topics.items())
        if report.ok:
            self.set_diagnostic(OK, f"kept {report.path.name}", written=self._written.total())
            message = f"kept {report.path.name}, {report.duration_s:.1f} s: {summary}"
        else:
            problems = "; ".join(report.problems)
            self.set_diagnostic(
                WARN, f"kept {report.path.name} with problems: {problems}", written=self._written.total()
            )
            message = f"kept {report.path.name} WITH PROBLEMS: {problems} ({summary})"
        return str(report.path), message

    def _discard(self) -> str:
        writer = self._end()
        if self.parameter("keep_discarded"):
            message = f"discarded; it stays in {writer.set_aside()}"
        else:
            writer.discard()
            message = "discarded"
        self.set_diagnostic(OK, message)
        return message


def stamp_of(cdr: bytes) -> tuple[int, int]:
    """(seconds, nanoseconds) of a serialised message that begins with a header; byte 1 says the byte order."""
    seconds, nanoseconds = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return seconds, nanoseconds


def _next_name(output: Path) -> str:
    taken = [int(path.name[8:12]) for path in output.glob("episode_[0-9][0-9][0-9][0-9]*")]
    return f"episode_{max(taken, default=-1) + 1:04d}"


def message_class(msgtype: str) -> Any:
    """The rclpy class of a type such as ``sensor_msgs/msg/JointState``.

    Raises:
        ImportError, AttributeError: its package is not installed, or is another version.
    """
    package, _, name = msgtype.split("/")
    return getattr(import_module(f"{package}.msg"), name)


def _is_installed(msgtype: str) -> bool:
    try:
        message_class(msgtype)
    except (ImportError, AttributeError):
        return False
    return True


def _definition(msgtype: str) -> str:
    package, _, name = msgtype.split("/")
    return (Path(get_package_share_directory(package)) / "msg" / f"{name}.msg").read_text()


def main() -> None:
    """Console entry of the node."""
    run_node(RecordNode)


def record_command() -> None:
    """Console entry of `record`: the node with the keyboard of its terminal."""
    parser = argparse.ArgumentParser(
        prog="record",
        description=f"{__doc__}\n{KEY_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: record my_robot.yaml --output demonstrations --joy 7 0 1; what follows --ros-args goes to ROS",
    )
    parser.add_argument("robot", type=Path, help="robot description (YAML)")
    parser.add_argument("--output", type=Path, default=Path("demonstrations"), help="folder of the bags")
    parser.add_argument(
        "--joy",
        type=int,
        nargs=3,
        metavar=("START", "KEEP", "DISCARD"),
        default=(NO_BUTTON,) * 3,
        help="joystick buttons on topic joy (sensor_msgs/Joy); -1: none",
    )
    parser.add_argument("--topics", nargs="*", default=[], help="further topics to record")
    parser.add_argument(
        "--keep-discarded", action="store_true", help="discarded episodes stay, in NAME.discarded"
    )
    parser.add_argument("--use-sim-time", action="store_true", help="the robot is simulated")
    ours, ros = sys.argv[1:], list[str]()
    if "--ros-args" in ours:
        ours, ros = ours[: ours.index("--ros-args")], ours[ours.index("--ros-args") + 1 :]
    args = parser.parse_args(ours)
    parameters = {
        "robot": str(args.robot),
        "output": str(args.output),
        "extra_topics": "[" + ", ".join(f"'{topic}'" for topic in args.topics or [""]) + "]",
        "keep_discarded": str(args.keep_discarded).lower(),
        "keyboard": "true",
        "use_sim_time": str(args.use_sim_time).lower(),
        **{f"joy_{what}_button": n for what, n in zip(("start", "keep", "discard"), args.joy, strict=True)},
    }
    given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    sys.argv = [sys.argv[0], "--ros-args", *given, *ros]
    main()

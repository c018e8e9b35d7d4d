"""Play a bag into the graph, where `ros2 bag play` is not installed, or where no message may be lost.

As `ros2 bag play BAG --clock 100`: the recorded topics with /clock, as serialised as they were recorded. Two things
differ. What the robot was commanded, and what tracker and policy compute anew, is left out unless it is asked for by
name. And in lock-step recorded time waits for the answers to every image, so that a slow machine changes nothing but
the wall time, and the same bag gives the same commands again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from atk_interfaces.msg import KeypointArray, PolicyStatus
from atk_perception.frames import BagError, BagTopic, bag_offers, bag_robot, raw_messages, stamp_ns_of
from atk_perception.input_thread import InputThread
from atk_perception.managed_node import ERROR, OK, WARN, ManagedNode, run_node
from atk_perception.record_node import message_class, stamp_of
from atk_perception.robot_description import RobotDescription

# As deep as the recorder's: what was recorded in a burst is published in one.
QUEUE_DEPTH = 1000
LOCKSTEP = ("none", "tracker", "policy")
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
# What the nodes under replay publish themselves; recorded ones beside theirs would be taken for theirs.
RECOMPUTED_TYPES = ("atk_interfaces/msg/KeypointArray", "atk_interfaces/msg/PolicyStatus")
ANSWER_TIMEOUT_S = 10.0  # of wall time; the first image of a scene may take a second to transfer
LISTENER_TIMEOUT_S = 30.0
# Nodes that start together find each other within this time of one another.
SETTLED_S = 1.0


class PlayNode(ManagedNode):
    """Publishes one bag."""

    def __init__(self) -> None:
        super().__init__("player")
        self.declare("bag", "", "rosbag2 folder", read_only=True)
        self.declare(
            "robot", "", "robot description that names the command topics; empty: the bag's", read_only=True
        )
        self.declare("rate", 1.0, "of the recorded time; 0: no pause at all", minimum=0.0, maximum=100.0)
        self.declare("clock_hz", 0.0, "publish /clock so often; 0: not at all", minimum=0.0, maximum=1000.0)
        self.declare("topics", [""], "play these alone, commands too", read_only=True)
        self.declare("exclude_topics", [""], "leave these out", read_only=True)
        self.declare(
            "lockstep",
            "none",
            "whose answers recorded time waits for: none, tracker, or policy (the tracker's too)",
            read_only=True,
        )
        self.declare("start_paused", False, "begin when ~/resume is called", read_only=True)
        self.declare("loop", False, "begin again at the end")
        self.declare("exit_at_end", False, "end the process at the end", read_only=True)

    # -- lifecycle ---------------------------------------------------------------------------------

    def configure(self) -> None:
        """Look into the bag and offer its topics."""
        bag = self.parameter("bag")
        if not bag:
            raise BagError("parameter 'bag' is empty; give a rosbag2 folder")
        self._bag = Path(bag).expanduser()
        self._lockstep = self.parameter("lockstep")
        if self._lockstep not in LOCKSTEP:
            raise BagError(f"parameter 'lockstep' is '{self._lockstep}'; give one of {', '.join(LOCKSTEP)}")
        path = self.parameter("robot")
        self._robot = RobotDescription.load(path) if path else bag_robot(self._bag)
        offers = self._chosen(bag_offers(self._bag))
        if not offers:
            raise BagError(f"bag {self._bag} holds nothing to play; it holds {sorted(bag_offers(self._bag))}")
        self._image_topic = self._choose_image_topic(offers)
        self._topic_publishers: dict[str, Any] = {}
        for topic, offer in offers.items():
            try:
                kind = message_class(offer.msgtype)
            except (ImportError, AttributeError):
                self.get_logger().warning(
                    f"left out {topic}: messages of type {offer.msgtype} are not installed"
                )
                continue
            # Relative names: a namespace moves them, as it moves everybody else's.
            self._topic_publishers[topic] = self.create_publisher(kind, topic, _qos(offer))
        self._clock_publisher = self.create_publisher(Clock, "/clock", 10)
        self._going = threading.Event()  # before the services, which may be called before it plays
        self._controls = [
            self.create_service(Trigger, f"~/{name}", callback)
            for name, callback in (("pause", self._on_pause), ("resume", self._on_resume))
        ]

    def activate(self) -> None:
        """Play, in a thread of its own."""
        if not self.parameter("start_paused"):
            self._going.set()
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._newest_keypoints_ns = self._newest_status_ns = -1
        self._policy_answers = True
        self._played = 0
        self._inputs: InputThread | None = None
        if self._lockstep != "none":
            qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
            self._inputs = InputThread(self, "answers")
            self._inputs.subscribe(KeypointArray, "keypoints", self._on_keypoints, qos)
            if self._lockstep == "policy":
                self._inputs.subscribe(PolicyStatus, "policy/status", self._on_status, qos)
            self._inputs.start()
        self.set_diagnostic(OK, "paused" if self.parameter("start_paused") else "playing")
        self._thread = threading.Thread(target=self._run, name="player")
        self._thread.start()

    def deactivate(self) -> None:
        """Stop playing."""
        self._stop.set()
        self._going.set()
        with self._news:
            self._news.notify_all()
        self._thread.join()
        if self._inputs is not None:
            self._inputs.close()

    def cleanup(self) -> None:
        """Withdraw the interfaces."""
        for service in self._controls:
            self.destroy_service(service)
        for publisher in (*self._topic_publishers.values(), self._clock_publisher):
            self.destroy_publisher(publisher)

    # -- what is played ----------------------------------------------------------------------------

    def _chosen(self, offers: dict[str, BagTopic]) -> dict[str, BagTopic]:
        named = {topic.lstrip("/") for topic in self.parameter("topics") if topic}
        excluded = {topic.lstrip("/") for topic in self.parameter("exclude_topics") if topic}
        unknown = sorted(named - set(offers))
        if unknown:
            raise BagError(f"bag {self._bag} has no topics {unknown}; it holds {sorted(offers)}")
        commands: set[str] = set()
        if self._robot is not None:
            commands = {topic.lstrip("/") for topic in self._robot.topics.commands}
        if named:
            return {t: offer for t, offer in offers.items() if t in named and t not in excluded}
        left_out = {
            topic
            for topic, offer in offers.items()
            if topic in commands or offer.msgtype in RECOMPUTED_TYPES or topic == "clock"
        }
        if left_out:
            self.get_logger().info(f"left out {sorted(left_out)}; name them in 'topics' to play them")
        return {t: offer for t, offer in offers.items() if t not in left_out | excluded}

    def _choose_image_topic(self, offers: dict[str, BagTopic]) -> str:
        """The topic whose images are waited for in lock-step; empty where there is none."""
        images = [topic for topic, offer in offers.items() if offer.msgtype in IMAGE_TYPES]
        if self._robot is not None:
            camera = self._robot.camera
            preferred = [camera.recorded_topic.lstrip("/"), camera.image_topic.lstrip("/")]
            images = [topic for topic in preferred if topic in images] or images
        return images[0] if images else ""

    def _run(self) -> None:
        try:
            while True:
                self._play_once()
                if self._stop.is_set() or not self.parameter("loop"):
                    break
            if not self._stop.is_set():
                self.get_logger().info(f"end of {self._bag.name} after {self._played} messages")
                self.set_diagnostic(OK, "end of bag", messages=self._played)
        except BagError as error:
            self.get_logger().error(str(error))
            self.set_diagnostic(ERROR, str(error))
        if self.parameter("exit_at_end") and not self._stop.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    def _play_once(self) -> None:
        lockstep = self._lockstep != "none"
        if lockstep:
            self._await_listeners()
        pace = _Pace(self.parameter("rate"))
        self._newest_keypoints_ns = self._newest_status_ns = -1
        clock_hz = self.parameter("clock_hz")
        tick_ns = round(1e9 / clock_hz) if clock_hz > 0 else 0
        clock_ns = image_ns = joints_ns = -1
        before_ns = -1  # the image before the newest one
        joint_states = "" if self._robot is None else self._robot.topics.joint_states.lstrip("/")
        for topic, log_ns, cdr in raw_messages(self._bag, self._topic_publishers):
            self._await_going(pace)
            if self._stop.is_set():
                return
            if lockstep and topic == self._image_topic:
                self._await_answers(image_ns, image_ns if joints_ns >= image_ns else before_ns)
            while tick_ns and 0 <= clock_ns < log_ns - tick_ns:
                clock_ns += tick_ns
                pace.wait(clock_ns, self._stop)
                self._publish_clock(clock_ns)
            pace.wait(log_ns, self._stop)
            if tick_ns and log_ns > clock_ns:  # nobody is to hear of a message before its time
                clock_ns = log_ns
                self._publish_clock(clock_ns)
            self._topic_publishers[topic].publish(cdr)
            self._played += 1
            if topic == self._image_topic:
                before_ns, image_ns = image_ns, _ns(stamp_of(cdr))
                self.set_diagnostic(OK, "playing", messages=self._played)
            elif topic == joint_states:
                joints_ns = _ns(stamp_of(cdr))
        if lockstep:
            self._await_answers(image_ns, image_ns if joints_ns >= image_ns else before_ns)

    def _publish_clock(self, clock_ns: int) -> None:
        self._clock_publisher.publish(Clock(clock=Time(sec=clock_ns // 10**9, nanosec=clock_ns % 10**9)))

    # -- lock-step ---------------------------------------------------------------------------------

    def _on_keypoints(self, message: KeypointArray) -> None:
        with self._news:
            self._newest_keypoints_ns = stamp_ns_of(message)
            self._news.notify_all()

    def _on_status(self, message: PolicyStatus) -> None:
        with self._news:
            self._newest_status_ns, self._policy_answers = stamp_ns_of(message), True
            self._news.notify_all()

    def _await_listeners(self) -> None:
        """Until who is waited for can be heard and hears: what is played before is lost."""
        if not self._image_topic:
            raise BagError(f"bag {self._bag} holds no images to wait for; play it without lock-step")
        deadline = time.monotonic() + LISTENER_TIMEOUT_S
        settled = time.monotonic()
        while not self._stop.wait(0.05):
            now = time.monotonic()
            missing = self._missing()
            if missing:
                settled = now
            elif now - settled > SETTLED_S:
                return
            if now > deadline:
                raise BagError(
                    f"{'; '.join(missing) or 'the graph did not settle'}, after {LISTENER_TIMEOUT_S:.0f} s; start "
                    f"tracker and policy, or play with another lock-step than '{self._lockstep}'"
                )

    def _missing(self) -> list[str]:
        """What is still to be met before the first message, for people."""
        assert self._inputs is not None
        needed = [self._image_topic]
        if self._lockstep == "policy" and self._robot is not None:
            needed.append(self._robot.topics.joint_states.lstrip("/"))
        missing = []
        for topic, publisher in self._topic_publishers.items():
            met = publisher.get_subscription_count()
            if met < max(topic in needed, self.count_subscribers(publisher.topic_name)):
                missing.append(f"nobody listens to {publisher.topic_name}")
        missing += [
            f"nobody publishes {subscription.topic_name}"
            for subscription in self._inputs.subscriptions
            if subscription.get_publisher_count() == 0
        ]
        # The policy hears the tracker beside this node.
        if self._lockstep == "policy" and self.count_subscribers("keypoints") < 2:
            missing.append(f"no policy listens to {self.resolve_topic_name('keypoints')}")
        for camera in () if self._robot is None else self._robot.more_cameras:
            topic = f"{camera.name}/keypoints"
            # Whoever listens there sees through that camera too.
            if self.count_subscribers(topic) and not self.count_publishers(topic):
                missing.append(f"nobody publishes {self.resolve_topic_name(topic)}")
        return missing

    def _await_answers(self, image_ns: int, whole_ns: int) -> None:
        """Until the tracker has answered the newest image, and the policy the newest that it could see whole.

        The policy needs a joint state at or after an image, so the newest one may still be unanswered; and it answers
        images at the control rate alone, so that with a faster camera the answer is up to a period older.
        """
        if image_ns < 0:
            return
        self._await("keypoints", lambda: self._newest_keypoints_ns >= image_ns)
        # A policy that was waited for in vain is not waited for again until it answers.
        if self._lockstep != "policy" or whole_ns < 0 or not self._policy_answers:
            return
        older_ns = 0.0
        if self._robot is not None and self._robot.camera.rate_hz > 1.01 * self._robot.control_rate_hz:
            older_ns = 1.5 * self._robot.control_period_ns
        self._policy_answers = self._await(
            "policy/status", lambda: self._newest_status_ns >= whole_ns - older_ns
        )

    def _await(self, topic: str, answered: Callable[[], bool]) -> bool:
        with self._news:
            done = self._news.wait_for(lambda: answered() or self._stop.is_set(), ANSWER_TIMEOUT_S)
        if not done:
            message = f"no answer on {topic} within {ANSWER_TIMEOUT_S:.0f} s; going on"
            self.get_logger().warning(message)
            self.set_diagnostic(WARN, message)
        return done

    # -- requests ----------------------------------------------------------------------------------

    def _on_pause(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._going.clear()
        self.set_diagnostic(OK, "paused")
        response.success, response.message = True, "paused"
        return response

    def _on_resume(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._going.set()
        response.success, response.message = True, "playing"
        return response

    def _await_going(self, pace: _Pace) -> None:
        if not self._going.is_set():
            self._going.wait()
            pace.restart()


class _Pace:
    """Recorded time against the wall's."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self.restart()

    def restart(self) -> None:
        """What comes next comes now."""
        self._from: tuple[float, int] | None = None

    def wait(self, recorded_ns: int, stop: threading.Event) -> None:
        """Until `recorded_ns` is due."""
        if self._rate <= 0.0:
            return
        if self._from is None:
            self._from = (time.monotonic(), recorded_ns)
        started, first_ns = self._from
        late_s = time.monotonic() - started - (recorded_ns - first_ns) / 1e9 / self._rate
        if late_s > 0.5:  # somebody was waited for: go on at the same pace, do not hurry
            self._from = (time.monotonic(), recorded_ns)
        elif late_s < 0:
            stop.wait(-late_s)


def _qos(offer: BagTopic) -> QoSProfile:
    return QoSProfile(
        depth=QUEUE_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if offer.reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if offer.latched else DurabilityPolicy.VOLATILE,
    )


def _ns(stamp: tuple[int, int]) -> int:
    return stamp[0] * 10**9 + stamp[1]


def main() -> None:
    """Console entry of the node."""
    run_node(PlayNode)


def play_command() -> None:
    """Console entry of `play`, with the options of `ros2 bag play`."""
    parser = argparse.ArgumentParser(
        prog="play",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: play demonstrations/episode_0000 --clock 100 --rate 0.5; what follows --ros-args goes to ROS",
    )
    parser.add_argument("bag", type=Path, help="rosbag2 folder")
    parser.add_argument("--rate", "-r", type=float, default=1.0, help="of the recorded time (default: 1)")
    parser.add_argument(
        "--clock", type=float, nargs="?", const=40.0, default=0.0, help="publish /clock at this rate [Hz]"
    )
    parser.add_argument("--topics", nargs="+", default=[], help="play these alone, commands too")
    parser.add_argument("--exclude-topics", nargs="+", default=[], help="leave these out")
    parser.add_argument(
        "--lockstep",
        nargs="?",
        const="policy",
        default="none",
        choices=LOCKSTEP,
        help="wait for their answers to every image (default: none; without a value: policy)",
    )
    parser.add_argument(
        "--start-paused", "-p", action="store_true", help="begin when player/resume is called"
    )
    parser.add_argument("--loop", "-l", action="store_true", help="begin again at the end")
    ours, ros = sys.argv[1:], list[str]()
    if "--ros-args" in ours:
        ours, ros = ours[: ours.index("--ros-args")], ours[ours.index("--ros-args") + 1 :]
    args = parser.parse_args(ours)

    def names(topics: list[str]) -> str:
        return "[" + ", ".join(f"'{topic}'" for topic in topics or [""]) + "]"

    parameters = {
        "bag": str(args.bag),
        "rate": args.rate,
        "clock_hz": args.clock,
        "topics": names(args.topics),
        "exclude_topics": names(args.exclude_topics),
        "lockstep": args.lockstep,
        "start_paused": str(args.start_paused).lower(),
        "loop": str(args.loop).lower(),
        "exit_at_end": "true",
    }
    given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    sys.argv = [sys.argv[0], "--ros-args", *given, *ros]
    main()

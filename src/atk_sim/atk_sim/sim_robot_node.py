"""The simulated robot behind the real robot's topics.

In lock-step (the default) simulated time passes only when everyone has done their part: at each camera
period the clock and the joint states go out first, then the image, then the node waits for the command
that answers it, and for the recorder where an episode is being recorded. A slow machine changes nothing
but the wall time. Without a policy in the graph, or with `lockstep` off, it runs paced by the wall clock.
With `system_clock` it has no /clock at all and stamps by the system's, as a real robot's drivers do.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, TransformStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray, Header
from trajectory_msgs.msg import JointTrajectory

from atk_interfaces.msg import EpisodeStatus, PolicyStatus, RecordStatus
from atk_interfaces.srv import ResetEpisode
from atk_perception.frames import stamp_ns_of
from atk_perception.image_codec import fill_depth_message, fill_png_message, fill_rgb_message
from atk_perception.input_thread import InputThread
from atk_perception.managed_node import OK, WARN, ManagedNode, run_node
from atk_perception.record_node import STATUS_QOS, message_class
from atk_perception.robot_description import Camera, RobotDescription
from atk_sim.camera import BASE_FRAME, CameraPlacement, FloatArray
from atk_sim.graph import robot_file
from atk_sim.robots.panda import FINGER_JOINTS
from atk_sim.simulation import Simulation

JOINT_STATES_HZ = 100.0
IDLE_CLOCK_PERIOD_S = 0.05
ANSWER_TIMEOUT_S = 5.0  # of wall time; the first image of a scene may take a second to transfer
DISCOVERY_S = 2.0  # how long a new episode waits for a policy to be found in the graph
# Whether trackers and policy hear each other cannot be seen from here: who has just come gets this much longer.
ACQUAINTANCE_S = 0.3
# Simulated time can run faster than a recorder's disk for a moment; what waits is kept, not lost.
RELIABLE = QoSProfile(depth=40, reliability=ReliabilityPolicy.RELIABLE)
JOINT_STATE_DEPTH = 1000
EXPERT, TOPICS = "expert", "topics"
# Simulated time begins here: stamp 0 means "no stamp" to many ROS tools.
START_NS = 1_000_000_000


@dataclass(frozen=True)
class _View:
    """A camera and the publishers of what it sees."""

    camera: Camera
    image: Any
    png: Any
    depth: Any
    info: Any
    pose: Any


class SimRobotNode(ManagedNode):
    """MuJoCo world, camera and controllers as one node."""

    def __init__(self) -> None:
        super().__init__("sim")
        self.declare("robot", str(robot_file("sim_panda")), "robot description file (YAML)", read_only=True)
        self.declare("task", "sushi", "task of the first episode")
        self.declare(
            "disturbance",
            "RP",
            "disturbance of the first episode: RP, RB, RO, Light, camera, occlusion or freeze, with :SEVERITY if not 1",
        )
        self.declare("seed", 0, "seed of the first episode", minimum=0, maximum=2**31)
        self.declare("driver", TOPICS, "who commands: 'expert' (scripted) or 'topics'")
        self.declare(
            "episode_s",
            0.0,
            "how long an episode lasts at most; 0: as its task says",
            minimum=0.0,
            maximum=3600.0,
        )
        self.declare("wait_for_reset", False, "begin the first episode only when sim/reset is called")
        self.declare(
            "lockstep", True, "let simulated time wait for the policy's answer to every image", read_only=True
        )
        self.declare(
            "real_time_factor",
            1.0,
            "pace where nobody is waited for; 0: as fast as possible",
            minimum=0.0,
            maximum=100.0,
        )
        self.declare(
            "system_clock",
            False,
            "stamp by the system's clock and publish no /clock, as a real robot; needs lockstep off",
            read_only=True,
        )
        self.declare(
            "servo_noise", 0.0, "strength of an unknown disturbance at the servos", minimum=0.0, maximum=10.0
        )
        self._news = threading.Condition()

    # -- lifecycle ---------------------------------------------------------------------------------

    def configure(self) -> None:
        """Read the robot description, offer topics and the reset service."""
        self._robot = robot = RobotDescription.load(self.parameter("robot"))
        self._system_clock = self.parameter("system_clock")
        if self._system_clock and self.parameter("lockstep"):
            raise ValueError(
                "system_clock with lockstep: the system's clock waits for nobody; set lockstep to false"
            )
        self._simulation: Simulation | None = None
        self._time_ns = START_NS
        self._driver = self.parameter("driver")
        self._running = False
        self._fresh_arm: FloatArray | None = None
        self._fresh_gripper: float | None = None
        self._trajectory: tuple[int, FloatArray, FloatArray] | None = None
        self._commanded = False  # something came since the last period
        self._has_ended = False  # some episode
        self._answer: PolicyStatus | None = None
        self._recorded = RecordStatus()
        self._action = np.append(robot.home_rad, robot.gripper.max_m)
        topics = robot.topics
        if topics.gripper_command is None:
            raise ValueError(
                f"robot description {self.parameter('robot')} has no topics.gripper_command; the simulated gripper has no action, "
                "but hears its opening [m] on a topic. Give gripper.sink position and that topic"
            )
        self._clock_publisher = self.create_publisher(Clock, "/clock", 10)
        self._joints_publisher = self.create_publisher(JointState, topics.joint_states, JOINT_STATE_DEPTH)
        self._views = [self._view(camera) for camera in robot.cameras]
        self._tf_publisher, self._tf_class = None, _tf_message()
        if self._tf_class is not None:
            self._tf_publisher = self.create_publisher(self._tf_class, "tf_static", STATUS_QOS)
        self._episode_publisher = self.create_publisher(EpisodeStatus, "sim/episode", RELIABLE)
        # MuJoCo's positions at every image, nameless: for who judges keypoints (judging.py).
        self._state_publisher = self.create_publisher(JointState, "sim/state", RELIABLE)
        self._arm_publisher = self.create_publisher(Float64MultiArray, topics.command, 10)
        self._gripper_publisher = self.create_publisher(Float64MultiArray, topics.gripper_command, 10)
        # Commands arrive while the simulation thread waits for them.
        self._inputs = InputThread(self, "inputs")
        for kind, topic, callback, qos in (
            (Float64MultiArray, "forward_position_controller/commands", self._on_arm, 10),
            (Float64MultiArray, "gripper_position_controller/commands", self._on_gripper, 10),
            (JointTrajectory, "joint_trajectory_controller/joint_trajectory", self._on_trajectory, 10),
            (PolicyStatus, "policy/status", self._on_policy_status, 10),
            (RecordStatus, "recorder/status", self._on_record_status, STATUS_QOS),
        ):
            self._inputs.subscribe(kind, topic, callback, qos)
        self._inputs.start()
        self._reset_service = self.create_service(
            ResetEpisode, "sim/reset", self._on_reset, callback_group=ReentrantCallbackGroup()
        )

    def _view(self, camera: Camera) -> _View:
        return _View(
            camera,
            image=self.create_publisher(Image, camera.image_topic, RELIABLE),
            png=self.create_publisher(CompressedImage, f"{camera.image_topic}/compressed", RELIABLE),
            depth=self.create_publisher(Image, camera.registered_depth_topic, RELIABLE),
            info=self.create_publisher(CameraInfo, camera.camera_info_topic, RELIABLE),
            pose=self.create_publisher(PoseStamped, camera.pose_topic, STATUS_QOS),
        )

    def activate(self) -> None:
        """Begin to simulate, in a thread that owns physics and graphics."""
        self._stop = threading.Event()
        self._requests: list[tuple[ResetEpisode.Request, ResetEpisode.Response, threading.Event]] = []
        if not self.parameter("wait_for_reset"):
            first = ResetEpisode.Request(
                task=self.parameter("task"),
                disturbance=self.parameter("disturbance"),
                seed=self.parameter("seed"),
            )
            self._requests.append((first, ResetEpisode.Response(), threading.Event()))
        self._thread = threading.Thread(target=self._simulate, name="simulation")
        self._thread.start()
        self.get_logger().info("ready; start an episode with the service sim/reset")

    def deactivate(self) -> None:
        """Stop simulating."""
        self._stop.set()
        with self._news:
            self._news.notify_all()
        self._thread.join()

    def cleanup(self) -> None:
        """Withdraw the interfaces."""
        self._inputs.close()
        self.destroy_service(self._reset_service)

    # -- what arrives ------------------------------------------------------------------------------

    def _accept(self, what: str, values: Any, count: int) -> FloatArray | None:
        """What ros2_control's forward controllers do with a command that they cannot use: say so, ignore it."""
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (count,) or not np.isfinite(array).all():
            self.get_logger().error(
                f"ignored a {what} command {array.tolist()}; expected {count} finite values",
                throttle_duration_sec=2.0,
            )
            return None
        return array

    def _on_arm(self, message: Float64MultiArray) -> None:
        values = self._accept("joint position", message.data, self._robot.joint_count)
        if values is not None:
            with self._news:
                self._fresh_arm, self._trajectory, self._commanded = values, None, True
                self._news.notify_all()

    def _on_gripper(self, message: Float64MultiArray) -> None:
        values = self._accept("gripper", message.data, 1)
        if values is not None:
            with self._news:
                self._fresh_gripper = float(values[0])
                self._news.notify_all()

    def _on_trajectory(self, message: JointTrajectory) -> None:
        """A new trajectory replaces the old one, as joint_trajectory_controller does."""
        names = list(message.joint_names)
        missing = [name for name in self._robot.joints.names if name not in names]
        if missing or not message.points:
            self.get_logger().error(
                f"ignored a trajectory of {len(message.points)} points for {names}; it lacks {missing}"
            )
            return
        order = [names.index(name) for name in self._robot.joints.names]
        offsets_ns = np.array(
            [p.time_from_start.sec * 10**9 + p.time_from_start.nanosec for p in message.points]
        )
        positions = [np.asarray(p.positions, dtype=np.float64) for p in message.points]
        usable = all(p.shape == (len(names),) and np.isfinite(p).all() for p in positions)
        if not usable or (np.diff(offsets_ns) <= 0).any() or offsets_ns[0] < 0:
            self.get_logger().error(
                "ignored a trajectory: positions must be finite and times strictly increasing"
            )
            return
        with self._news:
            start_ns = stamp_ns_of(message) or self._time_ns
            self._trajectory = (start_ns, offsets_ns.astype(np.float64), np.array(positions)[:, order])
            self._fresh_arm, self._commanded = None, True
            self._news.notify_all()

    def _on_policy_status(self, message: PolicyStatus) -> None:
        with self._news:
            self._answer = message
            self._news.notify_all()

    def _on_record_status(self, message: RecordStatus) -> None:
        with self._news:
            self._recorded = message
            self._news.notify_all()

    def _on_reset(
        self, request: ResetEpisode.Request, response: ResetEpisode.Response
    ) -> ResetEpisode.Response:
        finished = threading.Event()
        with self._news:
            self._requests.append((request, response, finished))
            self._news.notify_all()
        if not finished.wait(timeout=60.0):
            response.success, response.message = False, "the simulation did not answer within 60 s"
        return response

    # -- the simulation thread ---------------------------------------------------------------------

    def _simulate(self) -> None:
        """Everything that touches MuJoCo happens here: a graphics context belongs to one thread."""
        self._simulation = Simulation(self._robot, self.parameter("servo_noise"))
        try:
            while not self._stop.is_set():
                self._take_reset()
                if self._running:
                    self._period()
                else:
                    self._idle()
        except Exception as error:  # a thread would die unnoticed, the node seem ready for ever
            self.get_logger().fatal(f"the simulation failed: {error!r}")
            os.kill(os.getpid(), signal.SIGTERM)
            raise
        finally:
            self._simulation.close()

    def _take_reset(self) -> None:
        with self._news:
            if not self._requests:
                return
            request, response, finished = self._requests.pop(0)
        assert self._simulation is not None
        try:
            driver = request.driver or self._driver
            if driver not in (EXPERT, TOPICS):
                raise ValueError(f"unknown driver '{driver}'; known: {EXPERT}, {TOPICS}")
            task = request.task or getattr(self._simulation, "task", self.parameter("task"))
            disturbance = request.disturbance or getattr(
                self._simulation, "disturbance", self.parameter("disturbance")
            )
            self._simulation.reset(task, disturbance, int(request.seed))
            if self.parameter("episode_s"):
                self._simulation.max_steps = round(self.parameter("episode_s") * self._robot.camera.rate_hz)
        except ValueError as error:
            response.success, response.message = False, str(error)
            self.get_logger().error(str(error))
        else:
            self._driver, self._running = driver, True
            self._publish_poses()
            # The last image of the episode before had this stamp; a second one would be taken for a repetition.
            self._time_ns += round(1e9 / self._robot.camera.rate_hz)
            if driver == TOPICS and self.parameter("lockstep"):
                self._await_policy()
            self._action = self._simulation.measured()
            with self._news:
                self._fresh_arm = self._fresh_gripper = self._trajectory = None
            response.success = True
            response.message = f"{task}, {disturbance}, seed {request.seed}, driven by {driver}"
            response.stamp = _time(self._time_ns)
            self.set_diagnostic(OK, response.message)
        finished.set()

    def _idle(self) -> None:
        """Between episodes time stands still, but for who still commands: a brake needs time to come to its end.

        Whoever is left in the middle of one would go on with it in the next episode, from where that arm is not.
        """
        self._publish_clock()
        with self._news:
            if not self._requests and not self._commanded:
                self._news.wait(IDLE_CLOCK_PERIOD_S)
            commanded, self._commanded = self._commanded, False
        if commanded and self._has_ended and not self._system_clock:
            self._advance(time.monotonic())

    def _period(self) -> None:
        """One camera period: publish, be commanded, let physics run."""
        assert self._simulation is not None
        started = time.monotonic()
        if self._system_clock:
            self._time_ns = time.time_ns()
        simulation, stamp_ns = self._simulation, self._time_ns
        recorded = self._recorded
        self._publish_state()
        self._publish_images(stamp_ns)
        if not simulation.image_lost:
            self._await_recorded_image(recorded, stamp_ns)
        if self._driver == EXPERT:
            self._publish_command(simulation.expert_command())
            self._await_command()
            self._await_recorded_command(recorded)
        elif self.parameter("lockstep") and self._policies() > 0 and not simulation.image_lost:
            if self._await_answer(stamp_ns):
                self._await_recorded_command(recorded)
        self._publish_episode(stamp_ns)
        if simulation.done:
            with self._news:
                self._running, self._has_ended, self._commanded = False, True, False
            self.get_logger().info(
                f"seed {simulation.seed}: {'success' if simulation.succeeded else 'failure'}"
            )
            return
        self._advance(started)
        simulation.end_period()

    def _advance(self, started: float) -> None:
        """Let physics run for a camera period that began at `started`, and say at every tick where the joints are."""
        assert self._simulation is not None
        stamp_ns, period_ns = self._time_ns, round(1e9 / self._robot.camera.rate_hz)
        ticks = max(1, round(JOINT_STATES_HZ / self._robot.camera.rate_hz))
        for tick in range(1, ticks + 1):
            self._act()
            self._simulation.advance(period_ns / ticks / 1e9)
            self._time_ns = stamp_ns + tick * period_ns // ticks
            if not self._waits():
                self._pace(started, tick * period_ns / ticks / 1e9)
            if tick < ticks:
                self._publish_state()

    def _policies(self) -> int:
        return int(self.count_publishers("policy/status"))

    def _waits(self) -> bool:
        return bool(self.parameter("lockstep")) and (self._driver == EXPERT or self._policies() > 0)

    def _pace(self, started: float, simulated_s: float) -> None:
        """Let the wall clock come to where the simulation is, `simulated_s` after `started`."""
        factor = self.parameter("real_time_factor")
        if factor > 0.0:
            self._stop.wait(max(0.0, started + simulated_s / factor - time.monotonic()))

    def _act(self) -> None:
        """Take the newest commands; between them the last one holds, as a position controller would."""
        assert self._simulation is not None
        with self._news:
            if self._fresh_arm is not None:
                self._action[:-1] = self._fresh_arm
            if self._fresh_gripper is not None:
                self._action[-1] = self._fresh_gripper
            if self._trajectory is not None:
                start_ns, offsets_ns, positions = self._trajectory
                # The first point is reached from where the command was; np.interp holds the last one.
                elapsed_ns = self._time_ns - start_ns
                for joint in range(self._robot.joint_count):
                    self._action[joint] = np.interp(elapsed_ns, offsets_ns, positions[:, joint])
        self._simulation.command(self._action)

    def _await_policy(self) -> None:
        """Give a policy that has just started time to be discovered, before time would pass without it."""
        heard_by = [(self._joints_publisher, True)]
        for number, view in enumerate(self._views):
            heard_by += [
                (view.image, number == 0),
                (view.depth, False),
                (view.info, False),
                (view.pose, False),
            ]

        def heard() -> bool:
            # Who is known in the graph must hear too: the policy answers when every tracker has seen the image, and
            # knows where its camera stands.
            return self._policies() > 0 and all(
                publisher.get_subscription_count()
                >= max(needed, self.count_subscribers(publisher.topic_name))
                for publisher, needed in heard_by
            )

        if heard():
            return
        deadline = time.monotonic() + DISCOVERY_S
        while time.monotonic() < deadline and not self._stop.is_set() and not heard():
            self._stop.wait(0.02)
        self._stop.wait(ACQUAINTANCE_S)

    def _await_command(self) -> None:
        """Until the expert's own command has come back over DDS, as any robot would get it."""
        with self._news:
            ready = self._news.wait_for(
                lambda: (self._fresh_arm is not None and self._fresh_gripper is not None)
                or self._stop.is_set(),
                ANSWER_TIMEOUT_S,
            )
        if not ready:
            self.get_logger().warning(
                "the expert's command did not arrive; holding", throttle_duration_sec=5.0
            )

    def _await_recorded_image(self, before: RecordStatus, stamp_ns: int) -> None:
        """Until the image of `stamp_ns` has been recorded, in an episode that was being recorded `before` it."""
        self._await_recorder(
            before, lambda now: stamp_ns_of(now) >= stamp_ns, f"the image at {stamp_ns / 1e9:.3f} s"
        )

    def _await_recorded_command(self, before: RecordStatus) -> None:
        """Until a command of arm and gripper has been recorded after `before`."""
        self._await_recorder(
            before,
            lambda now: (
                now.arm_commands > before.arm_commands and now.gripper_commands > before.gripper_commands
            ),
            "a command",
        )

    def _await_recorder(self, before: RecordStatus, done: Callable[[RecordStatus], bool], what: str) -> None:
        """In lock-step no time passes before it is recorded: commands are stamped by their arrival."""
        if not before.recording or not self.parameter("lockstep"):
            return

        def ready() -> bool:
            now = self._recorded
            ended = not now.recording or now.bag_path != before.bag_path
            return ended or done(now) or self._stop.is_set()

        with self._news:
            if not self._news.wait_for(ready, ANSWER_TIMEOUT_S):
                self.get_logger().warning(
                    f"the recorder did not write {what} within {ANSWER_TIMEOUT_S:.0f} s; going on"
                )

    def _await_answer(self, stamp_ns: int) -> bool:
        """Until the policy has answered the image of `stamp_ns`, and its command has arrived.

        Returns:
            Whether there was a command.
        """

        def answered() -> bool:
            if self._stop.is_set() or self._requests:
                return True
            answer = self._answer
            if answer is None or stamp_ns_of(answer) < stamp_ns:
                return False
            if not len(answer.command):
                return True
            arm, gripper = np.array(answer.command[:-1]), float(answer.command[-1])
            # Of a trajectory the first point is what is commanded now; an older one may still be on its way.
            commanded = self._fresh_arm if self._trajectory is None else self._trajectory[2][0]
            return (
                commanded is not None
                and np.array_equal(commanded, arm)
                and self._fresh_gripper is not None
                and self._fresh_gripper == gripper
            )

        with self._news:
            ready = self._news.wait_for(answered, ANSWER_TIMEOUT_S)
        if not ready:
            message = f"no answer to the image at {stamp_ns / 1e9:.3f} s within {ANSWER_TIMEOUT_S:.0f} s; going on, holding"
            self.get_logger().warning(message)
            self.set_diagnostic(WARN, message)
        return bool(ready and self._answer is not None and len(self._answer.command))

    # -- what is published -------------------------------------------------------------------------

    def _publish_clock(self) -> None:
        if self._system_clock:
            return
        self._clock_publisher.publish(Clock(clock=_time(self._time_ns)))

    def _publish_state(self) -> None:
        assert self._simulation is not None
        self._publish_clock()
        measured = self._simulation.measured()
        finger_m = self._robot.gripper.joint_position(float(measured[-1]))
        message = JointState(name=[*self._robot.joints.names, *FINGER_JOINTS])
        message.header.stamp = _time(self._time_ns)
        message.position = [*measured[:-1].tolist(), finger_m, finger_m]
        self._joints_publisher.publish(message)

    def _publish_poses(self) -> None:
        """Where every camera stands in this episode: as a calibration would tell it, beside camera_info and in TF."""
        assert self._simulation is not None
        told = []
        for view, placement in zip(self._views, self._simulation.world.placements, strict=True):
            header = Header(stamp=_time(self._time_ns), frame_id=BASE_FRAME)
            told.append(_transform(header, view.camera, placement))
            message = PoseStamped(header=header)
            place, turn = told[-1].transform.translation, told[-1].transform.rotation
            position, orientation = message.pose.position, message.pose.orientation
            position.x, position.y, position.z = place.x, place.y, place.z
            orientation.x, orientation.y, orientation.z, orientation.w = turn.x, turn.y, turn.z, turn.w
            view.pose.publish(message)
        if self._tf_publisher is not None and self._tf_class is not None:
            self._tf_publisher.publish(self._tf_class(transforms=told))
        # Who tracks the first image must know by then.
        for publisher in (self._tf_publisher, *(view.pose for view in self._views)):
            if publisher is not None and publisher.get_subscription_count():
                publisher.wait_for_all_acked(Duration(seconds=1.0))

    def _publish_images(self, stamp_ns: int) -> None:
        assert self._simulation is not None
        simulation = self._simulation
        if self._state_publisher.get_subscription_count():
            state = JointState(header=Header(stamp=_time(stamp_ns), frame_id=BASE_FRAME))
            state.position = simulation.world.positions.tolist()
            self._state_publisher.publish(state)
        for view, image, renderer, placement in zip(
            self._views, simulation.images(), simulation.renderers, simulation.world.placements, strict=True
        ):
            header = Header(stamp=_time(stamp_ns), frame_id=view.camera.frame_id)
            if view is self._views[0] and simulation.image_lost:
                continue
            view.info.publish(_camera_info(header, view.camera, placement))
            if view.image.get_subscription_count():
                view.image.publish(fill_rgb_message(Image(header=header), image))
            if view.png.get_subscription_count():
                view.png.publish(fill_png_message(CompressedImage(header=header), image))
            if view.depth.get_subscription_count():
                view.depth.publish(fill_depth_message(Image(header=header), renderer.depth()))

    def _publish_command(self, action: FloatArray) -> None:
        with self._news:
            self._fresh_arm = self._fresh_gripper = None
        self._arm_publisher.publish(Float64MultiArray(data=action[:-1].tolist()))
        self._gripper_publisher.publish(Float64MultiArray(data=[float(action[-1])]))

    def _publish_episode(self, stamp_ns: int) -> None:
        assert self._simulation is not None
        simulation = self._simulation
        message = EpisodeStatus(
            task=simulation.task,
            disturbance=simulation.disturbance,
            seed=simulation.seed,
            step=simulation.steps,
            max_steps=simulation.max_steps,
            success=simulation.succeeded,
            done=simulation.done,
        )
        message.header.stamp = _time(stamp_ns)
        self._episode_publisher.publish(message)


def _tf_message() -> Any | None:
    """The class of TF's messages, which PyPI does not have; None where it is not installed."""
    try:
        return message_class("tf2_msgs/msg/TFMessage")
    except ImportError:
        return None


def _transform(header: Header, camera: Camera, placement: CameraPlacement) -> TransformStamped:
    calibration = placement.calibration(camera.width, camera.height)
    message = TransformStamped(header=header, child_frame_id=camera.frame_id)
    place, turn = message.transform.translation, message.transform.rotation
    place.x, place.y, place.z = calibration.translation_m
    turn.x, turn.y, turn.z, turn.w = calibration.rotation_xyzw
    return message


def _camera_info(header: Header, camera: Camera, placement: CameraPlacement) -> CameraInfo:
    K = placement.intrinsics(camera.width, camera.height)
    P = np.hstack([K, np.zeros((3, 1))])
    return CameraInfo(
        header=header,
        width=camera.width,
        height=camera.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=K.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=P.ravel().tolist(),
    )


def _time(stamp_ns: int) -> Time:
    return Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)


def main() -> None:
    """Console entry."""
    run_node(SimRobotNode)

"""Checks every plan of the policy against the planning scene, and brings the arm home before a run.

A process of its own: MoveIt's bindings bring a second ROS context and have crashed on the way down. Which scene is asked,
MoveIt's or the model's, the robot description says (`scene_check`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial

import numpy as np
import numpy.typing as npt
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from atk_interfaces.msg import PlanCheck, PolicyStatus
from atk_perception.frames import JointStateError, robot_state_from_message, stamp_ns_of
from atk_perception.input_thread import InputThread
from atk_perception.managed_node import ERROR, OK, WARN, ManagedNode, run_node
from atk_perception.robot_description import RobotDescription, RobotDescriptionError
from atk_policy.command_plan import CommandPlan
from atk_policy.command_sinks import make_arm_sink
from atk_policy.command_sinks.protocol import Moment
from atk_policy.planning_scenes import make_planning_scene
from atk_policy.planning_scenes.protocol import GoHomeError, SceneOptions
from atk_policy.safety import TRACKING_GAP_MAX_RAD
from atk_policy.scene_validation import PlanError, PlanVerdict, plan_of, validate
from atk_policy.straight_motion import StraightMotion

FloatArray = npt.NDArray[np.float64]

# Sinks that are one topic, through which the node can move the arm itself.
TOPIC_SINKS = ("forward_position", "joint_trajectory")
# A policy that runs says so with every frame; one that has been silent for so long is gone.
POLICY_SILENT_S = 1.0
# An arm under position control ends a slow motion within this of its command, and after at most so long.
ARRIVED_RAD = 0.05
ARRIVAL_S = 3.0
# ROS time that stands still for so long (a paused simulation) will not bring the arm home; while it brakes, less is needed.
CLOCK_STANDS_S, CLOCK_ENDED_S = 5.0, 0.5
# A brake takes less than a second; MoveIt's planner, which a stop has to wait for, up to some seconds.
STOPPED_S = 10.0


# Whether the arm is being brought home; who comes later is told what was said last.
GOING_HOME = "moveit/going_home"
GOING_HOME_QOS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


class _WayHome:
    """One way home, from when it is announced to its end; any thread may stop it, at any time between."""

    def __init__(self) -> None:
        self.stopped, self.ended = threading.Event(), threading.Event()
        self._reason = ""

    def stop(self, reason: str) -> None:
        if not self.stopped.is_set():
            self._reason = reason
            self.stopped.set()

    def check(self) -> None:
        """Raises GoHomeError: it is to stop."""
        if self.stopped.is_set():
            raise GoHomeError(f"stopped on the way home: {self._reason}")


class MoveItNode(ManagedNode):
    """`policy/plan` in, `policy/plan_check` out; services `~/go_home` and `~/stop`; `moveit/going_home` says whether it does."""

    def __init__(self) -> None:
        super().__init__("moveit")
        self.declare("robot", "", "robot description", read_only=True)
        self.declare(
            "moveit_config",
            "",
            "package with the MoveIt configuration, as panda_moveit_config; empty: MoveIt's parameters come in parameter "
            "files of this process",
            read_only=True,
        )
        self.declare(
            "home_state",
            "",
            "named state of the MoveIt group to go home to; empty: home of the robot description",
            read_only=True,
        )
        self.declare(
            "home_speed",
            0.2,
            "share of the joint limits that going home may use",
            minimum=0.01,
            maximum=1.0,
            read_only=True,
        )
        self._active = False
        self._way: _WayHome | None = None
        self._way_lock = threading.Lock()
        self._newest: JointTrajectory | None = None
        self._arrived = threading.Condition()
        self._scene_lock = threading.Lock()

    # -- lifecycle ---------------------------------------------------------------------------------

    def configure(self) -> None:
        """Load the robot description, start its planning scene, offer the interfaces."""
        path = self.parameter("robot")
        if not path:
            raise RobotDescriptionError("parameter 'robot' is empty; give the path of a robot description")
        self._robot = RobotDescription.load(path)
        self._scene = make_planning_scene(
            self._robot,
            SceneOptions(
                namespace=self.get_namespace().strip("/"),
                use_sim_time=self.parameter("use_sim_time"),
                moveit_config=self.parameter("moveit_config"),
                home_state=self.parameter("home_state"),
                speed_share=self.parameter("home_speed"),
            ),
        )
        simulated = self.parameter("use_sim_time")
        self._passing_clock = self.get_clock() if simulated else Clock(clock_type=ClockType.STEADY_TIME)
        self._check_publisher = self.create_lifecycle_publisher(PlanCheck, "policy/plan_check", 10)
        self._going_home_publisher = self.create_lifecycle_publisher(Bool, GOING_HOME, GOING_HOME_QOS)
        self._sink = make_arm_sink(self._robot) if self._robot.command_sink in TOPIC_SINKS else None
        self._arm_publisher = None
        if self._sink is not None:
            arm = self._sink.target
            self._arm_publisher = self.create_lifecycle_publisher(arm.kind, arm.name, 10)
        self._go_home_service = self.create_service(
            Trigger, "~/go_home", self._on_go_home, callback_group=MutuallyExclusiveCallbackGroup()
        )
        self._stop_service = self.create_service(
            Trigger, "~/stop", self._on_stop, callback_group=ReentrantCallbackGroup()
        )

    def activate(self) -> None:
        """Listen and check."""
        self._ending = False
        self._joint_state: JointState | None = None
        self._policy_ran_s: float | None = None  # when it last said that it runs, monotonic
        self._checked = self._invalid = self._skipped = 0
        self._slowest_ms = 0.0
        self._last = PlanVerdict()
        self._worker = threading.Thread(target=self._work, name="plans")
        self._worker.start()
        self._inputs = InputThread(self, "inputs")
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._inputs.subscribe(JointTrajectory, "policy/plan", self._on_plan, qos)
        self._inputs.subscribe(PolicyStatus, "policy/status", self._on_policy_status, qos)
        self._inputs.subscribe(JointState, self._robot.topics.joint_states, self._on_joint_state, qos)
        self._inputs.start()
        self._going_home_publisher.publish(Bool(data=False))
        self._timer = self.create_timer(0.5, self._report)
        self._active = True
        self.get_logger().info(
            f"checks the plans of '{self._robot.name}' with scene_check: {self._robot.scene_check}"
        )

    def deactivate(self) -> None:
        """End a way home with the arm at rest, then stop listening."""
        with self._way_lock:
            self._active, way = False, self._way
        if way is not None:
            way.stop("the node is going down")
            way.ended.wait()
        self._inputs.close()
        self.destroy_timer(self._timer)
        with self._arrived:
            self._ending = True
            self._arrived.notify()
        self._worker.join()

    def cleanup(self) -> None:
        """Withdraw the interfaces, end MoveIt."""
        for service in (self._go_home_service, self._stop_service):
            self.destroy_service(service)
        for publisher in (self._check_publisher, self._going_home_publisher, self._arm_publisher):
            if publisher is not None:
                self.destroy_publisher(publisher)
        self._scene.close()

    # -- plans -------------------------------------------------------------------------------------

    def _on_plan(self, message: JointTrajectory) -> None:
        with self._arrived:
            # Only the newest matters: who checks old plans is always late.
            self._skipped += self._newest is not None
            self._newest = message
            self._arrived.notify()

    def _work(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._ending or self._newest is not None)
                if self._ending:
                    return
                message, self._newest = self._newest, None
            assert message is not None
            started = time.perf_counter()
            verdict = self._verdict(message)
            self._slowest_ms = max(self._slowest_ms, 1e3 * (time.perf_counter() - started))
            self._answer(message, verdict)

    def _verdict(self, message: JointTrajectory) -> PlanVerdict:
        try:
            times = [p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in message.points]
            plan = plan_of(message.joint_names, times, [p.positions for p in message.points], self._robot)
            with self._scene_lock:
                return validate(plan, self._robot, self._scene)
        except PlanError as error:
            return PlanVerdict(error.cause, str(error), 0.0)
        except Exception as error:  # what could not be checked must not be carried out
            self.get_logger().error(f"cannot check a plan: {error!r}", throttle_duration_sec=5.0)
            return PlanVerdict("check_failed", repr(error), 0.0)

    def _answer(self, message: JointTrajectory, verdict: PlanVerdict) -> None:
        check = PlanCheck(
            valid=verdict.valid,
            cause=verdict.cause,
            detail=verdict.detail,
            fault_time_s=verdict.fault_time_s,
        )
        check.header = message.header
        self._check_publisher.publish(check)
        self._checked += 1
        self._invalid += not verdict.valid
        if verdict.cause and verdict.cause != self._last.cause:
            self.get_logger().warning(
                f"{verdict.cause} {verdict.fault_time_s:.2f} s into the plan: {verdict.detail}"
            )
        self._last = verdict

    def _report(self) -> None:
        self.set_diagnostic(
            OK if self._last.valid else WARN,
            self._last.cause or "plans are free",
            detail=self._last.detail,
            plans_checked=self._checked,
            plans_invalid=self._invalid,
            plans_skipped=self._skipped,
            slowest_check_ms=f"{self._slowest_ms:.1f}",
        )
        self._slowest_ms = 0.0

    # -- home --------------------------------------------------------------------------------------

    def _on_joint_state(self, message: JointState) -> None:
        self._joint_state = message  # read when it is asked for

    def _on_policy_status(self, message: PolicyStatus) -> None:
        # A policy that was stopped still commands while it brakes.
        runs = message.state in (PolicyStatus.RUNNING, PolicyStatus.HOLDING) or bool(message.command)
        with self._way_lock:
            self._policy_ran_s = time.monotonic() if runs else None
            if runs and self._way is not None:
                self._way.stop("the policy has begun to run")

    def _policy_runs(self) -> bool:
        ran_s = self._policy_ran_s
        return ran_s is not None and time.monotonic() - ran_s < POLICY_SILENT_S

    def _fresh(self) -> FloatArray:
        """(J + 1,) where the robot is now.

        Raises:
            GoHomeError: nobody says, or what is said is old.
        """
        message, topic = self._joint_state, self._robot.topics.joint_states
        if message is None:
            raise GoHomeError(f"where the arm is, is not known: no joint state has come on '{topic}'")
        stamp_ns = stamp_ns_of(message)
        age_s = (self.get_clock().now().nanoseconds - stamp_ns) / 1e9
        if age_s > self._robot.deadlines_s.joint_states:
            raise GoHomeError(
                f"the newest joint state is {age_s:.2f} s old, more than deadlines_s.joint_states "
                f"({self._robot.deadlines_s.joint_states:g} s)"
            )
        try:
            return robot_state_from_message(message.name, message.position, self._robot, stamp_ns).vector()
        except JointStateError as error:
            raise GoHomeError(f"where the arm is, is not known: {error} on '{topic}'") from error

    def _on_go_home(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        way = None
        try:
            way = self._announce()
            # No plan is checked meanwhile: the policy does not run.
            with self._scene_lock:
                self._scene.go_home(self._fresh(), partial(self._follow, way), way.check)
            response.success, response.message = True, "the arm is at home"
            self.get_logger().info(response.message)
        except Exception as error:
            response.message = str(error) if isinstance(error, GoHomeError) else repr(error)
            self.get_logger().error(f"not gone home: {response.message}")
            self.set_diagnostic(ERROR, f"not gone home: {response.message}")
        finally:
            if way is not None:
                with self._way_lock:
                    self._way = None
                    self._going_home_publisher.publish(Bool(data=False))
                way.ended.set()
        return response

    def _announce(self) -> _WayHome:
        """A way home that every stop from now on ends.

        Raises:
            GoHomeError: it must not begin.
        """
        with self._way_lock:
            if not self._active:
                raise GoHomeError("the node is not active")
            if self._policy_runs():
                raise GoHomeError("the policy runs; stop it first (policy/stop)")
            self._way = _WayHome()
            self._going_home_publisher.publish(Bool(data=True))
            return self._way

    def _follow(self, way: _WayHome, goal_rad: FloatArray) -> None:
        """Bring the arm straight to (J,) `goal_rad`, setpoint by setpoint, watching it.

        Each plan reaches two periods ahead and then brakes, so that an arm that hears no more stops by itself.

        Raises:
            GoHomeError: it was stopped, or does not follow; it has been braked.
        """
        if self._sink is None:
            raise GoHomeError(
                f"command_sink '{self._robot.command_sink}' is none through which this node can move the arm "
                f"({', '.join(TOPIC_SINKS)}); bring it home with MoveIt (scene_check: moveit) or by hand"
            )
        motion = StraightMotion(self._fresh(), goal_rad, self._robot, self.parameter("home_speed"))
        sent_ns = self._passing_ns() - self._robot.control_period_ns
        try:
            while not motion.arrived:
                self._sleep_until(sent_ns + self._robot.control_period_ns, way, CLOCK_STANDS_S)
                self._watch(way, motion.position)
                if cause := motion.advance(self._elapsed_s(sent_ns)):
                    raise GoHomeError(f"stopped on the way home: {cause}")
                sent_ns = self._send(motion.plan())
        except GoHomeError:
            self._bring_to_rest(motion, sent_ns)
            raise
        self._await_arrival(way, goal_rad)

    def _bring_to_rest(self, motion: StraightMotion, sent_ns: int) -> None:
        """Brake; what is sent last is at rest."""
        while not motion.at_rest:
            motion.brake(self._elapsed_s(sent_ns))
            sent_ns = self._send(motion.plan())
            # A simulation that has ended moves nothing either.
            with contextlib.suppress(GoHomeError):
                self._sleep_until(sent_ns + self._robot.control_period_ns, None, CLOCK_ENDED_S)

    def _elapsed_s(self, sent_ns: int) -> float:
        """Since the last setpoint, for the next one [s]; an arm that heard nothing for longer than a period has waited."""
        return min(self._passing_ns() - sent_ns, self._robot.control_period_ns) / 1e9

    def _watch(self, way: _WayHome, setpoint: FloatArray) -> None:
        way.check()
        gap_rad = np.abs(self._fresh() - setpoint)[:-1]
        if gap_rad.max() > TRACKING_GAP_MAX_RAD:
            joint = int(gap_rad.argmax())
            raise GoHomeError(
                f"stopped on the way home: {self._robot.joints.names[joint]} is {gap_rad[joint]:.2f} rad behind its "
                "command; is something in its way, or does the controller not listen?"
            )

    def _await_arrival(self, way: _WayHome, home: FloatArray) -> None:
        until_ns = self._passing_ns() + int(ARRIVAL_S * 1e9)
        while True:
            gap_rad = np.abs(self._fresh()[:-1] - home)
            if gap_rad.max() < ARRIVED_RAD:
                return
            now_ns = self._passing_ns()
            if now_ns > until_ns:
                joint = int(gap_rad.argmax())
                raise GoHomeError(
                    f"the way home was sent, but {self._robot.joints.names[joint]} is {gap_rad[joint]:.2f} rad away from it"
                )
            self._watch(way, np.append(home, 0.0))
            self._sleep_until(now_ns + self._robot.control_period_ns, way, CLOCK_STANDS_S)

    def _send(self, plan: CommandPlan) -> int:
        """Publish a plan; returns when."""
        assert self._sink is not None
        assert self._arm_publisher is not None
        self._arm_publisher.publish(self._sink.command(plan, Moment(self.get_clock().now().nanoseconds)))
        return self._passing_ns()

    def _passing_ns(self) -> int:
        """Time that passes evenly: setting the system's clock must not look like time that the arm had to move."""
        return int(self._passing_clock.now().nanoseconds)

    def _sleep_until(self, wake_ns: int, way: _WayHome | None, patience_s: float) -> None:
        """Wait for time to pass, which simulation may slow down or stop, or for a stop of `way`.

        Raises:
            GoHomeError: it stands still for longer than `patience_s`.
        """
        last_ns, moved_s = 0, time.monotonic()
        while (now_ns := self._passing_ns()) < wake_ns:
            if now_ns != last_ns:
                last_ns, moved_s = now_ns, time.monotonic()
            elif time.monotonic() - moved_s > patience_s:
                raise GoHomeError("stopped on the way home: the ROS clock stands still")
            nap_s = min(0.01, (wake_ns - now_ns) / 1e9)
            if way is None:
                time.sleep(nap_s)
            elif way.stopped.wait(nap_s):
                return

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._way_lock:
            way = self._way
        if way is None:
            response.success, response.message = True, "no way home was being followed"
            return response
        way.stop("as was asked for")
        response.success = way.ended.wait(STOPPED_S)
        response.message = (
            "stopped on the way home; the arm rests"
            if response.success
            else f"the way home was told to stop, and has not ended within {STOPPED_S:g} s"
        )
        return response


def main() -> None:
    """Console entry."""
    run_node(MoveItNode)

"""Checks every plan of the policy against the planning scene, and brings the arm home before a run.

A process of its own: MoveIt's bindings bring a second ROS context and have crashed on the way down. Which scene is asked,
MoveIt's or the model's, the robot description says (`scene_check`).
"""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
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

FloatArray = npt.NDArray[np.float64]

# Sinks that are one topic, through which the node can move the arm itself.
TOPIC_SINKS = ("forward_position", "joint_trajectory")
# A policy that runs says so with every frame; one that has been silent for so long is gone.
POLICY_SILENT_S = 1.0
# An arm under position control ends a slow motion within this of its command, and after at most so long.
ARRIVED_RAD = 0.05
ARRIVAL_S = 3.0
# ROS time that stands still for so long (a paused simulation) will not bring the arm home.
CLOCK_STANDS_S = 5.0


class MoveItNode(ManagedNode):
    """`policy/plan` in, `policy/plan_check` out; services `~/go_home` and `~/stop`."""

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
        self._check_publisher = self.create_lifecycle_publisher(PlanCheck, "policy/plan_check", 10)
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
        self._stop_asked, self._stop_reason = threading.Event(), ""
        self._going_home = threading.Lock()
        self._measured: tuple[int, FloatArray] | None = None  # stamp, (J + 1,) [rad, m]
        self._joint_fault = "no joint state has come"
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
        self._timer = self.create_timer(0.5, self._report)
        self._active = True
        self.get_logger().info(
            f"checks the plans of '{self._robot.name}' with scene_check: {self._robot.scene_check}"
        )

    def deactivate(self) -> None:
        """End a way home with the arm at rest, then stop listening."""
        self._active = False
        self._stop("the node is going down")
        with self._going_home:
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
        for publisher in (self._check_publisher, self._arm_publisher):
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
        stamp_ns = stamp_ns_of(message)
        try:
            state = robot_state_from_message(message.name, message.position, self._robot, stamp_ns)
        except JointStateError as error:
            self._joint_fault = str(error)
            return
        self._measured = (stamp_ns, state.vector())

    def _on_policy_status(self, message: PolicyStatus) -> None:
        runs = message.state in (PolicyStatus.RUNNING, PolicyStatus.HOLDING)
        self._policy_ran_s = time.monotonic() if runs else None
        if runs:
            self._stop("the policy has begun to run")

    def _policy_runs(self) -> bool:
        ran_s = self._policy_ran_s
        return ran_s is not None and time.monotonic() - ran_s < POLICY_SILENT_S

    def _fresh(self) -> FloatArray:
        """(J + 1,) where the robot is now.

        Raises:
            GoHomeError: nobody says, or what is said is old.
        """
        measured = self._measured
        if measured is None:
            raise GoHomeError(
                f"where the arm is, is not known: {self._joint_fault} on '{self._robot.topics.joint_states}'"
            )
        age_s = (self.get_clock().now().nanoseconds - measured[0]) / 1e9
        if age_s > self._robot.deadlines_s.joint_states:
            raise GoHomeError(
                f"the newest joint state is {age_s:.2f} s old, more than deadlines_s.joint_states "
                f"({self._robot.deadlines_s.joint_states:g} s)"
            )
        return measured[1]

    def _on_go_home(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if not self._active:
                raise GoHomeError("the node is not active")
            if self._policy_runs():
                raise GoHomeError("the policy runs; stop it first (policy/stop)")
            with self._going_home:
                self._stop_asked.clear()
                # No plan is checked meanwhile: the policy does not run.
                with self._scene_lock:
                    self._scene.go_home(self._fresh(), self._follow)
            response.success, response.message = True, "the arm is at home"
            self.get_logger().info(response.message)
        except Exception as error:
            response.message = str(error) if isinstance(error, GoHomeError) else repr(error)
            self.get_logger().error(f"not gone home: {response.message}")
            self.set_diagnostic(ERROR, f"not gone home: {response.message}")
        return response

    def _follow(self, plan: CommandPlan) -> None:
        """Send `plan` setpoint by setpoint, watching the arm.

        Raises:
            GoHomeError: it was stopped, or the arm does not follow.
        """
        if self._sink is None:
            raise GoHomeError(
                f"command_sink '{self._robot.command_sink}' is none through which this node can move the arm "
                f"({', '.join(TOPIC_SINKS)}); bring it home with MoveIt (scene_check: moveit) or by hand"
            )
        begin_ns = self.get_clock().now().nanoseconds
        previous_ns = 0
        for k, due_ns in enumerate(plan.time_ns):
            try:
                self._sleep_until(begin_ns + previous_ns)
                self._watch(plan.position[max(0, k - 1)])
            except GoHomeError:
                if k:
                    self._send(CommandPlan.hold(plan.position[k - 1], self._robot.control_period_ns))
                raise
            self._send(CommandPlan(plan.time_ns[k:] - previous_ns, plan.position[k:], plan.velocity[k:]))
            previous_ns = int(due_ns)
        self._await_arrival(plan.position[-1, :-1], begin_ns + previous_ns + int(ARRIVAL_S * 1e9))

    def _watch(self, setpoint: FloatArray) -> None:
        if self._stop_asked.is_set():
            raise GoHomeError(f"stopped on the way home: {self._stop_reason}")
        gap_rad = np.abs(self._fresh() - setpoint)[:-1]
        if gap_rad.max() > TRACKING_GAP_MAX_RAD:
            joint = int(gap_rad.argmax())
            raise GoHomeError(
                f"stopped on the way home: {self._robot.joints.names[joint]} is {gap_rad[joint]:.2f} rad behind its "
                "command; is something in its way, or does the controller not listen?"
            )

    def _await_arrival(self, home: FloatArray, until_ns: int) -> None:
        while True:
            gap_rad = np.abs(self._fresh()[:-1] - home)
            if gap_rad.max() < ARRIVED_RAD:
                return
            now_ns = self.get_clock().now().nanoseconds
            if now_ns > until_ns:
                joint = int(gap_rad.argmax())
                raise GoHomeError(
                    f"the way home was sent, but {self._robot.joints.names[joint]} is {gap_rad[joint]:.2f} rad away from it"
                )
            self._watch(np.append(home, 0.0))
            self._sleep_until(now_ns + self._robot.control_period_ns)

    def _send(self, plan: CommandPlan) -> None:
        assert self._sink is not None
        assert self._arm_publisher is not None
        self._arm_publisher.publish(self._sink.command(plan, Moment(self.get_clock().now().nanoseconds)))

    def _sleep_until(self, wake_ns: int) -> None:
        """Wait for ROS time, which simulation may slow down or stop.

        Raises:
            GoHomeError: it stands still.
        """
        last_ns, moved_s = 0, time.monotonic()
        while (now_ns := self.get_clock().now().nanoseconds) < wake_ns and not self._stop_asked.is_set():
            if now_ns != last_ns:
                last_ns, moved_s = now_ns, time.monotonic()
            elif time.monotonic() - moved_s > CLOCK_STANDS_S:
                raise GoHomeError("stopped on the way home: the ROS clock stands still")
            time.sleep(min(0.01, (wake_ns - now_ns) / 1e9))

    def _stop(self, reason: str) -> bool:
        """End a way home; False where there is none."""
        if not self._going_home.locked():
            return False
        self._stop_reason = reason
        self._stop_asked.set()
        self._scene.stop()
        return True

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        stopped = self._active and self._stop("as was asked for")
        response.success = True
        response.message = "stopped on the way home" if stopped else "no way home was being followed"
        return response


def main() -> None:
    """Console entry."""
    run_node(MoveItNode)

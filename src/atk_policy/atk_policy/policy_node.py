"""ROS node around PolicyRunner: keypoints and joint states in, commands and PolicyStatus out.

Callbacks only queue messages; one worker thread aligns them into frames, runs the policy and
publishes. For every frame the command goes out first and its PolicyStatus right after it, which is
what a simulator in lock-step waits for. A watchdog thread holds when frames stop arriving: it waits
for nobody, and for no executor.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.task import Future
from rclpy.time import Time
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from atk_interfaces.action import RunPolicy
from atk_interfaces.msg import KeypointArray, PlanCheck, PolicyStatus
from atk_perception.camera_join import CameraJoin, joined_observation
from atk_perception.frames import Frame, FrameAligner, JointStateError, robot_state_from_message, stamp_ns_of
from atk_perception.input_thread import InputThread
from atk_perception.keypoint_tracker import KeypointObservation, observation_of
from atk_perception.managed_node import ERROR, OK, WARN, ManagedNode, run_node
from atk_perception.robot_description import RobotDescription
from atk_policy.command_output import CommandOutput
from atk_policy.command_plan import CommandPlan, FloatArray
from atk_policy.command_sinks import in_replay
from atk_policy.command_sinks.joint_trajectory import trajectory_message
from atk_policy.inference import DEFAULT_INFERENCE, INFERENCES
from atk_policy.moveit_node import GOING_HOME, GOING_HOME_QOS
from atk_policy.plan_checks import PlanChecks
from atk_policy.policy_runner import DISCONTINUITY_NS, Arrival, PolicyRunner, PolicyStep, RunState
from atk_policy.run_folder import RunFolder, RunFolderError
from atk_policy.safety import CONFIDENCE_MIN, SafetyLimits

# Two seconds of joint states at 100 Hz may wait while a frame is being worked on.
JOINT_STATE_DEPTH = 200
KEYPOINTS_DEPTH = 20
FEEDBACK_PERIOD_S = 0.1
# How often, in a control period, it is looked whether inputs have fallen silent: a hold may come so much later.
LOOKS_PER_PERIOD = 8


@dataclass
class _Run:
    """A goal that is being executed; `ended` will hold (outcome, message)."""

    goal: Any
    limit_s: float  # 0 for none
    started_ns: int
    ended: Future[tuple[int, str]]
    holding_since_s: float | None = None


class PolicyNode(ManagedNode):
    """Runs the policy of a run folder on request (action `~/run`)."""

    def __init__(self) -> None:
        super().__init__("policy")
        self.declare("run_folder", "", "run folder written by 'select'", read_only=True)
        self.declare("robot", "", "robot description; empty: the one in the run folder", read_only=True)
        self.declare(
            "replay",
            False,
            "a bag is played: commands go to topics under replay/, and neither controllers nor the moveit node are asked",
            read_only=True,
        )
        self.declare(
            "velocity_scale",
            1.0,
            "share of the joint velocity limits that may be used",
            minimum=0.01,
            maximum=1.0,
            read_only=True,
        )
        self.declare(
            "visible_min",
            1,
            "hold with fewer visible keypoints than this",
            minimum=1,
            maximum=1000,
            read_only=True,
        )
        self.declare(
            "confidence_min",
            CONFIDENCE_MIN,
            "below this confidence a keypoint does not count as visible",
            minimum=0.0,
            maximum=1.0,
            read_only=True,
        )
        self.declare(
            "inference_backend",
            DEFAULT_INFERENCE,
            f"what the policy's network runs in: {', '.join(INFERENCES)} (needs 'export_policy')",
            read_only=True,
        )
        self.declare(
            "hold_limit_s",
            10.0,
            "a run that holds for so long ends as a fault [s]",
            minimum=0.1,
            maximum=3600.0,
        )
        self._lock = threading.RLock()

    # -- lifecycle ---------------------------------------------------------------------------------

    def configure(self) -> None:
        """Load the run folder and offer the interfaces."""
        folder = self.parameter("run_folder")
        if not folder:
            raise RunFolderError(
                "parameter 'run_folder' is empty; give a folder written by 'ros2 run atk_policy select'"
            )
        self._run = RunFolder.load(folder)
        path = self.parameter("robot")
        self._robot = RobotDescription.load(path) if path else self._run.robot
        limits = SafetyLimits.of(
            self._robot,
            visible_min=self.parameter("visible_min"),
            confidence_min=self.parameter("confidence_min"),
            velocity_scale=self.parameter("velocity_scale"),
        )
        self._runner = PolicyRunner(
            self._run, self._robot, limits=limits, inference_backend=self.parameter("inference_backend")
        )
        self._robot = self._run.require_robot(self._robot)
        self._sets = list(self._run.keypoint_sets.items())
        self._camera_of_set = {points.name: camera for camera, points in self._sets}
        replay = self.parameter("replay")
        self._output = CommandOutput(self, in_replay(self._robot) if replay else self._robot)
        self._status_publisher = self.create_lifecycle_publisher(PolicyStatus, "policy/status", 50)
        # With scene_check 'moveit' every plan is looked at by the moveit node.
        self._plan_publisher = self._checks = None
        if self._robot.scene_check == "moveit" and not replay:
            self._plan_publisher = self.create_lifecycle_publisher(JointTrajectory, "policy/plan", 10)
            self._checks = PlanChecks(self._robot.control_period_ns)
        self._stop_service = self.create_service(Trigger, "~/stop", self._on_stop)
        self._goal_taken = False
        # Setting the system's clock must neither stop the watchdog nor look like time that the arm had to move.
        simulated = self.parameter("use_sim_time")
        self._passing_clock = self.get_clock() if simulated else Clock(clock_type=ClockType.STEADY_TIME)
        self._simulated = simulated
        self._action_server = ActionServer(
            self,
            RunPolicy,
            "~/run",
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    def activate(self) -> None:
        """Listen and work."""
        self._aligner: FrameAligner[KeypointObservation] = FrameAligner(self._robot, with_actions=False)
        self._cameras: CameraJoin[KeypointObservation] = CameraJoin(self._robot)
        self._events: queue.SimpleQueue[KeypointArray | JointState | None] = queue.SimpleQueue()
        self._waiting: dict[int, tuple[int, int]] = {}  # stamp -> arrival, visible: not answered yet
        self._joint_state_ns: int | None = None
        self._measured: FloatArray | None = None  # (J,) by the newest joint state
        self._output.begin()
        self._joint_fault: tuple[int, str] | None = None  # stamp and cause of a bad newest joint state
        # When a frame was last answered, or the run began; and when a command was last due. See _passing_ns.
        self._alive_ns = self._due_ns = self._passing_ns()
        self._due_monotonic_s = time.monotonic()
        self._causes: Counter[str] = Counter()
        self._commands = 0
        self._latency_ms = 0.0
        self._last_step = PolicyStep(0, RunState.IDLE)
        self._going_home = False  # a goal may come as soon as there is a worker
        self._worker = threading.Thread(target=self._work, name="policy")
        self._worker.start()
        self._ending = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="watchdog")
        self._inputs = InputThread(self, "inputs")
        options = {"qos_overriding_options": QoSOverridingOptions.with_default_policies()}
        keypoints_qos = QoSProfile(depth=KEYPOINTS_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        joints_qos = QoSProfile(depth=JOINT_STATE_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        topic = self._robot.topics.joint_states
        for number, camera in enumerate(self._robot.cameras):
            keypoints_topic = keypoints_topic_of(camera.name if number else "")
            self._inputs.subscribe(KeypointArray, keypoints_topic, self._events.put, keypoints_qos, **options)
        self._inputs.subscribe(JointState, topic, self._events.put, joints_qos, **options)
        if not self.parameter("replay"):
            self._inputs.subscribe(Bool, GOING_HOME, self._on_going_home, GOING_HOME_QOS)
        if self._plan_publisher is not None:
            self._inputs.subscribe(PlanCheck, "policy/plan_check", self._on_plan_check, keypoints_qos)
        self._inputs.start()
        self._answers = self.watch_topic(
            "policy/status", self._robot.control_rate_hz, self._robot.deadlines_s.image
        )
        self._watchdog.start()
        self._report_timer = self.create_timer(0.5, self._report)
        self.get_logger().info(
            f"ready: {len(self._run.keypoint_ids)} keypoints of {list(self._camera_of_set)} drive "
            f"'{self._robot.name}' at {self._robot.control_rate_hz:g} Hz; start with the action ~/run"
        )

    def deactivate(self) -> None:
        """Brake and hold, then stop listening; nothing is published after the hold."""
        self._end_run()
        period_s = 1.0 / self._robot.control_rate_hz
        while self._runner.is_moving:
            time.sleep(period_s)
            with self._lock:
                if self._runner.is_moving:
                    # A simulation may have stopped already, and its clock with it.
                    elapsed = None if self._simulated else self._next_due_s
                    self._publish(self._runner.hold(self._last_step.stamp_ns, "", elapsed=elapsed))
        self.unwatch_topics()
        self._inputs.close()
        self._ending.set()
        self._watchdog.join()
        self.destroy_timer(self._report_timer)
        self._events.put(None)
        self._worker.join()

    def cleanup(self) -> None:
        """Withdraw the interfaces."""
        del self._runner  # while the interpreter still runs: Ruckig's binding wants to be torn down before it
        self._action_server.destroy()
        self.destroy_service(self._stop_service)
        self._output.destroy()
        for publisher in (self._status_publisher, self._plan_publisher):
            if publisher is not None:
                self.destroy_publisher(publisher)

    # -- frames ------------------------------------------------------------------------------------

    def _now_ns(self, *known_ns: int) -> int:
        """Now on the ROS clock; simulated time has come as far as what is known to be past, whatever came of /clock."""
        now_ns = int(self.get_clock().now().nanoseconds)
        return max(now_ns, *known_ns) if self._simulated and known_ns else now_ns

    def _passing_ns(self) -> int:
        """Time that passes evenly: a steady clock, or the simulated one."""
        return int(self._passing_clock.now().nanoseconds)

    def _elapsed_s(self, now_ns: int) -> float:
        """Since a command was last due, and sent [s]."""
        passed_ns = now_ns - self._due_ns
        # A simulated clock that was set says nothing, and messages from before it are still on their way.
        if abs(passed_ns) > DISCONTINUITY_NS:
            return time.monotonic() - self._due_monotonic_s
        return passed_ns / 1e9

    def _next_due_s(self, stamp_ns: int | None = None) -> float:
        """A command is due now: the time since the one before, which the arm may have moved in.

        In simulated time an image is answered at its stamp, whatever came of /clock until now.
        """
        now_ns = self._passing_ns() if stamp_ns is None or not self._simulated else stamp_ns
        elapsed_s = self._elapsed_s(now_ns)
        self._due_ns, self._due_monotonic_s = now_ns, time.monotonic()
        return elapsed_s

    def _work(self) -> None:
        torch.set_num_threads(1)  # a small network is faster without handing work to other threads
        while (message := self._events.get()) is not None:
            with self._lock:
                try:
                    if isinstance(message, JointState):
                        self._take_joint_state(message)
                    else:
                        self._take_keypoints(message)
                except Exception as error:  # whatever it was, the arm must be held and the cause be known
                    self.get_logger().error(f"cannot use a message: {error!r}", throttle_duration_sec=5.0)
                    self._hold(stamp_ns_of(message), "message_not_usable")

    def _take_joint_state(self, message: JointState) -> None:
        stamp_ns = stamp_ns_of(message)
        try:
            state = robot_state_from_message(message.name, message.position, self._robot, stamp_ns)
        except JointStateError as error:
            self._joint_fault, self._measured = (stamp_ns, error.cause), None
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            self._answer_faulty()
            return
        self._joint_fault, self._measured = None, state.joint_position_rad
        self._joint_state_ns = stamp_ns
        self._handle(self._aligner.add_robot_state(state))

    def _take_keypoints(self, message: KeypointArray) -> None:
        stamp_ns = stamp_ns_of(message)
        visible = sum(message.visible)
        camera = self._camera_of_set.get(message.set_name)
        if camera is None:
            self.get_logger().error(
                f"a tracker follows set '{message.set_name}', the policy takes {list(self._camera_of_set)}; "
                "give all nodes the same run folder",
                throttle_duration_sec=5.0,
            )
            self._hold(stamp_ns, "keypoint_set_mismatch", visible)
            return
        if camera == self._robot.camera.name:
            # Stamps only grow; later ones that still wait are from before the clock jumped back.
            self._waiting = {s: waiting for s, waiting in self._waiting.items() if s < stamp_ns}
            self._waiting[stamp_ns] = (self._now_ns(stamp_ns), visible)
        for joined in self._cameras.add(camera, stamp_ns, observation_of(message, stamp_ns)):
            seen = joined_observation(joined, self._sets)
            self._handle(self._aligner.add_payload(joined.stamp_ns, seen))
        self._answer_faulty()

    def _handle(self, frames: list[Frame[KeypointObservation]]) -> None:
        for frame in frames:
            if frame.stamp_ns not in self._waiting:
                continue  # answered by a hold already
            keypoints_ns, _ = self._waiting[frame.stamp_ns]
            # Earlier ones that still wait were no control frames.
            self._waiting = {s: waiting for s, waiting in self._waiting.items() if s > frame.stamp_ns}
            joint_state_ns = frame.robot.stamp_ns if self._joint_state_ns is None else self._joint_state_ns
            now_ns = self._now_ns(frame.stamp_ns, joint_state_ns)
            arrival = Arrival(now_ns, keypoints_ns, joint_state_ns)
            unchecked = "" if self._checks is None else self._checks.fault(self._passing_ns())
            elapsed = partial(self._next_due_s, frame.stamp_ns)
            self._publish(self._runner.step(frame, arrival, elapsed, unchecked or self._output.fault()))

    def _on_going_home(self, message: Bool) -> None:
        self._going_home = message.data

    def _on_plan_check(self, check: PlanCheck) -> None:
        with self._lock:
            cause = "" if check.valid else check.cause or "plan_not_free"
            if self._checks is not None and self._checks.answer(stamp_ns_of(check), cause):
                self.get_logger().error(f"{cause} {check.fault_time_s:.2f} s ahead: {check.detail}; holding")

    def _publish_plan(self, plan: CommandPlan) -> None:
        if self._plan_publisher is None or self._checks is None:
            return
        message = trajectory_message(self._robot.joints.names, plan)
        stamp_ns = self._checks.send(self._passing_ns(), self._now_ns())
        message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
        self._plan_publisher.publish(message)

    def _answer_faulty(self) -> None:
        """Hold for keypoints whose joint state has come and is unusable; no frame will come of them."""
        if self._joint_fault is None:
            return
        fault_ns, cause = self._joint_fault
        for stamp_ns in [s for s in self._waiting if s <= fault_ns]:
            _, visible = self._waiting.pop(stamp_ns)
            self._hold(stamp_ns, cause, visible)

    def _hold(self, stamp_ns: int, cause: str, visible: int = 0) -> None:
        """Hold on a frame that cannot be used."""
        self._publish(self._runner.hold(stamp_ns, cause, visible, partial(self._next_due_s, stamp_ns)))

    def _watch(self) -> None:
        """Look for silence until the node is deactivated; a watchdog that fails ends the process."""
        try:
            while not self._ending.wait(1.0 / (LOOKS_PER_PERIOD * self._robot.control_rate_hz)):
                self._check_deadline()
        except Exception as error:
            self.get_logger().fatal(f"cannot watch over the inputs: {error!r}")
            os.kill(os.getpid(), signal.SIGTERM)
            raise

    def _check_deadline(self) -> None:
        """Hold when frames stop arriving, and go on braking. A paused simulation is no fault."""
        with self._lock:
            # Who answers frames sends commands by itself.
            if self._elapsed_s(self._passing_ns()) < 0.9 / self._robot.control_rate_hz:
                return
            cause = ""
            if self._runner.state in (RunState.RUNNING, RunState.HOLDING):
                deadlines = self._robot.deadlines_s
                silent_s = (self._passing_ns() - self._alive_ns) / 1e9
                was_set_back = silent_s < -DISCONTINUITY_NS / 1e9  # a simulated clock
                if silent_s <= deadlines.keypoints and not was_set_back:
                    return
                if was_set_back:
                    cause = "clock_jump"
                elif self._joint_fault is not None:
                    cause = self._joint_fault[1]
                elif self._joint_state_ns is None:
                    cause = "no_joint_state"
                elif self._now_ns() - self._joint_state_ns > deadlines.joint_states * 1e9:
                    cause = "joint_state_stale"
                elif len(self._sets) > 1:
                    cause = f"camera_{self._cameras.awaited()}_stale"
                else:
                    cause = "keypoints_stale"
            elif not self._runner.is_moving:
                return
            alive_ns = self._alive_ns
            self._publish(self._runner.hold(self._last_step.stamp_ns, cause, elapsed=self._next_due_s))
            self._alive_ns = alive_ns  # this answered no frame

    def _publish(self, step: PolicyStep) -> None:
        """Command first, then the status that says so."""
        passing_ns = self._passing_ns()
        if self._simulated:
            passing_ns = max(passing_ns, step.stamp_ns)
        if step.plan is not None:
            if not self._simulated:
                # Now: a setpoint that a busy machine sends late is followed by a smaller step, not by one that catches up. Once it
                # is sent, those who wait for it may go on before this thread does.
                self._due_ns, self._due_monotonic_s = self._passing_ns(), time.monotonic()
            self._output.send(step.plan, self._measured)
            self._publish_plan(step.plan)
            self._commands += step.state is RunState.RUNNING
        now_ns = self._now_ns()
        self._latency_ms = max(0.0, (now_ns - step.stamp_ns) / 1e6)
        if step.state is RunState.HOLDING:
            self._causes[step.cause] += 1
        status = PolicyStatus(
            state=int(step.state),
            hold_cause=step.cause,
            command=[] if step.command is None else step.command.tolist(),
            keypoints_visible=step.keypoints_visible,
            inference_ms=step.inference_ms,
            latency_ms=self._latency_ms,
        )
        status.header.stamp = Time(nanoseconds=step.stamp_ns).to_msg()
        self._status_publisher.publish(status)
        self._answers.tick(now_ns, step.stamp_ns)
        self._last_step, self._alive_ns = step, passing_ns

    def _report(self) -> None:
        with self._lock:
            step = self._last_step
            level = {RunState.HOLDING: WARN}.get(step.state, OK)
            if self._joint_fault:
                level = ERROR
            message = step.state.name + (f": {step.cause}" if step.cause else "")
            self.set_diagnostic(
                level,
                message if self._joint_fault is None else f"{message} ({self._joint_fault[1]})",
                keypoints_visible=step.keypoints_visible,
                latency_ms=f"{self._latency_ms:.2f}",
                inference_ms=f"{step.inference_ms:.2f}",
                commands=self._commands,
                **{f"held_{cause}": count for cause, count in self._causes.items()},
                **{f"dropped_{cause}": count for cause, count in self._aligner.dropped.items()},
            )

    # -- requests ----------------------------------------------------------------------------------

    def _end_run(self) -> bool:
        """End the run, if there is one, with a hold as the last command; False when there is none."""
        with self._lock:
            if self._runner.state not in (RunState.RUNNING, RunState.HOLDING):
                return False
            self._publish(self._runner.stop(self._last_step.stamp_ns, self._next_due_s))
            return True

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        stopped = self._end_run()
        response.success = True
        response.message = "stopped; holding position" if stopped else "nothing was running"
        self.get_logger().info(response.message)
        return response

    def _on_goal(self, _: RunPolicy.Goal) -> GoalResponse:
        with self._lock:
            refusal = ""
            if self._goal_taken:
                refusal = "a run is in progress; cancel it or call ~/stop first"
            elif not hasattr(self, "_worker") or not self._worker.is_alive():
                refusal = "the node is not active"
            elif self._going_home and self.count_publishers(
                GOING_HOME
            ):  # one that has died brings nobody home
                refusal = "the arm is on its way home; wait until it is there, or call moveit/stop"
            if refusal:
                self.get_logger().warning(f"refused to run: {refusal}")
                return GoalResponse.REJECT
            self._goal_taken = True
            # Started here, so that with the answer to the goal the next frame is already commanded.
            self._causes.clear()
            self._commands = 0
            if self._checks is not None:
                self._checks.begin()
            self._output.begin()
            if not self._runner.is_moving:  # what still brakes goes on in time
                self._alive_ns = self._due_ns = self._passing_ns()
            self._runner.start()
            self.get_logger().info("run started")
            return GoalResponse.ACCEPT

    async def _execute(self, goal: Any) -> RunPolicy.Result:
        """Supervise the run from a timer until it ends; nothing here may block the executor."""
        limit = goal.request.time_limit
        run = _Run(goal, limit.sec + limit.nanosec / 1e9, self._now_ns(), Future(executor=self.executor))
        # On a steady clock: a run must be cancelled in a simulation that stands still.
        timer = self.create_timer(
            FEEDBACK_PERIOD_S, lambda: self._supervise(run), clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        outcome, message = await run.ended
        self.destroy_timer(timer)
        self._end_run()
        with self._lock:
            self._goal_taken = False
            commands, holds = self._commands, sum(self._causes.values())
        self.get_logger().info(f"run ended: {message}; {commands} commands, {holds} holds")
        if goal.is_cancel_requested:
            goal.canceled()
        elif outcome == RunPolicy.Result.FAULT:
            goal.abort()
        else:
            goal.succeed()
        return RunPolicy.Result(outcome=outcome, message=message, commands=commands, holds=holds)

    def _supervise(self, run: _Run) -> None:
        """End the run where it must, else say how it goes."""
        if run.ended.done():
            return
        elapsed_s = max(0.0, (self._now_ns() - run.started_ns) / 1e9)
        with self._lock:
            state, cause, step = self._runner.state, self._runner.cause, self._last_step
            latency_ms = self._latency_ms
        if state is not RunState.HOLDING:
            run.holding_since_s = None
        elif run.holding_since_s is None:
            run.holding_since_s = elapsed_s
        held_s = 0.0 if run.holding_since_s is None else elapsed_s - run.holding_since_s
        result = RunPolicy.Result
        if state is RunState.STOPPED:
            run.ended.set_result((result.CANCELLED, "stopped on request"))
        elif run.goal.is_cancel_requested:
            run.ended.set_result((result.CANCELLED, "cancelled"))
        elif run.limit_s and elapsed_s >= run.limit_s:
            run.ended.set_result((result.TIME_OVER, f"{run.limit_s:g} s are over"))
        elif held_s > self.parameter("hold_limit_s"):
            run.ended.set_result((result.FAULT, f"held for {held_s:.1f} s: {cause}"))
        else:
            feedback = RunPolicy.Feedback(
                state=int(state),
                hold_cause=cause,
                keypoints_visible=step.keypoints_visible,
                latency_ms=latency_ms,
            )
            if run.limit_s:
                left_ns = int(max(0.0, run.limit_s - elapsed_s) * 1e9)
                feedback.time_left.sec, feedback.time_left.nanosec = divmod(left_ns, 1_000_000_000)
            run.goal.publish_feedback(feedback)


def keypoints_topic_of(camera: str) -> str:
    """Where a tracker publishes: each further camera's in the namespace of that name; '' is the first camera."""
    return f"{camera}/keypoints" if camera else "keypoints"


def main() -> None:
    """Console entry."""
    run_node(PolicyNode, shared_memory=False)

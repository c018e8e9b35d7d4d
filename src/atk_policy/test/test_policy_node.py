"""The policy node as a process of its own, over DDS: what it commands, when it holds, what it refuses."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
import yaml
from ament_index_python.packages import get_package_prefix
from command_plans import ACTION_ROBOT
from controller_process import ControllerProcess
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from run_folders import ROBOT, ROBOT_PATH, write_run_folder
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from atk_interfaces.action import RunPolicy
from atk_interfaces.msg import KeypointArray, PlanCheck, PolicyStatus
from atk_perception.robot_description import RobotDescription
from atk_perception.service_answers import answers_reach
from atk_policy.command_sinks import in_replay
from atk_policy.moveit_node import GOING_HOME, GOING_HOME_QOS
from atk_policy.policy_runner import RunState

pytestmark = pytest.mark.system

DOMAIN_ID = 12 + os.getpid() % 80  # and the next one, for nodes that are ended in a test
JOINT_NAMES = [*ROBOT.joints.names, ROBOT.gripper.joint]
HOME = np.append(ROBOT.home_rad, 0.02)
WAIT_S = 20.0


def start_policy_node(
    run_folder: Path, *parameters: str, domain_id: int = DOMAIN_ID, robot: Path = ROBOT_PATH
) -> subprocess.Popen[str]:
    executable = Path(get_package_prefix("atk_policy")) / "lib" / "atk_policy" / "policy_node"
    command = [str(executable), "--ros-args", "-p", f"run_folder:={run_folder}", "-p", f"robot:={robot}"]
    for parameter in parameters:
        command += ["-p", parameter]
    return subprocess.Popen(
        command,
        env={**os.environ, "ROS_DOMAIN_ID": str(domain_id), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class Graph:
    """A policy node process, and the tracker's and the robot's side of its topics."""

    def __init__(
        self,
        run_folder: Path,
        domain_id: int,
        robot: Path = ROBOT_PATH,
        hold_limit_s: float = 2.0,
        parameters: tuple[str, ...] = (),
    ) -> None:
        limit = f"hold_limit_s:={hold_limit_s}"
        self.process = start_policy_node(run_folder, limit, *parameters, domain_id=domain_id, robot=robot)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = Node("test_graph", context=self.context)
        self.ahead_ns = 0  # of the system's clock: what frames are stamped with
        self.statuses: list[PolicyStatus] = []
        self.wire: list[tuple[str, list[float]]] = []
        self.keypoints = self.node.create_publisher(KeypointArray, "keypoints", 10)
        self.joint_states = self.node.create_publisher(JointState, "joint_states", 10)
        self.node.create_subscription(PolicyStatus, "policy/status", self.statuses.append, 50)
        for topic in (ROBOT.topics.command, ROBOT.topics.gripper_command):
            self.node.create_subscription(
                Float64MultiArray, topic, lambda m, t=topic: self.wire.append((t, list(m.data))), 50
            )
        self.run = ActionClient(self.node, RunPolicy, "policy/run")
        self.stop = self.node.create_client(Trigger, "policy/stop")
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()
        self.wait("the node", lambda: self.run.server_is_ready() and self.stop.service_is_ready(), 60.0)
        self.wait("its answers", answers_reach(self.node, "policy"))
        self.wait("discovery", lambda: self.keypoints.get_subscription_count() == 1)
        self.wait("discovery", lambda: self.joint_states.get_subscription_count() == 1)

    def end_run(self) -> None:
        """Stop a run that a test left behind, and forget what was heard."""
        stopped = self.stop.call_async(Trigger.Request())
        self.wait("the stop", stopped.done)
        time.sleep(0.3)  # the goal's own loop sees the stop within its period of 0.1 s
        self.statuses.clear()
        self.wire.clear()

    def end_process(self) -> str:
        """Ctrl-C; returns the log."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=30)[0]

    def wait(self, what: str, ready: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            assert time.monotonic() < deadline, (
                f"waited {timeout_s} s for {what}; statuses {self.statuses[-1:]}"
            )
            time.sleep(0.005)

    def send(self, *, names=JOINT_NAMES, position=HOME, set_name="cups", joints=True) -> int:
        """One frame as the robot would send it: joint state, then keypoints. Returns its stamp [ns]."""
        now = (self.node.get_clock().now() + Duration(nanoseconds=self.ahead_ns)).to_msg()
        if joints:
            message = JointState(name=list(names), position=[float(p) for p in position])
            message.header.stamp = now
            self.joint_states.publish(message)
        seen = KeypointArray(
            set_name=set_name,
            tracker_state=KeypointArray.TRACKING,
            image_width=640,
            image_height=480,
            ids=[10, 11, 12, 13],
            uv_px=np.array([[100, 200], [140, 200], [180, 200], [220, 200]], np.float32).ravel(),
            visible=[True] * 4,
            confidence=[0.9] * 4,
        )
        seen.header.stamp = now
        self.keypoints.publish(seen)
        return now.sec * 10**9 + now.nanosec

    def answer(self, **frame) -> PolicyStatus:
        """Send one frame and wait for its PolicyStatus."""
        stamp_ns = self.send(**frame)

        def mine() -> list[PolicyStatus]:
            return [
                s for s in self.statuses if s.header.stamp.sec * 10**9 + s.header.stamp.nanosec == stamp_ns
            ]

        self.wait("a status", lambda: bool(mine()))
        time.sleep(0.05)  # the control period
        return mine()[0]

    def start(self, time_limit_s: int = 0):
        goal = RunPolicy.Goal()
        goal.time_limit.sec = time_limit_s
        sent = self.run.send_goal_async(goal)
        self.wait("an answer to the goal", sent.done)
        return sent.result()

    def result(self, handle) -> RunPolicy.Result:
        future = handle.get_result_async()
        self.wait("the result", future.done)
        return future.result().result

    def close(self) -> None:
        if self.process.poll() is None:
            self.end_process()
        self.executor.shutdown(timeout_sec=2.0)
        self.thread.join(timeout=2.0)
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return write_run_folder(tmp_path_factory.mktemp("node") / "run").path


@pytest.fixture(scope="module")
def shared_graph(run_folder) -> Iterator[Graph]:
    graph = Graph(run_folder, DOMAIN_ID)
    yield graph
    graph.close()


@pytest.fixture
def graph(shared_graph) -> Iterator[Graph]:
    yield shared_graph
    shared_graph.end_run()


@pytest.fixture
def own_graph(run_folder) -> Iterator[Graph]:
    """For tests that end the node, or need one that has heard nothing yet."""
    graph = Graph(run_folder, DOMAIN_ID + 1)
    yield graph
    graph.close()


def assert_rests(graph: Graph) -> None:
    """The arm is braked, and the last thing on the wire is where it rests."""
    counts = [len(arm_commands(graph))]
    while len(counts) < 2 or counts[-1] != counts[-2]:
        time.sleep(0.3)  # several control periods
        counts.append(len(arm_commands(graph)))
    # The last setpoint was reached by braking: no faster than the brake of one period begins.
    final_step = np.abs(np.diff(arm_commands(graph)[-2:], axis=0))
    limit = np.array(ROBOT.joints.acceleration_max_rad_s2) / ROBOT.control_rate_hz**2
    assert (final_step <= limit).all()


def arm_commands(graph: Graph) -> list[list[float]]:
    return [values for topic, values in graph.wire if topic == ROBOT.topics.command]


def test_it_answers_every_frame_and_commands_only_on_request(graph):
    before = graph.answer()
    assert before.state in (PolicyStatus.IDLE, PolicyStatus.STOPPED)
    assert list(before.command) == []
    assert graph.wire == []

    handle = graph.start()
    assert handle.accepted
    running = graph.answer()
    assert running.state == PolicyStatus.RUNNING
    assert running.keypoints_visible == 4
    graph.wait("the command", lambda: len(arm_commands(graph)) == 1)
    assert arm_commands(graph)[0] == list(running.command[:-1])

    graph.answer()
    stopped = graph.stop.call_async(Trigger.Request())
    graph.wait("the stop", stopped.done)
    assert stopped.result().success
    assert graph.result(handle).outcome == RunPolicy.Result.CANCELLED
    assert_rests(graph)
    after = graph.answer()
    assert (after.state, list(after.command)) == (PolicyStatus.STOPPED, [])


def test_joints_in_another_order_work_alike(graph):
    graph.start()
    order = np.random.default_rng(0).permutation(8)
    first = graph.answer()
    reordered = graph.answer(names=[JOINT_NAMES[i] for i in order], position=HOME[order])
    assert (first.state, reordered.state) == (PolicyStatus.RUNNING, PolicyStatus.RUNNING)
    step = np.abs(np.array(reordered.command) - np.array(first.command))[:-1]
    assert (step <= np.array(ROBOT.joints.velocity_max_rad_s) / ROBOT.control_rate_hz + 1e-9).all()


def test_a_nan_joint_state_is_held_counted_and_the_run_resumes_after_it(graph):
    told: list[DiagnosticArray] = []
    graph.node.create_subscription(DiagnosticArray, "/diagnostics", told.append, 10)
    graph.start()
    good = graph.answer()
    held = graph.answer(position=np.append(np.nan, HOME[1:]))
    assert (held.state, held.hold_cause) == (PolicyStatus.HOLDING, "joint_state_not_finite")
    moved = np.abs(np.array(held.command) - np.array(good.command))[:-1]
    assert (moved <= np.array(ROBOT.joints.velocity_max_rad_s) / ROBOT.control_rate_hz).all()
    assert graph.answer().state == PolicyStatus.RUNNING
    assert np.isfinite(arm_commands(graph)).all()

    def counts() -> set[str]:
        values = [v.key for message in told for status in message.status for v in status.values]
        return {key for key in values if key.startswith("held_")}

    graph.wait("the count", lambda: "held_joint_state_not_finite" in counts())


def test_a_missing_joint_is_held_and_named_in_the_log(own_graph):
    own_graph.start()
    held = own_graph.answer(names=JOINT_NAMES[1:], position=HOME[1:])
    assert (held.state, held.hold_cause) == (PolicyStatus.HOLDING, "joint_missing")
    assert "panda_joint1" in own_graph.end_process()


def test_keypoints_of_another_set_are_held(graph):
    graph.start()
    held = graph.answer(set_name="plates")
    assert (held.state, held.hold_cause) == (PolicyStatus.HOLDING, "keypoint_set_mismatch")


def test_a_run_asked_for_before_keypoints_exist_holds_and_ends_as_a_named_fault(own_graph):
    graph = own_graph
    result = graph.result(graph.start())
    assert result.outcome == RunPolicy.Result.FAULT
    assert "no_joint_state" in result.message
    assert result.commands == 0
    assert graph.wire == []


def test_when_frames_stop_arriving_the_position_is_held(graph):
    graph.start()
    graph.answer()
    graph.wait("the hold", lambda: graph.statuses[-1].state == PolicyStatus.HOLDING)
    assert graph.statuses[-1].hold_cause in ("keypoints_stale", "joint_state_stale"), "both ended at once"
    graph.wait("rest", lambda: arm_commands(graph)[-1] == arm_commands(graph)[-2])
    graph.wait(
        "its status", lambda: list(graph.statuses[-1].command[:-1]) == arm_commands(graph)[-1]
    )  # two topics


def test_a_simulated_clock_that_is_set_back_is_held_at_once_and_the_run_resumes_in_its_new_time(run_folder):
    graph = Graph(run_folder, DOMAIN_ID + 1, hold_limit_s=60.0, parameters=("use_sim_time:=true",))
    try:
        clock = graph.node.create_publisher(Clock, "/clock", 10)

        def tick() -> None:
            now = graph.node.get_clock().now() + Duration(nanoseconds=graph.ahead_ns)
            clock.publish(Clock(clock=now.to_msg()))

        graph.node.create_timer(0.01, tick)
        graph.wait("discovery", lambda: clock.get_subscription_count() == 1)
        graph.start()
        until(graph, lambda status: status.state == PolicyStatus.RUNNING)
        graph.statuses.clear()
        graph.ahead_ns = -30 * 10**9
        # Not a frame since.
        graph.wait("the hold", lambda: any(s.hold_cause == "clock_jump" for s in graph.statuses))
        until(graph, lambda status: status.state == PolicyStatus.RUNNING)
        assert np.isfinite(arm_commands(graph)).all()
    finally:
        graph.close()


def test_a_second_run_is_refused_while_one_is_in_progress_and_the_time_limit_ends_it(graph):
    handle = graph.start(time_limit_s=1)
    assert not graph.start().accepted
    assert graph.result(handle).outcome == RunPolicy.Result.TIME_OVER
    assert graph.start().accepted


def test_a_run_is_refused_while_the_arm_is_brought_home_by_somebody_who_lives(graph):
    def begins() -> bool:
        accepted = graph.start().accepted
        if accepted:
            graph.end_run()
        return accepted

    who = graph.node.create_publisher(Bool, GOING_HOME, GOING_HOME_QOS)
    who.publish(Bool(data=True))
    graph.wait("a refusal", lambda: not begins())
    who.publish(Bool(data=False))
    graph.wait("a run", begins)
    who.publish(Bool(data=True))
    graph.wait("a refusal", lambda: not begins())
    graph.node.destroy_publisher(who)
    graph.wait("a run", begins)


def test_cancelling_ends_a_run(graph):
    handle = graph.start()
    graph.answer()
    cancelled = handle.cancel_goal_async()
    graph.wait("the cancellation", cancelled.done)
    result = graph.result(handle)
    assert (result.outcome, result.message) == (RunPolicy.Result.CANCELLED, "cancelled")
    assert result.commands == 1


def test_ctrl_c_in_motion_leaves_a_hold_as_the_last_thing_on_the_wire(own_graph):
    graph = own_graph
    graph.start()
    for _ in range(3):
        graph.answer()
    graph.end_process()
    assert_rests(graph)
    graph.wait("the last status", lambda: graph.statuses[-1].state == PolicyStatus.STOPPED)


@pytest.fixture
def checked_graph(run_folder, tmp_path) -> Iterator[Graph]:
    """With a robot whose plans are checked by a moveit node, here by the test."""
    content = yaml.safe_load(ROBOT_PATH.read_text())
    content["scene_check"] = "moveit"
    robot = tmp_path / "robot.yaml"
    robot.write_text(yaml.safe_dump(content))
    graph = Graph(run_folder, DOMAIN_ID + 1, robot, hold_limit_s=60.0)  # it holds while nobody answers
    yield graph
    graph.close()


def until(graph: Graph, holds: Callable[[PolicyStatus], bool]) -> None:
    """Send frames until an answer is as expected; on a busy machine checks may come late for a while."""
    graph.wait("that answer", lambda: holds(graph.answer()))


def test_plans_that_nobody_checks_or_that_collide_are_held(checked_graph):
    graph = checked_graph
    verdict = PlanCheck(valid=True)
    plans: list[JointTrajectory] = []
    answering = threading.Event()
    checks = graph.node.create_publisher(PlanCheck, "policy/plan_check", 10)

    def on_plan(plan: JointTrajectory) -> None:
        plans.append(plan)
        if answering.is_set():
            verdict.header.stamp = plan.header.stamp
            checks.publish(verdict)

    graph.node.create_subscription(JointTrajectory, "policy/plan", on_plan, 10)
    graph.wait("discovery", lambda: checks.get_subscription_count() == 1)
    graph.start()
    time.sleep(0.5)  # the first frame may come long after the request
    until(graph, lambda status: status.hold_cause == "plan_unchecked")
    # Plans are sent from the first frame on, and lost until the two ends have met.
    graph.wait("a plan to check", lambda: bool(plans) or graph.answer() is None)
    assert list(plans[-1].joint_names) == list(ROBOT.joints.names)
    assert not any(plans[-1].points[-1].velocities), "a plan ends at rest"
    asked = np.array([list(plan.points[0].positions) for plan in plans] + arm_commands(graph))
    assert np.abs(asked - HOME[:-1]).max() < 1e-9, "nothing moves before the first plan was looked at"

    answering.set()
    until(graph, lambda status: status.state == PolicyStatus.RUNNING)
    answering.clear()
    until(graph, lambda status: status.hold_cause == "plan_check_stale")
    answering.set()
    until(graph, lambda status: status.state == PolicyStatus.RUNNING)
    verdict.valid, verdict.cause, verdict.detail = False, "scene_collision", "hand and table"
    until(graph, lambda status: status.hold_cause == "scene_collision")
    verdict.valid, verdict.cause = True, ""
    held = {graph.answer().hold_cause for _ in range(5)}
    assert held == {"scene_collision"}, "until somebody starts anew"
    graph.end_run()
    graph.start()
    until(graph, lambda status: status.state == PolicyStatus.RUNNING)
    assert "hand and table" in graph.end_process()


PANDA_PATH = ROBOT_PATH.with_name("panda.yaml")


@pytest.fixture
def replay_graph(tmp_path) -> Iterator[Graph]:
    """On replay, with the shipped Panda, whose gripper is an action's, and a moveit node that is not there."""
    content = yaml.safe_load(PANDA_PATH.read_text())
    content["scene_check"] = "moveit"
    robot = tmp_path / "panda.yaml"
    robot.write_text(yaml.safe_dump(content))
    folder = write_run_folder(tmp_path / "run", robot=RobotDescription.load(PANDA_PATH)).path
    graph = Graph(folder, DOMAIN_ID + 1, robot, parameters=("replay:=true",))
    yield graph
    graph.close()


def test_on_replay_nothing_reaches_a_controller_and_nobody_is_waited_for(replay_graph, tmp_path):
    graph, panda = replay_graph, RobotDescription.load(PANDA_PATH)
    controllers = None
    if importlib.util.find_spec("control_msgs"):  # from apt, not from PyPI: else there is nobody to call
        environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN_ID + 1)}
        controllers = ControllerProcess(panda, tmp_path, environment)
    try:
        replayed: list[JointTrajectory] = []
        moved = in_replay(panda).topics
        graph.node.create_subscription(JointTrajectory, moved.command, replayed.append, 50)
        graph.wait("discovery", lambda: graph.node.count_publishers(moved.command))
        graph.start()
        for _ in range(5):
            until(graph, lambda status: status.state == PolicyStatus.RUNNING)
            time.sleep(0.02)  # its control period is longer than that of the simulated arm
        graph.wait("the commands", lambda: len(replayed) >= 5)
        causes = {status.hold_cause for status in graph.statuses}
        assert not [c for c in causes if c.startswith(("controller_", "gripper_", "plan_"))]
        graph.end_run()
        names = [name for name, _ in graph.node.get_publisher_names_and_types_by_node("policy", "/")]
        ours = {name for name in names if "command" in name or "traj" in name or "plan" in name}
        assert ours == {f"/{moved.command}", f"/{moved.gripper_command}"}
        assert graph.node.get_client_names_and_types_by_node("policy", "/") == []
        if controllers is not None:
            report = controllers.end()
            assert report["arm"]["count"] == report["gripper"]["count"] == 0
    finally:
        if controllers is not None:
            controllers.kill()


@pytest.fixture
def action_graph(run_folder, tmp_path) -> Iterator[Graph]:
    """With a robot whose arm and gripper are driven by actions."""
    pytest.importorskip("control_msgs", reason="control_msgs comes with ROS from apt, not from PyPI")
    robot = tmp_path / "robot.yaml"
    robot.write_text(ACTION_ROBOT.dump())
    graph = Graph(run_folder, DOMAIN_ID + 1, robot, hold_limit_s=60.0)
    yield graph
    graph.close()


def test_controllers_that_are_missing_refuse_or_give_up_are_held_and_named(action_graph, tmp_path):
    graph = action_graph

    def answer_until(what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while what not in ((status := graph.answer()).hold_cause, RunState(status.state).name):
            assert time.monotonic() < deadline, f"waited for {what}, got {status}"

    graph.start()
    assert graph.answer().hold_cause == "controller_missing"
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN_ID + 1)}
    controllers = ControllerProcess(ACTION_ROBOT, tmp_path, environment)
    try:
        answer_until("RUNNING")
        for mode, cause in (("refuse", "controller_rejected"), ("abort", "controller_aborted")):
            controllers.mode(mode)
            answer_until(cause)
            controllers.mode("accept")
            answer_until("RUNNING")
        graph.end_run()
        report = controllers.end()
        assert report["arm"]["count"] > 0
        assert report["gripper"]["count"] > 0
        assert report["arm"]["violations"] + report["gripper"]["violations"] == []
    finally:
        controllers.kill()
    assert "PATH_TOLERANCE_VIOLATED: panda_joint1 0.2 rad off" in graph.end_process()


def test_a_run_folder_of_a_future_format_ends_the_process_with_what_to_do(run_folder, tmp_path):
    future = write_run_folder(tmp_path / "future").path
    content = yaml.safe_load((future / "policy.yaml").read_text())
    (future / "policy.yaml").write_text(yaml.safe_dump({**content, "format_version": 2}))
    process = start_policy_node(future)
    log, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "format_version 2; this release reads 1" in log


def test_the_exported_graph_drives_the_arm_where_the_parameter_says_so(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install -r requirements/onnx.txt")
    from atk_policy.export_onnx import export_onnx

    run = write_run_folder(tmp_path / "run")
    export_onnx(run)
    graph = Graph(run.path, DOMAIN_ID + 1, parameters=("inference_backend:=onnxruntime",))
    try:
        graph.start()
        answers = [graph.answer() for _ in range(4)]
        assert {answer.state for answer in answers} == {PolicyStatus.RUNNING}
        assert np.isfinite(arm_commands(graph)).all()
        assert np.abs(np.array(answers[-1].command) - np.array(answers[0].command))[:-1].max() > 0.0
    finally:
        graph.close()


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("onnxruntime", "policy.onnx does not exist; write it with 'ros2 run atk_policy export_policy"),
        ("tpu", "unknown inference_backend 'tpu'; known: onnxruntime, torch"),
    ],
)
def test_a_backend_that_cannot_run_is_named_in_the_log(tmp_path, backend, expected):
    run = write_run_folder(tmp_path / "run")
    process = start_policy_node(run.path, f"inference_backend:={backend}", domain_id=DOMAIN_ID)
    log, _ = process.communicate(timeout=150)
    assert process.returncode == 1
    assert expected in log

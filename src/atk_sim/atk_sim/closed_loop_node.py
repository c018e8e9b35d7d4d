"""Drive episodes over ROS: reset the simulator, record the expert, run the policy, note the outcome.

A client of the graph, nothing more: it sees what any other node sees. The same calls serve the
demonstration, the closed-loop benchmark and the whole-stack tests.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger

from atk_interfaces.action import RunPolicy
from atk_interfaces.msg import EpisodeStatus, KeypointArray, PolicyStatus
from atk_interfaces.srv import RecordEpisode, ResetEpisode
from atk_perception.frames import stamp_ns_of
from atk_perception.image_codec import RgbImage, rgb_from_message
from atk_perception.keypoint_tracker import KeypointObservation, observation_of
from atk_perception.service_answers import REPEAT_S, answers_reach
from atk_sim.camera import FloatArray
from atk_sim.graph import GraphError, NodeGraph
from atk_sim.judging import Episode

RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
CALL_TIMEOUT_S = 60.0
REST_S = 0.5  # a policy that brakes commands every period, some 50 ms; one that sent nothing for so long is at rest


class ClosedLoopClient:
    """Talks to one graph in its DDS domain.

    Args:
        graph: the node processes, for checking that they live while an answer is awaited.
    """

    def __init__(self, graph: NodeGraph) -> None:
        self._graph = graph
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=graph.domain_id)
        self.node = Node(f"closed_loop_client_{graph.domain_id}", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._reset = self.node.create_client(ResetEpisode, "sim/reset")
        self._record = self.node.create_client(RecordEpisode, "recorder/episode")
        self._reset_tracker = self.node.create_client(Trigger, "tracker/reset")
        self._stop = self.node.create_client(Trigger, "policy/stop")
        self._run = ActionClient(self.node, RunPolicy, "policy/run")
        self._heard_by: set[str] = set()
        self._lock = threading.Condition()
        self._status: EpisodeStatus | None = None
        self._policy: list[PolicyStatus] = []
        self._commanded_s = 0.0  # when the policy last said that it had commanded something
        self._seen: list[KeypointObservation] = []
        self._positions: dict[int, FloatArray] = {}
        self._overlay_subscription: Any = None
        self.node.create_subscription(EpisodeStatus, "sim/episode", self._on_status, RELIABLE)
        self.node.create_subscription(PolicyStatus, "policy/status", self._on_policy, RELIABLE)
        self.node.create_subscription(KeypointArray, "keypoints", self._on_keypoints, RELIABLE)
        self.node.create_subscription(JointState, "sim/state", self._on_state, RELIABLE)
        self._thread = threading.Thread(target=self._executor.spin, name="closed_loop_client", daemon=True)
        self._thread.start()

    # -- what the graph says -----------------------------------------------------------------------

    def _on_status(self, message: EpisodeStatus) -> None:
        with self._lock:
            self._status = message
            self._lock.notify_all()

    def _on_policy(self, message: PolicyStatus) -> None:
        with self._lock:
            self._policy.append(message)
            if message.command:
                self._commanded_s = time.monotonic()
            self._lock.notify_all()

    def _on_keypoints(self, message: KeypointArray) -> None:
        with self._lock:
            self._seen.append(observation_of(message, stamp_ns_of(message)))

    def _on_state(self, message: JointState) -> None:
        with self._lock:
            self._positions[stamp_ns_of(message)] = np.asarray(message.position, np.float64)

    # -- waiting -----------------------------------------------------------------------------------

    def wait_for(self, what: str, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `ready()`, while the graph lives.

        Raises:
            GraphError: a node ended, or the time is over; names what was awaited.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                if ready():
                    return
                self._lock.wait(0.1)
            self._graph.check()
            if time.monotonic() > deadline:
                raise GraphError(
                    f"waited {timeout_s:.0f} s for {what}; the nodes' logs say what they wait for"
                )

    def _in_executor(self, call: Callable[[], Any]) -> Any:
        """Make a call in the executor's thread: an answer may otherwise come before rclpy has noted the request."""
        task = self._executor.create_task(call)
        self.wait_for("the executor", task.done, 10.0)
        return task.result()

    def _call(self, client: Any, request: Any, *, repeatable: bool = False) -> Any:
        """The answer to a request; one that may be made twice is made again when its answer does not come.

        Raises:
            GraphError: no answer, or a refusal.
        """
        if not repeatable:
            self.wait_until_heard(client.srv_name.rpartition("/")[0])
        self.wait_for(f"service {client.srv_name}", client.service_is_ready, CALL_TIMEOUT_S)
        deadline = time.monotonic() + CALL_TIMEOUT_S
        answers: list[Any] = []

        def answered() -> bool:
            return any(future.done() for future in answers)

        def ask() -> None:
            answers.append(self._in_executor(lambda: client.call_async(request)))
            again_at = time.monotonic() + (REPEAT_S if repeatable else math.inf)
            self.wait_for(
                f"an answer of {client.srv_name}",
                lambda: answered() or time.monotonic() > again_at,
                deadline - time.monotonic(),
            )

        while not answered():
            ask()
        answer = next(future for future in answers if future.done()).result()
        if not answer.success:
            raise GraphError(f"{client.srv_name} refused: {answer.message}")
        return answer

    def wait_until_heard(self, node_name: str) -> None:
        """Wait, once for each node, until its answers reach the clients that were made before."""
        if node_name not in self._heard_by:
            self.wait_for(f"answers of {node_name}", answers_reach(self.node, node_name), CALL_TIMEOUT_S)
            self._heard_by.add(node_name)

    # -- episodes ----------------------------------------------------------------------------------

    def reset(self, task: str, disturbance: str, seed: int, driver: str) -> None:
        """Start an episode in the simulator."""
        request = ResetEpisode.Request(task=task, disturbance=disturbance, seed=seed, driver=driver)
        with self._lock:
            self._status = None
            self._policy.clear()
            self._seen.clear()
            self._positions.clear()
        self._call(self._reset, request)

    def wait_done(self, seed: int, timeout_s: float) -> EpisodeStatus:
        """Wait for the end of the episode with this seed; returns its last status."""

        def done() -> bool:
            return self._status is not None and self._status.done and self._status.seed == seed

        self.wait_for(f"the end of episode {seed}", done, timeout_s)
        return self._status

    def record_expert(
        self, task: str, disturbance: str, seed: int, name: str, timeout_s: float = 120.0
    ) -> tuple[bool, str]:
        """Record one expert episode; returns (kept, message). A failure of the expert is discarded."""
        self.start_recording(name)
        self.reset(task, disturbance, seed, "expert")
        status = self.wait_done(seed, timeout_s)
        command = RecordEpisode.Request.KEEP if status.success else RecordEpisode.Request.DISCARD
        return bool(status.success), self.end_recording(command)

    def start_recording(self, name: str) -> None:
        """Have the recorder begin an episode."""
        self._call(self._record, RecordEpisode.Request(command=RecordEpisode.Request.START, name=name))

    def end_recording(self, command: int) -> str:
        """Have it keep or discard the episode (a RecordEpisode command); returns what it says."""
        return str(self._call(self._record, RecordEpisode.Request(command=command)).message)

    def start_policy(self) -> Any:
        """Have the tracker transfer afresh and the policy run from the next frame on; returns the goal."""
        self.reset_tracker()
        self.wait_for("the policy's action server", self._run.server_is_ready, 60.0)
        self.wait_until_heard("policy")
        sent = self._in_executor(lambda: self._run.send_goal_async(RunPolicy.Goal()))
        self.wait_for("the policy to take the goal", sent.done, 60.0)
        goal = sent.result()
        if not goal.accepted:
            raise GraphError("the policy rejected the goal; its log says why")
        return goal

    def cancel_policy(self, goal: Any) -> None:
        """Cancel a run and wait for its end, and until its brake is over.

        What is started while the arm still brakes goes on from that motion, which a simulator that was reset does not.
        """
        result = self._in_executor(goal.get_result_async)
        cancelled = self._in_executor(goal.cancel_goal_async)
        self.wait_for("the policy to stop", cancelled.done, 30.0)
        self.wait_for("the policy's result", result.done, 30.0)
        self.wait_for("the arm to rest", lambda: time.monotonic() - self._commanded_s > REST_S, 30.0)

    def stop_policy(self) -> None:
        """Stop the policy by its service, whether it runs or not."""
        self._call(self._stop, Trigger.Request(), repeatable=True)

    def reset_tracker(self) -> None:
        """Have the tracker forget the scene."""
        self._call(self._reset_tracker, Trigger.Request(), repeatable=True)

    def policy_statuses(self) -> list[PolicyStatus]:
        """What the policy has said since the last reset."""
        with self._lock:
            return list(self._policy)

    def run_policy(self, task: str, disturbance: str, seed: int, timeout_s: float = 180.0) -> Episode:
        """One closed-loop episode: the tracker transfers afresh, the policy commands until the end."""
        started = time.monotonic()
        goal = self.start_policy()
        self.reset(task, disturbance, seed, "topics")
        status = self.wait_done(seed, timeout_s)
        self.cancel_policy(goal)
        with self._lock:
            return Episode(
                task=status.task,
                disturbance=status.disturbance,
                seed=seed,
                success=bool(status.success),
                steps=int(status.step),
                wall_s=time.monotonic() - started,
                # The image after the last step is answered too, and changes nothing.
                seen=[seen for seen in self._seen if seen.stamp_ns < stamp_ns_of(status)],
                positions=dict(self._positions),
                holds=dict(Counter(p.hold_cause for p in self._policy if p.state == PolicyStatus.HOLDING)),
                inference_ms=[float(p.inference_ms) for p in self._policy if p.state == PolicyStatus.RUNNING],
            )

    # -- pictures ----------------------------------------------------------------------------------

    def watch_overlay(self, on_image: Callable[[RgbImage], None]) -> None:
        """Hand every overlay image to `on_image` until `unwatch_overlay`."""
        self._overlay_subscription = self.node.create_subscription(
            Image, "keypoints/overlay", lambda message: on_image(rgb_from_message(message)), RELIABLE
        )

    def unwatch_overlay(self) -> None:
        """Stop watching; the tracker then draws nothing."""
        if self._overlay_subscription is not None:
            self.node.destroy_subscription(self._overlay_subscription)
            self._overlay_subscription = None

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(timeout=2.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

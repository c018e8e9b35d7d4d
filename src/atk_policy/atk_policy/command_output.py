"""Sends plans to the controllers of arm and gripper, and listens to what these say about it.

Beside the node that owns it, this is the only place that knows publishers and clients of commands. Nothing here waits:
answers come in the executor's threads, and what went wrong is asked for with `fault`.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from action_msgs.msg import GoalStatus

from atk_perception.robot_description import RobotDescription
from atk_policy.command_plan import CommandPlan
from atk_policy.command_sinks import make_arm_sink, make_gripper_sink
from atk_policy.command_sinks.gripper_goals import GripperGoals
from atk_policy.command_sinks.protocol import Action, FloatArray, Moment, Preparation, Topic

# A goal that is not even answered within this time [s] has nobody who carries it out; control loops answer in milliseconds.
ANSWER_S = 1.0
# For so long [s] after a controller's last complaint it counts as not able: plans go on meanwhile, so one that still is not
# complains again.
COMPLAINT_S = 1.0

Clock = Callable[[], float]


class CommandOutput:
    """Arm and gripper sinks of a robot description, and the publishers and clients that they need.

    `send` and `fault` may be called by one thread while the executor serves the node in others.

    The faults, for the arm and with 'gripper' instead of 'controller' for the gripper:
        controller_missing: nobody offers the action or the service.
        controller_silent: a goal was not answered.
        controller_rejected: a goal, or Servo's command type, was refused.
        controller_aborted: a goal ended without success, and not because a newer one replaced it.
        controller_unprepared: the controller has not yet said that it will listen.

    Args:
        node: a managed node; publishers and clients belong to it.
        robot: names sinks, topics and actions.
        clock: steady time [s].

    Raises:
        ValueError: as `make_arm_sink` and `make_gripper_sink`.
    """

    def __init__(self, node: Any, robot: RobotDescription, clock: Clock = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._arm_sink = make_arm_sink(robot)
        self._gripper_sink = make_gripper_sink(robot)
        self._prepared = (
            None
            if self._arm_sink.preparation is None
            else _Prepared(node, self._arm_sink.preparation, "controller", clock)
        )
        self._arm = _channel(node, self._arm_sink.target, "controller", clock)
        self._gripper = _channel(node, self._gripper_sink.target, "gripper", clock)
        # A topic is told again and again, as an arm is; an action only what is news.
        self._gripper_goals = (
            GripperGoals(robot.gripper.max_m - robot.gripper.min_m)
            if isinstance(self._gripper_sink.target, Action)
            else None
        )

    @property
    def description(self) -> str:
        """Where commands go, for the log."""
        return f"arm: {self._arm_sink.target.name}, gripper: {self._gripper_sink.target.name}"

    def begin(self) -> None:
        """A run begins: nothing counts that was sent, complained about or prepared before."""
        for part in (self._arm, self._gripper, self._prepared):
            if part is not None:
                part.begin()
        if self._gripper_goals is not None:
            self._gripper_goals.begin()
        self.fault()  # asks for the preparation

    def send(self, plan: CommandPlan, measured: FloatArray | None = None) -> None:
        """Send a plan that passed the safety layer.

        Args:
            plan: from now on.
            measured: (J,) joint positions [rad] by the newest joint state, None where there is none.
        """
        stamp_ns = int(self._node.get_clock().now().nanoseconds)
        self._arm.send(self._arm_sink.command(plan, Moment(stamp_ns, measured)))
        opening_m = float(plan.command[-1])
        if self._gripper_goals is not None:
            now_s = self._clock()
            if self._gripper.failed_since_asked():
                self._gripper_goals.retry(now_s)
            # To a server that is not there yet nothing is sent, so that nothing counts as sent.
            if not self._gripper.is_ready() or not self._gripper_goals.take(opening_m, now_s):
                return
        self._gripper.send(self._gripper_sink.command(opening_m))

    def fault(self) -> str:
        """Name of what keeps the controllers from carrying out plans, or ''."""
        preparation = "" if self._prepared is None else self._prepared.fault()
        return preparation or self._arm.fault() or self._gripper.fault()

    def destroy(self) -> None:
        """Withdraw publishers and clients."""
        for part in (self._arm, self._gripper, self._prepared):
            if part is not None:
                part.destroy()


def _channel(node: Any, target: Topic | Action, who: str, clock: Clock) -> _Published | _Goals:
    return _Published(node, target) if isinstance(target, Topic) else _Goals(node, target, who, clock)


class _Published:
    """Commands as messages: nobody answers."""

    def __init__(self, node: Any, topic: Topic) -> None:
        self._node = node
        self._publisher = node.create_lifecycle_publisher(topic.kind, topic.name, 10)

    def begin(self) -> None:
        """Nothing to forget."""

    def send(self, message: Any) -> None:
        self._publisher.publish(message)

    def is_ready(self) -> bool:
        return True

    def fault(self) -> str:
        return ""

    def failed_since_asked(self) -> bool:
        return False

    def destroy(self) -> None:
        self._node.destroy_publisher(self._publisher)


class _Complaints:
    """The newest thing that went wrong, as long as it counts; told to the log when it does."""

    def __init__(self, node: Any, who: str, clock: Clock) -> None:
        self._node, self._who, self._clock = node, who, clock
        self.clear()

    def clear(self) -> None:
        self._what, self._at_s = "", -np.inf

    def add(self, what: str, detail: str) -> None:
        name = f"{self._who}_{what}"
        if self.fault() != name:
            self._node.get_logger().error(f"{name}: {detail}")
        self._what, self._at_s = what, self._clock()

    def fault(self) -> str:
        return f"{self._who}_{self._what}" if self._clock() - self._at_s < COMPLAINT_S else ""


class _Goals:
    """Commands as goals of an action, each replacing the one before.

    By the two services that an action consists of (design.ros2.org/articles/actions.html). rclpy's ActionClient would
    take in feedback and the states of all goals of the last seconds too: at one goal per control period, thousands
    of values a second that nobody reads.
    """

    def __init__(self, node: Any, action: Action, who: str, clock: Clock) -> None:
        self._node, self._action, self._clock = node, action, clock
        self._complaints = _Complaints(node, who, clock)
        # Reentrant: a future that is done already calls back at once.
        self._lock = threading.RLock()
        self._number = 0  # of the goal sent last
        self._first = 1  # of this run
        self._unanswered: dict[int, tuple[float, Any]] = {}  # by number: when it was sent, the future
        self._failed = False
        kinds = action.kind.Impl
        self._send_goal = node.create_client(kinds.SendGoalService, f"{action.name}/_action/send_goal")
        self._get_result = node.create_client(kinds.GetResultService, f"{action.name}/_action/get_result")

    def begin(self) -> None:
        with self._lock:
            self._drop_unanswered(older_than_s=-np.inf)
            self._first = self._number + 1
            self._failed = False
            self._complaints.clear()

    def is_ready(self) -> bool:
        return bool(self._send_goal.service_is_ready() and self._get_result.service_is_ready())

    def send(self, goal: Any) -> None:
        if not self.is_ready():
            return  # `fault` says so
        request = self._action.kind.Impl.SendGoalService.Request(goal=goal)
        request.goal_id.uuid = np.frombuffer(uuid.uuid4().bytes, np.uint8)
        with self._lock:
            self._number += 1
            future = self._send_goal.call_async(request)
            self._unanswered[self._number] = (self._clock(), future)
            future.add_done_callback(partial(self._on_answer, self._number, request.goal_id))

    def fault(self) -> str:
        with self._lock:
            if not self.is_ready():
                self._complaints.add("missing", f"there is no action server {self._action.name}")
            if self._drop_unanswered(older_than_s=ANSWER_S):
                self._failed = True
                self._complaints.add("silent", f"{self._action.name} does not answer goals")
            return self._complaints.fault()

    def failed_since_asked(self) -> bool:
        """Whether the goal sent last came to nothing, as far as it is known; asked once."""
        with self._lock:
            failed, self._failed = self._failed, False
            return failed

    def destroy(self) -> None:
        self._node.destroy_client(self._send_goal)
        self._node.destroy_client(self._get_result)

    def _drop_unanswered(self, older_than_s: float) -> bool:
        now_s = self._clock()
        late = [n for n, (sent_s, _) in self._unanswered.items() if now_s - sent_s > older_than_s]
        for number in late:
            self._send_goal.remove_pending_request(self._unanswered.pop(number)[1])
        return bool(late)

    def _on_answer(self, number: int, goal_id: Any, future: Any) -> None:
        with self._lock:
            if self._unanswered.pop(number, None) is None:
                return  # too late, or of an earlier run
            if not future.result().accepted:
                self._failed = self._failed or number == self._number
                self._complaints.add("rejected", f"{self._action.name} refuses the goal; its log says why")
                return
            request = self._action.kind.Impl.GetResultService.Request(goal_id=goal_id)
            result = self._get_result.call_async(request)
            result.add_done_callback(partial(self._on_result, number))

    def _on_result(self, number: int, future: Any) -> None:
        with self._lock:
            response = future.result()
            if response.status == GoalStatus.STATUS_SUCCEEDED or number < self._first:
                return
            newest = number == self._number
            failure = self._action.failure(response.result, not newest)
            if failure:
                self._failed = self._failed or newest
                self._complaints.add("aborted", f"{self._action.name}: {failure}")


class _Prepared:
    """A service call that must have succeeded; made anew at every begin, and when the service comes back."""

    def __init__(self, node: Any, preparation: Preparation, who: str, clock: Clock) -> None:
        self._node, self._preparation, self._who = node, preparation, who
        self._complaints = _Complaints(node, who, clock)
        self._lock = threading.RLock()
        self._client = node.create_client(preparation.kind, preparation.service)
        self.begin()

    def begin(self) -> None:
        with self._lock:
            self._done = False
            self._asked: Any = None
            self._complaints.clear()

    def fault(self) -> str:
        with self._lock:
            if not self._client.service_is_ready():
                self._done, self._asked = False, None
                self._complaints.add("missing", f"there is no service {self._preparation.service}")
            complaint = self._complaints.fault()
            if complaint or self._done:
                return complaint
            if self._asked is None:
                self._asked = self._client.call_async(self._preparation.request)
                self._asked.add_done_callback(self._on_answer)
            return f"{self._who}_unprepared"

    def destroy(self) -> None:
        self._node.destroy_client(self._client)

    def _on_answer(self, future: Any) -> None:
        with self._lock:
            if future is not self._asked:
                return  # of an earlier run
            self._asked = None
            self._done = bool(future.result().success)
            if not self._done:
                self._complaints.add(
                    "rejected", f"{self._preparation.service} refuses {self._preparation.request}"
                )

"""From keypoint frames to safe commands: the whole online half but ROS.

The policy node wraps one of these; offline evaluation and in-process tests use the same.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import torch

from atk_perception.frames import Frame
from atk_perception.keypoint_tracker import KeypointObservation
from atk_perception.robot_description import RobotDescription
from atk_policy.action_queue import ActionQueue
from atk_policy.command_plan import CommandPlan
from atk_policy.policies.protocol import PolicyInput
from atk_policy.run_folder import RunFolder
from atk_policy.safety import Evidence, SafetyLimits, clamp, judge, violation

FloatArray = npt.NDArray[np.float64]

# Frames further apart than this are no motion: the simulator was reset, the clock was set, a camera
# was unplugged. Jitter and lost frames stay well below, and the deadlines have held the arm by then.
DISCONTINUITY_NS = 1_000_000_000


class RunState(IntEnum):
    """The values of atk_interfaces/PolicyStatus."""

    IDLE = 0
    RUNNING = 1
    HOLDING = 2
    STOPPED = 3


@dataclass(frozen=True)
class Arrival:
    """Times on the ROS clock [ns] behind a frame: now, when its keypoints came, the newest joint state's stamp."""

    now_ns: int
    keypoints_ns: int
    joint_state_ns: int


@dataclass(frozen=True)
class PolicyStep:
    """What to do with one frame.

    Attributes:
        stamp_ns: of the image.
        state: after this frame.
        cause: the violated rule while HOLDING, else ''.
        plan: what to send, or None.
        keypoints_visible: how many are seen.
        inference_ms: the policy alone.
    """

    stamp_ns: int
    state: RunState
    cause: str = ""
    plan: CommandPlan | None = None
    keypoints_visible: int = 0
    inference_ms: float = 0.0

    @property
    def command(self) -> FloatArray | None:
        """(J + 1,) what is commanded now, or None."""
        return None if self.plan is None else self.plan.command


class PolicyRunner:
    """A policy behind its safety layer, one frame at a time. Not thread-safe.

    Args:
        run: keypoint set and policy.
        robot: the robot at hand; its limits and deadlines apply.
        limits: of the safety layer; by default those of `robot`.
        ensemble_decay: see ActionQueue; by default what the run folder says.

    Raises:
        RunFolderError: the run folder was made for a robot that differs in what matters.
    """

    def __init__(
        self,
        run: RunFolder,
        robot: RobotDescription,
        *,
        limits: SafetyLimits | None = None,
        ensemble_decay: float | None = None,
    ) -> None:
        run.require_robot(robot)
        self._run, self._robot = run, robot
        self._limits = limits or SafetyLimits.of(robot)
        self._period_ns = robot.control_period_ns
        self._horizon = run.file.horizon
        decay = run.file.ensemble_decay if ensemble_decay is None else ensemble_decay
        self._queue = ActionQueue(self._period_ns, decay, memory=self._horizon)
        reach = (run.file.history - 1) * run.file.history_stride + 1
        self._history: deque[Frame[KeypointObservation]] = deque(maxlen=reach)
        self._previous: FloatArray | None = None
        self._last_stamp_ns: int | None = None
        self.state = RunState.IDLE
        self.cause = ""
        self.last_chunk: FloatArray | None = None

    # -- requests ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Command from the next frame on, beginning at where the robot is then."""
        self._forget()
        self._previous = None
        self._last_stamp_ns = None
        self.state, self.cause = RunState.HOLDING, "no_keypoints"

    def stop(self, stamp_ns: int) -> PolicyStep:
        """End the run; the step holds the position that was last commanded, if any was."""
        if self.state in (RunState.RUNNING, RunState.HOLDING):
            self.state, self.cause = RunState.STOPPED, ""
            self._forget()
            return self._hold_step(stamp_ns, 0)
        return PolicyStep(stamp_ns, self.state)

    def follow(self, action: FloatArray) -> None:
        """Take (J + 1,) `action` for what was last commanded: in replay, somebody else drove."""
        self._previous = np.clip(action, self._robot.action_min, self._robot.action_max)

    # -- frames ------------------------------------------------------------------------------------

    def step(self, frame: Frame[KeypointObservation], arrival: Arrival | None = None) -> PolicyStep:
        """Decide on one frame; `arrival` None means that everything is fresh (replay)."""
        seen = frame.payload
        visible = int(np.count_nonzero(seen.visible))
        if self.state in (RunState.IDLE, RunState.STOPPED):
            return PolicyStep(frame.stamp_ns, self.state, keypoints_visible=visible)
        measured = frame.robot.vector()
        self._note_discontinuity(frame.stamp_ns, measured)
        if self._previous is None:
            if not np.isfinite(measured).all():
                return self.hold(frame.stamp_ns, "joint_state_not_finite", visible)
            self._previous = np.clip(measured, self._robot.action_min, self._robot.action_max)
        fault = self._fault(seen)
        if fault:
            return self.hold(frame.stamp_ns, fault, visible)

        now = arrival or Arrival(frame.stamp_ns, frame.stamp_ns, frame.stamp_ns)
        evidence = Evidence(
            image_age_ns=now.now_ns - frame.stamp_ns,
            keypoints_age_ns=now.now_ns - now.keypoints_ns,
            joint_state_age_ns=now.now_ns - now.joint_state_ns,
            tracker_state=seen.tracker_state,
            visible=visible,
            measured=measured,
        )
        wanted, inference_ms = None, 0.0
        if not violation(self._limits, evidence, self._previous):
            started = time.perf_counter()
            self._act(frame)
            inference_ms = 1e3 * (time.perf_counter() - started)
            wanted = self._queue.action_at(frame.stamp_ns)
        verdict = judge(self._limits, evidence, wanted, self._previous, self._period_ns / 1e9)
        if verdict.is_hold:
            return self.hold(frame.stamp_ns, verdict.cause, visible)
        self.state, self.cause = RunState.RUNNING, ""
        plan = self._safe_plan(frame.stamp_ns, verdict.command)
        self._previous = verdict.command
        return PolicyStep(frame.stamp_ns, self.state, "", plan, visible, inference_ms)

    def hold(self, stamp_ns: int, cause: str, visible: int = 0) -> PolicyStep:
        """Hold because of `cause`: a frame that cannot be used, or none that came."""
        if self.state in (RunState.IDLE, RunState.STOPPED):
            return PolicyStep(stamp_ns, self.state, keypoints_visible=visible)
        self.state, self.cause = RunState.HOLDING, cause
        self._forget()
        return self._hold_step(stamp_ns, visible)

    # -- parts -------------------------------------------------------------------------------------

    def _hold_step(self, stamp_ns: int, visible: int) -> PolicyStep:
        plan = None if self._previous is None else CommandPlan.hold(self._previous, self._period_ns)
        return PolicyStep(stamp_ns, self.state, self.cause, plan, visible)

    def _forget(self) -> None:
        """What was planned before a hold is not what should be done after it."""
        self._queue.clear()
        self._history.clear()

    def _note_discontinuity(self, stamp_ns: int, measured: FloatArray) -> None:
        last, self._last_stamp_ns = self._last_stamp_ns, stamp_ns
        if last is None or 0 <= stamp_ns - last <= DISCONTINUITY_NS:
            return
        self._forget()
        previous = self._previous
        # Someone moved the arm meanwhile (a simulator's reset, a person): begin at where it is.
        if (
            previous is not None
            and np.abs(measured - previous)[:-1].max() > self._limits.tracking_gap_max_rad
        ):
            self._previous = None

    def _fault(self, seen: KeypointObservation) -> str:
        if not np.array_equal(seen.ids, self._run.keypoint_set.ids):
            return "keypoint_set_mismatch"
        return "" if np.isfinite(seen.uv_px).all() else "keypoints_not_finite"

    def _act(self, frame: Frame[KeypointObservation]) -> None:
        self._history.append(frame)
        file = self._run.file
        newest = len(self._history) - 1
        frames = [
            self._history[max(0, newest - k * file.history_stride)] for k in range(file.history - 1, -1, -1)
        ]
        arrays = (
            np.stack([f.payload.uv_px for f in frames]),
            np.stack([f.payload.visible for f in frames]),
            np.stack([f.robot.vector() for f in frames]),
        )
        with torch.inference_mode():
            seen = PolicyInput(*(torch.from_numpy(a.astype(np.float32))[None] for a in arrays))
            self.last_chunk = self._run.policy.act(seen)[0].numpy().astype(np.float64)
        self._queue.add(frame.stamp_ns, self.last_chunk)

    def _safe_plan(self, stamp_ns: int, command: FloatArray) -> CommandPlan:
        """The command and, for sinks that take chunks, what follows it, each within reach of the one before."""
        plan = [command]
        for wanted in self._queue.plan_from(stamp_ns + self._period_ns, self._horizon - 1):
            plan.append(clamp(self._limits, wanted, plan[-1], self._period_ns / 1e9))
        position = np.stack(plan)
        velocity = np.zeros_like(position)
        if len(position) > 1:
            velocity[:-1] = np.diff(position, axis=0) / (self._period_ns / 1e9)
        return CommandPlan(self._period_ns * np.arange(1, len(plan) + 1), position, velocity)

"""From keypoint frames to safe commands: the whole online half but ROS.

The policy node wraps one of these; offline evaluation and in-process tests use the same.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from atk_perception.frames import Frame
from atk_perception.keypoint_tracker import KeypointObservation
from atk_perception.robot_description import RobotDescription
from atk_policy.action_queue import ActionQueue
from atk_policy.command_plan import CommandPlan
from atk_policy.inference import DEFAULT_INFERENCE, make_inference
from atk_policy.kinematics import scene_of
from atk_policy.run_folder import RunFolder
from atk_policy.safe_motion import SafeMotion, Scene
from atk_policy.safety import Evidence, SafetyLimits, violation

FloatArray = npt.NDArray[np.float64]
Elapsed = Callable[[], float]

# Frames further apart than this are no motion: the simulator was reset, the clock was set, a camera
# was unplugged. What was planned before is void. Jitter and lost frames stay well below.
DISCONTINUITY_NS = 1_000_000_000
# A joint that moved so far has changed some pixel of any picture with the arm in it.
MOTION_SEEN_RAD = 0.02
# A joint that stays where it is, this far from its setpoint and for so long, does not follow: its controller rejects
# commands, a brake is on, its encoder hangs, or something is in the way. Sag and friction stay below.
FOLLOW_GAP_RAD = 0.04
FOLLOW_STILL_RAD = 0.005
FOLLOW_NS = 1_000_000_000


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

    Every call that may send something takes `elapsed`, to be asked for the time since a command was last due [s] at the
    moment when the next one is: setpoints are samples of one continuous motion, so it must be the time that really passed. It
    counts for one control period at most; an arm that heard nothing for longer has waited.

    Args:
        run: keypoint set and policy.
        robot: the robot at hand; its limits and deadlines apply.
        limits: of the safety layer; by default those of `robot`.
        scene: what else the arm must keep clear of; by default what `robot.scene_check` says.
        ensemble_decay: see ActionQueue; by default what the run folder says.
        inference_backend: what the network runs in, a name in inference.py.

    Raises:
        RunFolderError: the run folder was made for a robot that differs in what matters, or has nothing for the backend.
        ValueError: no such backend.
        RobotDescriptionError: the robot's kinematic model cannot be used.
    """

    def __init__(
        self,
        run: RunFolder,
        robot: RobotDescription,
        *,
        limits: SafetyLimits | None = None,
        scene: Scene | None = None,
        ensemble_decay: float | None = None,
        inference_backend: str = DEFAULT_INFERENCE,
    ) -> None:
        robot = run.require_robot(robot)
        self._run = run
        self._infer = make_inference(inference_backend, run)
        self._limits = limits or SafetyLimits.of(robot)
        self._motion = SafeMotion(self._limits.motion, scene or scene_of(robot))
        self._period_ns = robot.control_period_ns
        self._period_s = robot.control_period_ns / 1e9
        self._horizon = run.file.horizon
        decay = run.file.ensemble_decay if ensemble_decay is None else ensemble_decay
        self._queue = ActionQueue(self._period_ns, decay, memory=self._horizon)
        reach = (run.file.history - 1) * run.file.history_stride + 1
        self._history: deque[Frame[KeypointObservation]] = deque(maxlen=reach)
        self._gripper_m: float | None = None  # None: nothing was commanded yet
        self._in_motion = False  # the run was started in motion, and has not commanded yet
        self._driven: FloatArray | None = None  # the last action of somebody else, see `follow`
        self._last_stamp_ns: int | None = None
        # (setpoint, measured) of the last frames, for as long as a joint may lag without moving
        self._followed: deque[tuple[FloatArray, FloatArray]] = deque(maxlen=FOLLOW_NS // self._period_ns)
        self._at_picture: FloatArray | None = None  # where the arm was when the present picture was new
        self._pictures_differ = not any(camera.noiseless for camera in robot.cameras)
        self.state = RunState.IDLE
        self.cause = ""
        self.last_chunk: FloatArray | None = (
            None  # inferred on the last frame; None where an older one is followed
        )
        self._inferred_ns: int | None = None  # stamp of the frame that the newest chunk is for

    # -- requests ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Command from the next frame on, beginning at where the robot is then.

        An arm that still brakes goes on from there: a setpoint at rest would be a jump.
        """
        self._forget()
        self._in_motion = self.is_moving
        if not self._in_motion:
            self._gripper_m = None
        self._last_stamp_ns = self._at_picture = self._driven = None
        self._followed.clear()
        self.state, self.cause = RunState.HOLDING, "no_keypoints"

    def stop(self, stamp_ns: int, elapsed: Elapsed | None = None) -> PolicyStep:
        """End the run; the arm brakes from where it is commanded to be (`hold` goes on with it)."""
        if self.state in (RunState.RUNNING, RunState.HOLDING):
            self.state, self.cause = RunState.STOPPED, ""
            self._forget()
            return self._brake(stamp_ns, 0, elapsed)
        return PolicyStep(stamp_ns, self.state)

    def follow(self, action: FloatArray) -> None:
        """Take (J + 1,) `action` for what was last commanded, a period after the one before: somebody else drove."""
        before, self._driven, self._in_motion = self._driven, action, False
        self._motion.reset(action[:-1], None if before is None else (action - before)[:-1] / self._period_s)
        self._gripper_m = float(action[-1])

    @property
    def is_moving(self) -> bool:
        """The last setpoint was not at rest: braking goes on with `hold` or, after a stop, `step`."""
        return self._gripper_m is not None and not self._motion.at_rest

    # -- frames ------------------------------------------------------------------------------------

    def step(
        self,
        frame: Frame[KeypointObservation],
        arrival: Arrival | None = None,
        elapsed: Elapsed | None = None,
        fault: str = "",
    ) -> PolicyStep:
        """Decide on one frame.

        Args:
            frame: what is seen, and where the robot is.
            arrival: when it came; by default everything is fresh (replay).
            elapsed: see the class; by default a period (replay).
            fault: name of what else does not let the arm go on, '' for nothing. A run that begins with one holds where the
                robot is, so that whoever must see a plan first sees that one.
        """
        seen = frame.payload
        visible = int(np.count_nonzero(seen.visible & (seen.confidence >= self._limits.confidence_min)))
        if self.state in (RunState.IDLE, RunState.STOPPED):
            return self.hold(frame.stamp_ns, "", visible, elapsed)
        measured = frame.robot.vector()
        jumped = self._is_discontinuity(frame.stamp_ns)
        if self._gripper_m is None or self._is_elsewhere(measured):
            if not np.isfinite(measured).all():
                return self.hold(frame.stamp_ns, "joint_state_not_finite", visible, elapsed)
            self._motion.reset(measured[:-1])
            self._gripper_m = self._inside_gripper(measured[-1])
        elif jumped:
            return self.hold(frame.stamp_ns, "clock_jump", visible, elapsed)
        now = arrival or Arrival(frame.stamp_ns, frame.stamp_ns, frame.stamp_ns)
        evidence = Evidence(
            image_age_ns=now.now_ns - frame.stamp_ns,
            keypoints_age_ns=now.now_ns - now.keypoints_ns,
            joint_state_age_ns=now.now_ns - now.joint_state_ns,
            tracker_state=seen.tracker_state,
            visible=visible,
            measured=measured,
        )
        cause = (
            fault
            or self._stale_camera(seen, now.now_ns)
            or self._fault(seen)
            or violation(self._limits, evidence, self._motion.position)
            or self._frozen(seen, measured)
            or self._not_following(measured)
        )
        if cause:
            return self.hold(frame.stamp_ns, cause, visible, elapsed)
        started = time.perf_counter()
        self._act(frame)
        inference_ms = 1e3 * (time.perf_counter() - started)
        wanted, following = (self._wanted(frame.stamp_ns + k * self._period_ns) for k in (0, 1))
        if isinstance(wanted, str):
            return self.hold(frame.stamp_ns, wanted, visible, elapsed)
        cause = self._motion.advance(wanted[0][:-1], wanted[1][:-1], self._passed_s(elapsed))
        if not cause:
            self.state, self.cause, self._in_motion = RunState.RUNNING, "", False
            self._gripper_m = self._inside_gripper(wanted[0][-1])
        else:
            self.state, self.cause = RunState.HOLDING, cause
            self._forget()
        then = None if cause or isinstance(following, str) else (following[0][:-1], following[1][:-1])
        plan = self._motion.plan(self._gripper_m, self._period_ns, then)
        return PolicyStep(frame.stamp_ns, self.state, self.cause, plan, visible, inference_ms)

    def hold(self, stamp_ns: int, cause: str, visible: int = 0, elapsed: Elapsed | None = None) -> PolicyStep:
        """Brake, then hold, because of `cause`: a frame that cannot be used, or none that came."""
        if self.state in (RunState.IDLE, RunState.STOPPED):
            if self.is_moving:
                return self._brake(stamp_ns, visible, elapsed)
            return PolicyStep(stamp_ns, self.state, keypoints_visible=visible)
        self.state, self.cause = RunState.HOLDING, cause
        self._forget()
        return self._brake(stamp_ns, visible, elapsed)

    # -- parts -------------------------------------------------------------------------------------

    def _passed_s(self, elapsed: Elapsed | None) -> float:
        return self._period_s if elapsed is None else min(max(elapsed(), 0.0), self._period_s)

    def _brake(self, stamp_ns: int, visible: int, elapsed: Elapsed | None) -> PolicyStep:
        if self._gripper_m is None:
            return PolicyStep(stamp_ns, self.state, self.cause, None, visible)
        self._motion.brake(self._passed_s(elapsed))
        plan = self._motion.plan(self._gripper_m, self._period_ns)
        return PolicyStep(stamp_ns, self.state, self.cause, plan, visible)

    def _inside_gripper(self, opening_m: float) -> float:
        return float(np.clip(opening_m, self._limits.gripper_min_m, self._limits.gripper_max_m))

    def _forget(self) -> None:
        """What was planned before a hold is not what should be done after it."""
        self._queue.clear()
        self._history.clear()
        self._inferred_ns = None

    def _is_elsewhere(self, measured: FloatArray) -> bool:
        """Whether a run that was started in motion came to rest without the arm (a simulator that was reset)."""
        gap_rad = np.abs(measured[:-1] - self._motion.position).max()
        return self._in_motion and not self.is_moving and bool(gap_rad > self._limits.tracking_gap_max_rad)

    def _is_discontinuity(self, stamp_ns: int) -> bool:
        """Whether this frame does not follow on the last one."""
        last, self._last_stamp_ns = self._last_stamp_ns, stamp_ns
        return last is not None and not 0 <= stamp_ns - last <= DISCONTINUITY_NS

    def _frozen(self, seen: KeypointObservation, measured: FloatArray) -> str:
        """'image_frozen' when the picture stays the same, for longer than an image may be old, while the arm moves."""
        if seen.repeats == 0 or self._at_picture is None:
            self._at_picture = measured
        same_for_ns = seen.repeats * self._period_ns
        moved_rad = np.abs(measured - self._at_picture)[:-1].max()
        frozen = same_for_ns > self._limits.image_age_max_ns and moved_rad > MOTION_SEEN_RAD
        return "image_frozen" if frozen and self._pictures_differ else ""

    def _not_following(self, measured: FloatArray) -> str:
        """'not_following' when some joint has stood still off its setpoint for too long."""
        self._followed.append((self._motion.position.copy(), measured[:-1]))
        if len(self._followed) < (self._followed.maxlen or 0):
            return ""
        setpoints, positions = (np.array(values) for values in zip(*self._followed, strict=True))
        off = np.abs(setpoints - positions).min(axis=0) > FOLLOW_GAP_RAD
        still = np.ptp(positions, axis=0) < FOLLOW_STILL_RAD
        return "not_following" if (off & still).any() else ""

    def _stale_camera(self, seen: KeypointObservation, now_ns: int) -> str:
        """'camera_NAME_stale' when of several cameras one has no image that is recent enough."""
        late = now_ns - seen.stamp_ns > self._limits.image_age_max_ns
        return f"camera_{seen.oldest_camera}_stale" if seen.oldest_camera and late else ""

    def _fault(self, seen: KeypointObservation) -> str:
        if not np.array_equal(seen.ids, self._run.keypoint_ids):
            return "keypoint_set_mismatch"
        return "" if np.isfinite(seen.policy_uv_px).all() else "keypoints_not_finite"

    def _act(self, frame: Frame[KeypointObservation]) -> None:
        self._history.append(frame)
        file = self._run.file
        if self._inferred_ns is not None:
            # Half a period off, so that the jitter of stamps does not put off an inference by a frame.
            followed_ns = frame.stamp_ns - self._inferred_ns + self._period_ns // 2
            if 0 <= followed_ns < file.execution_horizon * self._period_ns:
                self.last_chunk = None
                return
        newest = len(self._history) - 1
        frames = [
            self._history[max(0, newest - k * file.history_stride)] for k in range(file.history - 1, -1, -1)
        ]
        self.last_chunk = self._infer(
            np.stack([f.payload.policy_uv_px for f in frames]).astype(np.float32),
            np.stack([f.payload.visible for f in frames]).astype(np.float32),
            np.stack([f.robot.vector() for f in frames]).astype(np.float32),
        ).astype(np.float64)
        self._queue.add(frame.stamp_ns, self.last_chunk)
        self._inferred_ns = frame.stamp_ns

    def _wanted(self, time_ns: int) -> tuple[FloatArray, FloatArray] | str:
        """(J + 1,) the action for a time and its rate of change, or why there is none."""
        before, now, after = (
            self._queue.action_at(time_ns + shift * self._period_ns) for shift in (-1, 0, 1)
        )
        if now is None:
            return "no_action"
        known = [
            (shift, action) for shift, action in ((-1, before), (0, now), (1, after)) if action is not None
        ]
        (first, begin), (last, end) = known[0], known[-1]
        # What comes after the last action is unknown: be slow there.
        rate = (end - begin) / ((last - first) * self._period_s) if after is not None else 0.0 * now
        return (now, rate) if np.isfinite(now).all() and np.isfinite(rate).all() else "action_not_finite"

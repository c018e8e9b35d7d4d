"""A closed-loop episode in one process: what the nodes do, without the graph between them.

The fast path of the benchmark. Tracker, policy and safety layer are the objects that the nodes wrap, so the same
episode over ROS ends alike (test/test_benchmark_parity.py).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atk_perception.camera_placing import make_viewpoint, require_same_base
from atk_perception.frames import Frame, RobotState
from atk_perception.image_codec import RgbImage
from atk_perception.keypoint_set import KeypointSet
from atk_perception.keypoint_tracker import KeypointObservation, TrackerState
from atk_perception.robot_description import RobotDescription
from atk_policy.demonstrations import Tracking
from atk_policy.policy_runner import PolicyRunner, PolicyStep, RunState
from atk_policy.run_folder import RunFolder
from atk_sim.camera import FloatArray
from atk_sim.ground_truth import attach, body_names, found_again, locate, project_attached
from atk_sim.simulation import Simulation

# A visible keypoint this far from where it should be misleads the policy: a third of a nigiri's width in the image.
WRONG_PX = 10.0
WRONG_SHARE = 0.25  # of the visible keypoints: a policy bears with fewer
TRACKED_SHARE = 0.7  # of the frames: with fewer the arm mostly held
START_NS = 1_000_000_000


@dataclass(frozen=True)
class AgentStep:
    """What an agent answers to one camera period.

    Attributes:
        command: (J + 1,) joint positions [rad] and gripper opening [m]; None leaves the last one in effect.
        tracker_state: name of the tracker's state; empty for agents without keypoints.
        wrong_share: share of the visible keypoints that are wrong by more than `WRONG_PX`; None where unknown.
        hold: why it holds, else ''.
        inference_ms: of the policy alone.
        seen: the keypoints, for pictures; None for agents without.
    """

    command: FloatArray | None
    tracker_state: str = ""
    wrong_share: float | None = None
    hold: str = ""
    inference_ms: float = 0.0
    seen: KeypointObservation | None = None


class Agent(Protocol):
    """Something that drives the simulated robot by what its camera shows."""

    def begin(self, simulation: Simulation) -> None:
        """A new episode."""
        ...

    def act(self, simulation: Simulation, stamp_ns: int) -> AgentStep:
        """One camera period; `simulation.image_lost` says that there is no image in it."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What happened in one episode; a line of episodes.jsonl."""

    task: str
    disturbance: str
    seed: int
    success: bool
    cause: str
    steps: int
    wall_s: float
    holds: dict[str, int] = field(default_factory=dict)
    tracker_states: dict[str, int] = field(default_factory=dict)
    wrong_share: float | None = None
    inference_p95_ms: float = 0.0
    path: str = "process"  # or 'ros': through separate nodes


def run_episode(
    simulation: Simulation,
    agent: Agent,
    task: str,
    disturbance: str,
    seed: int,
    watch: Callable[[RgbImage, AgentStep], None] | None = None,
) -> Outcome:
    """Drive one episode to its end and say why it failed, if it did.

    Args:
        watch: is shown every image and what the agent made of it.
    """
    started = time.perf_counter()
    simulation.reset(task, disturbance, seed)
    agent.begin(simulation)
    stamp_ns, period_ns = START_NS, round(1e9 / simulation.robot.camera.rate_hz)
    steps: list[AgentStep] = []
    command = simulation.measured()
    while not simulation.done:
        step = agent.act(simulation, stamp_ns)
        steps.append(step)
        if watch is not None:
            watch(simulation.rgb(), step)
        command = command if step.command is None else step.command
        simulation.step(command)
        stamp_ns += period_ns
    wall_s = time.perf_counter() - started
    return outcome_of(simulation, simulation.succeeded, simulation.steps, wall_s, steps)


def outcome_of(
    simulation: Simulation, success: bool, count: int, wall_s: float, steps: list[AgentStep]
) -> Outcome:
    """What came of the episode that `simulation` was reset to: `count` camera periods, and what the agent did in each."""
    wrong = [step.wrong_share for step in steps if step.wrong_share is not None]
    return Outcome(
        simulation.task,
        simulation.disturbance,
        simulation.seed,
        success,
        "" if success else failure_cause(simulation, steps),
        count,
        round(wall_s, 2),
        dict(Counter(step.hold for step in steps if step.hold)),
        dict(Counter(step.tracker_state for step in steps if step.tracker_state)),
        round(float(np.mean(wrong)), 3) if wrong else None,
        round(float(np.percentile([step.inference_ms for step in steps] or [0.0], 95)), 2),
    )


def failure_cause(simulation: Simulation, steps: list[AgentStep]) -> str:
    """Why an episode failed: 'transfer', 'lost track', 'physics' (the expert fails there too) or 'policy'.

    The first of them that holds; exact tracks from the simulator decide whether a keypoint is wrong.
    """
    states = [step.tracker_state for step in steps if step.tracker_state]
    tracking = [step for step in steps if step.tracker_state == TrackerState.TRACKING.name]
    if states and not tracking:
        return "transfer"
    wrong = [step.wrong_share for step in tracking if step.wrong_share is not None]
    if wrong and wrong[0] > WRONG_SHARE:
        return "transfer"
    if states and len(tracking) < TRACKED_SHARE * len(states):
        return "lost track"
    if wrong and float(np.mean(np.array(wrong) > WRONG_SHARE)) > 1 - TRACKED_SHARE:
        return "lost track"
    return "policy" if expert_succeeds(simulation) else "physics"


def expert_succeeds(simulation: Simulation) -> bool:
    """Whether the expert does the present episode, from its beginning."""
    simulation.reset(simulation.task, simulation.disturbance, simulation.seed)
    while not simulation.done:
        simulation.step(simulation.expert_command())
    return simulation.succeeded


class ExactTracks:
    """Where a keypoint set's points really are in an episode: the set's template is the first image of a seed.

    Attributes:
        names: of the body that each point lies on.

    Raises:
        ValueError: a keypoint lies where the template shows nothing.
    """

    def __init__(self, simulation: Simulation, task: str, template_seed: int, uv_px: FloatArray) -> None:
        simulation.reset(task, "RP", template_seed)
        world = simulation.world
        points = attach(world, simulation.renderer, uv_px)
        self.names = body_names(world, points)
        self._points = points
        self.begin(simulation)

    def begin(self, simulation: Simulation) -> None:
        """Find the bodies again in a new episode; a point whose body is not there is nowhere."""
        self._here, self._there = found_again(simulation.world, self._points, self.names)

    def uv_px(self, simulation: Simulation) -> FloatArray:
        """(N, 2) where they are now, hidden or not."""
        return project_attached(simulation.world, self._here, simulation.robot.camera)

    def located(self, simulation: Simulation) -> tuple[FloatArray, NDArray[np.bool_]]:
        """(N, 2) where they are now, and (N,) whether nothing hides them; renders the depth image."""
        uv_px, visible = locate(simulation.world, simulation.renderer, self._here)
        return uv_px, visible & self._there

    def wrong(self, simulation: Simulation, seen: KeypointObservation) -> float | None:
        """Share of the visible keypoints that are off by more than `WRONG_PX`; None when none is visible."""
        visible: NDArray[np.bool_] = seen.visible & self._there
        if not visible.any():
            return None
        off_px = np.linalg.norm(seen.uv_px - self.uv_px(simulation), axis=1)[visible]
        return float(np.mean(off_px > WRONG_PX))


class ExactObserver:
    """Gives a keypoint set's points as a perfect tracker would: exact where they are seen, the last place where they are not."""

    def __init__(self, exact: ExactTracks, keypoint_set: KeypointSet) -> None:
        self._exact, self._set = exact, keypoint_set

    def begin(self, simulation: Simulation) -> None:
        """A new episode."""
        self._exact.begin(simulation)
        self._uv_px = self._set.uv_px.copy()

    def observe(self, simulation: Simulation, stamp_ns: int) -> KeypointObservation:
        """The points of this instant."""
        uv_px, visible = self._exact.located(simulation)
        self._uv_px = np.where(visible[:, None], uv_px, self._uv_px).astype(np.float32)
        confidence = visible.astype(np.float32)
        state = TrackerState.TRACKING
        return KeypointObservation(stamp_ns, self._set.ids, self._uv_px, visible, confidence, state)


class KeypointAgent:
    """A run folder on the simulated robot: keypoint tracker, policy and safety layer, as the nodes have them.

    Args:
        exact: for telling why an episode failed; None leaves that to the tracker's own state.
        viewpoint: how keypoints are reprojected into the training camera, a name in viewpoint.VIEWPOINTS. The simulator says
            where its camera stands, as TF or a calibration would.

    Raises:
        ViewpointError, KeypointSetError: something that the viewpoint needs is missing.
    """

    def __init__(
        self,
        run: RunFolder,
        robot: RobotDescription,
        exact: ExactTracks | None = None,
        viewpoint: str = "none",
    ) -> None:
        self._run, self._robot, self._exact = run, robot, exact
        self._viewpoint = make_viewpoint(viewpoint, run.keypoint_set, robot)
        self._tracker = Tracking(run.file.matcher, run.file.tracker).keypoint_tracker(
            run.keypoint_set, viewpoint=self._viewpoint
        )

    def begin(self, simulation: Simulation) -> None:
        """See `Agent`."""
        self._tracker.reset()
        self._runner = PolicyRunner(self._run, self._robot)
        self._runner.start()
        if self._viewpoint is not None:
            camera = self._robot.camera
            calibration = simulation.world.camera.calibration(camera.width, camera.height)
            require_same_base(
                self._run.keypoint_set.calibration, calibration.base_frame, "the simulator's camera"
            )
            self._viewpoint.place(calibration.camera)
        if self._exact is not None:
            self._exact.begin(simulation)

    def act(self, simulation: Simulation, stamp_ns: int) -> AgentStep:
        """See `Agent`."""
        if simulation.image_lost:
            return _answer(self._runner.hold(stamp_ns, "image_stale"))
        seen = self._observe(simulation, stamp_ns)
        wrong = None if self._exact is None else self._exact.wrong(simulation, seen)
        measured = simulation.measured()
        state = RobotState(stamp_ns, measured[:-1], float(measured[-1]))
        step = self._runner.step(Frame(stamp_ns, seen, state, None))
        return _answer(step, seen, wrong)

    def _observe(self, simulation: Simulation, stamp_ns: int) -> KeypointObservation:
        needs_depth = self._viewpoint is not None and self._viewpoint.needs_depth
        depth_m = simulation.depth() if needs_depth else None
        return self._tracker.update(stamp_ns, simulation.rgb(), depth_m)


class PrivilegedAgent(KeypointAgent):
    """The same, told where the points are in the place of tracking them: for training in the simulator, never for results."""

    def __init__(self, run: RunFolder, robot: RobotDescription, exact: ExactTracks) -> None:
        super().__init__(run, robot, exact)
        self._observer = ExactObserver(exact, run.keypoint_set)

    def begin(self, simulation: Simulation) -> None:
        """See `Agent`."""
        super().begin(simulation)
        self._observer.begin(simulation)

    def _observe(self, simulation: Simulation, stamp_ns: int) -> KeypointObservation:
        return self._observer.observe(simulation, stamp_ns)


def _answer(
    step: PolicyStep, seen: KeypointObservation | None = None, wrong: float | None = None
) -> AgentStep:
    hold = step.cause if step.state is RunState.HOLDING else ""
    state = "" if seen is None else seen.tracker_state.name
    return AgentStep(step.command, state, wrong, hold, step.inference_ms, seen)

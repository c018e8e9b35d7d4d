"""Why an episode over ROS failed: what was heard of it, judged as `rollout.run_episode` judges its own.

Tracker and policy say what they saw and did; where everything really was, the simulator says on `sim/state`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from atk_perception.keypoint_set import KeypointSet
from atk_perception.keypoint_tracker import KeypointObservation
from atk_perception.robot_description import RobotDescription
from atk_sim.camera import FloatArray
from atk_sim.rollout import AgentStep, ExactTracks, Outcome, outcome_of
from atk_sim.simulation import Simulation


@dataclass
class Episode:
    """What was heard of one closed-loop episode.

    Attributes:
        steps: camera periods. wall_s: how long it took [s].
        seen: what the tracker said, image by image, that after the last step left out.
        positions: (nq,) MuJoCo's positions, by stamp of the image [ns].
        holds: causes for which the policy held, and in how many periods. inference_ms: of those in which it ran.
    """

    task: str
    disturbance: str
    seed: int
    success: bool
    steps: int
    wall_s: float
    seen: list[KeypointObservation] = field(default_factory=list)
    positions: dict[int, FloatArray] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)
    inference_ms: list[float] = field(default_factory=list)

    @property
    def tracker_states(self) -> dict[str, int]:
        """How many images were answered in each state."""
        return dict(Counter(seen.tracker_state.name for seen in self.seen))


class Referee:
    """Judges episodes that were driven with one keypoint set; its points where they are of the robot's first camera.

    Args:
        template_seed: of the demonstration of `task` that the set's template is the first image of.

    Raises:
        ValueError: a keypoint lies where the template shows nothing.
    """

    def __init__(
        self, robot: RobotDescription, keypoint_set: KeypointSet, task: str, template_seed: int
    ) -> None:
        self._simulation = Simulation(robot)
        self._exact: ExactTracks | None = None
        if keypoint_set.camera_name == robot.camera.name:
            uv_px = keypoint_set.uv_px.astype(np.float64)
            self._exact = ExactTracks(self._simulation, task, template_seed, uv_px)

    def outcome(self, episode: Episode) -> Outcome:
        """What came of it, and why it failed."""
        simulation = self._simulation
        simulation.reset(episode.task, episode.disturbance, episode.seed)
        if self._exact is not None:
            self._exact.begin(simulation)
        steps = []
        for seen in episode.seen:
            wrong = None
            if self._exact is not None and seen.stamp_ns in episode.positions:
                simulation.world.show(episode.positions[seen.stamp_ns])
                wrong = self._exact.wrong(simulation, seen)
            steps.append(AgentStep(None, seen.tracker_state.name, wrong))
        outcome = outcome_of(simulation, episode.success, episode.steps, episode.wall_s, steps)
        inference_ms = np.percentile(episode.inference_ms, 95) if episode.inference_ms else 0.0
        return replace(
            outcome, path="ros", holds=episode.holds, inference_p95_ms=round(float(inference_ms), 2)
        )

    def close(self) -> None:
        """Release the renderer."""
        self._simulation.close()

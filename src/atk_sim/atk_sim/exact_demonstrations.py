"""Exact tracks in the place of a tracker's: the privileged simulator supplies them (method.md, training step 2).

An episode is witnessed frame by frame as positions of everything, so that it can be looked at again with any keypoints:
a demonstration by having the expert drive it again, a correction by what was noted while the student drove.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from atk_perception.keypoint_set import KeypointSet
from atk_policy.demonstrations import Demonstration
from atk_sim.camera import FloatArray
from atk_sim.rollout import START_NS, ExactObserver, ExactTracks
from atk_sim.simulation import Simulation, demonstrated

NOTES = "simulator.npz"  # beside a correction's messages


@dataclass(frozen=True)
class Witnessed:
    """T frames of an episode.

    Attributes:
        positions: (T, nq) MuJoCo's.
        robot: (T, J + 1) measured joint positions [rad] and gripper opening [m].
        action: (T, J + 1) what the expert commanded, or would have.
    """

    positions: FloatArray
    robot: FloatArray
    action: FloatArray

    @classmethod
    def demonstration(cls, simulation: Simulation, task: str, seed: int) -> Self:
        """One that was recorded, seen again; `simulation` has the servo noise that it was recorded with."""
        frames = [
            (simulation.world.positions, simulation.measured(), command)
            for command in demonstrated(simulation, task, "RP", seed)
        ]
        return cls(*(np.array(column) for column in zip(*frames, strict=True)))

    def save(self, folder: Path) -> None:
        """Write `NOTES` into a folder."""
        np.savez_compressed(folder / NOTES, positions=self.positions, robot=self.robot, action=self.action)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / NOTES, allow_pickle=False) as arrays:
            return cls(arrays["positions"], arrays["robot"], arrays["action"])


def exact_demonstration(
    simulation: Simulation,
    task: str,
    seed: int,
    episode: Witnessed,
    exact: ExactTracks,
    points: KeypointSet,
    name: str,
) -> Demonstration:
    """A demonstration called `name`, with the points of a keypoint set where they really were, as a perfect tracker gives them."""
    simulation.reset(task, "RP", seed)
    observer = ExactObserver(exact, points)
    observer.begin(simulation)
    stamps_ns = START_NS + np.arange(len(episode.robot)) * round(1e9 / simulation.robot.camera.rate_hz)
    seen = []
    for stamp_ns, positions in zip(stamps_ns.tolist(), episode.positions, strict=True):
        simulation.world.show(positions)
        seen.append(observer.observe(simulation, stamp_ns))
    return Demonstration(
        name,
        stamps_ns.astype(np.int64),
        np.stack([s.uv_px for s in seen]),
        np.stack([s.visible for s in seen]),
        np.stack([s.confidence for s in seen]),
        episode.robot,
        episode.action,
    )

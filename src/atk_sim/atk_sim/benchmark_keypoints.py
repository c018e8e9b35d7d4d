"""Keypoints that a task's training seeds chose: how many, how often each, and how far they agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atk_perception.image_codec import RgbImage
from atk_perception.robot_description import RobotDescription
from atk_policy.agreement import MATCH_SHARE, mean_agreement
from atk_sim.benchmark_archive import POINTS
from atk_sim.benchmark_cell import LEARNT
from atk_sim.graph import robot_file
from atk_sim.provenance import Learnt
from atk_sim.rollout import ExactTracks
from atk_sim.simulation import Simulation


@dataclass(frozen=True)
class ChosenPoints:
    """Sets of one task by training seed. N points of a set.

    Attributes:
        template_rgb: (H, W, 3) that all were chosen on.
        uv_px: (N, 2) by seed. bodies: (N,) names of what each lies on, by seed.
    """

    template_rgb: RgbImage
    uv_px: Mapping[int, NDArray[np.float32]]
    bodies: Mapping[int, list[str]]

    @property
    def diagonal_px(self) -> float:
        """Of the template."""
        return float(np.hypot(*self.template_rgb.shape[:2]))

    @property
    def agreement(self) -> float | None:
        """Mean agreement (atk_policy.agreement) of all pairs of sets; None with fewer than two."""
        if len(self.uv_px) < 2:
            return None
        seeds = list(self.uv_px)
        return mean_agreement(
            [self.uv_px[k] for k in seeds], self.diagonal_px, [self.bodies[k] for k in seeds]
        )

    def times_chosen(self, seed: int) -> NDArray[np.int64]:
        """(N,) in how many sets, its own among them, each point of `seed`'s has one near it on the same body."""
        times = np.zeros(len(self.uv_px[seed]), np.int64)
        bodies = np.array(self.bodies[seed])
        for other, uv_px in self.uv_px.items():
            apart_px = np.linalg.norm(self.uv_px[seed][:, None] - uv_px[None], axis=2)
            same = bodies[:, None] == np.array(self.bodies[other])[None]
            times += ((apart_px <= MATCH_SHARE * self.diagonal_px) & same).any(axis=1)
        return times


def chosen_points(archive: Path, task: str, method: str = "atk") -> ChosenPoints | None:
    """Of every training seed in an archive (benchmark_archive.py); None without any.

    The simulator shows the template, the first image of the first demonstration, and tells which body a point lies on.
    """
    sets: dict[int, NDArray[np.float32]] = {}
    first_seed = 0
    for folder in sorted((archive / task / method).glob("seed_*")):
        if (folder / POINTS).is_file():
            source = Learnt.load(folder / LEARNT).source
            sets[source.training_seed] = np.array(
                json.loads((folder / POINTS).read_text())["uv_px"], np.float32
            )
            first_seed = int(source.bags[0].removeprefix("episode_"))
    if not sets:
        return None
    simulation = Simulation(RobotDescription.load(robot_file("sim_panda")))
    try:
        bodies = {
            seed: ExactTracks(simulation, task, first_seed, uv_px.astype(np.float64)).names
            for seed, uv_px in sets.items()
        }
        simulation.reset(task, "RP", first_seed)
        template_rgb = simulation.rgb()
    finally:
        simulation.close()
    return ChosenPoints(template_rgb, sets, bodies)

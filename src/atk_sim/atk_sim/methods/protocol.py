"""What a method is: it learns from demonstrations into a folder, and drives the robot from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from atk_perception.robot_description import RobotDescription
from atk_policy.selection import SelectionConfig
from atk_sim.rollout import Agent
from atk_sim.simulation import Simulation


@dataclass(frozen=True)
class Lesson:
    """What every method is given alike.

    Attributes:
        task: name.
        robot: that it was recorded on.
        bags: recorded demonstrations, in the order of their seeds.
        seeds: of the demonstrations: the simulator can show each of them again.
        servo_noise: that they were recorded with.
        tracks: folder for the tracks of candidates, which methods share.
        settings: of selection and training, the same for every task; a method changes in them what makes it that method.
        viewpoint: whether methods with keypoints reproject them into the training camera, see `KeypointAgent`.
    """

    task: str
    robot: RobotDescription
    bags: list[Path]
    seeds: list[int]
    servo_noise: float
    tracks: Path
    settings: SelectionConfig = field(default_factory=SelectionConfig)
    viewpoint: str = "none"


class Method(Protocol):
    """One method, one file.

    Attributes:
        needs: names of methods that must have learnt the same lesson with the same seed, in the folders beside its own.
    """

    name: str
    needs: tuple[str, ...]

    def available(self) -> str:
        """Empty where it can be used, else what is missing."""
        ...

    def train(
        self, lesson: Lesson, seed: int, folder: Path, report: Callable[[str], None] = lambda line: None
    ) -> None:
        """Learn into `folder`; called again after an interruption, it goes on there.

        Args:
            seed: of everything random in training.
            report: is told now and then what is being done.
        """
        ...

    def agent(self, lesson: Lesson, folder: Path, simulation: Simulation) -> Agent:
        """What `train` left, ready to drive."""
        ...

"""What a task is: objects in a scene, where they start, when it is done, and how an expert does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim.camera import CameraPlacement
from atk_sim.scene import Layout

if TYPE_CHECKING:
    from atk_sim.experts import ExpertGoal

FloatArray = NDArray[np.float64]


# Where the further cameras of a robot stand: a third of a turn would look along the arm.
SIDE_RAD = np.deg2rad(70.0)


def camera_placements(task: Task, count: int) -> list[CameraPlacement]:
    """Where `count` cameras stand: the task's own, then at its sides, the robot's left one first, ever further around."""
    angles = [SIDE_RAD * (k // 2 + 1) * (1 if k % 2 == 0 else -1) for k in range(count - 1)]
    return [task.camera, *(task.camera.gone_around(angle) for angle in angles)]


class Task(Protocol):
    """One task, one file. A task holds no state: everything is in the model, the data and the layout."""

    name: str
    instruction: str  # as one would tell a person, or a model
    max_duration_s: float
    camera: CameraPlacement
    # Distractors keep this far from the task's objects, so that they never block the way of the hand.
    clearance_m: float

    @property
    def picked_uv_px(self) -> tuple[tuple[int, int], ...]:
        """What a person would follow to do the task: pixels of the first image of seed 0, for the method `manual`."""
        ...

    def layout(self, seed: int) -> Layout:
        """Where every object starts (random object pose, RP), a pure function of the seed."""
        ...

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """Put the task's objects into the scene; a task whose objects need other physics sets `spec.option` here."""
        ...

    def success(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """Whether physics says that the task is done."""
        ...

    def expert_goal(self, model: mujoco.MjModel, data: mujoco.MjData, opening_m: float) -> ExpertGoal:
        """Where the expert's hand should go next, from the state alone (no memory, no clock).

        `opening_m` is the measured gripper opening [m].
        """
        ...


@runtime_checkable
class Furnished(Protocol):
    """What a task may say besides: furniture leaves less room, so distractors stand elsewhere."""

    # (x, y) of two corners of the table's part where they may stand [m].
    distractor_area_m: tuple[tuple[float, float], tuple[float, float]]

"""What a task is: objects in a scene, where they start, when it is done, and how an expert does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim.camera import CameraPlacement
from atk_sim.scene import Layout

if TYPE_CHECKING:
    from atk_sim.experts import ExpertGoal

FloatArray = NDArray[np.float64]


class Task(Protocol):
    """One task, one file. A task holds no state: everything is in the model, the data and the layout."""

    name: str
    max_duration_s: float
    camera: CameraPlacement
    # Distractors keep this far from the task's objects, so that they never block the way of the hand.
    clearance_m: float

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

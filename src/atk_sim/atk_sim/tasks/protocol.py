"""What a task is: objects, a seeded start, success decided by physics, a camera, and the expert's intention."""

from typing import Protocol

import mujoco
import numpy as np

from atk_sim.camera import CameraPlacement
from atk_sim.experts import Goal
from atk_sim.scene import Layout
from atk_sim.world import World


class Task(Protocol):
    """One manipulation task; one file in `tasks/`, one line in the registry.

    An episode is built from scratch: `sample_layout` draws where things are (disturbance RP), `add_objects` puts them
    into the scene. Physics then runs; `success` and `goal` read nothing but its state, so they hold no memory.
    """

    name: str
    max_duration_s: float
    camera: CameraPlacement

    def sample_layout(self, rng: np.random.Generator) -> Layout:
        """Draw the start of every object. Distractors keep clear of all of them."""

    def add_objects(self, spec: mujoco.MjSpec, layout: Layout) -> None:
        """Put the objects of `layout` into the scene; the table's surface is z = 0."""

    def success(self, world: World) -> bool:
        """Whether the task is accomplished in this state."""

    def goal(self, world: World) -> Goal:
        """Where the privileged expert wants the hand next, as a function of the present state alone."""

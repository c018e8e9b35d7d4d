"""Tasks by name: the one place where a name becomes a task."""

from __future__ import annotations

from atk_sim.tasks.protocol import Task
from atk_sim.tasks.shoe_lacing import ShoeLacing
from atk_sim.tasks.sushi import SushiPickAndPlace
from atk_sim.tasks.towel_folding import TowelFolding
from atk_sim.tasks.towel_hanging import TowelHanging

TASKS: dict[str, Task] = {
    task.name: task for task in (SushiPickAndPlace(), ShoeLacing(), TowelFolding(), TowelHanging())
}


def make_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task '{name}'; known: {', '.join(sorted(TASKS))}")
    return TASKS[name]

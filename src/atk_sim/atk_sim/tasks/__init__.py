"""Tasks by name: the one place where a name becomes a task."""

from __future__ import annotations

from atk_sim.tasks.clock_button import ClockButton
from atk_sim.tasks.clock_hand import ClockHand
from atk_sim.tasks.grape_oven import GrapeOven
from atk_sim.tasks.pan_filling import PanFilling
from atk_sim.tasks.pot import PotLid
from atk_sim.tasks.protocol import Task
from atk_sim.tasks.shoe_lacing import ShoeLacing
from atk_sim.tasks.sushi import SushiPickAndPlace
from atk_sim.tasks.towel_folding import TowelFolding
from atk_sim.tasks.towel_hanging import TowelHanging

_ALL: tuple[Task, ...] = (
    SushiPickAndPlace(),
    PotLid(),
    ClockButton(),
    ClockHand(),
    GrapeOven(),
    TowelHanging(),
    TowelFolding(),
    PanFilling(),
    ShoeLacing(),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def make_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task '{name}'; known: {', '.join(sorted(TASKS))}")
    return TASKS[name]

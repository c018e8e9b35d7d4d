"""Tasks by name. A new task is a new file and a line here."""

from atk_sim.tasks.protocol import Task
from atk_sim.tasks.sushi import Sushi

TASKS: dict[str, Task] = {task.name: task for task in (Sushi(),)}


def find_task(name: str) -> Task:
    """The task called `name`; ValueError names the ones there are."""
    if name not in TASKS:
        raise ValueError(f"there is no task '{name}'; the tasks are: {', '.join(TASKS)}")
    return TASKS[name]


__all__ = ["TASKS", "Task", "find_task"]

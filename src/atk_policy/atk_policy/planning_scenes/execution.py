"""An execution that somebody else carries out and that can be stopped, in a way that no stop is lost. No MoveIt here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from atk_policy.planning_scenes.protocol import GoHomeError

Result = TypeVar("Result")

# Between two looks at whether to stop: a fifth of a control period.
LOOK_S = 0.01


def carry_out(execute: Callable[[], Result], stop: Callable[[], object], check: Callable[[], None]) -> Result:
    """What `execute`, which blocks, returns.

    `stop` ends it once `check` raises, and is called until it has: in the moment before an execution has begun there is
    nothing to stop yet.

    Raises:
        GoHomeError: what `check` raised; nothing is being carried out any more.
    """
    check()
    stopped: GoHomeError | None = None
    with ThreadPoolExecutor(1, "execution") as pool:
        execution = pool.submit(execute)
        while not wait([execution], timeout=LOOK_S).done:
            try:
                check()
            except GoHomeError as error:
                stopped = error
                stop()
    if stopped is not None:
        raise stopped
    return execution.result()

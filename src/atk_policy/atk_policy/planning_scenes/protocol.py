"""Who knows the arm's surroundings: what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class PlanningSceneError(RuntimeError):
    """A planning scene cannot be had; the message says what to install or to set."""


class GoHomeError(RuntimeError):
    """The arm was not brought home; the message says how far it came and what to do."""


@dataclass(frozen=True)
class SceneOptions:
    """What a planning scene is told beside the robot description.

    Attributes:
        namespace: of the node, for what a scene starts in the ROS graph.
        use_sim_time: whether /clock is followed.
        moveit_config: package with a MoveIt configuration; '' where MoveIt's parameters come with the process.
        home_state: named state of MoveIt's group to go home to; '' for the robot description's home.
        speed_share: of the limits that going home may use, in (0, 1].
    """

    namespace: str = ""
    use_sim_time: bool = False
    moveit_config: str = ""
    home_state: str = ""
    speed_share: float = 0.2


class PlanningScene(Protocol):
    """The arm among what is around it. One thread at a time."""

    def scene_fault(self, q_batch: FloatArray) -> tuple[str, int]:
        """First row of (N, J) joint positions [rad] that must not be, and why; ('', -1) where there is none."""
        ...

    def fault_detail(self, q: FloatArray) -> str:
        """For people: what is wrong at joint positions (J,) [rad]."""
        ...

    def go_home(
        self, q_now: FloatArray, follow: Callable[[FloatArray], None], check: Callable[[], None]
    ) -> None:
        """Bring the arm from (J + 1,) `q_now` [rad, m] home, clear of everything; returns when it is there.

        Args:
            follow: brings the arm straight to (J,) [rad] through the robot's command sink, for scenes that have no way of
                their own.
            check: raises GoHomeError when the arm is to stop; to be called before anything moves that `follow` does not,
                and while it does.

        Raises:
            GoHomeError: there is no way, the arm was stopped, or it did not arrive. Nothing moves any more.
        """
        ...

    def inverse(self, T_base_tip: FloatArray, q_start: FloatArray) -> FloatArray:
        """(J,) joint positions [rad] that bring the tip to (4, 4) `T_base_tip`, near `q_start` (J,).

        Raises:
            InverseKinematicsError: none was found.
        """
        ...

    def close(self) -> None:
        """Release what was started."""
        ...

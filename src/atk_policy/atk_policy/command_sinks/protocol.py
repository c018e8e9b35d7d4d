"""Where commands go: what passed the safety layer in, a message or a goal out. Sending it is `command_output`'s affair.

Arm and gripper are two sinks, chosen apart from each other: any arm sink goes with any gripper sink.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from atk_policy.command_plan import CommandPlan

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Topic:
    """A topic, named as in the robot description, and its message class."""

    name: str
    kind: type[Any]


@dataclass(frozen=True)
class Action:
    """An action server, its action class, and how to read a goal that ended without success.

    Attributes:
        failure: (result, whether a newer goal was sent) to what went wrong, '' for nothing: a goal
            that a newer one replaced is aborted too.
    """

    name: str
    kind: type[Any]
    failure: Callable[[Any, bool], str]


@dataclass(frozen=True)
class Preparation:
    """A service that must have answered `request` with `success` before commands are listened to."""

    service: str
    kind: type[Any]
    request: Any


@dataclass(frozen=True)
class Moment:
    """When a plan is sent.

    Attributes:
        stamp_ns: on the ROS clock.
        measured: (J,) joint positions [rad] by the newest joint state; None while there is none.
    """

    stamp_ns: int
    measured: FloatArray | None = None


class ArmSink(Protocol):
    """Speaks to one kind of arm controller. Pure: no ROS graph, the same plan gives the same command."""

    @property
    def target(self) -> Topic | Action:
        """Where its commands go."""
        ...

    @property
    def preparation(self) -> Preparation | None:
        """What the controller needs first, if anything."""
        ...

    def command(self, plan: CommandPlan, moment: Moment) -> Any:
        """Message or goal for the arm's part of a plan that passed the safety layer."""
        ...


class GripperSink(Protocol):
    """Speaks to one kind of gripper controller. Pure."""

    @property
    def target(self) -> Topic | Action:
        """Where its commands go."""
        ...

    def command(self, opening_m: float) -> Any:
        """Message or goal for an opening [m]."""
        ...

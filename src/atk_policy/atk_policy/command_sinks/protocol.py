"""Where commands go: safe actions in, messages out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from atk_policy.command_plan import CommandPlan


@dataclass(frozen=True)
class Channel:
    """A topic that a sink publishes on, relative as in the robot description, and its message class."""

    topic: str
    message_type: type[Any]


class CommandSink(Protocol):
    """Turns a plan into messages; publishing them is the node's affair."""

    @property
    def channels(self) -> Sequence[Channel]:
        """The topics it needs, in the order in which `messages` fills them."""
        ...

    def messages(self, plan: CommandPlan) -> list[Any]:
        """One message per channel for a plan that passed the safety layer."""
        ...

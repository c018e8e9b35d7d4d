"""Where commands go: safe actions in, messages out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


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

    def messages(self, plan: Sequence[FloatArray]) -> list[Any]:
        """One message per channel.

        Args:
            plan: (J + 1,) actions [rad, m] that passed the safety layer, the first for now and one
                control period between them; one action alone is a hold.
        """
        ...

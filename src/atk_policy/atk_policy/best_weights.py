"""The best weights of a training by held-out error, and when to stop looking for better ones."""

from __future__ import annotations

import math

from torch import Tensor

_PREFIX = "best."


class BestWeights:
    """Remembers the weights with the smallest error that it was shown.

    Args:
        patience: records without an improvement after which `exhausted` is true; 0 for never.
    """

    def __init__(self, patience: int = 0) -> None:
        self._patience = patience
        self._weights: dict[str, Tensor] = {}
        self._error = math.inf
        self._since = 0
        self.step: int | None = None

    def consider(self, step: int, error: float, weights: dict[str, Tensor]) -> None:
        """Show the weights of a record; an error that is not a number, as of nothing held out, never counts."""
        if math.isnan(error):
            return
        if error < self._error:
            self._weights = {name: value.detach().clone() for name, value in weights.items()}
            self._error, self._since, self.step = error, 0, step
        else:
            self._since += 1

    @property
    def exhausted(self) -> bool:
        """Nothing better came for `patience` records."""
        return 0 < self._patience <= self._since

    def or_else(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The best weights, or `weights` when nothing was held out."""
        return self._weights or weights

    # -- checkpoint ------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of this, beside `facts`."""
        return {f"{_PREFIX}{name}": value for name, value in self._weights.items()}

    def facts(self) -> dict[str, float | int | None]:
        """See `tensors`; an infinite error is no JSON."""
        return {
            "step": self.step,
            "error": self._error if self.step is not None else None,
            "since": self._since,
        }

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, float | int | None]) -> None:
        """From a checkpoint's tensors (of which those of `tensors` are taken) and `facts`."""
        self._weights = {
            name.removeprefix(_PREFIX): v for name, v in tensors.items() if name.startswith(_PREFIX)
        }
        step, error, since = facts["step"], facts["error"], facts["since"]
        self.step = None if step is None else int(step)
        self._error = math.inf if error is None else float(error)
        self._since = int(since or 0)

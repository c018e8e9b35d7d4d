"""What a point costs while the gates learn: the trade-off between few points and a small error.

    min over theta, phi   E [ -log pi_theta(a given m * K) ]  +  price * E |m|_0

The published price is a number that somebody has to find, `alpha`. The other two forms find it:

* `path`: the price rises steadily from next to nothing to more than any point is worth, with gates and
  policy going on from where they are (a path of warm-started penalties). The points leave in the order of
  what they are worth, and *when* a point left is the answer; where to stop is measured afterwards.
* `constraint`: the fewest points at which the loss stays within a tolerance of the loss with all points, by
  a multiplier that learns (an augmented Lagrangian in the form of GECO, Rezende and Viola 2018).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Positive = Annotated[float, Field(gt=0.0)]


class PenaltyConfig(BaseModel):
    """Form and price. Prices are in units of -log pi, here the mean absolute error of the normalised action."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: Literal["fixed", "path", "constraint"] = "path"
    alpha: Annotated[float, Field(ge=0.0)] = 0.002  # fixed: the price (published: 0.001 to 0.005)
    # path: from, to. A point is worth at most the error of knowing nothing, about 1; most are worth nothing.
    path: tuple[Positive, Positive] = (1e-3, 0.1)
    tolerance: Positive = 0.1  # constraint: of the loss with all points
    pace: Positive = 0.05  # constraint: largest change of the log of the price in one step


class Penalty:
    """The price of a point, one per member; `state` (S,) is all that a checkpoint needs of it."""

    def __init__(self, config: PenaltyConfig, members: int) -> None:
        self._config = config
        self.state = torch.full((members,), config.alpha if config.form == "fixed" else config.path[0]).log()

    @property
    def compares(self) -> bool:
        """Whether `observe` wants to hear the loss with all points."""
        return self._config.form == "constraint"

    def price(self, progress: float) -> Tensor:
        """(S,) at the share `progress` of the gates' learning."""
        if self._config.form == "path":
            low, high = self._config.path
            return torch.full_like(self.state, low * (high / low) ** progress)
        return self.state.exp()

    def observe(self, loss: Tensor, full: Tensor) -> None:
        """`loss` with the gates' masks and `full` with all points, (S,): below the tolerance points get dearer."""
        allowed = (1.0 + self._config.tolerance) * full
        low, high = (float(torch.tensor(price).log()) for price in self._config.path)
        step = self._config.pace * ((allowed - loss) / allowed).clamp(-1.0, 1.0)
        self.state = (self.state + step).clamp(low, high)

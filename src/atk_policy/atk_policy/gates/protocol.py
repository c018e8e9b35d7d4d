"""What gates are: learnable chances that each keypoint is kept, from which a policy's mask is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn


class Gates(nn.Module, ABC):
    """One gate per member and candidate; a class fills in the two methods below.

    `phi` is what is learned. It begins high, so that the policy first learns what every candidate says;
    the penalty then takes away what it can do without. It is kept within [LOW, HIGH]: above, the penalty
    has no gradient, and a point taken for sure early on would stay, however superfluous others make it;
    below, a point would never be tried again.

    Args:
        members: S, policies trained side by side, each with gates of its own.
        candidates: C.
    """

    INITIAL: ClassVar[float]
    LOW: ClassVar[float]
    HIGH: ClassVar[float]

    phi: nn.Parameter

    def __init__(self, members: int, candidates: int) -> None:
        super().__init__()
        self.phi = nn.Parameter(torch.full((members, candidates), self.INITIAL))

    @abstractmethod
    def sample(self, batch: int, generators: Sequence[torch.Generator]) -> Tensor:
        """(S, batch, C) masks in [0, 1], differentiable in phi; 0 is a point taken away. One generator for each member."""

    @abstractmethod
    def probability(self) -> Tensor:
        """(S, C) P(m_i > 0), differentiable in phi."""

    def penalty(self) -> Tensor:
        """(S,) E |m|_0, the expected number of kept points.

        The expectation is used in place of a draw of it: the same objective with less variance.
        """
        return self.probability().sum(dim=1)

    @torch.no_grad()
    def retention(self) -> Tensor:
        """(S, C) `probability`, as a figure."""
        return self.probability().detach().clone()

    @torch.no_grad()
    def hard(self) -> Tensor:
        """(S, C) 1 for what is rather kept than not, 0 for the rest: the mask that is measured."""
        return (self.probability() > 0.5).float()

    @torch.no_grad()
    def limit(self) -> None:
        """Keep phi within its bounds. Call after each step."""
        self.phi.clamp_(self.LOW, self.HIGH)


def uniform(shape: tuple[int, ...], generators: Sequence[torch.Generator]) -> Tensor:
    """(S, *shape) draws of each of S generators from the open interval (0, 1), of which a logit can be taken."""
    draws = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
    return draws.clamp(torch.finfo(torch.float32).tiny, 1.0 - 1e-7)

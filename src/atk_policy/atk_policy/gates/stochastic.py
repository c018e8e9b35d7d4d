"""Stochastic gates, STG (Yamada et al. 2020, "Feature selection using stochastic gates").

    m = clamp(phi + sigma * epsilon, 0, 1),  epsilon ~ N(0, 1);     P(m > 0) = Phi(phi / sigma)

A clamped Gaussian has lighter tails than a concrete draw, hence less variance in its gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from atk_policy.gates.protocol import Gates

SIGMA = 0.5  # the paper's


class StochasticGates(Gates):
    """`phi` is the mean of the Gaussian."""

    INITIAL = 0.7
    # Three sigma below 0 a point is drawn once in 700 times.
    LOW, HIGH = -1.5, 1.5

    def sample(self, batch: int, generators: Sequence[torch.Generator]) -> Tensor:
        """See `Gates`."""
        shape = (batch, self.phi.shape[1])
        noise = torch.stack([torch.randn(shape, generator=g) for g in generators]).to(self.phi.device)
        return (self.phi[:, None] + SIGMA * noise).clamp(0.0, 1.0)

    def probability(self) -> Tensor:
        """See `Gates`."""
        opened: Tensor = torch.special.ndtr(self.phi / SIGMA)
        return opened

"""Hard concrete gates (Louizos, Welling, Kingma 2018, "Learning sparse neural networks through L0 regularization").

    s = sigmoid((logit(u) + phi) / beta),    m = clamp(s (zeta - gamma) + gamma, 0, 1)

A binary concrete draw, stretched beyond [0, 1] and clamped: exactly 0 and exactly 1 have mass, and the
gradient is that of the draw itself, where the straight-through one is of another function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from atk_policy.gates.protocol import Gates, uniform

BETA, GAMMA, ZETA = 2.0 / 3.0, -0.1, 1.1  # the paper's


class HardConcreteGates(Gates):
    """`phi` is the paper's log alpha."""

    INITIAL = 2.2
    LOW, HIGH = -6.0, 3.0

    def sample(self, batch: int, generators: Sequence[torch.Generator]) -> Tensor:
        """See `Gates`."""
        logistic = torch.logit(uniform((batch, self.phi.shape[1]), generators)).to(self.phi.device)
        soft = torch.sigmoid((logistic + self.phi[:, None]) / BETA)
        return (soft * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)

    def probability(self) -> Tensor:
        """See `Gates`; the paper's equation 12."""
        return torch.sigmoid(self.phi - BETA * math.log(-GAMMA / ZETA))

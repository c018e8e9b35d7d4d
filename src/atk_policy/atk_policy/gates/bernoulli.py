"""The published gate: a Bernoulli mask by straight-through Gumbel-softmax (method.md, training step 3).

    m_i ~ Bernoulli(sigmoid(phi_i)),     min  -E log pi_theta(a given m * K)  +  alpha * |m|_1

The draw is relaxed by the binary form of Gumbel-softmax (Jang et al. 2017; "binary concrete", Maddison
et al. 2017) and made hard straight through: 0 or 1 forward, the gradient of the relaxation backward.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from atk_policy.gates.protocol import Gates, uniform

TEMPERATURE = 0.5


def straight_through_bernoulli(logits: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """Draw hard 0/1 masks whose gradient is that of the binary concrete relaxation.

    Args:
        logits: phi, (..., C); sigmoid(phi_i) is the probability of a 1.
        temperature: tau > 0 of the relaxation; it shapes the gradient, never the forward draw.
        uniform: (..., C) independent draws from the open interval (0, 1).

    Returns:
        (..., C) of exactly 0 or 1.

    Raises:
        ValueError: a temperature that is not positive.
    """
    if not temperature > 0.0:
        raise ValueError(f"temperature is {temperature}; the relaxation needs a positive one")
    logistic = torch.logit(uniform)  # the difference of two Gumbel draws
    soft = torch.sigmoid((logits + logistic) / temperature)
    hard = (soft > 0.5).to(soft.dtype)
    # `soft - soft.detach()` is zero in value: the forward pass stays exactly 0 or 1.
    return hard + (soft - soft.detach())


class BernoulliGates(Gates):
    """`phi` is the logit of the probability that a point is kept."""

    INITIAL = 2.2  # sigmoid 0.9
    # At -6 a point is drawn once in 400 times: even hundreds of dropped candidates do not disturb the policy.
    LOW, HIGH = -6.0, 3.0

    def sample(self, batch: int, generators: Sequence[torch.Generator]) -> Tensor:
        """See `Gates`; exactly 0 or 1."""
        draws = uniform((batch, self.phi.shape[1]), generators).to(self.phi.device)
        return straight_through_bernoulli(self.phi[:, None], TEMPERATURE, draws)

    def probability(self) -> Tensor:
        """See `Gates`."""
        return torch.sigmoid(self.phi)

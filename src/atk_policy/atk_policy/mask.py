"""The Bernoulli mask that chooses keypoints (method.md, training step 3).

    m_i ~ Bernoulli(sigmoid(phi_i)),     min  -E log pi_theta(a given m * K)  +  alpha * |m|_1

`phi` is a learnable vector over the candidates. The draw is relaxed by the binary form of
Gumbel-softmax (Jang et al. 2017; "binary concrete", Maddison et al. 2017) and made hard straight
through: 0 or 1 forward, the gradient of the relaxation backward.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def straight_through_bernoulli(logits: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """Draw hard 0/1 masks whose gradient is that of the binary concrete relaxation.

    Args:
        logits: (C,) phi; sigmoid(phi_i) is the probability of a 1.
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


# Above this a draw is hardly ever 0 and the penalty has no gradient: a point taken for sure early on
# would stay, however superfluous others make it. Below -6 a point is drawn once in 400 times, so that
# even hundreds of dropped candidates do not disturb the policy.
PHI_MIN, PHI_MAX = -6.0, 3.0


class KeypointMask(nn.Module):
    """Learnable mask over C candidates.

    Args:
        candidates: C.
        initial_probability: sigmoid(phi) at the start. High, so that the policy first learns what
            every candidate says; the penalty then takes away what it can do without.
        temperature: tau of the relaxation.
    """

    phi: nn.Parameter

    def __init__(self, candidates: int, initial_probability: float = 0.9, temperature: float = 0.5) -> None:
        super().__init__()
        initial = torch.logit(torch.tensor(initial_probability)).item()
        self.phi = nn.Parameter(torch.full((candidates,), initial))
        self.temperature = temperature

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(*shape, C) hard masks, differentiable in phi."""
        tiny = torch.finfo(torch.float32).tiny
        uniform = torch.rand((*shape, self.phi.shape[0]), generator=generator).clamp(tiny, 1.0 - 1e-7)
        return straight_through_bernoulli(self.phi, self.temperature, uniform)

    def penalty(self) -> Tensor:
        """E |m|_1 = sum_i sigmoid(phi_i), the expected number of kept points.

        The expectation is used in place of a draw of it: the same objective with less variance.
        """
        return torch.sigmoid(self.phi).sum()

    @torch.no_grad()
    def limit(self) -> None:
        """Keep every phi within [PHI_MIN, PHI_MAX]. Call after each step."""
        self.phi.clamp_(PHI_MIN, PHI_MAX)

    @torch.no_grad()
    def retention(self) -> Tensor:
        """(C,) probability that each candidate is kept."""
        return torch.sigmoid(self.phi)

    @torch.no_grad()
    def hard(self) -> Tensor:
        """(C,) bool, the mode of the mask: the keypoint set."""
        return self.phi > 0.0

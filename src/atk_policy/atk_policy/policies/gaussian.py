"""Gaussian MLP: a mean and a standard deviation of every value of the chunk."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from atk_policy.policies.encoders import DEFAULT_ENCODER, make_encoder
from atk_policy.policies.mlp import ResidualBlock
from atk_policy.policies.protocol import Noise, Policy, PolicyInput

# Of the normalised action. Below a fiftieth of an action's spread, demonstrations are noise, and a likelihood that goes on
# rewarding precision there would spend itself on the pauses of the expert; above e times the spread nothing is left to say.
LOG_STD_MIN, LOG_STD_MAX = -4.0, 1.0


class GaussianPolicy(Policy):
    """Independent normal distributions around the predicted chunk.

        -log pi = (a - mu)^2 / (2 sigma^2) + log sigma + log(2 pi) / 2,    normalised, mean over the chunk

    A true density, in nats per value: it may be negative. It says where the demonstrations agree and where they do not;
    commanded is the mean, which between two ways of doing it is neither (`flow` and `diffusion` choose one).
    """

    def __init__(
        self,
        keypoints: int,
        joints: int,
        horizon: int,
        history: int,
        *,
        encoder: str = DEFAULT_ENCODER,
        width: int = 128,
        blocks: int = 2,
    ) -> None:
        super().__init__(keypoints, joints, horizon, history)
        self.sizes, self.encoder_name = {"width": width, "blocks": blocks}, encoder
        self.embed = make_encoder(encoder, keypoints, joints, history, width)
        self.trunk = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * horizon * (joints + 1)))

    def forward(self, seen: PolicyInput) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the normalised encoded chunk, (B, H, J + 1) each."""
        features = self.embed(self.normalised(seen))
        both = self.head(self.trunk(functional.silu(features)))
        mean, raw = both.unflatten(-1, (2, self.horizon, self.joints + 1)).unbind(-3)
        # A smooth bound: a clamp has no gradient beyond it and would keep what strayed there.
        log_std = LOG_STD_MIN + (LOG_STD_MAX - LOG_STD_MIN) * torch.sigmoid(raw)
        return mean, log_std

    def negative_log_likelihood(
        self, seen: PolicyInput, action: Tensor, noise: Noise | None = None
    ) -> Tensor:
        """See `Policy`; the density itself, no constant left out."""
        mean, log_std = self.forward(seen)
        squared = ((self.target(seen, action) - mean) * torch.exp(-log_std)).square()
        return (0.5 * squared + log_std + 0.5 * math.log(2.0 * math.pi)).mean(dim=-1)

    def act(self, seen: PolicyInput) -> Tensor:
        """See `Policy`; the mean."""
        return self.chunk(seen, self.forward(seen)[0])

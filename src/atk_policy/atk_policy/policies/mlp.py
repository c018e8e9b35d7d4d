"""Residual MLP over encoded keypoints and robot state, with an action-chunk head."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from atk_policy.policies.encoders import DEFAULT_ENCODER, make_encoder
from atk_policy.policies.protocol import Noise, Policy, PolicyInput


class ResidualBlock(nn.Module):
    """x + W2 silu(W1 layer_norm(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.outer(functional.silu(self.inner(self.norm(x))))
        return result


class MlpPolicy(Policy):
    """Deterministic chunk with Laplace likelihood of unit scale: -log pi = |a - mu| + log 2, normalised.

    The absolute error, not the squared one: experts pause and switch, and a mean over two modes is
    an action that nobody took (the reason of ACT, Zhao et al. 2023).
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
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, horizon * (joints + 1)))

    def forward(self, seen: PolicyInput) -> Tensor:
        """Normalised encoded chunk, (B, H, J + 1)."""
        features = self.embed(self.normalised(seen))
        chunk: Tensor = self.head(self.trunk(functional.silu(features)))
        return chunk.reshape(*chunk.shape[:-1], self.horizon, self.joints + 1)

    def negative_log_likelihood(
        self, seen: PolicyInput, action: Tensor, noise: Noise | None = None
    ) -> Tensor:
        """See `Policy`; the constant log 2 is left out."""
        return (self.forward(seen) - self.target(seen, action)).abs().mean(dim=-1)

    def act(self, seen: PolicyInput) -> Tensor:
        """See `Policy`."""
        return self.chunk(seen, self.forward(seen))

"""Residual MLP over concatenated keypoints and robot state, with an action-chunk head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from atk_policy.policies.protocol import Policy, PolicyInput, decode_action, encode_action

# A wild estimate of an unseen point must not swamp the others: beyond this many scales it says nothing.
UV_LIMIT = 5.0


class _ResidualBlock(nn.Module):
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

    Each keypoint enters as (u, v, flag), the flag being +1 seen, -1 occluded, 0 masked out. A
    masked-out point is zeroed in u and v too (method.md); an occluded one keeps its last estimate.
    """

    def __init__(
        self, keypoints: int, joints: int, horizon: int, history: int, *, width: int = 128, blocks: int = 2
    ) -> None:
        super().__init__(keypoints, joints, horizon, history)
        self.sizes = {"width": width, "blocks": blocks}
        size = joints + 1
        self.embed = nn.Linear(history * (3 * keypoints + size), width)
        self.trunk = nn.Sequential(*(_ResidualBlock(width) for _ in range(blocks)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, horizon * size))

    def forward(self, seen: PolicyInput) -> Tensor:
        """Normalised encoded chunk, (B, H, J + 1)."""
        uv = ((seen.uv_px - self.uv_mean_px) / self.uv_scale_px).clamp(-UV_LIMIT, UV_LIMIT)
        points = torch.cat([uv, 2.0 * seen.visible[..., None] - 1.0], dim=-1)
        if seen.mask is not None:
            points = points * seen.mask[..., None, :, None]
        robot = (seen.robot - self.robot_mean) / self.robot_scale
        features = torch.cat([points.flatten(-3), robot.flatten(-2)], dim=-1)
        chunk: Tensor = self.head(self.trunk(functional.silu(self.embed(features))))
        return chunk.reshape(*chunk.shape[:-1], self.horizon, self.joints + 1)

    def negative_log_likelihood(self, seen: PolicyInput, action: Tensor) -> Tensor:
        """See `Policy`; the constant log 2 is left out."""
        target = (encode_action(action, seen.robot[..., -1, :]) - self.action_mean) / self.action_scale
        return (self.forward(seen) - target).abs().mean(dim=(-2, -1))

    def act(self, seen: PolicyInput) -> Tensor:
        """See `Policy`."""
        encoded = self.forward(seen) * self.action_scale + self.action_mean
        return decode_action(encoded, seen.robot[..., -1, :])

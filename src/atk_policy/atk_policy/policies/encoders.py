"""Keypoints and robot state to one feature vector: the part that all policy classes share.

An encoder takes a `NormalisedInput` and gives (B, width). A point whose mask is 0 says nothing, exactly; the gradient
with respect to its mask tells what letting it in would change, which is how the mask learns.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from atk_policy.policies.protocol import NormalisedInput

DEFAULT_ENCODER = "concat"

# Of the attention encoder. A token holds a pixel, a flag and which point it is: it needs no more than this, and with
# 256 candidates its cost is what the choosing stage takes.
TOKEN_WIDTH = 64
HEADS = 4
READS = 2
# Whatever is asked, no weight vanishes in float32: a sum over the points that are left is never zero.
LOGIT_LIMIT = 30.0


class ConcatEncoder(nn.Module):
    """One affine map of everything side by side.

    Each keypoint enters as (u, v, flag), the flag being +1 seen, -1 occluded, 0 masked out. A masked-out point is zeroed
    in u and v too (method.md); an occluded one keeps its last estimate.
    """

    def __init__(self, keypoints: int, joints: int, history: int, width: int) -> None:
        super().__init__()
        linear = nn.Linear(history * (3 * keypoints + joints + 1), width)
        # Not as a submodule: weights keep the names that they have in the run folders of before there were encoders.
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, seen: NormalisedInput) -> Tensor:
        """(B, width)."""
        points = seen.points if seen.mask is None else seen.points * seen.mask[..., None, :, None]
        features = torch.cat([points.flatten(-3), seen.robot.flatten(-2)], dim=-1)
        return functional.linear(features, self.weight, self.bias)


class AttentionEncoder(nn.Module):
    """The robot's state asks the points, as often as `READS`.

    A token per point from its (u, v, flag) over the history and a learned embedding of which point it is; the order of the
    points means nothing. The query is the robot token, so the cost is linear in N, and 256 candidates can be chosen from;
    points do not ask one another. The robot token can also attend to itself: there is an answer without any point.

    The mask takes points out of the attention (`attend`), not out of their tokens: were a token multiplied by its mask as well,
    the gradient at 0 would only know of an empty token, and a dropped point could not come back.
    """

    def __init__(self, keypoints: int, joints: int, history: int, width: int) -> None:
        super().__init__()
        self.point = nn.Linear(history * 3, TOKEN_WIDTH)
        self.identity = nn.Parameter(0.5 * torch.randn(keypoints, TOKEN_WIDTH))
        self.refine = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        self.robot = nn.Linear(history * (joints + 1), TOKEN_WIDTH)
        self.reads = nn.ModuleList(_Read() for _ in range(READS))
        self.out = nn.Linear(TOKEN_WIDTH, width)

    def forward(self, seen: NormalisedInput) -> Tensor:
        """(B, width)."""
        points = self.point(seen.points.transpose(-3, -2).flatten(-2)) + self.identity
        tokens = points + self.refine(functional.silu(points))
        robot = self.robot(seen.robot.flatten(-2))
        tokens = torch.cat([robot[..., None, :], tokens], dim=-2)
        mask = None
        if seen.mask is not None:
            mask = torch.cat([torch.ones_like(seen.mask[..., :1]), seen.mask], dim=-1)
        for read in self.reads:
            robot = read(robot, tokens, mask)
        result: Tensor = self.out(robot)
        return result


def attend(logits: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Masked softmax attention, differentiable in the mask: sum_i m_i exp(l_i) v_i / Z with Z = sum_j m_j exp(l_j).

    The derivative with respect to an absent point's mask is exp(l_i) / Z (v_i - mean). Where it would take the place of all
    others that is far more than it could change, and one such step of Adam ends a mask's learning. Scaled by Z / (Z + exp(l_i))
    it is exactly what letting the point in changes.

    Args:
        logits: (B, T, h); value: (B, T, h, d); mask: (B, T) of 0 and 1 or None, not all 0.

    Returns:
        (B, h, d).
    """
    weight = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT).exp()
    if mask is not None:
        present = mask[..., None]
        absent = (weight * (1.0 - present)).detach()
        total = (weight * present).sum(-2, keepdim=True).detach()
        scale = total / (total + absent)
        weight = weight * (present.detach() + scale * (present - present.detach()))
    weight = weight / weight.sum(-2, keepdim=True)
    return (weight[..., None] * value).sum(-3)


class _Read(nn.Module):
    """One token looks at all others: multi-head attention, then a residual MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.query_norm, self.token_norm = nn.LayerNorm(TOKEN_WIDTH), nn.LayerNorm(TOKEN_WIDTH)
        self.query = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        self.key_value = nn.Linear(TOKEN_WIDTH, 2 * TOKEN_WIDTH)
        self.out = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        self.mlp = nn.Sequential(
            nn.LayerNorm(TOKEN_WIDTH),
            nn.Linear(TOKEN_WIDTH, 2 * TOKEN_WIDTH),
            nn.SiLU(),
            nn.Linear(2 * TOKEN_WIDTH, TOKEN_WIDTH),
        )

    def forward(self, robot: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, D) query, (B, T, D) tokens, (B, T) mask or None -> (B, D)."""
        query = self.query(self.query_norm(robot)).unflatten(-1, (HEADS, -1))  # (B, h, d)
        key, value = self.key_value(self.token_norm(tokens)).unflatten(-1, (2, HEADS, -1)).unbind(-3)
        logits = (key * query[..., None, :, :]).sum(-1) / math.sqrt(query.shape[-1])  # (B, T, h)
        robot = robot + self.out(attend(logits, value, mask).flatten(-2))
        result: Tensor = robot + self.mlp(robot)
        return result


class EncoderClass(Protocol):
    """What an encoder is made with; N keypoints, J joints, K frames of history."""

    def __call__(self, keypoints: int, joints: int, history: int, width: int) -> nn.Module: ...


ENCODERS: dict[str, EncoderClass] = {"concat": ConcatEncoder, "attention": AttentionEncoder}


def make_encoder(name: str, keypoints: int, joints: int, history: int, width: int) -> nn.Module:
    """An encoder with fresh weights.

    Raises:
        ValueError: no such encoder.
    """
    if name not in ENCODERS:
        raise ValueError(f"unknown encoder '{name}'; known: {', '.join(sorted(ENCODERS))}")
    return ENCODERS[name](keypoints, joints, history, width)

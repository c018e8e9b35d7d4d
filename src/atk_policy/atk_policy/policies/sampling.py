"""What diffusion and flow matching share: a chunk is made out of noise, in a few steps of one conditional network.

    act:  chunk = sample(start noise | what is seen)

The start noise is one draw, made when the policy is and kept in its buffers, so it is part of policy.safetensors: the same
frames give the same commands, in a replay as on the robot and in an exported graph. It is the same in every control period,
and that is no economy: where demonstrations do it in two ways, the noise decides which, so with a new draw every 50 ms
consecutive chunks would go both ways and their temporal ensemble (action_queue.py) between them. With one draw the map from
what is seen to the chunk is a smooth function that stays with its choice. It does not follow that zero would do: in the middle
between two ways lies neither.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from atk_policy.policies.encoders import make_encoder
from atk_policy.policies.mlp import ResidualBlock
from atk_policy.policies.protocol import Noise, Policy, PolicyInput

TIME_FREQUENCIES = 16


class SamplingPolicy(Policy):
    """A class fills in `loss_at` and `sample`.

    Args:
        width, blocks: of the conditional network.
        encoder: see encoders.py.
    """

    samples: ClassVar[bool] = True
    start_noise: Tensor

    def __init__(
        self,
        keypoints: int,
        joints: int,
        horizon: int,
        history: int,
        *,
        encoder: str,
        width: int,
        blocks: int,
    ) -> None:
        super().__init__(keypoints, joints, horizon, history)
        self.encoder_name = encoder
        size = horizon * (joints + 1)
        self.embed = make_encoder(encoder, keypoints, joints, history, width)
        self.time = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.noisy = nn.Linear(size, width)
        self.trunk = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, size))
        self.register_buffer("start_noise", torch.randn(horizon, joints + 1))

    def condition(self, seen: PolicyInput) -> Tensor:
        """(B, width) of what is seen: the same for all steps of a sample, so it is made once."""
        features: Tensor = self.embed(self.normalised(seen))
        return functional.silu(features)

    def network(self, condition: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """(B, width), (B, H, J + 1) and (B,) in [0, 1] -> (B, H, J + 1)."""
        # Periods from the whole of [0, 1] down to a 30th of it.
        frequency = torch.exp(torch.linspace(0.0, math.log(30.0), TIME_FREQUENCIES))
        angle = 2.0 * math.pi * time[..., None] * frequency
        condition = condition + self.time(torch.cat([angle.sin(), angle.cos()], dim=-1))
        hidden = self.noisy(noisy.flatten(-2))
        for block in self.trunk:
            hidden = block(hidden + condition)
        result: Tensor = self.head(hidden + condition)
        return result.reshape(*result.shape[:-1], self.horizon, self.joints + 1)

    def negative_log_likelihood(
        self, seen: PolicyInput, action: Tensor, noise: Noise | None = None
    ) -> Tensor:
        """See `Policy`; a bound on -log pi up to scale and a constant, one noise per sample."""
        if noise is None:
            raise ValueError(
                f"{type(self).__name__} needs the noise at which its loss is looked at; see protocol.Noise"
            )
        return self.loss_at(self.condition(seen), self.target(seen, action), noise)

    def act(self, seen: PolicyInput) -> Tensor:
        """See `Policy`; the sample that begins at `start_noise`."""
        condition = self.condition(seen)
        return self.chunk(
            seen, self.sample(condition, self.start_noise.expand(*condition.shape[:-1], -1, -1))
        )

    @abstractmethod
    def loss_at(self, condition: Tensor, target: Tensor, noise: Noise) -> Tensor:
        """(B, H) squared error of the network at one noise per sample; `target` is the normalised chunk."""

    @abstractmethod
    def sample(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Standard normal noise (B, H, J + 1) to a normalised chunk, by as many steps as the class has."""

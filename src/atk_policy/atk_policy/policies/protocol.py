"""What a policy is: keypoints and robot state in, a chunk of absolute joint commands out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

# A wild estimate of an unseen point must not swamp the others: beyond this many scales it says nothing.
UV_LIMIT = 5.0


class PolicyInput(NamedTuple):
    """What the policy sees; B samples, K frames of history (oldest first, the last is now), N keypoints.

    Attributes:
        uv_px: (B, K, N, 2) pixels of the keypoint set's image; the last estimate where a point is
            not visible.
        visible: (B, K, N) 1 where the point is seen, 0 where it is occluded or lost.
        robot: (B, K, J + 1) measured joint positions [rad], then the gripper opening [m].
        mask: (B, N) 1 for a kept keypoint, 0 for one that the mask took away; None keeps all.
    """

    uv_px: Tensor
    visible: Tensor
    robot: Tensor
    mask: Tensor | None = None


class Statistics(NamedTuple):
    """What a policy normalises with; computed on the training demonstrations, kept in its buffers.

    Attributes:
        uv_mean_px: (N, 2); uv_scale_px: (N, 2).
        robot_mean: (J + 1,); robot_scale: (J + 1,) [rad, m].
        action_mean: (H, J + 1); action_scale: (H, J + 1) of the encoded action chunk, see `encode_action`.
    """

    uv_mean_px: Tensor
    uv_scale_px: Tensor
    robot_mean: Tensor
    robot_scale: Tensor
    action_mean: Tensor
    action_scale: Tensor


class NormalisedInput(NamedTuple):
    """A `PolicyInput` in the units that networks like: what an encoder takes (encoders.py).

    Attributes:
        points: (B, K, N, 3) u and v in scales from the mean, clamped to +-UV_LIMIT, and the flag: +1 seen, -1 not.
        robot: (B, K, J + 1) in scales from the mean.
        mask: (B, N) as in `PolicyInput`, or None.
    """

    points: Tensor
    robot: Tensor
    mask: Tensor | None


class Noise(NamedTuple):
    """The random numbers at which the loss of a sampling policy is looked at.

    They are handed in, never drawn inside: so training draws them from the one generator that its checkpoint holds, and the
    loss stays a plain function, which is what `torch.func.vmap` over several policies needs.

    Attributes:
        chunk: (B, H, J + 1) standard normal.
        time: (B,) uniform in [0, 1).
    """

    chunk: Tensor
    time: Tensor


class Policy(nn.Module, ABC):
    """A policy class fills in the three methods below; normalisation and its buffers are shared.

    Everything that a trained policy is, normalisation included, is in its state_dict, and what it takes to build
    it again in `sizes` and `encoder_name`: the arguments of its class beyond those below.

    Args:
        keypoints: N.
        joints: J.
        horizon: H, control periods per action chunk.
        history: K, frames that the policy sees.
    """

    # Whether the loss needs `Noise`, and `act` begins at a noise that the policy holds (see sampling.py).
    samples: ClassVar[bool] = False

    sizes: dict[str, int]
    encoder_name: str
    uv_mean_px: Tensor
    uv_scale_px: Tensor
    robot_mean: Tensor
    robot_scale: Tensor
    action_mean: Tensor
    action_scale: Tensor

    def __init__(self, keypoints: int, joints: int, horizon: int, history: int) -> None:
        super().__init__()
        self.keypoints, self.joints, self.horizon, self.history = keypoints, joints, horizon, history
        size = joints + 1
        neutral = Statistics(
            torch.zeros(keypoints, 2),
            torch.ones(keypoints, 2),
            torch.zeros(size),
            torch.ones(size),
            torch.zeros(horizon, size),
            torch.ones(horizon, size),
        )
        for name, value in neutral._asdict().items():
            self.register_buffer(name, value)

    def set_statistics(self, statistics: Statistics) -> None:
        """Store the normalisation in the buffers."""
        for name, value in statistics._asdict().items():
            getattr(self, name).copy_(value)

    def normalised(self, seen: PolicyInput) -> NormalisedInput:
        """What the encoder takes."""
        uv = ((seen.uv_px - self.uv_mean_px) / self.uv_scale_px).clamp(-UV_LIMIT, UV_LIMIT)
        points = torch.cat([uv, 2.0 * seen.visible[..., None] - 1.0], dim=-1)
        return NormalisedInput(points, (seen.robot - self.robot_mean) / self.robot_scale, seen.mask)

    def target(self, seen: PolicyInput, action: Tensor) -> Tensor:
        """(B, H, J + 1) absolute chunk -> normalised encoded chunk: what the network predicts."""
        return (encode_action(action, seen.robot[..., -1, :]) - self.action_mean) / self.action_scale

    def chunk(self, seen: PolicyInput, predicted: Tensor) -> Tensor:
        """Inverse of `target`."""
        return decode_action(predicted * self.action_scale + self.action_mean, seen.robot[..., -1, :])

    @abstractmethod
    def negative_log_likelihood(
        self, seen: PolicyInput, action: Tensor, noise: Noise | None = None
    ) -> Tensor:
        """-log pi(action given seen) per sample and control period of the chunk, (B, H), as the mean over its J + 1 values.

        `action` is (B, H, J + 1), absolute. A class that samples needs `noise` and answers what stands for -log pi at it.
        """

    @abstractmethod
    def act(self, seen: PolicyInput) -> Tensor:
        """(B, H, J + 1) absolute joint positions [rad] and gripper opening [m], one per control period.

        The same input gives the same chunk, whatever the class: a replay must give a run's commands again.
        """


def encode_action(action: Tensor, robot_now: Tensor) -> Tensor:
    """Absolute chunk -> what is predicted: joint offsets from the measured joints; absolute gripper.

    Joints as offsets, because what is to be done next is near where the arm is, whatever the pose.
    The gripper as it is, because a closed command on an object is no offset from what is measured.

    Args:
        action: (..., H, J + 1); robot_now: (..., J + 1).
    """
    return torch.cat([action[..., :-1] - robot_now[..., None, :-1], action[..., -1:]], dim=-1)


def decode_action(encoded: Tensor, robot_now: Tensor) -> Tensor:
    """Inverse of `encode_action`."""
    return torch.cat([encoded[..., :-1] + robot_now[..., None, :-1], encoded[..., -1:]], dim=-1)

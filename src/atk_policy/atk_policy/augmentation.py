"""Failures of real trackers, cameras and arms, imitated: in training, and where a set of points is measured.

A set that only works with perfect tracks is no keypoint set. What a tracker does wrong depends on time
(templates age, a hidden point keeps an old estimate), so this works on frames of demonstrations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from atk_policy.policies.protocol import PolicyInput

if TYPE_CHECKING:
    from atk_policy.distillation import TrainingData

Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class AugmentationConfig(BaseModel):
    """Strengths; zero switches a failure off. "A neighbourhood" is a random candidate with all around it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pixel_noise_px: NotNegative = 1.0  # independent per point
    drift_px: NotNegative = 1.0  # the same at the end of an episode, growing from nothing at its start
    cluster_offset_px: NotNegative = 3.0  # a neighbourhood shifts as one, as after an inexact transfer
    cluster_radius_px: Positive = 40.0  # what counts as a neighbourhood on the template
    transfer_failure: Probability = 0.02  # a neighbourhood was matched to the wrong place...
    transfer_failure_px: NotNegative = 25.0  # ...so far away
    slip: Probability = 0.02  # a single point holds on to a neighbouring patch...
    slip_px: NotNegative = 10.0  # ...so far away, and says that it sees it
    dropout: Probability = 0.1  # a single point is unseen
    cluster_dropout: Probability = 0.1  # a neighbourhood is unseen, as behind the hand
    unseen_frames: Annotated[int, Field(ge=0)] = 5  # for up to so long; its estimate is as old
    unseen_noise_px: NotNegative = 4.0  # and off by this
    dropped_frames: Probability = 0.05  # the camera or the tracker was late: an observation of...
    dropped_frames_max: Annotated[int, Field(ge=1)] = 2  # ...up to so many frames ago
    viewpoint: NotNegative = (
        0.003  # random affine map of all points: 0.003 moves one 300 px off the centre by 1 px
    )
    viewpoint_px: NotNegative = 1.0  # and its shift
    joint_noise_rad: NotNegative = 0.01  # the target stays absolute, so the policy learns to come back
    gripper_noise_m: NotNegative = 0.001


class Augmentation:
    """Observes frames of demonstrations as a failing tracker would; see `AugmentationConfig`.

    Args:
        config: strengths.
        template_uv_px: (N, 2) the keypoints on the template; says who is whose neighbour.
    """

    def __init__(self, config: AugmentationConfig, template_uv_px: npt.NDArray[np.float32]) -> None:
        self._config = config
        uv = torch.from_numpy(np.asarray(template_uv_px, np.float32))
        self._near = (torch.cdist(uv, uv) <= config.cluster_radius_px).float()
        self._centre_px = uv.mean(0)

    def observe(
        self, data: TrainingData, index: Tensor, history: int, stride: int, generator: torch.Generator
    ) -> PolicyInput:
        """What the policy sees at the frames `index` (...,), as `TrainingData.seen` but with failures."""
        config, first = self._config, data.first[index]
        points = data.uv_px.shape[1]

        def normal(*shape: int) -> Tensor:
            return torch.randn((*index.shape, *shape), generator=generator)

        def chance(probability: float, *shape: int) -> Tensor:
            return (torch.rand((*index.shape, *shape), generator=generator) < probability).float()

        def neighbourhood(probability: float) -> Tensor:
            centre = torch.randint(points, index.shape, generator=generator)
            return self._near[centre] * chance(probability, 1)

        def ago(longest: int) -> Tensor:
            return 1 + torch.randint(max(1, longest), index.shape, generator=generator)

        # Frames that the camera or the tracker lost: keypoints of a while ago with the robot of now.
        late = chance(config.dropped_frames).long() * ago(config.dropped_frames_max)
        observed = torch.maximum(index - late, first)
        seen = data.seen(observed, history, stride)
        robot = data.seen_robot(index, history, stride)

        # Points that are not seen hold on to their last estimate.
        unseen = torch.maximum(chance(config.dropout, points), neighbourhood(config.cluster_dropout))
        old = torch.maximum(observed - ago(config.unseen_frames), first) if config.unseen_frames else observed
        old_uv_px = data.seen_uv_px(old, history, stride)
        uv_px = torch.where(unseen[..., None, :, None] > 0, old_uv_px, seen.uv_px)
        visible = seen.visible * (1.0 - unseen[..., None, :])

        # Points that are seen in the wrong place.
        elapsed = (index - first) / (data.last[index] - first).clamp_min(1)
        scale_px = (
            config.pixel_noise_px
            + config.drift_px * elapsed[..., None]
            + config.unseen_noise_px * unseen
            + config.slip_px * chance(config.slip, points)
        )
        offset_px = scale_px[..., None] * normal(points, 2)
        offset_px += config.cluster_offset_px * neighbourhood(1.0)[..., None] * normal(1, 2)
        offset_px += (
            config.transfer_failure_px * neighbourhood(config.transfer_failure)[..., None] * normal(1, 2)
        )

        # A camera that is not quite where it was.
        uv_px = uv_px + offset_px[..., None, :, :]
        affine = config.viewpoint * normal(1, 2, 2)
        uv_px = uv_px + (uv_px - self._centre_px) @ affine + config.viewpoint_px * normal(1, 1, 2)

        size = robot.shape[-1]
        robot_scale = torch.full((size,), config.joint_noise_rad)
        robot_scale[-1] = config.gripper_noise_m
        return PolicyInput(uv_px, visible, robot + robot_scale * normal(1, size))

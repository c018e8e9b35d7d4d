"""An encoder and the policy class of ATK, trained end to end as ATK's policy is on its keypoints (atk_policy.distillation).

Steps, optimiser, learning rate and its schedule, running mean of the weights, frames that are held out, noise on the robot's state:
those of the same settings. What differs is in `vision.DIFFERENCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atk_policy.checkpoint import load_checkpoint, save_checkpoint
from atk_policy.distillation import TrainingData, chunk_weights, memory, pace
from atk_policy.policies import make_policy
from atk_policy.policies.protocol import Noise, Policy, PolicyInput
from atk_policy.selection import SelectionConfig
from atk_sim.methods.modalities import FEATURES, Modality

POINTS = FEATURES // 2  # that the features stand for: a pair each, where the policy expects pixels
SAVE_EVERY = 100  # steps


class VisionPolicy(nn.Module):
    """An encoder, its features in the place of keypoints, the policy class of ATK.

    Raises:
        ValueError: the policy sees a history of frames, of which an encoder would have to look at every one.
    """

    def __init__(self, encoder: nn.Module, joints: int, settings: SelectionConfig) -> None:
        super().__init__()
        config = settings.policy
        if config.history != 1:
            raise ValueError(
                f"policy.history is {config.history}; methods that see the whole picture see one frame: give 1"
            )
        self.encoder = encoder
        self.policy: Policy = make_policy(
            config.name,
            keypoints=POINTS,
            joints=joints,
            horizon=config.horizon,
            history=1,
            encoder=config.encoder,
            **config.sizes,
        )

    def seen(self, views: Tensor, robot: Tensor) -> PolicyInput:
        """(B, ...) views and (B, J + 1) robot states as the policy takes them."""
        features = self.encoder(views).reshape(len(views), 1, POINTS, 2)
        return PolicyInput(features, torch.ones(features.shape[:-1]), robot[:, None])


@dataclass(frozen=True)
class Frames:
    """Demonstrations as a modality sees them, M frames.

    Attributes:
        views: (M, ...). data: the rest, without keypoints.
    """

    views: NDArray[Any]
    data: TrainingData

    @classmethod
    def of(
        cls,
        views: NDArray[Any],
        robot: NDArray[Any],
        action: NDArray[Any],
        lengths: NDArray[Any],
        chosen: Sequence[int],
    ) -> Frames:
        """Of some demonstrations.

        Args:
            views: (M, ...) of all; robot, action: (M, J + 1) of all; lengths: (D,) of all demonstrations.
            chosen: numbers, ascending.
        """
        take = np.isin(np.repeat(np.arange(len(lengths)), lengths), chosen)
        views, robot, action, lengths = views[take], robot[take], action[take], lengths[list(chosen)]
        start = np.cumsum(lengths) - lengths
        data = TrainingData(
            torch.zeros(len(robot), POINTS, 2),
            torch.ones(len(robot), POINTS),
            torch.from_numpy(robot.astype(np.float32)),
            torch.from_numpy(action.astype(np.float32)),
            torch.from_numpy(np.repeat(start, lengths)),
            torch.from_numpy(np.repeat(start + lengths - 1, lengths)),
        )
        return cls(views, data)


def train_vision(
    modality: Modality,
    frames: Frames,
    joints: int,
    settings: SelectionConfig,
    seed: int,
    checkpoint: Path,
    report: Callable[[str], None] = lambda line: None,
) -> VisionPolicy:
    """Train on these frames; returns the policy with the running mean of the weights.

    Args:
        checkpoint: file to continue from when it exists and to write now and then; a run that is continued ends with the
            weights of an unbroken one.
    """
    run = _Run(modality, frames, joints, settings, seed)
    if checkpoint.is_file():
        run.restore(checkpoint)
    steps = settings.refit.steps
    while run.step < steps:
        loss = run.advance()
        if run.step % SAVE_EVERY == 0 or run.step == steps:
            run.save(checkpoint)
            report(f"step {run.step} of {steps}, loss {loss:.3f}")
    return run.mean()


class _Run:
    """State of a training run: everything that a checkpoint holds."""

    def __init__(
        self,
        modality: Modality,
        frames: Frames,
        joints: int,
        settings: SelectionConfig,
        seed: int,
    ) -> None:
        self._modality, self._frames, self._stage = modality, frames, settings.refit
        self._generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = VisionPolicy(modality.encoder(), joints, settings)
            # Some layers learn their size from what they see.
            self._model.encoder(modality.prepare(frames.views[:2]))
        # Features come normalised out of the encoder.
        neutral = {"uv_mean_px": torch.zeros(POINTS, 2), "uv_scale_px": torch.ones(POINTS, 2)}
        statistics = frames.data.statistics(settings.policy.horizon)
        self._model.policy.set_statistics(statistics._replace(**neutral))
        self._model.train()
        self._mean = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
        stage = self._stage
        self._optimiser = torch.optim.AdamW(
            self._model.parameters(), stage.learning_rate, betas=(0.9, 0.99), weight_decay=stage.weight_decay
        )
        self._chunk_weights = chunk_weights(settings.policy.horizon, stage.chunk_decay)
        self._batch = min(stage.batch, modality.batch_max or stage.batch)
        augmentation = settings.augmentation
        self._noise = torch.full((joints + 1,), augmentation.joint_noise_rad)
        self._noise[-1] = augmentation.gripper_noise_m
        self.step = 0

    def advance(self) -> float:
        """One step; returns the mean -log pi."""
        stage, generator, policy = self._stage, self._generator, self._model.policy
        index = torch.randint(len(self._frames.data), (self._batch,), generator=generator)
        robot = self._frames.data.robot[index]
        robot = robot + self._noise * torch.randn(robot.shape, generator=generator)
        views = self._modality.prepare(self._frames.views[index.numpy()])
        action = self._frames.data.chunks(index, policy.horizon)
        noise = None
        if policy.samples:
            chunk = torch.randn(action.shape, generator=generator)
            noise = Noise(chunk, torch.rand(self._batch, generator=generator))
        seen = self._model.seen(self._modality.augment(views, generator), robot)
        likelihood = policy.negative_log_likelihood(seen, action, noise)
        loss = (likelihood @ self._chunk_weights).mean()
        for group in self._optimiser.param_groups:
            group["lr"] = stage.learning_rate * pace(stage, self.step)
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._optimiser.step()
        self.step += 1
        with torch.no_grad():
            for name, value in self._model.state_dict().items():
                if value.is_floating_point():
                    self._mean[name].lerp_(value, 1.0 - memory(stage, self.step))
                else:
                    self._mean[name].copy_(value)
        return float(loss.detach())

    def mean(self) -> VisionPolicy:
        """The policy with the running mean of the weights."""
        self._model.load_state_dict(self._mean)
        return self._model.eval()

    def save(self, path: Path) -> None:
        """Write everything that the rest of the run depends on."""
        tensors = {f"model.{name}": value for name, value in self._model.state_dict().items()}
        tensors |= {f"mean.{name}": value for name, value in self._mean.items()}
        tensors["generator"] = self._generator.get_state()
        for number, state in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{key}": value for key, value in state.items()}
        save_checkpoint(path, tensors, {"step": self.step})

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of the same run."""
        tensors, facts = load_checkpoint(path)
        kinds: dict[str, dict[str, Tensor]] = {"model": {}, "mean": {}, "optimiser": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind in kinds:
                kinds[kind][rest] = value
        self._model.load_state_dict(kinds["model"])
        self._mean = kinds["mean"]
        self._generator.set_state(tensors["generator"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in kinds["optimiser"].items():
            number, _, key = name.partition(".")
            state.setdefault(int(number), {})[key] = value
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": state})
        self.step = int(facts["step"])

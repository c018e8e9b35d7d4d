"""Gates: draws, gradients that point the right way, the expected number of points; and what a point costs."""

from __future__ import annotations

import pytest
import torch

from atk_policy.gates import GATES, make_gates
from atk_policy.gates.bernoulli import straight_through_bernoulli
from atk_policy.penalty import Penalty, PenaltyConfig


def uniform(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)


def test_the_published_draw_is_exactly_zero_or_one():
    draws = straight_through_bernoulli(torch.linspace(-4, 4, 50), 0.5, uniform(200, 50))
    assert set(draws.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_the_published_draw_is_bernoulli_of_sigmoid_phi_whatever_the_temperature(temperature):
    phi = torch.tensor([-2.0, 0.0, 1.5])
    draws = straight_through_bernoulli(phi, temperature, uniform(20_000, 3))
    assert torch.allclose(draws.mean(0), torch.sigmoid(phi), atol=0.015)


def test_the_published_gradient_is_that_of_the_relaxation():
    phi = torch.tensor([-1.0, 0.3, 2.0], requires_grad=True)
    noise, temperature = uniform(3), 0.7
    weight = torch.tensor([1.0, -2.0, 0.5])
    (straight_through_bernoulli(phi, temperature, noise) * weight).sum().backward()
    soft = torch.sigmoid((phi.detach() + torch.logit(noise)) / temperature)
    assert torch.allclose(phi.grad, weight * soft * (1 - soft) / temperature)


def generators(members: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(member) for member in range(members)]


@pytest.mark.parametrize("name", GATES)
def test_masks_are_within_zero_and_one_and_open_as_often_as_said(name):
    gates = make_gates(name, 2, 3)
    with torch.no_grad():
        gates.phi.copy_(torch.tensor([[-1.0, 0.0, 1.0], [0.5, 0.2, -0.4]]))
    masks = gates.sample(20_000, generators(2)).detach()
    assert masks.shape == (2, 20_000, 3)
    assert masks.min() >= 0.0
    assert masks.max() <= 1.0
    assert torch.allclose((masks > 0).float().mean(1), gates.probability().detach(), atol=0.015)
    assert torch.allclose(gates.penalty(), gates.probability().sum(1))


@pytest.mark.parametrize("name", GATES)
def test_gates_begin_open(name):
    assert float(make_gates(name, 1, 5).probability().detach().min()) > 0.75


@pytest.mark.parametrize("name", GATES)
def test_each_member_keeps_what_is_useful_to_it_and_drops_the_rest(name):
    gates = make_gates(name, 2, 2)
    drawing = generators(2)
    optimiser = torch.optim.Adam(gates.parameters(), lr=0.05)
    for _ in range(400):
        m = gates.sample(64, drawing)
        loss = (1.0 - m[0, :, 0]).mean() + (1.0 - m[1, :, 1]).mean() + 0.05 * gates.penalty().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        gates.limit()
    assert gates.hard().tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert float(gates.phi.detach().min()) >= gates.LOW
    assert float(gates.phi.detach().max()) <= gates.HIGH


def test_unknown_gates_are_named():
    with pytest.raises(ValueError, match=r"'soft'.*hard_concrete"):
        make_gates("soft", 1, 1)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        straight_through_bernoulli(torch.zeros(2), temperature, uniform(2))


def test_the_path_goes_from_cheap_to_dear_and_a_fixed_price_stays():
    path = Penalty(PenaltyConfig(form="path", path=(0.001, 0.1)), 2)
    assert [round(float(path.price(p)[0]), 5) for p in (0.0, 0.5, 1.0)] == [0.001, 0.01, 0.1]
    fixed = Penalty(PenaltyConfig(form="fixed", alpha=0.003), 2)
    assert fixed.price(0.0).tolist() == fixed.price(1.0).tolist() == pytest.approx([0.003, 0.003])


def test_the_constraint_raises_the_price_while_the_loss_is_within_the_tolerance():
    penalty = Penalty(PenaltyConfig(form="constraint", tolerance=0.1, path=(0.001, 0.1)), 2)
    before = penalty.price(0.0).clone()
    full = torch.tensor([1.0, 1.0])
    for _ in range(20):
        penalty.observe(torch.tensor([1.0, 1.5]), full)
    after = penalty.price(1.0)
    assert after[0] > before[0]
    assert after[1] == before[1] == pytest.approx(0.001)  # never below the cheapest

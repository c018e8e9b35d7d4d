"""What every policy class promises, with every encoder; and how each behaves where demonstrations do it in two ways."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from atk_policy.gates.bernoulli import BernoulliGates
from atk_policy.policies import POLICIES, make_policy
from atk_policy.policies.encoders import ENCODERS, AttentionEncoder, attend
from atk_policy.policies.protocol import Noise, NormalisedInput, PolicyInput, Statistics

N, J, H, K, B = 5, 3, 4, 2, 6
EVERY = [pytest.param(*pair, id="-".join(pair)) for pair in product(POLICIES, ENCODERS)]
SMALL = {"width": 32, "blocks": 1}


def make(name: str, encoder: str = "concat", seed: int = 0, **sizes: int):
    torch.manual_seed(seed)
    policy = make_policy(
        name, keypoints=N, joints=J, horizon=H, history=K, encoder=encoder, **(SMALL | sizes)
    )
    policy.set_statistics(
        Statistics(
            torch.full((N, 2), 200.0),
            torch.full((N, 2), 100.0),
            torch.zeros(J + 1),
            torch.ones(J + 1),
            torch.zeros(H, J + 1),
            torch.full((H, J + 1), 0.1),
        )
    )
    return policy.eval()


def make_input(samples: int = B, seed: int = 0) -> PolicyInput:
    generator = torch.Generator().manual_seed(seed)
    return PolicyInput(
        torch.rand(samples, K, N, 2, generator=generator) * 400,
        torch.ones(samples, K, N),
        torch.randn(samples, K, J + 1, generator=generator),
    )


def make_noise(policy, samples: int, generator: torch.Generator) -> Noise | None:
    if not policy.samples:
        return None
    return Noise(
        torch.randn(samples, H, J + 1, generator=generator), torch.rand(samples, generator=generator)
    )


def train(policy, seen: PolicyInput, action: torch.Tensor, steps: int, rate: float = 3e-3) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(policy.parameters(), lr=rate)
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1.0 - step / steps)
        noise = make_noise(policy, len(action), generator)
        loss = policy.negative_log_likelihood(seen, action, noise).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("name", "encoder"), EVERY)
def test_a_chunk_is_absolute_has_the_stated_shape_and_is_the_same_twice(name, encoder):
    policy, seen = make(name, encoder), make_input()
    chunk = policy.act(seen).detach()
    assert chunk.shape == (B, H, J + 1)
    assert torch.equal(policy.act(seen), chunk), "a replay must give the same commands"
    # Normalised to 0.1 rad: joints near where the robot is, the gripper near its own mean.
    assert float((chunk[..., :-1] - seen.robot[:, -1:, :-1]).abs().max()) < 1.0
    assert float(chunk[..., -1].abs().max()) < 1.0
    assert torch.allclose(policy.chunk(seen, policy.target(seen, chunk)), chunk, atol=1e-5)


@pytest.mark.parametrize(("name", "encoder"), EVERY)
def test_a_likelihood_is_one_figure_per_sample_and_period_and_members_run_as_one(name, encoder):
    members = [make(name, encoder, seed) for seed in range(2)]
    seen, action = make_input(), 0.1 * torch.randn(B, H, J + 1, generator=torch.Generator().manual_seed(1))
    noise = make_noise(members[0], B, torch.Generator().manual_seed(2))
    alone = torch.stack([m.negative_log_likelihood(seen, action, noise) for m in members])
    assert alone.shape == (2, B, H)

    class Loss(torch.nn.Module):
        def __init__(self, policy):
            super().__init__()
            self.policy = policy

        def forward(self, *arrays):
            drawn = Noise(*arrays) if arrays else None
            return self.policy.negative_log_likelihood(seen, action, drawn)

    state = {f"policy.{k}": v for part in stack_module_state(members) for k, v in part.items()}
    together = vmap(
        lambda s, *n: functional_call(Loss(members[0]), s, n), in_dims=(0, *[None] * len(noise or ()))
    )(state, *(noise or ()))
    assert torch.allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize("name", ["diffusion", "flow"])
def test_a_policy_that_samples_says_that_it_needs_noise(name):
    with pytest.raises(ValueError, match="needs the noise"):
        make(name).negative_log_likelihood(make_input(), torch.zeros(B, H, J + 1))


@pytest.mark.parametrize(("name", "encoder"), EVERY)
def test_a_handful_of_samples_is_learnt_by_heart(name, encoder):
    policy, seen = make(name, encoder), make_input(8)
    target = torch.randn(8, 1, J + 1, generator=torch.Generator().manual_seed(3)).expand(-1, H, -1)
    action = policy.chunk(seen, target)
    losses = train(policy, seen, action, 400)
    assert sum(losses[-20:]) / 20 < sum(losses[:20]) / 20 - 0.2
    error = (policy.target(seen, policy.act(seen)) - target).abs().mean()
    assert float(error.detach()) < 0.25, "of actions of unit spread"


# -- masks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "encoder"), EVERY)
def test_a_masked_point_says_nothing_and_an_occluded_one_keeps_its_estimate(name, encoder):
    policy, seen = make(name, encoder), make_input()
    moved = seen._replace(uv_px=seen.uv_px + torch.tensor([0.0, 0.0, 50.0, 0.0, 0.0])[:, None])
    mask = torch.ones(B, N)
    mask[:, 2] = 0.0
    assert torch.equal(policy.act(seen._replace(mask=mask)), policy.act(moved._replace(mask=mask)))
    hidden = torch.ones(B, K, N)
    hidden[..., 2] = 0.0
    occluded = policy.act(seen._replace(visible=hidden))
    assert not torch.equal(occluded, policy.act(seen))
    assert not torch.equal(occluded, policy.act(moved._replace(visible=hidden)))
    assert policy.act(seen._replace(mask=torch.zeros(B, N))).isfinite().all(), "without any point too"


def make_normalised(samples: int) -> NormalisedInput:
    generator = torch.Generator().manual_seed(0)
    return NormalisedInput(
        torch.randn(samples, K, N, 3, generator=generator),
        torch.randn(samples, K, J + 1, generator=generator),
        None,
    )


@pytest.mark.parametrize("strength", [1.0, 20.0])
def test_the_gradient_of_an_absent_points_mask_is_what_letting_it_in_changes(strength):
    """Also where the point would take the place of all others: no gradient larger than any change."""
    generator = torch.Generator().manual_seed(0)
    logits = strength * torch.randn(1, N, 1, generator=generator, dtype=torch.float64)
    value = torch.randn(1, N, 1, 1, generator=generator, dtype=torch.float64)
    for absent in range(N):
        mask = torch.ones(1, N, dtype=torch.float64)
        mask[0, absent] = 0.0
        mask.requires_grad_()
        out = attend(logits, value, mask)
        out.sum().backward()
        with torch.no_grad():
            change = attend(logits, value, torch.ones_like(mask)) - out
        assert float(mask.grad[0, absent]) == pytest.approx(float(change), abs=1e-9)
        assert float(mask.grad.abs().max()) <= float(value.max() - value.min())


def test_the_gradient_of_a_present_points_mask_is_the_derivative():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, N, 2, generator=generator, dtype=torch.float64)
    value = torch.randn(1, N, 2, 3, generator=generator, dtype=torch.float64)
    mask = torch.ones(1, N, dtype=torch.float64, requires_grad=True)
    attend(logits, value, mask).sum().backward()
    for point in range(N):
        step = torch.zeros(1, N, dtype=torch.float64)
        step[0, point] = 1e-6
        with torch.no_grad():
            difference = (
                attend(logits, value, mask + step) - attend(logits, value, mask - step)
            ).sum() / 2e-6
        assert float(mask.grad[0, point]) == pytest.approx(float(difference), abs=1e-5)


@pytest.mark.parametrize(("name", "encoder"), EVERY)
def test_the_gradient_reaches_the_mask_of_present_and_absent_points(name, encoder):
    policy, seen = make(name, encoder), make_input()
    drawn = torch.ones(B, N)
    drawn[:, [1, 3]] = 0.0
    drawn.requires_grad_()
    noise = make_noise(policy, B, torch.Generator().manual_seed(0))
    action = policy.chunk(seen, torch.ones(B, H, J + 1))
    policy.negative_log_likelihood(seen._replace(mask=drawn), action, noise).sum().backward()
    assert float(drawn.grad.abs().min()) > 0.0


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_mask_finds_the_one_point_that_matters(encoder):
    """Bernoulli draws, straight through, with point 2 the only one that says where to go."""
    torch.manual_seed(0)
    policy, gates = make("mlp", encoder), BernoulliGates(1, N)
    gates.phi.data.zero_()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(
        [{"params": policy.parameters(), "lr": 5e-3}, {"params": [gates.phi], "lr": 0.05}]
    )
    for step in range(400):
        uv = torch.rand(64, 1, N, 2, generator=generator).expand(-1, K, -1, -1) * 400
        robot = torch.zeros(64, K, J + 1)
        drawn = gates.sample(64, [generator])[0]
        # As in distillation: first the policy learns what a point says, then the penalty may take it away.
        learns = step >= 150
        seen = PolicyInput(uv, torch.ones(64, K, N), robot, drawn if learns else drawn.detach())
        wanted = ((uv[:, 0, 2, 0] - 200) / 1000)[:, None, None].expand(-1, H, J + 1)
        loss = policy.negative_log_likelihood(seen, wanted).mean() + 0.02 * learns * gates.penalty().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        gates.limit()
    assert gates.hard()[0].tolist() == [0, 0, 1, 0, 0]


def test_attention_does_not_depend_on_the_order_of_the_points():
    torch.manual_seed(0)
    network, seen = AttentionEncoder(N, J, K, 8), make_normalised(B)
    order = torch.tensor([3, 0, 4, 2, 1])
    before = network(seen)
    with torch.no_grad():
        network.identity.copy_(network.identity[order])
    after = network(seen._replace(points=seen.points[:, :, order]))
    assert torch.allclose(before, after, atol=1e-6)
    assert not torch.allclose(before, network(seen), atol=1e-2), "which point is where does matter"


# -- two ways of doing it ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_ways():
    """One and the same input; 70% of the demonstrations go to +1, the others to -1 (normalised, the whole chunk)."""
    one = make_input(1)
    seen = PolicyInput(*(v.expand(200, *v.shape[1:]) for v in one if v is not None))
    sign = torch.where(torch.arange(200) < 140, 1.0, -1.0)[:, None, None]
    return one, seen, sign.expand(-1, H, J + 1)


def learnt(name, two_ways, steps, **sizes):
    one, seen, target = two_ways
    policy = make(name, **sizes)
    train(policy, seen, policy.chunk(seen, target), steps)
    return policy, policy.target(one, policy.act(one))


def test_the_mlp_takes_the_median(two_ways):
    _, acted = learnt("mlp", two_ways, 200)
    assert torch.allclose(acted, torch.ones_like(acted), atol=0.1)


def test_the_gaussian_takes_the_mean_and_knows_the_spread(two_ways):
    policy, acted = learnt("gaussian", two_ways, 400)
    one, seen, target = two_ways
    assert torch.allclose(acted, torch.full_like(acted, 0.4), atol=0.1)
    spread = policy(one)[1].exp()
    assert torch.allclose(spread, torch.full_like(spread, 0.917), atol=0.1)
    # The density of a normal distribution of that spread, in nats: log sigma + (1 + log 2 pi) / 2.
    likelihood = policy.negative_log_likelihood(seen, policy.chunk(seen, target)).mean()
    assert float(likelihood.detach()) == pytest.approx(-0.087 + 1.419, abs=0.05)


@pytest.mark.parametrize("name", ["diffusion", "flow"])
def test_samples_go_one_way_or_the_other_as_often_as_demonstrated(name, two_ways):
    policy, acted = learnt(name, two_ways, 500, width=64, blocks=2)
    with torch.no_grad():
        condition = policy.condition(two_ways[0]).expand(500, -1)
        noise = torch.randn(500, H, J + 1, generator=torch.Generator().manual_seed(5))
        drawn = policy.sample(condition, noise).mean(dim=(1, 2))
    assert float(((drawn.abs() - 1.0).abs() < 0.25).float().mean()) > 0.9, "nobody went between"
    assert float((drawn > 0).float().mean()) == pytest.approx(0.7, abs=0.15)
    assert float((acted.abs() - 1.0).abs().mean()) < 0.3, "the one that is commanded is one of them"


@pytest.mark.parametrize("sizes", [{"order": 2}, {"steps": 1}, {"steps": 12}])
def test_the_flow_ends_where_the_demonstrations_do_whatever_the_steps(sizes):
    policy, seen = make("flow", **sizes), make_input(4)
    target = torch.randn(4, H, J + 1, generator=torch.Generator().manual_seed(3))
    train(policy, seen, policy.chunk(seen, target), 300)
    assert float((policy.target(seen, policy.act(seen)) - target).abs().mean().detach()) < 0.25


@pytest.mark.parametrize(
    ("name", "sizes", "match"),
    [("flow", {"order": 3}, "1 is Euler's, 2 Heun's"), ("diffusion", {"steps": 101}, "at most 100")],
)
def test_what_no_sampler_can_do_is_refused(name, sizes, match):
    with pytest.raises(ValueError, match=match):
        make(name, **sizes)

"""Policies: what they see of masked and occluded points, absolute actions, statistics in the checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from atk_policy.policies import make_policy
from atk_policy.policies.protocol import PolicyInput, Statistics, decode_action, encode_action

N, J, H, K, B = 5, 7, 4, 2, 3


def make_input(seed: int = 0) -> PolicyInput:
    generator = torch.Generator().manual_seed(seed)
    return PolicyInput(
        torch.rand(B, K, N, 2, generator=generator) * 400,
        torch.ones(B, K, N),
        torch.randn(B, K, J + 1, generator=generator),
    )


def make_mlp(seed: int = 0):
    torch.manual_seed(seed)
    policy = make_policy("mlp", keypoints=N, joints=J, horizon=H, history=K, width=16, blocks=1)
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


def test_a_chunk_is_absolute_and_has_the_stated_shape():
    seen = make_input()
    chunk = make_mlp().act(seen)
    assert chunk.shape == (B, H, J + 1)
    shifted = decode_action(encode_action(chunk, seen.robot[:, -1]), seen.robot[:, -1])
    assert torch.allclose(chunk, shifted, atol=1e-6)


def test_a_masked_point_says_nothing_and_an_occluded_one_keeps_its_estimate():
    policy, seen = make_mlp(), make_input()
    moved = seen._replace(uv_px=seen.uv_px + torch.tensor([0.0, 0.0, 50.0, 0.0, 0.0])[:, None])
    mask = torch.ones(B, N)
    mask[:, 2] = 0.0
    assert torch.equal(policy.act(seen._replace(mask=mask)), policy.act(moved._replace(mask=mask)))
    hidden = torch.ones(B, K, N)
    hidden[..., 2] = 0.0
    occluded = policy.act(seen._replace(visible=hidden))
    assert not torch.equal(occluded, policy.act(seen)), "that it is occluded must be said"
    assert not torch.equal(occluded, policy.act(moved._replace(visible=hidden))), "its estimate must be kept"


def test_the_gradient_reaches_the_mask_through_the_policy():
    policy, seen = make_mlp(), make_input()
    mask = torch.ones(B, N, requires_grad=True)
    action = torch.zeros(B, H, J + 1)
    policy.negative_log_likelihood(seen._replace(mask=mask), action).mean().backward()
    assert mask.grad is not None
    assert float(mask.grad.abs().min()) > 0


def test_the_statistics_are_part_of_the_checkpoint():
    policy, seen = make_mlp(), make_input()
    other = make_policy("mlp", keypoints=N, joints=J, horizon=H, history=K, width=16, blocks=1)
    other.load_state_dict(policy.state_dict())
    assert torch.equal(other.act(seen), policy.act(seen))


def test_members_of_an_ensemble_run_as_one():
    members = [make_mlp(seed) for seed in range(3)]
    parameters, buffers = stack_module_state(members)
    uv, visible, robot, _ = make_input()
    together = vmap(lambda p, b: functional_call(members[0], {**p, **b}, (PolicyInput(uv, visible, robot),)))(
        parameters, buffers
    )
    for member, chunk in zip(members, together, strict=True):
        assert torch.allclose(member(PolicyInput(uv, visible, robot)), chunk, atol=1e-5)


def test_an_unknown_policy_or_size_is_named():
    with pytest.raises(ValueError, match=r"unknown policy 'cnn'; known: diffusion, flow, gaussian, mlp"):
        make_policy("cnn")
    with pytest.raises(ValueError, match="depth"):
        make_policy("mlp", keypoints=N, joints=J, horizon=H, history=K, depth=3)

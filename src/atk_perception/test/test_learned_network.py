"""The network finds what it was shown, keeps its memory in its state, and counts probabilities right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from atk_perception.learned.network import CELL_PX, PointNetwork, begin, channels_last, describe_points


@pytest.fixture(scope="module")
def network() -> PointNetwork:
    torch.manual_seed(0)
    return channels_last(PointNetwork()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    torch.manual_seed(1)
    coarse = torch.rand(1, 3, 12, 16)
    return 0.5 * torch.rand(1, 3, 96, 128) + 0.5 * torch.nn.functional.interpolate(coarse, scale_factor=8)


# Centres of cells, so that the best cell is the point itself.
POINTS_PX = CELL_PX * torch.tensor([[[5.0, 6.0], [20.0, 11.0], [28.0, 3.0], [9.0, 19.0]]])


def test_a_frame_becomes_unit_descriptors_of_a_quarter_of_its_size(
    network: PointNetwork, image: torch.Tensor
) -> None:
    features = network.encode(image)
    assert features.shape == (1, 64, 24, 32)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(1, 24, 32))


def test_its_weights_fit_in_the_repository_many_times_over(network: PointNetwork) -> None:
    assert 2 * sum(p.numel() for p in network.parameters()) < 4e6, "bytes in half precision"


def test_points_never_seen_are_found_anywhere_by_their_template(
    network: PointNetwork, image: torch.Tensor
) -> None:
    features = network.encode(image)
    estimate = network.estimate(
        features, begin(describe_points(features, POINTS_PX), POINTS_PX), iterations=2
    )
    torch.testing.assert_close(estimate.start_px, POINTS_PX)
    assert len(estimate.uv_px) == len(estimate.visible_logit) == len(estimate.certain_logit) == 2
    assert estimate.uv_px[-1].shape == (1, 4, 2)


def test_two_look_alikes_are_told_apart_by_where_the_point_was(network: PointNetwork) -> None:
    torch.manual_seed(2)
    tile = torch.rand(1, 3, 96, 64)
    features = network.encode(tile.repeat(1, 1, 1, 3))
    template = describe_points(features, POINTS_PX[:, :1])
    for copy_px in (0.0, 64.0, 128.0):
        was = POINTS_PX[:, :1] + torch.tensor([copy_px, 0.0])
        start_px = network.estimate(features, begin(template, POINTS_PX[:, :1], was), iterations=1).start_px
        assert (start_px - was).norm() < 2 * CELL_PX


def test_posterior_and_prior_sum_to_one(network: PointNetwork, image: torch.Tensor) -> None:
    features = network.encode(image)
    middle = torch.tensor([[[64.0, 48.0]]])
    state = begin(describe_points(features, middle), middle, middle)
    estimate = network.estimate(features, state, iterations=1)
    torch.testing.assert_close(estimate.log_posterior.exp().sum(dim=2), torch.ones(1, 1))
    total = network.log_prior(state, (24, 32)).exp().sum(dim=2)
    torch.testing.assert_close(total, torch.ones(1, 1), atol=0.02, rtol=0)


def test_the_prior_widens_while_a_point_is_unseen(network: PointNetwork, image: torch.Tensor) -> None:
    middle = torch.tensor([[[64.0, 48.0]]])
    seen = begin(describe_points(network.encode(image), middle), middle, middle)
    peaks = [
        float(network.log_prior(replace(seen, unseen=torch.full((1, 1), float(n))), (24, 32)).max())
        for n in (0, 3, 12)
    ]
    assert peaks[0] > peaks[1] > peaks[2]


def test_the_template_is_never_changed_and_an_unseen_point_keeps_its_appearance(
    network: PointNetwork, image: torch.Tensor
) -> None:
    features = network.encode(image)
    state = begin(describe_points(features, POINTS_PX), POINTS_PX, POINTS_PX)
    estimate = network.estimate(features, state, iterations=1)
    hidden = replace(estimate, visible_logit=[torch.full((1, 4), -9.0)])
    visible = replace(
        estimate, visible_logit=[torch.full((1, 4), 9.0)], certain_logit=[torch.full((1, 4), 9.0)]
    )
    lost, kept = network.advance(features, state, hidden), network.advance(features, state, visible)
    assert torch.equal(lost.template, state.template)
    assert torch.equal(kept.template, state.template)
    assert torch.equal(lost.latest, state.latest)
    assert lost.unseen.eq(1.0).all()
    assert kept.unseen.eq(0.0).all()
    torch.testing.assert_close(kept.uv_px, estimate.uv_px[-1])


def test_points_that_begin_alone_are_told_by_those_near_them_once_they_may_speak(image: torch.Tensor) -> None:
    torch.manual_seed(3)
    network = PointNetwork().eval().requires_grad_(False)
    features = network.encode(image)
    template = describe_points(features, POINTS_PX)
    torch.nn.init.normal_(network.head.weight, std=0.3)

    def refined(far_px: float) -> torch.Tensor:
        """Where the first point goes when the other three are elsewhere in the frame."""
        away = torch.tensor([[[0.0, 0.0]] + [[far_px, 0.0]] * 3])
        state = begin(template, POINTS_PX + away, POINTS_PX + away)
        return network.estimate(features, state, iterations=2).uv_px[-1][0, 0]

    alone = network.estimate(
        features, begin(template[:, :1], POINTS_PX[:, :1], POINTS_PX[:, :1]), iterations=2
    ).uv_px[-1][0, 0]
    torch.testing.assert_close(refined(0.0), alone)
    torch.nn.init.normal_(network.neighbours.answer.weight, std=0.5)
    alone = network.estimate(
        features, begin(template[:, :1], POINTS_PX[:, :1], POINTS_PX[:, :1]), iterations=2
    ).uv_px[-1][0, 0]
    near, far = ((refined(px) - alone).norm() for px in (0.0, 1e5))
    assert near > 1e-3
    assert far < 1e-3

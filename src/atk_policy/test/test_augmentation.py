"""Imitated failures: each does what it says, and none shows a point that was not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atk_policy.augmentation import Augmentation, AugmentationConfig
from atk_policy.demonstrations import Demonstration
from atk_policy.distillation import TrainingData

TEMPLATE = np.array([[100.0, 100.0], [110.0, 100.0], [400.0, 300.0]], np.float32)
STEPS = 50
# Everything off, so that a test switches on what it looks at.
NOTHING = dict.fromkeys(AugmentationConfig.model_fields, 0) | {
    "cluster_radius_px": 40.0,
    "dropped_frames_max": 1,
}


@pytest.fixture(scope="module")
def data():
    """One demonstration in which all points move 10 px to the right per frame; the third is never visible."""
    uv_px = TEMPLATE + np.arange(STEPS)[:, None, None] * np.array([10.0, 0.0])
    visible = np.ones((STEPS, 3), bool)
    visible[:, 2] = False
    zeros = np.zeros((STEPS, 8))
    ones = np.ones((STEPS, 3), np.float32)
    return TrainingData.of(
        [Demonstration("d", np.arange(STEPS), uv_px.astype(np.float32), visible, ones, zeros, zeros)]
    )


def observe(data, index=None, **changes):
    index = torch.full((2000,), STEPS - 1) if index is None else index
    augment = Augmentation(AugmentationConfig(**{**NOTHING, **changes}), TEMPLATE)
    seen = augment.observe(data, index, 1, 1, torch.Generator().manual_seed(0))
    return seen, seen.uv_px[:, 0] - data.uv_px[index]


def test_without_strength_nothing_changes(data):
    seen, error_px = observe(data)
    assert float(error_px.abs().max()) == 0.0
    assert torch.equal(seen.visible[0, 0], torch.tensor([1.0, 1.0, 0.0]))
    assert float(seen.robot.abs().max()) == 0.0


def test_points_are_hidden_alone_and_with_their_neighbours_and_none_that_was_hidden_is_shown(data):
    seen, _ = observe(data, dropout=0.3, cluster_dropout=0.3)
    hidden = seen.visible[:, 0] == 0
    assert 0.35 < float(hidden[:, 0].float().mean()) < 0.6
    assert hidden[:, 2].all()
    both = (hidden[:, 0] & hidden[:, 1]).float().mean()
    assert float(both) > float(hidden[:, 0].float().mean() * hidden[:, 1].float().mean()) + 0.05


def test_a_hidden_point_keeps_an_old_estimate(data):
    seen, error_px = observe(data, dropout=0.5, unseen_frames=4)
    hidden = seen.visible[:, 0, :2] == 0
    behind = (-error_px[:, :2, 0] / 10.0)[hidden].round()
    assert set(behind.tolist()) == {1.0, 2.0, 3.0, 4.0}
    assert float(error_px[:, :2][~hidden].abs().max()) == 0.0


def test_noise_grows_with_time(data):
    _, early = observe(data, torch.zeros(2000, dtype=torch.long), drift_px=3.0)
    _, late = observe(data, drift_px=3.0)
    assert float(early.abs().max()) == 0.0
    assert float(late.std()) == pytest.approx(3.0, rel=0.1)


def test_a_slip_moves_one_point_and_says_that_it_is_seen(data):
    seen, error_px = observe(data, slip=0.1, slip_px=10.0)
    slipped = error_px.abs().sum(-1) > 0
    assert 0.07 < float(slipped[:, 0].float().mean()) < 0.13
    assert float((slipped[:, 0] & slipped[:, 1]).float().mean()) < 0.03
    assert float(seen.visible[:, 0, :2].min()) == 1.0


def test_a_wrong_match_moves_a_neighbourhood_as_one(data):
    _, error_px = observe(data, transfer_failure=0.5, transfer_failure_px=25.0)
    assert torch.allclose(error_px[:, 0], error_px[:, 1], atol=1e-3)
    moved = error_px[:, 0].abs().sum(-1) > 0
    assert 0.25 < float(moved.float().mean()) < 0.42, (
        "half of the times that the neighbourhood is drawn, 2 of 3"
    )


def test_a_dropped_frame_is_the_last_observation_with_the_robot_of_now(data):
    _, error_px = observe(data, dropped_frames=0.5, dropped_frames_max=2)
    behind = (-error_px[..., 0] / 10.0).round()
    assert (behind == behind[:, :1]).all(), "all points of a frame are equally old"
    assert set(behind[:, 0].tolist()) == {0.0, 1.0, 2.0}
    _, first = observe(data, torch.zeros(2000, dtype=torch.long), dropped_frames=1.0)
    assert float(first.abs().max()) == 0.0, "there is nothing before the first frame"


def test_another_viewpoint_is_an_affine_map_of_all_points(data):
    _, error_px = observe(data, viewpoint=0.01, viewpoint_px=2.0)
    assert 0.5 < float(error_px.std()) < 10.0
    near, far = (error_px[:, 0] - error_px[:, 1]).abs().mean(), (error_px[:, 0] - error_px[:, 2]).abs().mean()
    assert near < 0.1 * far, "neighbours move alike"


def test_the_arm_is_not_quite_where_it_says(data):
    seen, _ = observe(data, joint_noise_rad=0.01, gripper_noise_m=0.001)
    assert float(seen.robot[..., :-1].std()) == pytest.approx(0.01, rel=0.1)
    assert float(seen.robot[..., -1].std()) == pytest.approx(0.001, rel=0.1)

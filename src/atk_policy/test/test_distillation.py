"""Mask and policy trained together find the few points that predict the action; an interrupted run is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_demonstrations import OBJECT, TARGET, make_demonstrations

from atk_policy.distillation import (
    Augmentation,
    AugmentationConfig,
    PolicyConfig,
    StageConfig,
    TrainingData,
    distill,
)
from atk_policy.policies.protocol import PolicyInput
from atk_policy.selection import SelectionConfig, hard_set

SMALL = {"width": 64, "blocks": 1}


@pytest.fixture(scope="module")
def scene():
    return make_demonstrations(16, 64, steps=50)


def test_the_points_that_predict_the_action_are_kept_and_all_others_dropped(scene):
    demonstrations, kind, template = scene
    stage = StageConfig(steps=500, batch=128, members=2, learning_rate=3e-3, alpha=0.004, warm_up=0.1)
    outcome = distill(
        TrainingData.of(demonstrations[:14]),
        TrainingData.of(demonstrations[14:]),
        template,
        PolicyConfig(horizon=8, sizes=SMALL),
        AugmentationConfig(),
        stage,
        masked=True,
        seed=0,
    )
    keep, _ = hard_set(torch.sigmoid(outcome.phi).numpy(), template, SelectionConfig(keypoints_min=1))
    assert set(kind[keep]) == {OBJECT, TARGET}
    assert 2 <= keep.sum() <= 8
    history = outcome.history
    assert history.held_out[-1] < 0.5 * history.held_out[0]
    assert history.kept[-1] < 10


def test_a_run_that_was_killed_ends_with_the_weights_of_an_unbroken_one(scene, tmp_path):
    demonstrations, _, template = scene
    data = TrainingData.of(demonstrations[:4])
    stage = StageConfig(steps=24, batch=32, members=2, learning_rate=1e-3, alpha=0.002)

    class Killed(Exception):
        pass

    def kill_halfway(fraction: float, _: str) -> None:
        if fraction >= 0.5:
            raise Killed

    def run(report=lambda fraction, detail: None, checkpoint=None):
        return distill(
            data,
            data,
            template,
            PolicyConfig(horizon=4, sizes=SMALL),
            AugmentationConfig(),
            stage,
            masked=True,
            seed=3,
            report=report,
            checkpoint=checkpoint,
            records=8,
        )

    unbroken = run()
    file = tmp_path / "checkpoint.safetensors"
    # The report comes before the file of that record, as a kill may.
    with pytest.raises(Killed):
        run(kill_halfway, file)
    resumed = run(checkpoint=file)
    assert torch.equal(unbroken.phi, resumed.phi)
    assert unbroken.history == resumed.history
    for mine, theirs in zip(unbroken.policies, resumed.policies, strict=True):
        for name, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name


def test_chunks_hold_the_last_action_and_history_repeats_the_first_frame(scene):
    demonstrations, _, _ = scene
    data = TrainingData.of(demonstrations[:2])
    steps = len(demonstrations[0])
    chunk = data.chunks(torch.tensor([steps - 2]), 4)[0]
    expected = demonstrations[0].action[[-2, -1, -1, -1]]
    assert np.allclose(chunk.numpy(), expected, atol=1e-6)
    seen = data.seen(torch.tensor([steps + 1]), history=3, stride=2)
    assert np.allclose(seen.robot[0].numpy(), demonstrations[1].robot[[0, 0, 1]], atol=1e-6)


def test_augmentation_hides_points_and_never_shows_one_that_was_hidden():
    template = np.array([[100.0, 100.0], [110.0, 100.0], [400.0, 300.0]], np.float32)
    augment = Augmentation(AugmentationConfig(dropout=0.3, cluster_dropout=0.3), template)
    visible = torch.ones(500, 1, 3)
    visible[:, :, 2] = 0.0
    seen = PolicyInput(torch.zeros(500, 1, 3, 2), visible, torch.zeros(500, 1, 8))
    out = augment(seen, torch.Generator().manual_seed(0))
    assert 0.4 < float(out.visible[:, 0, 0].mean()) < 0.8
    assert float(out.visible[:, 0, 2].max()) == 0.0
    both = (out.visible[:, 0, 0] == 0) & (out.visible[:, 0, 1] == 0)
    assert float(both.float().mean()) > 0.15, "neighbours are hidden together"
    assert float(out.robot[..., :-1].std()) == pytest.approx(0.01, rel=0.1)


def test_no_demonstrations_is_said():
    with pytest.raises(ValueError, match="no demonstrations"):
        TrainingData.of([])

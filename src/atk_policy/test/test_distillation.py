"""Gates and policy trained together as published find the points that predict the action; an interrupted run is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_demonstrations import OBJECT, TARGET, make_demonstrations

from atk_policy.augmentation import AugmentationConfig
from atk_policy.distillation import (
    PolicyConfig,
    StageConfig,
    TrainingData,
    distill,
    fold_of,
)
from atk_policy.gates import GATES
from atk_policy.keypoint_choice import PUBLISHED, ChoiceConfig, hard_set
from atk_policy.penalty import PenaltyConfig

SMALL = {"width": 64, "blocks": 1}


@pytest.fixture(scope="module")
def scene():
    return make_demonstrations(16, 64, steps=50)


def test_the_published_objective_keeps_the_points_that_predict_the_action(scene):
    demonstrations, kind, template = scene
    assert (PUBLISHED.gates, PUBLISHED.cross_fit, PUBLISHED.members) == ("bernoulli", False, 1)
    assert (PUBLISHED.penalty.form, PUBLISHED.penalty.alpha) == ("fixed", 0.002)
    stage = PUBLISHED.model_copy(
        update={
            "steps": 600,
            "batch": 128,
            "learning_rate": 3e-3,
            "penalty": PenaltyConfig(form="fixed", alpha=0.004),
        }
    )
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
    kept = hard_set(outcome.retention[0].numpy(), template, ChoiceConfig(keypoints_min=1))
    assert {OBJECT, TARGET} <= set(kind[kept])
    assert 2 <= len(kept) <= 12
    history = outcome.history
    assert history.held_out[-1] < 0.5 * history.held_out[0]
    assert history.kept[-1] < 20


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("form", ["path", "constraint"])
def test_a_run_that_was_killed_ends_with_the_weights_of_an_unbroken_one(scene, tmp_path, gates, form):
    demonstrations, _, template = scene
    data = TrainingData.of(demonstrations[:4])
    stage = StageConfig(
        steps=24,
        batch=32,
        members=2,
        folds=2,
        learning_rate=1e-3,
        gates=gates,
        penalty=PenaltyConfig(form=form),
    )

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
    assert torch.equal(unbroken.retention, resumed.retention)
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


def test_folds_are_equal_and_every_demonstration_is_in_one():
    folds = fold_of(10, 4, 0)
    assert sorted(np.bincount(folds)) == [2, 2, 3, 3]
    assert (folds != fold_of(10, 4, 1)).any()


def test_no_demonstrations_is_said():
    with pytest.raises(ValueError, match="no demonstrations"):
        TrainingData.of([])

"""Gates and policy trained together as published find the points that predict the action; an interrupted run is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_demonstrations import OBJECT, TARGET, make_demonstrations

from atk_perception.keypoint_set import KeypointSet
from atk_policy.augmentation import AugmentationConfig
from atk_policy.distillation import (
    PolicyConfig,
    StageConfig,
    TrainingData,
    chunk_weights,
    distill,
    fold_of,
)
from atk_policy.gates import GATES
from atk_policy.keypoint_choice import published_set
from atk_policy.penalty import PenaltyConfig
from atk_policy.selection import SelectionConfig, choose_set

SMALL = {"width": 64, "blocks": 1}


@pytest.fixture(scope="module")
def scene():
    return make_demonstrations(16, 64, steps=50)


def distill_small(train, held_out, template, stage, **options):
    """With masks, a small policy and eight records."""
    config = PolicyConfig(horizon=4, sizes=SMALL)
    return distill(
        train,
        held_out,
        template,
        config,
        AugmentationConfig(),
        stage,
        masked=True,
        seed=3,
        records=8,
        **options,
    )


def test_the_published_objective_keeps_the_points_that_predict_the_action(scene):
    """All that its mask rather keeps than drops; only the pace is not that of `published`, for the sake of time."""
    demonstrations, kind, template = scene
    config = SelectionConfig.published()
    stage, choice = config.select, config.choice
    assert (stage.gates, stage.cross_fit, stage.members) == ("bernoulli", False, 1)
    assert (stage.penalty.form, stage.penalty.alpha) == ("fixed", 0.002)
    measure = choice.measure.model_copy(update={"steps": 20, "batch": 16, "folds": 2})
    config = config.model_copy(
        update={
            "select": stage.model_copy(update={"steps": 600, "batch": 64, "learning_rate": 3e-3}),
            "choice": choice.model_copy(update={"measure": measure}),
            "policy": PolicyConfig(horizon=8, sizes=SMALL),
        }
    )
    points = KeypointSet.create("made_up", template, np.zeros((480, 640, 3), np.uint8))
    found = choose_set(demonstrations, points, config)
    history = found.choice.history
    assert history.step[-1] == 600
    assert history.held_out_error[-1] < 0.5 * history.held_out_error[0]
    assert history.kept[-1] < 0.5 * found.trackable.sum()
    assert {OBJECT, TARGET} <= set(kind[found.keep])
    assert found.keep.sum() == max(1, (found.choice.retention > 0.5).sum())
    assert np.isnan(found.choice.agreement), "one mask agrees with nobody"


def test_what_the_published_mask_keeps_is_the_set_however_many_that_are():
    assert published_set(np.array([0.2, 0.9, 0.51, 0.5])) == [1, 2]
    assert published_set(np.array([0.1, 0.3, 0.3])) == [1], "a policy needs a point"
    assert published_set(np.linspace(0.6, 0.9, 30)) == list(range(30))[::-1]


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
        return distill_small(data, data, template, stage, report=report, checkpoint=checkpoint)

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


@pytest.mark.parametrize("form", ["path", "constraint"])
def test_members_train_the_same_however_many_processes_share_them(scene, tmp_path, monkeypatch, form):
    demonstrations, _, template = scene
    data, held_out = TrainingData.of(demonstrations[:6]), TrainingData.of(demonstrations[6:8])
    monkeypatch.setattr("atk_policy.distillation.WORKER_STEPS", 1)
    stage = StageConfig(
        steps=24, batch=32, members=5, folds=3, learning_rate=1e-3, penalty=PenaltyConfig(form=form)
    )
    logged: dict[int, list] = {}

    def run(workers: int, checkpoint=None):
        return distill_small(
            data,
            held_out,
            template,
            stage,
            workers=workers,
            log=lambda step, scalars: logged.setdefault(workers, []).append((step, scalars)),
            checkpoint=checkpoint,
        )

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes
    try:
        alone, shared = run(1), run(2, tmp_path / "select.safetensors")
        continued = run(2, tmp_path / "select.safetensors")
    finally:
        torch.set_num_threads(threads)
    assert len(list(tmp_path.glob("select-*-of-2.safetensors"))) == 2
    for other in (shared, continued):
        assert torch.equal(alone.retention, other.retention)
        assert alone.history == other.history
        for mine, theirs in zip(alone.policies, other.policies, strict=True):
            for name, value in mine.state_dict().items():
                assert torch.equal(value, theirs.state_dict()[name]), name
    assert logged[1] == logged[2]
    assert [step for step, _ in logged[1]] == alone.history.step


def test_near_actions_become_more_exact_where_far_ones_count_less(scene):
    """Same weights, batches and steps; what differs is what an action counts in the loss."""
    weights = chunk_weights(16, 0.2)
    assert float(weights.sum()) == pytest.approx(1.0)
    assert torch.allclose(weights[1:] / weights[:-1], torch.full((15,), float(np.exp(-0.2))))
    assert torch.allclose(chunk_weights(16, 0.0), torch.full((16,), 1 / 16)), "none: all alike"
    demonstrations, _, template = scene
    train = TrainingData.of(demonstrations[:8])
    config = PolicyConfig(horizon=16, sizes=SMALL)

    def error(decay: float) -> torch.Tensor:
        """(H,) of the normalised action, on what was learnt."""
        stage = StageConfig(steps=250, batch=64, members=1, learning_rate=3e-3, chunk_decay=decay)
        trained = distill(train, None, template, config, AugmentationConfig(), stage, masked=False, seed=3)
        (policy,) = trained.policies
        seen, action = (
            train.seen(torch.arange(len(train)), 1, 1),
            train.chunks(torch.arange(len(train)), 16),
        )
        with torch.no_grad():
            off = policy.target(seen, policy.act(seen)) - policy.target(seen, action)
        return off.abs().mean(dim=(0, 2))

    alike, weighed = error(0.0), error(0.5)
    assert float(weighed[:2].mean()) < 0.9 * float(alike[:2].mean())
    assert float(weighed[-4:].mean()) > float(alike[-4:].mean())


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

"""The automatic selection: the right bodies without tuning, the same ones each time, and a reason for each point."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_demonstrations import (
    DISTRACTOR,
    FLICKER,
    NOISE,
    OBJECT,
    STATIC,
    TARGET,
    make_demonstrations,
    make_press_demonstrations,
)

from atk_policy.agreement import mean_agreement
from atk_policy.augmentation import AugmentationConfig
from atk_policy.cross_validation import errors_of_sets, knee
from atk_policy.demonstrations import trackability
from atk_policy.distillation import PolicyConfig, StageConfig, TrainingData
from atk_policy.keypoint_choice import AUTOMATIC, Choice, ChoiceConfig, choose_keypoints
from atk_policy.rigid_parts import consistency, rigid_parts, rigid_share
from atk_policy.stability import (
    COMPANIONS,
    companions_of_part,
    near_duplicates,
    part_in_sight,
    points_of_part,
    ranked_parts,
    survival,
)

DIAGONAL_PX = 800.0
POLICY = PolicyConfig(horizon=8, sizes={"width": 48, "blocks": 1})
MEASURE = StageConfig(steps=250, batch=64, members=1, folds=2, learning_rate=3e-3)
STAGE = AUTOMATIC.model_copy(
    update={"steps": 500, "batch": 64, "members": 4, "folds": 2, "learning_rate": 3e-3}
)


def choose(scene, seed: int, **changes) -> tuple[Choice, np.ndarray, np.ndarray]:
    """(choice, kind and template of the trackable candidates)."""
    demonstrations, kind, template = scene
    quality = trackability(demonstrations)
    able = quality.visible > 0.4
    choice = choose_keypoints(
        TrainingData.of(demonstrations, able),
        None,
        template[able],
        quality.score()[able],
        DIAGONAL_PX,
        POLICY,
        AugmentationConfig(),
        STAGE,
        # After so few steps each member still keeps some point of the table by luck, and of many points that part survives 0.65.
        ChoiceConfig(measure=MEASURE, parts_max=4, stable_min=0.75, **changes),
        seed=seed,
    )
    return choice, kind[able], template[able]


@pytest.mark.parametrize(
    ("make", "bodies"), [(make_demonstrations, {OBJECT, TARGET}), (make_press_demonstrations, {OBJECT})]
)
def test_exactly_the_bodies_that_matter_are_found_whatever_the_seed(make, bodies):
    scene = make(20, 48, seed=3)
    choices = [choose(scene, seed) for seed in range(2)]
    for choice, kind, _ in choices:
        assert set(kind[choice.keep]) == bodies
        assert 4 <= choice.keep.sum() <= 12
    sets = [template[choice.keep] for choice, _, template in choices]
    labels = [kind[choice.keep].tolist() for choice, kind, _ in choices]
    assert mean_agreement(sets, DIAGONAL_PX, labels) >= 0.8


def test_every_point_has_its_reasons():
    choice, kind, _ = choose(make_demonstrations(20, 48, seed=3), 0)
    matter = np.isin(kind, [OBJECT, TARGET])
    assert choice.part_retention[matter].min() > choice.part_retention[~matter].max()
    kept = set(np.flatnonzero(choice.keep).tolist())
    assert choice.point_removal.keys() == kept
    assert choice.part_removal.keys() == set(choice.parts[choice.keep].tolist())
    assert set(kind[choice.keep]) == {OBJECT, TARGET}
    assert min(choice.part_removal.values()) > 0.0, "neither object can be done without"
    assert sorted(kept) in [sorted(s) for s in choice.path]
    assert choice.path_errors.shape == (len(choice.path), MEASURE.folds)
    assert 0.0 <= choice.agreement <= 1.0
    assert choice.path_errors.mean(1).min() <= choice.limit
    # With everything the policy tells demonstrations apart by what means nothing.
    assert choice.full_errors.mean() > choice.limit


def test_a_set_that_goes_out_of_sight_gets_a_part_that_stays():
    """Parts 0 and 1 are kept; part 2 is always seen, part 3 is one point, part 4 is seen when it is of no use."""
    parts = np.array([0, 0, 1, 1, 2, 2, 3, 4, 4])
    late = np.arange(100) >= 80
    visible = np.ones((100, 9), np.bool_)
    visible[late, :4] = False
    visible[late, 7:] = False
    assert part_in_sight([0, 1, 2, 3], visible, parts) == 2
    assert part_in_sight([0, 1, 4, 5], visible, parts) is None
    assert part_in_sight([0, 1, 2, 3], visible[:84], parts) is None  # too seldom to matter
    assert (
        part_in_sight([0, 1, 2, 3], visible[:, [0, 1, 2, 3, 6, 7, 8]], parts[[0, 1, 2, 3, 6, 7, 8]]) is None
    )


def test_a_choice_keeps_something_in_sight_where_what_matters_is_hidden_at_the_end():
    demonstrations, kind, template = make_demonstrations(12, 48, seed=3)
    for demonstration in demonstrations:
        demonstration.visible[-12:, np.isin(kind, [OBJECT, TARGET])] = False
    choice, kind, _ = choose((demonstrations, kind, template), 0)
    assert {OBJECT, TARGET} < set(kind[choice.keep])
    visible = TrainingData.of(demonstrations).visible.numpy()[:, trackability(demonstrations).visible > 0.4]
    assert (visible[:, choice.keep].sum(1) < 2).mean() < 0.05


def test_what_stays_in_sight_but_raises_the_error_is_not_taken():
    demonstrations, kind, template = make_demonstrations(12, 64, seed=5)
    for demonstration in demonstrations:
        demonstration.visible[-12:, kind != DISTRACTOR] = False
    choice, kind, _ = choose((demonstrations, kind, template), 0, tolerance=0.0, keypoints_max=16)
    assert choice.keep.sum() == len(choice.path[choice.knee])
    assert DISTRACTOR not in set(kind[choice.keep])


def test_a_set_is_measured_on_demonstrations_that_its_policy_was_not_trained_on_and_under_failures():
    demonstrations, kind, template = make_demonstrations(12, 48, seed=5)
    data = TrainingData.of(demonstrations)
    sets = np.stack(
        [
            np.isin(kind, [OBJECT, TARGET]),
            kind == OBJECT,
            kind == DISTRACTOR,
            kind == NOISE,
            np.isin(kind, [FLICKER]),
        ]
    )
    good, half, other, wandering, unseen = errors_of_sets(
        data, sets, template, POLICY, AugmentationConfig(), MEASURE, seed=0
    ).mean(axis=1)
    assert good < 0.97 * half
    assert half < 0.97 * min(other, wandering, unseen)
    # The same set with a tracker that mostly fails is worth less.
    failing = AugmentationConfig(dropout=0.7, unseen_noise_px=60.0, cluster_offset_px=30.0)
    assert errors_of_sets(data, sets[:1], template, POLICY, failing, MEASURE, seed=0).mean() > 1.3 * good


def test_errors_do_not_depend_on_how_many_processes_measure(tmp_path, monkeypatch):
    demonstrations, kind, template = make_demonstrations(8, 24, steps=20, seed=5)
    data = TrainingData.of(demonstrations, folder=tmp_path / "rows")
    sets = np.stack([np.isin(kind, [OBJECT, TARGET]), kind == OBJECT, kind == STATIC])
    stage = MEASURE.model_copy(update={"steps": 12, "batch": 16})
    monkeypatch.setattr("atk_policy.cross_validation.WORKER_STEPS", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes

    def errors(workers: int, **others) -> np.ndarray:
        return errors_of_sets(
            data,
            sets,
            template,
            POLICY,
            AugmentationConfig(),
            stage,
            seed=0,
            workers=workers,
            **others,
        )

    class Cancelled(Exception):
        pass

    def cancel(fraction: float, detail: str) -> None:
        raise Cancelled

    try:
        alone = errors(1)
        assert np.array_equal(alone, errors(2, checkpoint=tmp_path / "path.safetensors"))
        assert sorted(f.name for f in tmp_path.glob("path*")) == [
            "path-1-of-2.safetensors",
            "path-2-of-2.safetensors",
        ]
        before = set(multiprocessing.active_children())
        with pytest.raises(Cancelled):
            errors(2, report=cancel)
        assert not set(multiprocessing.active_children()) - before
    finally:
        torch.set_num_threads(threads)


def test_all_stable_parts_are_taken_that_do_no_harm():
    errors, none = np.array([0.43, 0.42, 0.44, 0.41, 0.6]), np.zeros(5, bool)
    limit = 0.45
    assert knee(errors, np.array([True, True, True, False, False]), limit) == 2
    assert knee(errors, np.ones(5, bool), limit) == 3, "the fifth part does harm"
    assert knee(errors, none, limit) == 0
    assert knee(errors, none, 0.1) == 3


def test_points_that_move_together_are_one_part_and_a_body_that_moves_otherwise_is_another():
    demonstrations, kind, template = make_demonstrations(12, 128, seed=1)
    able = np.isin(kind, [OBJECT, TARGET, STATIC, DISTRACTOR])
    parts = rigid_parts(rigid_share(TrainingData.of(demonstrations, able), template[able]))
    for body in (OBJECT, TARGET, STATIC, DISTRACTOR):
        of_body = parts[kind[able] == body]
        assert len(set(of_body)) == 1
        assert set(kind[able][parts == of_body[0]]) == {body}


def test_a_chain_of_neighbours_does_not_join_two_parts():
    share = np.array([[1.0, 0.95, 0.1], [0.95, 1.0, 0.85], [0.1, 0.85, 1.0]])
    assert rigid_parts(share).tolist() == [0, 0, 1]


def test_a_point_that_is_on_the_wrong_part_in_some_demonstrations_is_told_from_the_rest():
    demonstrations, kind, template = make_demonstrations(20, 128, seed=1)
    able = np.isin(kind, [OBJECT, TARGET, STATIC, DISTRACTOR])
    kind, template = kind[able], template[able]
    astray, companion = np.flatnonzero(kind == OBJECT)[0], np.flatnonzero(kind == TARGET)[0]
    data = TrainingData.of(demonstrations, able)
    assert isinstance(data.uv_px, torch.Tensor)
    number = data.demonstration()
    wrong = number % 3 == 0  # moves with the target in a third of the demonstrations
    uv_px = data.uv_px.clone()
    offset_px = torch.from_numpy(template[astray] - template[companion])
    uv_px[wrong, astray] = uv_px[wrong, companion] + offset_px
    share = rigid_share(replace(data, uv_px=uv_px), template)
    parts = np.where(kind == OBJECT, 0, np.where(kind == TARGET, 1, np.where(kind == STATIC, 2, 3)))
    worth = consistency(share, parts)
    rest = np.delete(worth, astray)
    assert rest.min() > 0.85
    assert rest.max() == 1.0
    assert worth[astray] < 0.8


def test_nobody_can_tell_who_is_astray_among_three():
    share = np.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]])
    assert consistency(share, np.zeros(3, np.int64)).tolist() == [1.0, 1.0, 1.0]


def test_companions_are_spread_over_a_part_and_preferred_by_worth():
    rng = np.random.default_rng(0)
    uv_px = rng.uniform((200.0, 150.0), (360.0, 270.0), (80, 2)).astype(np.float32)
    parts, kept = np.repeat([0, 1], [60, 20]), [3, 8]
    worth = np.ones(80)
    worth[20:40] = 0.01
    mine = np.flatnonzero(parts == 0)
    along = companions_of_part(kept, mine, worth, uv_px)
    assert len(along) == len(set(along)) == COMPANIONS
    assert set(along) <= set(mine.tolist()) - set(kept)
    assert sum(20 <= i < 40 for i in along) < 4
    assert (np.ptp(uv_px[along], axis=0) > (0.8 * 160, 0.8 * 120)).all()
    assert companions_of_part([0], np.array([0, 5]), worth, uv_px) == [5]
    assert companions_of_part([0], np.array([0]), worth, uv_px) == []


def test_a_point_survives_when_its_duplicate_does():
    parts = np.array([0, 0, 0, 1])
    template = np.array([[0.0, 0.0], [5.0, 0.0], [100.0, 0.0], [5.0, 0.0]], np.float32)
    groups = near_duplicates(parts, template)
    # Two members that keep one of two duplicates each.
    retention = np.array([[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.5]]])
    assert survival(retention, groups).tolist() == [1.0, 1.0, 0.0, 0.25]


def test_parts_are_ranked_by_survival_and_points_spread_over_them():
    parts = np.array([0, 0, 0, 1])
    template = np.array([[0, 0], [3, 0], [60, 0], [300, 0]], np.float32)
    assert ranked_parts(np.array([0.4, 0.4, 0.4, 0.8]), parts) == [1, 0]
    # Of two near-duplicates on the left the one that can be tracked, then the one on the right.
    assert points_of_part(0, parts, np.array([1.0, 0.5, 0.5, 1.0]), template, 3) == [0, 2, 1]
    assert points_of_part(0, parts, np.array([0.1, 1.0, 0.5, 1.0]), template, 1) == [1]


def test_other_candidates_on_the_same_part_give_nearly_the_same_points():
    def chosen(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        uv_px = rng.uniform((200.0, 150.0), (360.0, 270.0), (60, 2)).astype(np.float32)
        points = points_of_part(0, np.zeros(60, np.int64), rng.uniform(0.85, 1.0, 60), uv_px, 4)
        return uv_px[points]

    sets = [chosen(seed) for seed in range(10)]
    assert mean_agreement(sets, DIAGONAL_PX, [[0] * 4] * 10) > 0.85
    spread_px = np.ptp(np.mean(sets, axis=0), axis=0)
    assert (spread_px > (0.6 * 160, 0.6 * 120)).all()

"""Stages of a task: learned from the robot's state, and sets that differ by stage measured like any other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_demonstrations import OBJECT, TARGET, make_demonstrations

from atk_policy.distillation import TrainingData
from atk_policy.stages import compare_stages, learn_stages, staged


@pytest.fixture(scope="module")
def scene():
    demonstrations, kind, template = make_demonstrations(8, 24, seed=3)
    return TrainingData.of(demonstrations), kind, template


def test_the_gripper_parts_the_carrying_from_the_rest(scene):
    data, _, _ = scene
    stage = learn_stages(data.robot, 2, seed=0)
    closed = data.robot[:, -1].numpy() < 0.04
    same = (stage == 1) == closed
    assert max(same.mean(), 1.0 - same.mean()) > 0.9
    np.testing.assert_array_equal(stage, learn_stages(data.robot, 2, seed=0))


def test_a_copy_is_seen_in_its_stage_alone_and_tells_nothing_elsewhere(scene):
    data, _, _ = scene
    stage = learn_stages(data.robot, 2, seed=0)
    copies = staged(data, stage, 2)
    points = data.uv_px.shape[1]
    assert copies.uv_px.shape == (len(data), 2 * points, 2)
    for k in (0, 1):
        mine = slice(k * points, (k + 1) * points)
        here = torch.from_numpy(stage == k)
        assert torch.equal(copies.uv_px[here][:, mine], data.uv_px[here])
        assert torch.equal(copies.visible[here][:, mine], data.visible[here])
        assert not copies.visible[~here][:, mine].any()
        assert torch.unique(copies.uv_px[~here][:, mine], dim=0).shape[0] == 1
    assert torch.equal(copies.robot, data.robot)


def test_parts_leave_the_stages_that_can_do_without_and_join_those_that_cannot(scene):
    data, kind, _ = scene
    parts = np.where(kind == OBJECT, 0, np.where(kind == TARGET, 1, 2 + np.arange(len(kind))))
    of = [np.flatnonzero(parts == part).tolist() for part in (0, 1)]
    other = [int(np.flatnonzero(parts > 1)[0])]
    path = [of[0], of[0] + of[1], of[0] + of[1] + other]
    stage = (np.arange(len(data)) % 60 >= 30).astype(np.int64)
    count = len(parts)

    def errors(copies: TrainingData, sets: list[list[int]]) -> np.ndarray:
        """Part 0 is needed in stage 0, part 1 in stage 1; the part from outside helps in stage 1."""
        assert copies.uv_px.shape[1] == 2 * count
        values = []
        for chosen in sets:
            has = {(c // count, int(parts[c % count])) for c in chosen}
            error = 1.0 + ((0, 0) not in has) + ((1, 1) not in has) - 0.2 * ((1, int(parts[other[0]])) in has)
            values.append([error, error])
        return np.array(values)

    # Gates that kept a point of part 0 in stage 0, and one of part 1 in both.
    gated = [of[0][0], of[1][0], count + of[1][0]]
    found = compare_stages(data, path, 1, gated, parts, stage, 0.05, errors)
    assert (found.one, found.fewer, found.more, found.gated) == (1.0, 1.0, 0.8, 1.0)
    assert found.kept == [(0, 0), (0, 1), (1, 1)]
    assert sorted(found.dropped) == [(0, 1), (1, 0)]
    assert found.added == (1, int(parts[other[0]]))
    whole, fewer, more, by_gates, _ = found.in_use
    assert by_gates == pytest.approx(1.5)
    assert whole == len(of[0]) + len(of[1])
    assert fewer == pytest.approx(0.5 * whole)
    assert more == pytest.approx(whole + 0.5)
    assert found.smaller == (2.0 if len(of[0]) <= round(fewer) else pytest.approx(float("nan"), nan_ok=True))
    rows = {row["sets"]: row for row in found.rows()}
    assert rows["gates over the copies"]["parts"] == "0 in 0, 1 in 0, 1 in 1"
    assert rows["parts taken from stages"]["points_in_use"] == round(fewer, 1)

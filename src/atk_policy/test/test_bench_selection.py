"""The benchmark of selections: what it compares differs in one thing, and what it did it does not do again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from synthetic_demonstrations import make_demonstrations, make_long_demonstrations

from atk_perception.keypoint_set import KeypointSet
from atk_policy import bench_selection
from atk_policy.augmentation import AugmentationConfig
from atk_policy.bench_selection import Bench, Task, ablation, markdown, stages, summary, variants, with_stages
from atk_policy.distillation import PolicyConfig, StageConfig
from atk_policy.keypoint_choice import ChoiceConfig, _path
from atk_policy.resumable import RESULTS
from atk_policy.selection import CandidateConfig, SelectionConfig

SMALL = SelectionConfig(
    policy=PolicyConfig(horizon=4, sizes={"width": 16, "blocks": 1}),
    select=StageConfig(steps=20, batch=16, members=2, folds=2, learning_rate=2e-3, warm_up=0.25),
    refit=StageConfig(steps=20, batch=16, members=1, learning_rate=2e-3),
    choice=ChoiceConfig(measure=StageConfig(steps=10, batch=16, members=1, folds=2, learning_rate=2e-3)),
)


def task_of(made, name: str) -> Task:
    demonstrations, _, template = made
    points = KeypointSet.create(name, template, np.zeros((480, 640, 3), np.uint8))
    return Task(name, points, demonstrations, name, CandidateConfig())


def test_each_variant_of_the_ablation_changes_one_thing_but_the_published_reference():
    default = SelectionConfig()
    ways = variants(default)
    assert ways.pop("default") == default
    assert ways.pop("published") == SelectionConfig.published()
    changed = {
        name: {group for group, value in default if value != getattr(config, group)}
        for name, config in ways.items()
    }
    assert changed.pop("without failures") == {"augmentation"}
    assert changed.pop("without merging") == {"choice"}
    assert all(groups == {"select"} for groups in changed.values())
    perfect, usual = ways["without failures"].augmentation, AugmentationConfig()
    assert (perfect.joint_noise_rad, perfect.gripper_noise_m) == (
        usual.joint_noise_rad,
        usual.gripper_noise_m,
    )
    assert perfect.pixel_noise_px == perfect.slip == perfect.cluster_dropout == perfect.viewpoint == 0


def test_without_merging_as_many_points_can_be_chosen_as_with_it():
    config = variants(SelectionConfig())["without merging"].choice
    retention = np.linspace(1.0, 0.1, 30)[None, None]
    template = np.random.default_rng(0).uniform(0, 400, (30, 2)).astype(np.float32)
    path, _, _ = _path(retention, np.arange(30), template, np.ones(30), config)
    assert [len(points) for points in path] == list(range(4, 13))


def test_an_ablation_has_a_row_for_every_way_and_policy_class_and_is_made_once(tmp_path, monkeypatch):
    two = {name: way for name, way in variants(SMALL).items() if name in ("default", "penalty fixed")}
    monkeypatch.setattr(bench_selection, "variants", lambda config: two)
    monkeypatch.setattr(bench_selection, "POLICIES", {"mlp": None, "flow": None})
    monkeypatch.setattr(bench_selection, "ENCODERS", {"attention": None})
    said: list[str] = []
    bench = Bench(tmp_path, 2, False, said.append)
    task = task_of(make_demonstrations(8, 24, steps=20), "place")
    tables = ablation(bench, [task], SMALL)
    assert [row["variant"] for row in tables["ablation"]] == ["default", "penalty fixed"]
    assert all(row["held_out_error"] > 0 and 4 <= row["kept"][0] <= 12 for row in tables["ablation"])
    assert [(row["policy"], row["encoder"]) for row in tables["policies"]] == [
        ("mlp", "attention"),
        ("flow", "attention"),
    ]
    assert all(0 < row["joint_error_mrad"] < 1000 for row in tables["policies"])
    assert "| task | variant |" in markdown(tables["ablation"])
    lines = (tmp_path / RESULTS).read_text().splitlines()
    assert len(lines) == 2 + 1 + 2, "two selections, the errors of their sets, two policies"
    assert all(json.loads(line)["peak_memory_mb"] > 100 for line in lines)
    assert ablation(bench, [task], SMALL) == tables
    assert (tmp_path / RESULTS).read_text().splitlines() == lines
    assert sum("are known from" in line for line in said) == 3


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_in_a_long_task_each_stage_can_do_with_its_own_points(tmp_path, one_thread):
    made = make_long_demonstrations(16, 24, seed=3)
    measure = StageConfig(steps=250, batch=64, members=1, folds=2, learning_rate=3e-3)
    config = SelectionConfig(
        held_out=0.0,
        policy=PolicyConfig(horizon=8, sizes={"width": 48, "blocks": 1}),
        select=SelectionConfig().select.model_copy(
            update={"steps": 500, "batch": 64, "members": 4, "folds": 2, "learning_rate": 3e-3}
        ),
        # After so few steps gates are less decided than after those of the default.
        choice=ChoiceConfig(measure=measure, stable_min=0.6),
    )
    rows = with_stages(task_of(made, "long"), config, [2], tmp_path, lambda fraction, detail: None)["rows"]
    by_sets = {row["sets"]: row for row in rows}
    one, taken, gated = (
        by_sets[name] for name in ("one set", "parts taken from stages", "gates over the copies")
    )
    assert one["points_in_use"] == 8.0
    assert taken["points_in_use"] <= 4.5
    assert taken["held_out_error"] <= 1.05 * one["held_out_error"]
    assert gated["points_in_use"] <= 4.5
    assert gated["held_out_error"] < one["held_out_error"]


def test_stages_are_answered_for_each_seed_with_the_seeds_own_tracks(tmp_path):
    bench = Bench(tmp_path, 2, False, lambda line: None)
    tasks = [task_of(make_demonstrations(6, 16, steps=20, seed=seed), f"place_{seed}") for seed in (0, 1)]
    rows = stages(bench, tasks, SMALL, [2])
    assert [(row["task"], row["seed"]) for row in rows if row["sets"] == "one set"] == [
        ("place_0", 0),
        ("place_1", 1),
    ]


def test_a_table_shows_success_with_its_interval_or_nothing():
    figures = {
        **dict.fromkeys(("agreement", "seconds", "core_seconds", "peak_memory_mb", "held_out_error"), 1),
        "kept": [8, 8],
        "kept_tuned": [40],
        "tuned": "alpha 0.002",
        "held_out_error_tuned": 0.2,
    }
    auto = {"successes": 38, "episodes": 40, "success": 0.95, "interval": [0.835, 0.986], "points": [8]}
    tuned = {**auto, "method": "published_0.005", "points": [9, 11]}
    row = summary(
        "sushi", {**figures, "success": {"auto": auto, "tuned": tuned}, "select_seconds": [80, 320]}
    )
    table = markdown([row])
    assert "38/40 0.95 (0.83 to 0.99)" in table
    assert "published_0.005: 9 11 points" in table
    assert "| 80 320 |" in table
    bare = markdown([summary("sushi", {**figures, "success": None})])
    assert "alpha 0.002: 40 points" in bare
    assert "None" not in bare

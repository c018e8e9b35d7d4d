"""The best weights are kept, a training that no longer improves ends, and its curves can be watched."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_demonstrations import make_demonstrations

from atk_policy.best_weights import BestWeights
from atk_policy.distillation import AugmentationConfig, PolicyConfig, StageConfig, TrainingData, distill
from atk_policy.training_log import LogConfig, TrainingLog, TrainingLogError, check_log


@pytest.fixture(scope="module")
def scene():
    return make_demonstrations(6, 16, steps=20)


def run(scene, *, masked=False, log=lambda step, scalars: None, **stage):
    made, _, template = scene
    return distill(
        TrainingData.of(made[:2]),
        TrainingData.of(made[4:]),
        template,
        PolicyConfig(horizon=4, sizes={"width": 64, "blocks": 1}),
        # Without noise two demonstrations are soon learnt by heart, and then the held-out error rises.
        AugmentationConfig(
            pixel_noise_px=0, cluster_offset_px=0, dropout=0, cluster_dropout=0, joint_noise_rad=0
        ),
        StageConfig(**{"steps": 200, "batch": 32, "members": 1, "learning_rate": 1e-2, "ema": 0.5, **stage}),
        masked=masked,
        seed=0,
        log=log,
        records=40,
    )


def error_of(scene, policy) -> float:
    made, _, _ = scene
    data = TrainingData.of(made[4:])
    index = torch.arange(len(data))
    seen, action = data.seen(index, 1, 1), data.chunks(index, 4)
    with torch.no_grad():
        return float((policy.target(seen, policy.act(seen)) - policy.target(seen, action)).abs().mean())


def test_the_weights_with_the_smallest_held_out_error_are_kept(scene):
    last, best = run(scene), run(scene, keep="best")
    curve = last.history.held_out_error
    assert best.history.held_out_error == curve, "the training itself is the same"
    at = int(np.argmin(curve))
    assert at < len(curve) - 1, "the scene does not overfit: this test would show nothing"
    assert best.history.best_step == last.history.step[at]
    assert best.history.kept_record() == (last.history.train[at], last.history.held_out[at], curve[at])
    assert last.history.kept_record()[2] == curve[-1]
    assert error_of(scene, best.policies[0]) == pytest.approx(min(curve), rel=1e-4)
    assert error_of(scene, last.policies[0]) == pytest.approx(curve[-1], rel=1e-4)


def test_a_training_without_improvement_ends_early(scene):
    whole, early = run(scene), run(scene, keep="best", patience=4)
    assert len(early.history.step) < len(whole.history.step)
    assert early.history.step[-1] == early.history.best_step + 4 * 5
    assert early.history.held_out_error == whole.history.held_out_error[: len(early.history.step)]


def test_with_a_mask_only_the_last_weights_can_be_kept(scene):
    with pytest.raises(ValueError, match="only the last weights"):
        run(scene, masked=True, keep="best")


def test_an_error_that_is_none_is_never_the_best():
    best, weights = BestWeights(patience=1), {"w": torch.zeros(2)}
    best.consider(1, math.nan, weights)
    assert not best.exhausted
    assert best.or_else(weights) is weights
    best.consider(2, 3.0, weights)
    weights["w"] += 1.0
    assert best.or_else(weights)["w"].tolist() == [0.0, 0.0], "a copy"
    other = BestWeights(patience=1)
    other.restore({**best.tensors(), "phi": torch.ones(1)}, best.facts())
    other.consider(3, 4.0, weights)
    assert other.exhausted
    assert other.step == 2


def test_tensorboard_has_every_record_once_even_when_some_come_again(scene, tmp_path):
    pytest.importorskip("tensorboard", reason="pip install -r requirements/training.txt")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TrainingLog(LogConfig(tensorboard=True), tmp_path, "refit")
    history = run(scene, log=log, steps=40).history
    log.close()
    again = TrainingLog(LogConfig(tensorboard=True), tmp_path, "refit")
    for step in history.step[-3:]:
        again(step, {"loss/train": 7.0})
    again.close()
    events = EventAccumulator(str(tmp_path / "tensorboard" / "refit")).Reload()
    assert set(events.Tags()["scalars"]) == {
        "loss/train",
        "loss/held_out",
        "action_error/held_out",
        "learning_rate",
    }
    train = events.Scalars("loss/train")
    assert [event.step for event in train] == history.step
    expected = [*history.train[:-3], 7.0, 7.0, 7.0]
    assert np.allclose([event.value for event in train], expected)


def offline_records(file: Path) -> Iterator[bytes]:
    """Of a .wandb file: after 7 bytes of its own LevelDB's log format, blocks of pieces (checksum, length, kind)."""
    content = file.read_bytes()
    assert content[:4] == b":W&B"
    at, record = 7, b""
    while at + 7 <= len(content):
        left = 32_768 - at % 32_768
        if left < 7:  # no room for a piece: the block's end is filled up
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def test_weights_and_biases_has_every_record_of_a_run_that_is_the_same_before_and_after_a_kill(
    scene, tmp_path, monkeypatch
):
    pytest.importorskip("wandb", reason="pip install -r requirements/training.txt")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = LogConfig(wandb_project="atk")
    log = TrainingLog(config, tmp_path, "refit")
    history = run(scene, log=log, steps=40).history
    log.close()
    again = TrainingLog(config, tmp_path, "refit")
    again(history.step[-1] + 5, {"loss/train": 7.0})
    again.close()
    first, second = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert first.name == second.name, "one run"

    def logged(file: Path) -> list[dict[str, float]]:
        rows = []
        for data in offline_records(file):
            record = Record.FromString(data)
            if record.HasField("history"):
                items = record.history.item
                rows.append({(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in items})
        return rows

    rows = logged(first)
    assert [row["_step"] for row in rows] == history.step
    assert np.allclose([row["loss/train"] for row in rows], history.train)
    assert np.allclose([row["action_error/held_out"] for row in rows], history.held_out_error)
    assert [(row["_step"], row["loss/train"]) for row in logged(second)] == [(history.step[-1] + 5, 7.0)]


def test_nothing_is_written_unless_asked_for(scene, tmp_path):
    log = TrainingLog(LogConfig(), tmp_path / "work", "refit")
    run(scene, log=log, steps=5)
    log.close()
    assert not (tmp_path / "work").exists()


def test_a_log_whose_package_is_missing_is_explained():
    try:
        import wandb  # noqa: F401
    except ImportError:
        with pytest.raises(TrainingLogError, match=r"pip install -r requirements/training\.txt"):
            check_log(LogConfig(wandb_project="atk"))
    else:
        check_log(LogConfig(wandb_project="atk"))

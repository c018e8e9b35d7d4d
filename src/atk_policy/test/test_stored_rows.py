"""Tracks that are drawn from disk are those that would lie in memory, and training on them is the same."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from synthetic_demonstrations import make_demonstrations

from atk_perception.keypoint_set import KeypointSet
from atk_policy import demonstrations as demonstrations_module
from atk_policy import distillation, selection
from atk_policy.augmentation import AugmentationConfig
from atk_policy.demonstrations import DemonstrationError, TrackedDemonstrations, trackability
from atk_policy.distillation import PolicyConfig, StageConfig, TrainingData, distill
from atk_policy.keypoint_choice import ChoiceConfig
from atk_policy.selection import SelectionConfig, choose
from atk_policy.stored_rows import StoredRows, writing

SMALL = PolicyConfig(horizon=4, history=2, sizes={"width": 16, "blocks": 1})
STAGE = StageConfig(steps=12, batch=16, members=4, folds=2, learning_rate=2e-3)


@pytest.fixture(scope="module")
def scene():
    return make_demonstrations(8, 24, steps=20)


def stored(path, array: np.ndarray) -> StoredRows:
    with writing(path, array.dtype) as writer:
        writer.append(array[:3])
        writer.append(array[3:])
    return writer.stored()


def test_rows_are_read_in_any_order_and_shape_and_by_another_process(tmp_path):
    array = np.random.default_rng(0).normal(size=(20, 5, 2)).astype(np.float32)
    rows = stored(tmp_path / "rows", array)
    assert rows.shape == array.shape
    index = torch.tensor([[3, 4, 5], [19, 0, 19], [7, 6, 6]])
    assert np.array_equal(rows[index].numpy(), array[index.numpy()])
    assert rows[torch.arange(0)].shape == (0, 5, 2)
    again = pickle.loads(pickle.dumps(rows))
    assert np.array_equal(again[torch.arange(20)].numpy(), array)
    with pytest.raises(IndexError, match=r"row 20 of .*rows"):
        rows[torch.tensor([20])]


def test_columns_are_gathered_block_by_block(tmp_path, monkeypatch):
    flags = np.random.default_rng(0).random((50, 7)) < 0.5
    rows = stored(tmp_path / "flags", flags.astype(np.uint8))
    monkeypatch.setattr("atk_policy.stored_rows.BLOCK_BYTES", 60)
    keep = torch.tensor([True, False, True, False, False, False, True])
    assert np.array_equal(rows.columns(keep).numpy(), flags[:, keep.numpy()].astype(np.float32))


def test_a_file_that_was_cut_short_is_said(tmp_path):
    rows = stored(tmp_path / "rows", np.zeros((5, 3), np.float32))
    (tmp_path / "rows").write_bytes(b"123")
    with pytest.raises(ValueError, match="no whole number"):
        pickle.loads(pickle.dumps(rows))


def test_training_from_disk_is_training_from_memory(scene, tmp_path):
    demonstrations, _, template = scene
    data = TrainingData.of(demonstrations), TrainingData.of(iter(demonstrations), folder=tmp_path)
    assert isinstance(data[1].uv_px, StoredRows)

    def run(train: TrainingData):
        return distill(train, train, template, SMALL, AugmentationConfig(), STAGE, masked=True, seed=3)

    memory, disk = map(run, data)
    assert memory.history == disk.history
    assert torch.equal(memory.retention, disk.retention)
    few = torch.arange(24) < 3
    assert torch.equal(data[0].keypoints(few).uv_px, data[1].keypoints(few).uv_px)
    assert data[1].keypoints(torch.ones(24, dtype=torch.bool)).uv_px is data[1].uv_px


def test_a_selection_from_disk_chooses_the_same_and_leaves_no_rows(scene, tmp_path, monkeypatch):
    demonstrations, _, template = scene
    short = {"steps": 8, "batch": 16}
    config = SelectionConfig(
        candidates=selection.CandidateConfig(count=24),
        policy=SMALL,
        select=STAGE,
        refit=STAGE.model_copy(update={"members": 1}),
        choice=ChoiceConfig(parts_max=2, measure=STAGE.model_copy(update=short)),
    )
    points = KeypointSet.create("made_up", template, np.zeros((480, 640, 3), np.uint8))
    files = [tmp_path / "tracks" / f"{d.name}.npz" for d in demonstrations]
    for demonstration, file in zip(demonstrations, files, strict=True):
        demonstration.save(file)
    memory = choose(demonstrations, points, config, tmp_path / "memory")
    monkeypatch.setattr(selection, "IN_MEMORY_POINTS", 0)
    monkeypatch.setattr(demonstrations_module, "MEMORY_BYTES", 0)
    cached = TrackedDemonstrations(files, [d.name for d in demonstrations])
    disk = choose(cached, points, config, tmp_path / "disk")
    assert disk.selection.keep.tolist() == memory.selection.keep.tolist()
    # Only the sums of the normalisation are made in another order.
    np.testing.assert_allclose(
        disk.selection.choice.path_errors, memory.selection.choice.path_errors, rtol=1e-3
    )
    assert not list((tmp_path / "disk").rglob("*.f32"))
    assert list((tmp_path / "disk").rglob("select.safetensors"))


def test_normalisation_and_curves_look_at_a_part_of_very_many_frames(scene, monkeypatch):
    demonstrations, _, _ = scene
    data = TrainingData.of(demonstrations)
    assert data.every(1000).tolist() == list(range(160))
    assert data.every(50).tolist() == list(range(0, 160, 4))
    whole = data.statistics(4)
    monkeypatch.setattr(distillation, "STATISTICS_FRAMES", 80)
    half = data.statistics(4)
    assert not torch.equal(whole.uv_mean_px, half.uv_mean_px)
    assert torch.allclose(whole.action_mean, half.action_mean, atol=0.2 * float(whole.action_scale.max()))


def test_tracks_are_read_again_when_they_are_too_many_to_hold(scene, tmp_path, monkeypatch):
    demonstrations, _, _ = scene
    files = [tmp_path / f"{d.name}.npz" for d in demonstrations]
    for demonstration, file in zip(demonstrations, files, strict=True):
        demonstration.save(file)
    monkeypatch.setattr(demonstrations_module, "MEMORY_BYTES", 3 * demonstrations[0].nbytes)
    tracked = TrackedDemonstrations(files, [d.name for d in demonstrations])
    assert len(tracked) == 8
    assert [d.name for d in tracked[1:3]] == [d.name for d in demonstrations[1:3]]
    assert np.array_equal(tracked[-1].uv_px, demonstrations[-1].uv_px)
    quality, expected = trackability(tracked), trackability(demonstrations)
    assert np.array_equal(quality.confidence, expected.confidence)
    assert quality.frames == 160
    for file in files:
        file.unlink()
    assert tracked[1].name == demonstrations[1].name, "held"
    with pytest.raises(DemonstrationError, match="cannot be read"):
        tracked[0]

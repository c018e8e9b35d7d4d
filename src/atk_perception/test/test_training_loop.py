"""Training learns, saves all that it needs to go on, and goes on from there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from atk_perception.learned.weights import load_network
from atk_perception.training.clip import save_clip
from atk_perception.training.planar import planar_clip
from atk_perception.training.train import (
    Trainer,
    TrainingParameters,
    cell_loss,
    clip_files,
    clip_loss,
    draw_batch,
    pair_loss,
)

SMALL = TrainingParameters(
    pair_steps=3,
    clip_steps=3,
    pair_batch=2,
    clip_batch=1,
    clip_frames=2,
    points=8,
    iterations=2,
    crop_width=96,
    crop_height=64,
    threads=1,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for seed in range(2):
        save_clip(folder / f"planar_{seed:06d}.npz", planar_clip(seed, 4, 120, 160, points=16))
    return folder


def test_draws_are_repeatable_and_their_points_are_on_the_template(clips: Path) -> None:
    for pairs in (True, False):
        first, again = (
            draw_batch(clip_files(clips), np.random.default_rng(3), SMALL, pairs=pairs) for _ in range(2)
        )
        assert torch.equal(first.frames, again.frames)
        assert first.frames.shape[1:] == (2 if pairs else 3, 3, 64, 96)
        assert first.visible[:, :, 0].all()
        inside = (first.uv_px[:, :, 0] >= 0) & (first.uv_px[:, :, 0] <= torch.tensor([95.0, 63.0]))
        assert inside.all()


def test_the_cell_loss_is_least_where_the_truth_is() -> None:
    truth = torch.tensor([[[10.0, 6.0]]])
    cells = torch.stack(torch.meshgrid(torch.arange(8), torch.arange(12), indexing="ij"), dim=-1).reshape(
        -1, 2
    )
    distance = (4.0 * cells.flip(1) - truth[0]).norm(dim=1)
    seen = torch.ones(1, 1, dtype=torch.bool)

    def loss(scores: torch.Tensor) -> float:
        return float(cell_loss(torch.log_softmax(scores, 0)[None, None], truth, seen, (8, 12)))

    assert loss(-distance) < loss(torch.zeros(96)) < loss(distance)


@pytest.mark.parametrize("pairs", [True, False])
def test_a_few_steps_on_one_batch_lower_the_loss(clips: Path, tmp_path: Path, pairs: bool) -> None:
    trainer = Trainer(tmp_path, SMALL)
    batch = draw_batch(clip_files(clips), np.random.default_rng(0), SMALL, pairs=pairs)
    losses = []
    for _ in range(8):
        terms = pair_loss(trainer.network, batch) if pairs else clip_loss(trainer.network, batch, SMALL)
        trainer.optimiser.zero_grad()
        torch.autograd.backward(terms["loss"])
        trainer.optimiser.step()
        losses.append(float(terms["loss"].detach()))
    assert min(losses[-3:]) < 0.9 * losses[0]


def test_a_run_goes_through_all_stages_and_leaves_weights(clips: Path, tmp_path: Path) -> None:
    Trainer(tmp_path, SMALL).run(clips)
    with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        about = file.metadata()
    progress = json.loads(about["progress"])
    assert (progress["pair_step"], progress["clip_step"]) == (3, 3)
    assert json.loads(about["parameters"])["seed"] == 0
    assert {"found", "visible", "certain"} <= set(progress["means"])
    assert {"pair 3", "clip 3"} == set(progress["checks"])
    assert all(np.isfinite(list(check.values())).all() for check in progress["checks"].values())
    assert load_network(tmp_path / "atk.safetensors").state_dict()


def test_a_run_that_was_interrupted_ends_with_the_weights_of_one_that_was_not(
    clips: Path, tmp_path: Path
) -> None:
    whole = Trainer(tmp_path / "whole", SMALL)
    whole.run(clips)
    # Both stages broken off in the middle: the schedule is of the whole, the steps are of the part.
    for pair_steps, clip_steps in ((2, 0), (3, 1), (3, 3)):
        part = Trainer(tmp_path / "part", SMALL)
        limit = {"pair": pair_steps, "clip": clip_steps}
        paths = clip_files(clips)
        for stage, steps in limit.items():
            part._stage(stage, paths[1:], paths[:1], until=steps)
        part.save()
    again = Trainer(tmp_path / "part", SMALL)
    assert again.progress == part.progress
    for name in ("network", "mean"):
        for (key, a), b in zip(
            getattr(whole, name).state_dict().items(), getattr(again, name).state_dict().values(), strict=True
        ):
            assert torch.equal(a, b), f"{key} of {name}"


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "checkpoint.safetensors", {"format_version": "1"})
    with pytest.raises(ValueError, match="format version 1, this code reads 2; give another output folder"):
        Trainer(tmp_path, SMALL)


def test_an_empty_folder_is_answered_with_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"training\.generator"):
        clip_files(tmp_path)

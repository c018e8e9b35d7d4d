"""The scale bench: made-up demonstrations of which something is chosen, its memory measured; their tracks are made once."""

from __future__ import annotations

import numpy as np

from atk_policy.bench_scale import benchmark, few_steps, made_up, template, tracked


def test_made_up_demonstrations_show_what_the_arm_follows():
    uv_px = template(32)
    one, other = made_up(0, 40, uv_px), made_up(1, 40, uv_px)
    assert one.uv_px.shape == (40, 32, 2)
    moved = np.abs(one.uv_px[-1] - one.uv_px[0]).max(axis=1)
    assert moved[0::8].min() > 50, "the object is carried"
    assert np.delete(moved, np.arange(0, 32, 8)).max() < 10, "all else stays"
    assert np.abs(one.uv_px[0, 1::8] - other.uv_px[0, 1::8]).min() > 3, "the target lies elsewhere"
    assert np.abs(one.action[-1, :-1] - other.action[-1, :-1]).max() > 0.05, "and the arm ends there"


def test_a_selection_of_few_steps_is_measured_and_its_tracks_are_kept(tmp_path):
    config = few_steps(3)
    assert {config.select.steps, config.refit.steps, config.choice.measure.steps} == {3}
    figures = benchmark(tmp_path, 6, 20, 32, steps=3, workers=1)
    assert (figures["demonstrations"], figures["frames"], figures["candidates"]) == (6, 120, 32)
    assert 4 <= figures["kept"] <= 12
    assert figures["peak_memory_mb"] >= figures["memory_before_mb"] > 50
    assert figures["select_seconds_per_step"] > 0
    assert set(figures["seconds_by_stage"]) == {"select", "measure", "refit"}
    assert not (tmp_path / "work").exists()
    tracks = {file: file.stat().st_mtime_ns for file in (tmp_path / "tracks").iterdir()}
    assert len(tracked(tmp_path / "tracks", 6, 20, 32)) == len(tracks) == 6
    assert tracks == {file: file.stat().st_mtime_ns for file in (tmp_path / "tracks").iterdir()}

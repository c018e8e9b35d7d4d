"""Candidates are where they can be tracked, as far as a strategy looks for that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atk_perception.candidates import NEED_CLIPS, STRATEGIES, cycle_consistency, sample_candidates

FLICKER = (
    slice(60, 220),
    slice(400, 600),
)  # rows, columns: a screen that shows something else in every image


def flickering_clip(make_scene: Any, pose: Any, seed: int) -> list[np.ndarray]:
    scene = make_scene(seed=9)
    rng = np.random.default_rng(seed)
    clip = []
    for k in range(5):
        image = scene.render([pose(p.u + 2 * k, p.v + k) for p in scene.home])
        cells = rng.integers(20, 235, (40, 50, 3), dtype=np.uint8)
        image[FLICKER] = cells.repeat(4, axis=0).repeat(4, axis=1)
        clip.append(image)
    return clip


def on_flicker(uv_px: np.ndarray) -> np.ndarray:
    rows, columns = FLICKER
    return (uv_px >= [columns.start, rows.start]).all(axis=1) & (uv_px < [columns.stop, rows.stop]).all(
        axis=1
    )


def test_round_trips_tell_what_can_be_followed_from_what_cannot(make_scene: Any, pose: Any) -> None:
    clips = [flickering_clip(make_scene, pose, seed) for seed in (0, 1)]
    uv_px = sample_candidates(clips[0][0], 120, np.random.default_rng(0), "textured", margin_px=20.0)
    score = cycle_consistency(clips[0][0], uv_px, clips)
    assert score.shape == (120,)
    assert np.all((score >= 0) & (score <= 1))
    flickers = on_flicker(uv_px)
    assert flickers.sum() >= 5
    assert score[~flickers].mean() > 0.6
    assert score[flickers].mean() < 0.3


def test_tracked_candidates_leave_out_what_cannot_be_followed(make_scene: Any, pose: Any) -> None:
    clips = [flickering_clip(make_scene, pose, seed) for seed in (0, 1)]
    rng = np.random.default_rng
    textured = sample_candidates(clips[0][0], 90, rng(0), "textured")
    tracked = sample_candidates(clips[0][0], 90, rng(0), "tracked", clips=clips)
    assert tracked.shape == (90, 2)
    assert on_flicker(tracked).mean() < 0.6 * on_flicker(textured).mean()
    np.testing.assert_array_equal(tracked, sample_candidates(clips[0][0], 90, rng(0), "tracked", clips=clips))


@pytest.mark.parametrize("strategy", sorted(NEED_CLIPS))
def test_a_strategy_that_tracks_says_that_it_needs_clips(make_scene: Any, strategy: str) -> None:
    with pytest.raises(ValueError, match="needs clips"):
        sample_candidates(make_scene(seed=9).render(), 10, np.random.default_rng(0), strategy)


def test_an_unknown_strategy_is_refused_with_the_known_ones(make_scene: Any) -> None:
    with pytest.raises(ValueError, match="random, textured, tracked"):
        sample_candidates(make_scene(seed=9).render(), 10, np.random.default_rng(0), "best")
    assert set(STRATEGIES) >= NEED_CLIPS

"""Generated clips are exact, repeatable, kept apart from what is measured on, and stored without pickles."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from atk_perception.evaluation import held_out
from atk_perception.training.clip import Clip, load_clip, save_clip
from atk_perception.training.generator import FIRST_HELD_OUT_SEED, generate, training_clip
from atk_perception.training.photometry import PhotometricStrength
from atk_perception.training.planar import PlanarClass, planar_clip
from atk_perception.training.robot_scenes import RobotClass, robot_clip

STILL_LIGHT = PhotometricStrength(light=0.0, blur=0.0, noise=0.0)


def colour_change(clip: Clip) -> np.ndarray:
    """(M,) grey levels by which visible points differ from frame 0, over all later frames."""
    greys = [
        cv2.GaussianBlur(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), (3, 3), 0).astype(np.float32)
        for f in clip.video_rgb
    ]

    def seen(t: int) -> np.ndarray:
        return cv2.remap(greys[t], clip.uv_px[:, t, 0], clip.uv_px[:, t, 1], cv2.INTER_LINEAR)[:, 0]

    return np.concatenate([np.abs(seen(t) - seen(0))[clip.visible[:, t]] for t in range(1, len(clip))])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_flat_object_keeps_its_colours_along_the_tracks(seed: int) -> None:
    kind = PlanarClass(photometric=STILL_LIGHT, new_scene_fraction=0.0, speed_px=5.0)
    clip = planar_clip(seed, 6, 240, 320, kind)
    change = colour_change(clip)
    assert np.median(change) < 3.0
    # The same picture under tracks that are 8 px off: the measure can tell.
    off = Clip(
        clip.video_rgb,
        clip.uv_px + np.float32(8) * (np.arange(6) > 0)[None, :, None],
        clip.visible,
        clip.labelled,
    )
    assert np.mean(colour_change(off)) > 1.5 * np.mean(change)


@pytest.mark.parametrize("seed", [4, 5])
def test_the_points_of_solids_stay_on_them_and_are_hidden_behind_others(seed: int) -> None:
    kind = RobotClass(plain_fraction=0.0, photometric=STILL_LIGHT, new_scene_fraction=0.0)
    clip = robot_clip(seed, 6, 240, 320, kind)
    moved_px = np.linalg.norm(clip.uv_px - clip.uv_px[:, :1], axis=2).max()
    assert moved_px > 1.0
    assert np.median(colour_change(clip)) < 8.0


def test_all_points_are_visible_in_the_first_frame_and_unseen_outside_of_the_image() -> None:
    for clip in (planar_clip(7, 5, 240, 320), robot_clip(7, 5, 240, 320)):
        assert clip.visible[:, 0].all()
        outside = np.any((clip.uv_px < -0.5) | (clip.uv_px > np.array([319.5, 239.5])), axis=2)
        assert not clip.visible[outside].any()


@pytest.mark.parametrize("kind", ["planar", "robot"])
def test_the_same_seed_gives_the_same_clip(kind: str) -> None:
    first, again, other = (training_clip(kind, seed, 3) for seed in (11, 11, 12))
    np.testing.assert_array_equal(first.uv_px, again.uv_px)
    # A software renderer may round a pixel differently from one context to the next.
    assert np.abs(first.video_rgb.astype(int) - again.video_rgb).mean() < 0.5
    assert not np.array_equal(first.video_rgb, other.video_rgb)


def test_seeds_that_are_measured_on_cannot_be_trained_on() -> None:
    with pytest.raises(ValueError, match="held out"):
        training_clip("planar", FIRST_HELD_OUT_SEED, 3)
    with pytest.raises(ValueError, match="unknown kind"):
        training_clip("cloth", 0, 3)


def test_every_class_of_the_benchmark_gives_points_on_objects_at_640x480() -> None:
    for name in ("lowtex", "robot_plain"):
        clip = held_out.tracking_clip(name, 0, 2, points=12)
        assert clip.video_rgb.shape == (2, 480, 640, 3)
        assert clip.visible[:, 0].all()
    with pytest.raises(ValueError, match="unknown class 'hard'"):
        held_out.tracking_clip("hard", 0, 2)


def test_a_clip_comes_back_from_disk_and_is_readable_without_pickles(tmp_path: Path) -> None:
    clip = planar_clip(1, 3, 48, 64, points=5)
    save_clip(tmp_path / "c.npz", clip)
    again = load_clip(tmp_path / "c.npz")
    np.testing.assert_array_equal(again.video_rgb, clip.video_rgb)
    np.testing.assert_array_equal(again.visible, clip.visible)
    np.testing.assert_allclose(again.uv_px, clip.uv_px, atol=1e-3)
    with np.load(tmp_path / "c.npz", allow_pickle=False) as file:
        assert {"video", "points", "occluded"} <= set(file.files)


def test_a_file_without_tracks_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", video=np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"lacks \['occluded', 'points'\]"):
        load_clip(tmp_path / "c.npz")


def test_generation_goes_on_where_it_stopped(tmp_path: Path) -> None:
    assert generate(tmp_path, planar=2, robot=0, length=2, workers=1) == 2
    assert generate(tmp_path, planar=3, robot=0, length=2, workers=1) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"planar_{k:06d}.npz" for k in range(3)]

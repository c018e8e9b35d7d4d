"""The benchmark's figures, checked against cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from atk_perception.evaluation.run import ClipTracks
from atk_perception.evaluation.tap_vid import TrackingScore, claims, tracking_score, transfer_score
from atk_perception.training.clip import Clip, every_frame_labelled


def clip_of(visible: list[list[bool]], width: int = 256, height: int = 256) -> Clip:
    shown = np.array(visible, np.bool_)
    video = np.zeros((shown.shape[1], height, width, 3), np.uint8)
    return every_frame_labelled(video, np.full((*shown.shape, 2), 100.0, np.float32), shown)


ALL = np.ones((1, 4), np.bool_)


def score_of(clip: Clip, uv_px: np.ndarray, visible: np.ndarray, judged: np.ndarray) -> TrackingScore:
    return tracking_score(clip, ClipTracks(uv_px, visible, visible.astype(np.float32), judged))


def test_perfect_tracks_score_one() -> None:
    clip = clip_of([[True, True, False, True]])
    score = score_of(clip, clip.uv_px, clip.visible, ALL)
    assert (score.delta_avg, score.oa, score.aj) == (1.0, 1.0, 1.0)


def test_an_error_of_three_pixels_counts_from_the_threshold_of_four_on() -> None:
    clip = clip_of([[True] * 4])
    score = score_of(clip, clip.uv_px + np.float32([3.0, 0.0]), clip.visible, ALL)
    assert score.delta == (0.0, 0.0, 1.0, 1.0, 1.0)
    assert score.aj == pytest.approx(3 / 5)


def test_distances_are_in_units_of_a_256_pixel_image() -> None:
    clip = clip_of([[True] * 4], width=640, height=480)
    across = score_of(clip, clip.uv_px + np.float32([2.4, 0.0]), clip.visible, ALL)
    down = score_of(clip, clip.uv_px + np.float32([0.0, 2.4]), clip.visible, ALL)
    assert across.delta[0] == 1.0
    assert down.delta[0] == 0.0


def test_a_hidden_point_said_to_be_visible_is_a_false_alarm() -> None:
    clip = clip_of([[True, True, False, False]])
    score = score_of(clip, clip.uv_px, np.ones((1, 4), np.bool_), ALL)
    assert score.delta_avg == 1.0
    assert score.oa == 0.5
    assert score.aj == pytest.approx(2 / 4)


def test_only_judged_frames_count() -> None:
    clip = clip_of([[True] * 4])
    wrong = clip.uv_px.copy()
    wrong[:, :2] += 50.0
    judged = np.array([[False, False, True, True]])
    assert score_of(clip, wrong, clip.visible, judged).delta_avg == 1.0
    with pytest.raises(ValueError, match="nothing to measure"):
        score_of(clip, wrong, clip.visible, np.zeros((1, 4), np.bool_))


def test_refinding_is_counted_per_return_from_an_occlusion() -> None:
    clip = clip_of(
        [[True, False, False, False, True, True, True], [True, True, False, True, True, True, True]]
    )
    judged = np.ones((2, 7), np.bool_)
    found = score_of(clip, clip.uv_px, clip.visible, judged)
    lost = score_of(clip, clip.uv_px, clip.visible & (np.arange(7) < 4), judged)
    # The second point was hidden for one frame only: that is no occlusion.
    assert (found.refound, found.returns) == (1, 1)
    assert (lost.refound, lost.returns) == (0, 1)


def test_transfer_counts_hidden_points_that_are_confidently_found_as_wrong() -> None:
    score = transfer_score(
        np.array([1.0, 9.0, 2.0, 20.0], np.float32),
        np.array([0.9, 0.8, 0.7, 0.1], np.float32),
        np.array([True, True, False, True]),
    )
    assert score.pck8 == pytest.approx(1 / 3)
    assert score.confident_wrong == pytest.approx(2 / 4)
    assert score.confident == pytest.approx(2 / 3)


def test_claims_are_points_said_to_be_visible_and_right_within_eight_pixels_of_640() -> None:
    clip = clip_of([[True, True, False, True]], width=320, height=240)
    said = np.array([[True, True, True, False]])
    confidence = np.array([[0.9, 0.8, 0.7, 0.6]], np.float32)
    off_px = np.zeros((1, 4, 2), np.float32)
    off_px[0, 1, 0] = 4.5  # nine of 640
    found, right = claims(clip, ClipTracks(clip.uv_px + off_px, said, confidence, ALL))
    np.testing.assert_array_equal(found, confidence[said])
    assert right.tolist() == [True, False, False]

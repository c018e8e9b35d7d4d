"""Parts are placed as a whole: what looks like the thing beside it goes with its own part."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.keypoint_set import KeypointSet, KeypointSetError
from atk_perception.keypoint_tracker import KeypointTracker
from atk_perception.part_placement import RigidParts, place_parts
from atk_perception.registry import make_matcher, make_tracker
from atk_perception.transfer import TransferParameters, transfer

CENTRE_PX = np.array([320.0, 240.0])
DISC_PX, RING_PX, PLATE_PX = 46, 66, 112
BOARD, DISC = 0, 1
TICK_RAD = np.pi / 24  # the ring looks the same after so much


def dial_rgb(turn_rad: float, move: np.ndarray, seed: int = 4) -> np.ndarray:
    """A clock on a table: a plate with a ring of ticks, and in the ring a speckled disc, turned by `turn_rad`.

    `move` (2, 3) takes the clock as it stands on the template to where it stands.
    """
    rng = np.random.default_rng(seed)
    table = np.full((480, 640), 150, np.uint8) + rng.integers(0, 12, (480, 640)).astype(np.uint8)
    u, v = (int(x) for x in CENTRE_PX)
    plate = np.full((480, 640), 95, np.uint8)
    for number in range(18):  # what is written on the plate
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(RING_PX + 16, PLATE_PX - 12)
        at = (int(u + away * np.cos(angle)), int(v + away * np.sin(angle)))
        cv2.putText(
            plate, str(number), at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, int(rng.integers(0, 255)), 1, cv2.LINE_AA
        )
    cv2.circle(plate, (u, v), RING_PX, 230, -1, cv2.LINE_AA)
    for tick in range(48):
        ray = np.array([np.cos(tick * TICK_RAD), np.sin(tick * TICK_RAD)])
        ends = [tuple((CENTRE_PX + away * ray).astype(int).tolist()) for away in (RING_PX - 11, RING_PX - 4)]
        cv2.line(plate, ends[0], ends[1], 20, 1, cv2.LINE_AA)
    speckled = cv2.GaussianBlur(rng.integers(0, 255, (480, 640)).astype(np.float32), (0, 0), 2.5)
    speckled = cv2.normalize(speckled, None, 10, 250, cv2.NORM_MINMAX).astype(np.uint8)
    turn = cv2.getRotationMatrix2D(CENTRE_PX.tolist(), np.rad2deg(turn_rad), 1.0)
    disc = np.zeros_like(plate)
    cv2.circle(disc, (u, v), DISC_PX, 255, -1)
    clock = np.where(disc > 0, cv2.warpAffine(speckled, turn, (640, 480)), plate)
    shape = np.zeros_like(plate)
    cv2.circle(shape, (u, v), PLATE_PX, 255, -1)
    there = cv2.warpAffine(shape, move, (640, 480))
    grey = np.where(there > 0, cv2.warpAffine(clock, move, (640, 480)), table)
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def standing(angle_deg: float, shift_px: tuple[float, float]) -> np.ndarray:
    move = cv2.getRotationMatrix2D(CENTRE_PX.tolist(), angle_deg, 1.0)
    move[:, 2] += shift_px
    return move


def on_circle(count: int, away_px: float) -> np.ndarray:
    angle = np.arange(count) * 2 * np.pi / count + 0.1
    return CENTRE_PX + away_px * np.stack([np.cos(angle), np.sin(angle)], axis=1)


POINTS_PX = np.concatenate([on_circle(4, RING_PX), on_circle(12, DISC_PX + 1)]).astype(np.float32)
COMPANIONS_PX = np.concatenate(
    [on_circle(8, 100), on_circle(6, 84), on_circle(8, 32), on_circle(5, 16)]
).astype(np.float32)
PARTS = RigidParts(
    np.repeat([BOARD, DISC], [4, 12]).astype(np.int64),
    COMPANIONS_PX,
    np.repeat([BOARD, DISC], [14, 13]).astype(np.int64),
)
HOME = standing(0.0, (0.0, 0.0))


def truth_px(points_px: np.ndarray, parts: np.ndarray, turn_rad: float, move: np.ndarray) -> np.ndarray:
    turn = cv2.getRotationMatrix2D(CENTRE_PX.tolist(), np.rad2deg(turn_rad), 1.0)
    turned = points_px @ turn[:, :2].T + turn[:, 2]
    on_template = np.where((parts == DISC)[:, None], turned, points_px)
    return on_template @ move[:, :2].T + move[:, 2]


def test_points_that_look_alike_from_all_sides_go_with_their_part():
    template = Template(dial_rgb(0.0, HOME), POINTS_PX)
    alone_wrong, errors_px = 0, []
    for ticks, angle_deg in ((20, 25.0), (4, 0.0), (-16, -15.0)):
        turn_rad = ticks * TICK_RAD
        move = standing(angle_deg, (25.0, -10.0))
        scene = dial_rgb(turn_rad, move)
        truth = truth_px(POINTS_PX, PARTS.of_points, turn_rad, move)
        alone = transfer(make_matcher("sift"), template, scene, TransferParameters())
        alone_error = np.linalg.norm(alone.matches.uv_px - truth, axis=1)
        alone_wrong += int((alone.found & (alone_error > 8.0)).sum())
        whole = transfer(
            make_matcher("sift"), PARTS.with_companions(template), scene, TransferParameters(), PARTS
        )
        assert whole.accepted
        assert len(whole.found) == len(POINTS_PX)
        errors_px.append(np.linalg.norm(whole.matches.uv_px - truth, axis=1))
    assert alone_wrong >= 4  # the scenes are hard ones
    assert np.concatenate(errors_px).max() < 4.0


def test_a_part_goes_where_it_looks_right_though_most_matches_say_otherwise():
    turn_rad, move = 1.4, standing(10.0, (20.0, 10.0))
    points_px, parts = np.concatenate([POINTS_PX, COMPANIONS_PX]), PARTS.numbers
    truth = truth_px(points_px, parts, turn_rad, move)
    as_board = truth_px(points_px, np.full_like(parts, BOARD), turn_rad, move)
    rng = np.random.default_rng(0)
    disc = np.flatnonzero(parts == DISC)
    fell_for_it = np.zeros(len(parts), np.bool_)
    fell_for_it[rng.permutation(disc)[:15]] = True  # of 25
    uv_px = np.where(fell_for_it[:, None], as_board, truth) + rng.normal(0.0, 0.5, truth.shape)
    lost = rng.permutation(np.flatnonzero(parts == BOARD))[:5]
    uv_px[lost] = rng.uniform((0, 0), (639, 479), (5, 2))
    confidence = np.full(len(parts), 0.9, np.float32)
    matches = Matches(
        uv_px.astype(np.float32), confidence, np.tile(np.eye(2, dtype=np.float32), (len(parts), 1, 1))
    )
    template = Template(dial_rgb(0.0, HOME), points_px)
    whole, placed = place_parts(template, parts, matches, dial_rgb(turn_rad, move), 0.5)
    assert placed.all()
    error_px = np.linalg.norm(whole.uv_px - truth, axis=1)
    assert error_px.max() < 4.0
    seen = whole.confidence >= 0.5
    assert seen[fell_for_it].mean() > 0.8
    assert seen[lost].mean() >= 0.8
    right = ~fell_for_it
    right[lost] = False
    np.testing.assert_array_equal(whole.uv_px[right], matches.uv_px[right])
    # The tracker lays the template over the scene with these.
    angle = turn_rad + np.deg2rad(10.0)
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert np.abs(whole.warp[fell_for_it] - turned).max() < 0.1


def test_a_part_that_is_not_there_stays_as_the_matcher_had_it():
    template = Template(dial_rgb(0.0, HOME), POINTS_PX)
    rng = np.random.default_rng(1)
    anywhere = Matches(
        rng.uniform((0, 0), (639, 479), (16, 2)).astype(np.float32),
        np.full(16, 0.7, np.float32),
        np.tile(np.eye(2, dtype=np.float32), (16, 1, 1)),
    )
    bare = np.full((480, 640, 3), 150, np.uint8) + rng.integers(0, 12, (480, 640, 3)).astype(np.uint8)
    same, placed = place_parts(template, PARTS.of_points, anywhere, bare, 0.5)
    assert not placed.any()
    np.testing.assert_array_equal(same.uv_px, anywhere.uv_px)
    np.testing.assert_array_equal(same.confidence, anywhere.confidence)


def keypoint_set() -> KeypointSet:
    return KeypointSet.create("clock", POINTS_PX, dial_rgb(0.0, HOME), rigid=PARTS)


def test_the_tracker_begins_with_parts_in_one_piece():
    turn_rad, move = 4 * TICK_RAD, HOME
    tracker = KeypointTracker(keypoint_set(), make_matcher("sift"), make_tracker("template_lk"))
    truth = truth_px(POINTS_PX, PARTS.of_points, turn_rad, move)
    for frame in range(3):
        seen = tracker.update(frame * 50_000_000, dial_rgb(turn_rad, move))
        assert seen.uv_px.shape == (16, 2)
        assert seen.visible.shape == (16,)
        assert np.linalg.norm(seen.uv_px - truth, axis=1)[seen.visible].max() < 4.0
        assert seen.visible.sum() >= 12


def test_parts_and_companions_survive_the_folder(tmp_path):
    keypoint_set().save(tmp_path)
    read = KeypointSet.load(tmp_path).rigid
    assert read is not None
    np.testing.assert_array_equal(read.of_points, PARTS.of_points)
    np.testing.assert_array_equal(read.of_companions, PARTS.of_companions)
    np.testing.assert_allclose(read.companions_px, PARTS.companions_px, atol=1e-4)


def test_a_subset_keeps_the_companions_of_its_parts():
    rigid = keypoint_set().subset([1, 2]).rigid
    assert rigid is not None
    np.testing.assert_array_equal(rigid.of_points, [BOARD, BOARD])
    np.testing.assert_array_equal(rigid.numbers, [BOARD] * 16)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  part: 0\n", "  part: 7\n", "companions of part 0, which no keypoint is of; the parts are .*7"),
        ("  part: 1\n", "  part: -1\n", "part: Input should be greater than or equal to 0"),
        ("  part: 1\n", "", "some keypoints have a 'part' and others have none"),
    ],
)
def test_parts_that_make_no_sense_are_refused_with_the_reason(refused_when_edited, old, new, message):
    refused_when_edited(keypoint_set(), old, new, message)


def test_companions_outside_the_template_and_shapes_that_disagree_are_refused():
    astray = replace(PARTS, companions_px=PARTS.companions_px + 400)
    with pytest.raises(KeypointSetError, match="companions lie outside the 640x480 template"):
        replace(keypoint_set(), rigid=astray)
    with pytest.raises(KeypointSetError, match=r"of_points must have shape \(16,\)"):
        replace(keypoint_set(), rigid=replace(PARTS, of_points=PARTS.of_points[:5]))

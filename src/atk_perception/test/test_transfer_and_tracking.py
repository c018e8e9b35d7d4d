"""Keypoints are found in new scenes and followed through them, and refused where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from atk_perception.candidates import sample_candidates
from atk_perception.correspondence.protocol import Matches
from atk_perception.keypoint_set import KeypointSet, KeypointSetError
from atk_perception.keypoint_tracker import KeypointTracker, KeypointTrackerParameters, TrackerState
from atk_perception.overlay import Overlay
from atk_perception.registry import MATCHERS, TRACKERS, make_matcher, make_tracker
from atk_perception.tracking.refinding import RefindingParameters
from atk_perception.transfer import TransferParameters, transfer

PERIOD_NS = 33_333_333


def keypoint_set_of(template) -> KeypointSet:
    return KeypointSet.create("test", template.uv_px, template.image_rgb, camera_name="camera")


def new_tracker(template, name: str = "template_lk") -> KeypointTracker:
    return KeypointTracker(keypoint_set_of(template), make_matcher("sift"), make_tracker(name))


def test_a_camera_that_repeats_its_picture_is_noticed(make_scene):
    scene = make_scene(seed=1)
    tracker = new_tracker(scene.template())
    image = scene.render(scene.home)
    other = image.copy()
    other[240, 320, 0] ^= 1
    pictures = [image, image.copy(), image, other, image]
    repeats = [tracker.update(k * PERIOD_NS, picture).repeats for k, picture in enumerate(pictures)]
    assert repeats == [0, 1, 2, 0, 0]


@pytest.mark.parametrize("angle_deg", [0, 35, 90, 180])
@pytest.mark.parametrize("scale", [0.75, 1.0, 1.35])
def test_transfer_survives_rotation_scale_background_and_light(make_scene, pose, light, angle_deg, scale):
    scene = make_scene(seed=1)
    template = scene.template()
    poses = [pose(p.u + 25, p.v - 15, np.deg2rad(angle_deg), scale) for p in scene.home]
    image = scene.render(poses, scene.new_background(5), light((1.1, 0.9, 0.8), 0.3))
    matches = make_matcher("sift").match(template, image)
    error = np.linalg.norm(matches.uv_px - scene.truth(template, poses), axis=1)
    sure = matches.confidence > 0.5
    assert sure.mean() > 0.7
    assert np.median(error[sure]) < 1.5
    assert (error[sure] > 8.0).mean() < 0.05


def test_a_point_that_is_hidden_at_transfer_is_placed_by_its_neighbours(make_scene, pose):
    scene = make_scene(seed=3)
    template = scene.template()
    poses = [pose(p.u + 40, p.v + 25, 0.5) for p in scene.home]
    first = poses[0]
    bar = (first.u + 8, first.v - 60, first.u + 60, first.v + 60)  # over the right part of the first object
    outcome = transfer(
        make_matcher("sift"), template, scene.render(poses, occluder=bar), TransferParameters()
    )
    truth = scene.truth(template, poses)
    hidden = (np.abs(truth - [first.u, first.v]).max(axis=1) < 60) & (truth[:, 0] > bar[0] + 6)
    assert hidden.sum() >= 3
    assert outcome.accepted
    assert not outcome.found[hidden].any()
    error_px = np.linalg.norm(outcome.matches.uv_px - truth, axis=1)
    assert error_px[hidden].max() < 10.0
    assert (outcome.matches.confidence[hidden] < 0.5).all()


def test_a_scene_without_the_objects_is_refused(make_scene):
    template = make_scene(seed=1).template()
    elsewhere = make_scene(seed=2).render()
    tracker = new_tracker(template)
    seen = tracker.update(0, elsewhere)
    assert seen.tracker_state is TrackerState.TRANSFER_FAILED
    assert not seen.visible.any()
    assert "needed" in seen.reason


@pytest.mark.parametrize("name", ["template_lk", "atk"])
def test_moving_objects_are_followed_and_found_again_behind_an_occluder(make_scene, pose, name):
    scene = make_scene(seed=3)
    template = scene.template()
    tracker = new_tracker(template, name)
    covered, hidden_said, errors = 0, 0, []
    for k in range(45):
        poses = [pose(p.u + 1.5 * k, p.v - 0.8 * k, 0.02 * k) for p in scene.home]
        bar = (12 * k - 150, 0, 12 * k - 60, 480)  # crosses every object
        seen = tracker.update(k * PERIOD_NS, scene.render(poses, occluder=bar))
        truth = scene.truth(template, poses)
        behind = (truth[:, 0] > bar[0] + 8) & (truth[:, 0] < bar[2] - 8)
        covered += int(behind.sum())
        hidden_said += int((behind & ~seen.visible).sum())
        errors.append(np.linalg.norm(seen.uv_px - truth, axis=1)[seen.visible & ~behind])
    assert seen.tracker_state is TrackerState.TRACKING
    assert seen.visible[~behind].mean() > 0.75
    every = np.concatenate(errors)
    assert np.median(every) < 1.0
    assert (every < 4.0).mean() > 0.95
    assert hidden_said > 0.9 * covered


def test_the_learned_tracker_finds_again_what_comes_back_elsewhere_and_turned(make_scene, pose):
    scene = make_scene(seed=3)
    template = scene.template()
    everything, tracker = np.ones(len(template), np.float32), make_tracker("atk")
    identity = np.tile(np.eye(2, dtype=np.float32), (len(template), 1, 1))
    state = tracker.start(template, template.image_rgb, Matches(template.uv_px, everything, identity))
    mine = np.linalg.norm(template.uv_px - [scene.home[0].u, scene.home[0].v], axis=1) < 60
    for _ in range(8):  # the first object is taken away
        poses = [pose(-300.0, -300.0), *scene.home[1:]]
        state, tracks = tracker.step(state, scene.render(poses))
    assert not tracks.visible[mine].any()
    assert tracks.visible[~mine].mean() > 0.8
    home = scene.home[0]
    poses = [pose(home.u + 20, home.v + 30, np.deg2rad(130)), *scene.home[1:]]
    for _ in range(8):
        state, tracks = tracker.step(state, scene.render(poses))
    error_px = np.linalg.norm(tracks.uv_px - scene.truth(template, poses), axis=1)
    assert tracks.visible[mine].mean() > 0.7
    assert np.median(error_px[mine & tracks.visible]) < 1.5


def turned_behind_a_bar(scene, pose, template, refinding):
    """(N,) visible, (N,) error [px] of a set of which the first object turns by 140 degrees while a bar hides it."""
    tracker = KeypointTracker(
        keypoint_set_of(template),
        make_matcher("sift"),
        make_tracker("template_lk"),
        KeypointTrackerParameters(refinding=refinding),
    )
    home = scene.home[0]
    bar = (home.u - 75, home.v - 75, home.u + 75, home.v + 75)
    after = [pose(home.u + 25, home.v - 20, np.deg2rad(140)), *scene.home[1:]]
    images = [
        scene.render(scene.home),
        *[scene.render(scene.home, occluder=bar)] * 6,
        *[scene.render(after)] * 12,
    ]
    seen = [tracker.update(k * PERIOD_NS, image) for k, image in enumerate(images)]
    assert all(s.tracker_state is TrackerState.TRACKING for s in seen)
    return seen[-1].visible, np.linalg.norm(seen[-1].uv_px - scene.truth(template, after), axis=1)


def test_what_turned_while_it_was_hidden_is_found_again(make_scene, pose):
    scene = make_scene(seed=3)
    template = scene.template()
    mine = np.linalg.norm(template.uv_px - [scene.home[0].u, scene.home[0].v], axis=1) < 60
    visible, error_px = turned_behind_a_bar(scene, pose, template, RefindingParameters())
    assert visible[mine].mean() > 0.75
    assert np.median(error_px[mine & visible]) < 1.5
    assert (error_px[visible] < 8.0).mean() > 0.95
    without, _ = turned_behind_a_bar(scene, pose, template, None)
    assert without[mine].mean() < 0.25  # the tracker alone only looks around where they went out of sight


def test_what_is_not_there_any_more_is_not_found_again(make_scene, pose):
    scene = make_scene(seed=3)
    template = scene.template()
    tracker = new_tracker(template)
    mine = np.linalg.norm(template.uv_px - [scene.home[0].u, scene.home[0].v], axis=1) < 60
    gone = scene.render([pose(-300.0, -300.0), *scene.home[1:]])
    for k, image in enumerate([scene.render(scene.home), *[gone] * 20]):
        seen = tracker.update(k * PERIOD_NS, image)
    assert not seen.visible[mine].any()
    assert seen.visible[~mine].mean() > 0.8


def test_the_same_images_give_the_same_tracks(make_scene, pose):
    scene = make_scene(seed=4)
    template = scene.template()
    images = [scene.render([pose(p.u + 2 * k, p.v) for p in scene.home]) for k in range(6)]

    def run() -> np.ndarray:
        tracker = new_tracker(template)
        return np.stack([tracker.update(k * PERIOD_NS, image).uv_px for k, image in enumerate(images)])

    np.testing.assert_array_equal(run(), run())


def test_a_lost_set_is_transferred_again(make_scene):
    scene = make_scene(seed=5)
    template = scene.template()
    tracker = new_tracker(template)
    assert tracker.update(0, scene.render()).tracker_state is TrackerState.TRACKING
    empty = np.full((480, 640, 3), 90, np.uint8)
    states = [tracker.update((1 + k) * PERIOD_NS, empty).tracker_state for k in range(15)]
    assert states[-1] is TrackerState.LOST
    seen = [tracker.update((20 + k) * PERIOD_NS, scene.render()) for k in range(6)]
    assert seen[-1].tracker_state is TrackerState.TRACKING
    assert seen[-1].visible.mean() > 0.8


def test_a_set_behind_a_hand_is_not_lost_as_long_as_one_point_is_seen(make_scene, pose):
    """An arm that holds because its hand hides the object hides it for ever."""
    scene = make_scene(seed=5)
    template = scene.template()
    tracker = new_tracker(template)
    tracker.update(0, scene.render())
    truth = scene.truth(template, scene.home)
    outermost = int(np.argmax(truth[:, 0]))
    hand = (
        0,
        0,
        float(np.sort(truth[:, 0])[-2]) + 4,
        480,
    )  # all but the rightmost point and what is around it
    seen = [tracker.update((1 + k) * PERIOD_NS, scene.render(occluder=hand)) for k in range(60)]
    few = np.array([0 < s.visible.sum() < 0.15 * len(template) for s in seen])
    assert few[:30].all(), "the scene does not show what it is meant to"
    assert few[0]
    assert seen[0].visible[outermost]
    states = [s.tracker_state for s in seen]
    lost_after = tracker.parameters.lost_after_frames
    assert set(states[: lost_after - 1]) == {TrackerState.TRACKING}
    assert TrackerState.LOST in states[lost_after - 1 :]


def test_an_image_of_another_size_is_rescaled_or_refused(make_scene):
    scene = make_scene(seed=6)
    template = scene.template()
    tracker = new_tracker(template)
    half = np.ascontiguousarray(scene.render()[::2, ::2])
    seen = tracker.update(0, half)
    assert seen.tracker_state is TrackerState.TRACKING
    assert np.median(np.linalg.norm(seen.uv_px - template.uv_px, axis=1)) < 2.0
    wide = tracker.update(PERIOD_NS, scene.render()[:300])
    assert wide.tracker_state is TrackerState.TRANSFER_FAILED
    assert "640x300" in wide.reason
    assert "640x480" in wide.reason


def test_time_that_jumps_back_transfers_afresh(make_scene, pose):
    scene = make_scene(seed=7)
    template = scene.template()
    tracker = new_tracker(template)
    tracker.update(10 * 10**9, scene.render())
    moved = [pose(p.u + 60, p.v + 30, 1.0) for p in scene.home]
    seen = tracker.update(0, scene.render(moved))
    assert np.median(np.linalg.norm(seen.uv_px - scene.truth(template, moved), axis=1)) < 2.0


def test_a_keypoint_set_survives_its_folder(make_scene, tmp_path):
    keypoint_set = keypoint_set_of(make_scene().template())
    keypoint_set.save(tmp_path)
    read = KeypointSet.load(tmp_path)
    np.testing.assert_array_equal(read.ids, keypoint_set.ids)
    np.testing.assert_allclose(read.uv_px, keypoint_set.uv_px)
    np.testing.assert_array_equal(read.template_rgb, keypoint_set.template_rgb)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format_version: 1", "format_version: 9", "format version 9; this release reads version 1"),
        ("image_width: 640", "image_width: 320", "640x480"),
        ("name: test", "nome: test", "name: Field required"),
        ("keypoints:", "keypoints: {", "not readable YAML"),
    ],
)
def test_an_unusable_keypoint_set_is_refused_with_the_reason(
    make_scene, refused_when_edited, old, new, message
):
    refused_when_edited(keypoint_set_of(make_scene().template()), old, new, message)


def test_a_missing_template_or_folder_is_named(make_scene, tmp_path):
    with pytest.raises(KeypointSetError, match="does not exist"):
        KeypointSet.load(tmp_path / "nothing")
    keypoint_set_of(make_scene().template()).save(tmp_path)
    (tmp_path / "template.png").write_bytes(b"no image")
    with pytest.raises(KeypointSetError, match=r"template\.png"):
        KeypointSet.load(tmp_path)


def test_the_overlay_marks_every_point_and_keeps_the_image(make_scene):
    scene = make_scene(seed=8)
    template = scene.template()
    image = scene.render()
    seen = new_tracker(template).update(0, image)
    before = image.copy()
    picture = Overlay().draw(image, seen)
    np.testing.assert_array_equal(image, before)
    changed = np.abs(picture.astype(int) - image).sum(axis=2) > 0
    for u, v in np.rint(seen.uv_px).astype(int):
        assert changed[v - 5 : v + 6, u - 5 : u + 6].any()


def test_candidates_are_reproducible_and_inside(make_scene):
    image = make_scene().render()
    first = sample_candidates(image, 64, np.random.default_rng(0))
    again = sample_candidates(image, 64, np.random.default_rng(0))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (64, 2)
    assert (first >= 0).all()
    assert (first <= [639, 479]).all()


def test_unknown_backends_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="sift"):
        make_matcher("sieve")
    with pytest.raises(ValueError, match="template_lk"):
        make_tracker("follow")
    assert all(backend.licence and backend.summary for backend in (*MATCHERS.values(), *TRACKERS.values()))

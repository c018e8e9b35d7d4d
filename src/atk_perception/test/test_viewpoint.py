"""Keypoints of a camera that was moved come out where the training camera would see them, or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from placed_cameras import DISTORTIONS, HEIGHT, WIDTH, camera_at, cameras

from atk_perception.viewpoint import Plane, Viewpoint, depth_of, reproject

TABLE = Plane.at_height(0.02)
# Where the table is in the picture of every camera of these tests: distortion models hold there.
ON_TABLE = st.lists(st.tuples(st.floats(0.40, 0.60), st.floats(-0.1, 0.1)), min_size=1, max_size=6)
PIXELS = st.lists(
    st.tuples(st.floats(120, WIDTH - 120), st.floats(100, HEIGHT - 100)), min_size=1, max_size=6
)
EXACT_PX = 0.05


def flat_depth(z_m: float, shape=(HEIGHT, WIDTH)) -> np.ndarray:
    return np.full(shape, z_m, np.float32)


@given(cameras(), PIXELS)
def test_the_same_camera_sees_the_same(camera, pixels):
    uv_px = np.array(pixels)
    for surface in (TABLE, flat_depth(0.7)):
        seen = reproject(uv_px, camera, camera, surface)
        assert seen.known.all()
        np.testing.assert_allclose(seen.uv_px, uv_px, atol=EXACT_PX)


@given(cameras(), cameras(), ON_TABLE)
def test_points_in_the_plane_map_exactly(live, training, points):
    points_m = np.array([(x, y, 0.02) for x, y in points])
    seen = reproject(live.project(points_m), live, training, TABLE)
    assert seen.known.all()
    np.testing.assert_allclose(seen.uv_px, training.project(points_m), atol=EXACT_PX)


@given(cameras(), cameras(), st.tuples(st.floats(0.42, 0.58), st.floats(-0.08, 0.08), st.floats(0.0, 0.15)))
def test_with_depth_any_point_maps_exactly(live, training, point):
    point_m = np.array([point])
    uv_px = live.project(point_m)
    # Depth is known where the picture is.
    assume((uv_px > 1.0).all() and (uv_px < (WIDTH - 2, HEIGHT - 2)).all())
    z_m = float(((point_m - live.T_base_camera[:3, 3]) @ live.T_base_camera[:3, 2])[0])
    # Depth images are single precision, and may be of another size than the image.
    for shape in ((HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 2)):
        seen = reproject(uv_px, live, training, flat_depth(z_m, shape))
        assert seen.known.all()
        np.testing.assert_allclose(seen.uv_px, training.project(point_m), atol=EXACT_PX)


def test_what_is_above_the_plane_lands_beside_by_the_parallax_that_is_documented():
    """Cameras straight above, so that b h / (c - h) is the error on the table itself."""
    above, beside = (replace(camera_at(), T_base_camera=np.array(pose, float)) for pose in (
        [[1, 0, 0, 0.5], [0, -1, 0, 0.0], [0, 0, -1, 0.8], [0, 0, 0, 1]],
        [[1, 0, 0, 0.6], [0, -1, 0, 0.0], [0, 0, -1, 0.8], [0, 0, 0, 1]],
    ))  # fmt: skip
    lifted = np.array([[0.5, 0.0, 0.1]])
    table = Plane.at_height(0.0)
    uv_px = beside.project(lifted)
    believed = beside.lift(uv_px, depth_of(uv_px, beside, table))
    assert believed[0, 2] == pytest.approx(0.0, abs=1e-9)
    assert abs(believed[0, 0] - 0.5) == pytest.approx(0.1 * 0.1 / (0.8 - 0.1))
    off_px = np.linalg.norm(reproject(uv_px, beside, above, table).uv_px - above.project(lifted))
    assert off_px > 10.0
    exact = reproject(uv_px, beside, above, flat_depth(0.7))
    np.testing.assert_allclose(exact.uv_px, above.project(lifted), atol=EXACT_PX)


def test_what_is_not_known_is_not_guessed():
    live, training = camera_at(), camera_at((0.9, 0.2, 0.6))
    middle = np.array([[320.0, 240.0]])
    # The plane is above the camera: the ray meets it behind.
    assert not reproject(middle, live, training, Plane.at_height(2.0)).known.any()
    # The plane contains the ray's direction.
    forward = live.T_base_camera[:3, 2]
    axis = live.lift(np.array([live.K[:2, 2]]), np.ones(1))[0]
    along = Plane(axis + 0.1, np.cross(forward, [0.0, 0.0, 1.0]))
    assert not reproject(live.project(axis[None]), live, training, along).known.any()
    for reading in (np.nan, 0.0):
        assert not reproject(middle, live, training, flat_depth(reading)).known.any()
    # Behind the training camera, and outside the depth image.
    turned = replace(training, T_base_camera=training.T_base_camera @ np.diag([1.0, -1.0, -1.0, 1.0]))
    assert not reproject(middle, live, turned, TABLE).known.any()
    assert not reproject(np.array([[-40.0, 240.0]]), live, training, flat_depth(0.7)).known.any()
    assert reproject(np.zeros((0, 2)), live, training, TABLE).uv_px.shape == (0, 2)


@pytest.mark.parametrize("model", sorted(DISTORTIONS))
def test_far_off_the_axis_a_distortion_model_says_nothing_rather_than_something_wrong(model):
    camera = camera_at(model=model)
    angles = np.deg2rad(np.arange(0.0, 89.0))
    in_camera = np.stack([np.sin(angles), np.zeros_like(angles), np.cos(angles)], axis=1)
    points = in_camera @ camera.T_base_camera[:3, :3].T + camera.T_base_camera[:3, 3]
    uv_px = camera.project(points)
    known = np.isfinite(uv_px).all(axis=1)
    assert known[:20].all()
    # Where it says something, a point further out is further out, and comes back.
    assert (np.diff(uv_px[known, 0]) > 0).all()
    np.testing.assert_allclose(camera.lift(uv_px[known], in_camera[known, 2]), points[known], atol=1e-3)


@given(cameras(), ON_TABLE, st.sampled_from([(320, 240), (1280, 960), (320, 480)]))
@settings(max_examples=30)
def test_a_resized_image_keeps_its_corners(camera, points, size):
    points_m = np.array([(x, y, 0.0) for x, y in points])
    scale = np.array(size) / (WIDTH, HEIGHT)
    np.testing.assert_allclose(
        camera.scaled(*size).project(points_m) + 0.5, (camera.project(points_m) + 0.5) * scale, atol=1e-6
    )


# ------------------------------------------------------------------------------------------- in a stream

TEMPLATE_UV = np.array([[300.0, 200.0], [350.0, 260.0], [280.0, 250.0]], np.float32)
SEEN = np.ones(3, bool)
LIVE, TRAINING = camera_at((1.0, 0.1, 0.65), 0.2), camera_at()


def viewpoint(plane: Plane | None) -> Viewpoint:
    made = Viewpoint(TRAINING, plane, TEMPLATE_UV)
    made.place(LIVE)
    return made


def test_a_camera_that_was_not_moved_changes_no_bit_and_needs_no_depth():
    for plane in (TABLE, None):
        unmoved = viewpoint(plane)
        unmoved.place(TRAINING)
        seen = unmoved.see(TEMPLATE_UV, SEEN, None)
        assert np.array_equal(seen.uv_px, TEMPLATE_UV)
        assert seen.visible.all()
        assert seen.reason == ""


def test_an_occluded_point_is_lifted_at_its_own_depth_not_at_that_of_what_hides_it():
    points_m = np.array([[0.5, 0.0, 0.10], [0.52, 0.03, 0.10], [0.47, -0.02, 0.10]])
    uv_px = LIVE.project(points_m).astype(np.float32)
    z_m = (points_m - LIVE.T_base_camera[:3, 3]) @ LIVE.T_base_camera[:3, 2]
    depth_m = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    for (u, v), z in zip(uv_px.round().astype(int), z_m, strict=True):
        depth_m[v - 2 : v + 3, u - 2 : u + 3] = z
    view = viewpoint(None)
    first = view.see(uv_px, SEEN, depth_m)
    np.testing.assert_allclose(first.uv_px, TRAINING.project(points_m), atol=0.1)
    depth_m[:] = 0.2  # a hand right before the camera
    hidden = view.see(uv_px, np.zeros(3, bool), depth_m)
    assert not hidden.visible.any()
    np.testing.assert_allclose(hidden.uv_px, first.uv_px, atol=1e-3)
    # One that was never seen is taken to be as far as the others.
    unseen = viewpoint(None)
    third = unseen.see(uv_px, np.array([True, False, True]), flat_depth(float(z_m.mean())))
    assert third.visible.tolist() == [True, False, True]
    np.testing.assert_allclose(third.uv_px[1], TRAINING.project(points_m)[1], atol=10.0)


def test_without_depth_points_stay_where_they_were_and_are_not_visible():
    view = viewpoint(None)
    nothing = view.see(TEMPLATE_UV, SEEN, None)
    assert not nothing.visible.any()
    assert np.array_equal(nothing.uv_px, TEMPLATE_UV)  # never known: as on the template
    assert nothing.reason == "no depth image of about this time"
    holes = view.see(TEMPLATE_UV, SEEN, flat_depth(np.nan))
    assert not holes.visible.any()
    assert holes.reason == "3 keypoints have no known place"
    assert np.isfinite(holes.uv_px).all()


def test_a_camera_that_nobody_has_placed_sees_nothing_and_says_why():
    lost = Viewpoint(TRAINING, TABLE, TEMPLATE_UV)
    assert not lost.see(TEMPLATE_UV, SEEN).visible.any()
    lost.place(LIVE)
    assert lost.see(TEMPLATE_UV, SEEN).visible.all()
    lost.lose("TF does not connect them")
    seen = lost.see(TEMPLATE_UV, SEEN)
    assert not seen.visible.any()
    assert seen.reason == "TF does not connect them"
    assert np.isfinite(seen.uv_px).all()


def test_a_reset_forgets_where_points_were():
    view = viewpoint(TABLE)
    moved = view.see(TEMPLATE_UV, SEEN)
    assert np.linalg.norm(moved.uv_px - TEMPLATE_UV, axis=1).min() > 1.0
    view.reset()
    view.lose("gone")
    assert np.array_equal(view.see(TEMPLATE_UV, SEEN).uv_px, TEMPLATE_UV)

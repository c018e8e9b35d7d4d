"""What backends share: points placed by maps of descriptors, and by matches of features that are not the points."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from atk_perception.correspondence.dense import (
    DenseMap,
    DenseMatcher,
    network_image,
    network_size,
)
from atk_perception.correspondence.protocol import Template
from atk_perception.correspondence.sparse import FeatureMatches, place_points

CELL_PX = 8


def upright_sift(image_rgb: np.ndarray) -> DenseMap:
    """SIFT descriptors of cells of 8 px, all upright and of one size: a dense descriptor that needs no weights."""
    height, width = image_rgb.shape[0] // CELL_PX, image_rgb.shape[1] // CELL_PX
    keypoints = [
        cv2.KeyPoint(CELL_PX * (u + 0.5) - 0.5, CELL_PX * (v + 0.5) - 0.5, 14.0, 0.0)
        for v in range(height)
        for u in range(width)
    ]
    _, values = cv2.SIFT_create().compute(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), keypoints)
    features = torch.from_numpy(values).T.unflatten(1, (height, width))
    return DenseMap(functional.normalize(features, dim=0), (image_rgb.shape[1], image_rgb.shape[0]))


@pytest.mark.parametrize(("width", "height"), [(640, 480), (641, 479), (320, 200)])
def test_pixels_and_cells_convert_back_and_forth(width: int, height: int) -> None:
    grid = DenseMap(torch.zeros(4, 33, 44), (width, height))
    uv_px = np.array([[0, 0], [width - 1, height - 1], [17.25, 40.5]], np.float32)
    np.testing.assert_allclose(grid.to_image(grid.to_cells(uv_px)), uv_px, atol=1e-3)
    # The image's middle is the map's.
    np.testing.assert_allclose(
        grid.to_cells(np.array([[(width - 1) / 2, (height - 1) / 2]], np.float32)), [[21.5, 16.0]], atol=1e-4
    )


def test_a_descriptor_between_cells_is_their_mean() -> None:
    features = functional.normalize(torch.randn(8, 3, 4, generator=torch.manual_seed(0)), dim=0)
    grid = DenseMap(features, (40, 30))
    at_cell = grid.describe(np.array([[14.5, 4.5]], np.float32))[0]
    torch.testing.assert_close(at_cell, features[:, 0, 1])
    between = grid.describe(np.array([[19.5, 4.5]], np.float32))[0]
    torch.testing.assert_close(between, functional.normalize(features[:, 0, 1] + features[:, 0, 2], dim=0))


def test_points_are_found_in_another_scene_to_a_fraction_of_a_cell(make_scene: Any, pose: Any) -> None:
    scene = make_scene(seed=1)
    template = scene.template()
    poses = [pose(p.u + 37, p.v - 21, 0.15, 1.05) for p in scene.home]
    matches = DenseMatcher(upright_sift).match(template, scene.render(poses, scene.new_background(5)))
    error_px = np.linalg.norm(matches.uv_px - scene.truth(template, poses), axis=1)
    sure = matches.confidence > 0.5
    assert sure.mean() > 0.4
    assert np.median(error_px[sure]) < 0.5 * CELL_PX
    truth = poses[0].matrix(scene.size)[:, :2]
    assert np.median(np.linalg.norm(matches.warp[sure] - truth, axis=(1, 2))) < 0.35


def test_a_scene_without_the_objects_is_not_believed(make_scene: Any) -> None:
    scene = make_scene(seed=1)
    template = scene.template()
    matcher = DenseMatcher(upright_sift)
    here = matcher.match(template, scene.render()).confidence
    elsewhere = matcher.match(template, make_scene(seed=2).render()).confidence
    assert np.median(here) > 0.8
    assert np.median(elsewhere) < 0.3


def test_a_match_that_does_not_lead_back_is_lowered() -> None:
    """Two cells of the template look alike, and the scene shows only one of them: the other's match leads back to that."""
    descriptors = functional.normalize(torch.randn(48, 6, 8, generator=torch.manual_seed(1)), dim=0)
    template_map, scene_map = descriptors.clone(), descriptors.clone()
    template_map[:, 2, 5] = functional.normalize(descriptors[:, 2, 1] + 0.3 * descriptors[:, 2, 5], dim=0)
    scene_map[:, 2, 5] = -template_map[:, 2, 5]
    maps = [DenseMap(template_map, (80, 60)), DenseMap(scene_map, (80, 60))]
    images = [np.full((60, 80, 3), k, np.uint8) for k in range(2)]
    template = Template(images[0], np.array([[14.5, 24.5], [54.5, 24.5]], np.float32))
    matches = DenseMatcher(lambda image: maps[int(image[0, 0, 0])]).match(template, images[1])
    assert matches.confidence[0] > 0.8
    assert matches.confidence[1] < 0.3


def test_no_points_are_no_matches(make_scene: Any) -> None:
    image = make_scene(seed=1).render()
    matches = DenseMatcher(upright_sift).match(Template(image, np.zeros((0, 2), np.float32)), image)
    assert matches.uv_px.shape == (0, 2)
    assert matches.warp.shape == (0, 2, 2)


def test_images_go_into_a_network_in_multiples_of_its_patch() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    assert network_size(image, 616, 14) == (616, 462)
    assert network_image(image, (616, 462)).shape == (1, 3, 462, 616)
    with pytest.raises(ValueError, match=r"\(48, 64\) float32"):
        network_image(np.zeros((48, 64), np.float32), (28, 28))


def moved_features(rng: np.random.Generator, wrong: float) -> tuple[FeatureMatches, list[np.ndarray]]:
    """Features on two objects side by side that turn and move apart, a share of the matches wrong; and both motions."""
    motions = [
        np.array([[0.8, -0.9, 150.0], [0.9, 0.8, -20.0]]),
        np.array([[1.1, 0.2, -40.0], [-0.2, 1.1, 90.0]]),
    ]
    source = np.concatenate(
        [rng.uniform([60, 60], [110, 120], (40, 2)), rng.uniform([112, 60], [165, 120], (40, 2))]
    )
    target = np.concatenate(
        [source[k * 40 : k * 40 + 40] @ m[:, :2].T + m[:, 2] for k, m in enumerate(motions)]
    )
    target += rng.normal(0.0, 0.7, target.shape)
    bad = rng.random(80) < wrong
    target[bad] = rng.uniform(0, 400, (int(bad.sum()), 2))
    score = rng.uniform(0.5, 1.0, 80)
    return FeatureMatches(
        source.astype(np.float32), target.astype(np.float32), score.astype(np.float32)
    ), motions


@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_points_follow_the_features_of_their_own_object(wrong: float) -> None:
    rng = np.random.default_rng(4)
    features, motions = moved_features(rng, wrong)
    points = np.concatenate(
        [rng.uniform([65, 65], [104, 115], (15, 2)), rng.uniform([118, 65], [160, 115], (15, 2))]
    ).astype(np.float32)
    truth = np.concatenate(
        [points[k * 15 : k * 15 + 15] @ m[:, :2].T + m[:, 2] for k, m in enumerate(motions)]
    )
    placed = place_points(points, features)
    error_px = np.linalg.norm(placed.uv_px - truth, axis=1)
    sure = placed.confidence > 0.5
    assert sure.mean() > 0.7
    assert np.median(error_px) < 2.0
    assert (error_px[sure] < 6.0).mean() > 0.9
    assert np.median(np.linalg.norm(placed.warp[:15] - motions[0][:, :2], axis=(1, 2))) < 0.2


def test_points_without_features_around_them_are_not_found() -> None:
    features, _ = moved_features(np.random.default_rng(5), 0.0)
    far = place_points(np.array([[500, 400], [90, 90]], np.float32), features)
    assert far.confidence[0] < 0.05
    assert far.confidence[1] > 0.5
    few = FeatureMatches(features.source_px[:2], features.target_px[:2], features.score[:2])
    assert not place_points(np.array([[90, 90]], np.float32), few).confidence.any()

"""The learned tracker and matcher keep the contract of every tracker and matcher, whatever their weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from atk_perception.correspondence.atk import AtkMatcher
from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.learned.backbone import Backbone
from atk_perception.learned.network import PointNetwork
from atk_perception.learned.template_bank import TemplateBank, entries_that_fit, look_for
from atk_perception.local_affine import local_warps
from atk_perception.registry import MATCHERS, TRACKERS
from atk_perception.tracking.atk import AtkTracker


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(PointNetwork().requires_grad_(False))


def found_at(uv_px: np.ndarray, confidence: float) -> Matches:
    count = len(uv_px)
    warp = np.tile(np.eye(2, dtype=np.float32), (count, 1, 1))
    return Matches(uv_px.astype(np.float32), np.full(count, confidence, np.float32), warp)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (320, 240), (424, 240), (1280, 720)])
def test_pixels_of_the_image_and_of_the_network_convert_back_and_forth(
    backbone: Backbone, width: int, height: int
) -> None:
    frame = backbone(np.zeros((height, width, 3), np.uint8))
    uv_px = np.array([[0, 0], [width - 1, height - 1], [17.25, 40.5]], np.float32)
    np.testing.assert_allclose(frame.to_image(frame.to_network(uv_px)), uv_px, atol=1e-3)
    assert frame.features.shape[3] == 80
    assert frame.features.shape[2] * 4 * width >= 320 * height - width


def test_an_image_of_another_kind_is_refused_by_its_shape(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match=r"\(48, 64\) float32"):
        backbone(np.zeros((48, 64), np.float32))  # type: ignore[arg-type]


def test_tracks_have_the_points_shapes_and_types(backbone: Backbone, make_scene: Any) -> None:
    template = make_scene(seed=3).template(per_object=4)
    tracker = AtkTracker(backbone)
    state = tracker.start(template, template.image_rgb, found_at(template.uv_px, 0.9))
    _, tracks = tracker.step(state, template.image_rgb)
    assert tracks.uv_px.shape == (12, 2)
    assert tracks.uv_px.dtype == np.float32
    assert tracks.visible.dtype == np.bool_
    assert tracks.confidence.dtype == np.float32
    assert np.all((tracks.confidence >= 0) & (tracks.confidence <= 1))


def test_all_memory_is_in_the_state(backbone: Backbone, make_scene: Any) -> None:
    scene = make_scene(seed=4)
    template = scene.template(per_object=4)
    tracker = AtkTracker(backbone)
    state = tracker.start(template, template.image_rgb, found_at(template.uv_px, 0.9))
    later = scene.render(light=None, noise=6.0)
    _, first = tracker.step(state, later)
    tracker.step(state, template.image_rgb)
    _, again = tracker.step(state, later)
    np.testing.assert_array_equal(first.uv_px, again.uv_px)
    np.testing.assert_array_equal(first.confidence, again.confidence)


def test_a_scene_that_shows_nothing_raises_nothing(backbone: Backbone, make_scene: Any) -> None:
    template = make_scene(seed=5).template(per_object=3)
    matches = AtkMatcher(backbone).match(template, np.full((480, 640, 3), 90, np.uint8))
    assert matches.uv_px.shape == (9, 2)
    assert matches.warp.shape == (9, 2, 2)
    assert np.isfinite(matches.uv_px).all()
    assert np.isfinite(matches.warp).all()
    assert np.all((matches.confidence >= 0) & (matches.confidence <= 1))


def test_a_matcher_that_sees_its_template_again_starts_from_the_points_themselves(
    backbone: Backbone, make_scene: Any
) -> None:
    template = make_scene(seed=6).template(per_object=4)
    one = Template(template.image_rgb, template.uv_px)
    matcher = AtkMatcher(backbone)
    np.testing.assert_array_equal(
        matcher.match(template, template.image_rgb).uv_px, matcher.match(one, template.image_rgb).uv_px
    )


@pytest.mark.parametrize("roll_deg", [0, 40, 135, 180, -90])
def test_local_maps_follow_any_roll_though_many_matches_are_wrong(roll_deg: float) -> None:
    rng = np.random.default_rng(abs(int(roll_deg)))
    angle = np.deg2rad(roll_deg)
    truth = 1.2 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = (
        np.stack(np.meshgrid(np.arange(0, 160, 8), np.arange(0, 120, 8)), axis=-1)
        .reshape(-1, 2)
        .astype(np.float32)
    )
    target = (source @ truth.T + [60, 50] + rng.normal(0, 1.2, source.shape)).astype(np.float32)
    wrong = rng.random(len(source)) < 0.4
    target[wrong] = rng.uniform(0, 200, (wrong.sum(), 2))
    points = rng.uniform(40, 100, (10, 2)).astype(np.float32)
    warps = local_warps(points, (points @ truth.T + [60, 50]).astype(np.float32), source, target, cell_px=4.0)
    errors = np.linalg.norm(warps - truth, axis=(1, 2))
    assert np.median(errors) < 0.15
    assert np.max(errors) < 0.5


def planted(places: list[tuple[float, float]], descriptor: torch.Tensor) -> torch.Tensor:
    """(1, 64, 60, 80): noise, and bumps that look like the descriptor around places in cells."""
    torch.manual_seed(1)
    v, u = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    features = 0.3 * torch.randn(64, 60, 80) / 8.0
    for column, row in places:
        features += descriptor[:, None, None] * torch.exp(-0.25 * ((u - column) ** 2 + (v - row) ** 2))
    return features[None]


def test_a_point_is_found_between_cells_and_at_the_roll_and_scale_that_it_has() -> None:
    torch.manual_seed(2)
    bank = TemplateBank(torch.nn.functional.normalize(torch.randn(3, 24, 64), dim=2))
    everything = np.tile(np.arange(24), (2, 1))
    features = planted([(33.4, 20.7)], bank.descriptors[2, 17])
    entries, place_px = look_for(bank, np.array([0, 2]), everything, features)
    assert entries[1] == 17
    np.testing.assert_allclose(place_px[1] / 4.0, [33.4, 20.7], atol=0.2)


def test_of_two_places_that_look_alike_the_nearer_one_is_taken_where_one_is_expected() -> None:
    torch.manual_seed(3)
    bank = TemplateBank(torch.nn.functional.normalize(torch.randn(1, 24, 64), dim=2))
    features = planted([(10.0, 10.0), (60.0, 40.0)], bank.descriptors[0, 8])
    for around in ((12.0, 10.0), (57.0, 42.0)):
        _, place_px = look_for(bank, np.array([0]), np.array([[8]]), features, 4.0 * torch.tensor([around]))
        np.testing.assert_allclose(place_px[0] / 4.0, np.round(np.array(around), -1), atol=0.6)


def test_the_entry_that_fits_what_is_seen_is_chosen() -> None:
    torch.manual_seed(4)
    bank = TemplateBank(torch.nn.functional.normalize(torch.randn(4, 24, 64), dim=2))
    seen = torch.stack([bank.descriptors[3, 5], bank.descriptors[1, 20]])
    np.testing.assert_array_equal(entries_that_fit(bank, np.array([3, 1]), seen), [5, 20])


def test_without_matches_around_a_local_map_is_the_identity() -> None:
    far = np.array([[1e4, 1e4], [1e4, 1.1e4]], np.float32)
    warps = local_warps(
        np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32), far, far[::-1].copy(), cell_px=4.0
    )
    np.testing.assert_allclose(warps[0], np.eye(2), atol=1e-3)


def test_the_registry_knows_the_learned_backends_and_that_they_need_weights() -> None:
    assert MATCHERS["atk"].needs_weights
    assert TRACKERS["atk"].needs_weights
    assert TRACKERS["atk"].causal

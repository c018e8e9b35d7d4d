"""Which folders are demonstrations, how they are split, how tracks are judged and stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from run_folders import ROBOT, TWO_CAMERAS
from synthetic_demonstrations import FLICKER, OBJECT, make_demonstrations

from atk_perception.keypoint_set import KeypointSet
from atk_perception.part_placement import RigidParts
from atk_policy import demonstrations as module
from atk_policy.demonstrations import (
    Demonstration,
    DemonstrationError,
    Tracking,
    find_bags,
    once_found,
    split,
    trackability,
)


def make_bag(path):
    path.mkdir(parents=True)
    (path / "metadata.yaml").write_text("")
    return path


def test_bags_are_found_alone_and_in_folders_but_not_unfinished_ones(tmp_path):
    second, first = make_bag(tmp_path / "many" / "b"), make_bag(tmp_path / "many" / "a")
    make_bag(tmp_path / "many" / "c.recording")
    single = make_bag(tmp_path / "single")
    assert find_bags([tmp_path / "many", single, first]) == [first, second, single]


def test_no_bag_and_two_of_one_name_are_refused(tmp_path):
    with pytest.raises(DemonstrationError, match="no rosbag2 folder"):
        find_bags([tmp_path])
    with pytest.raises(DemonstrationError, match=r"named \['a'\]"):
        find_bags([make_bag(tmp_path / "x" / "a"), make_bag(tmp_path / "y" / "a")])


def test_the_split_is_by_demonstration_seeded_and_spares_small_sets():
    train, held_out = split(50, 0.1, seed=3)
    assert sorted(train + held_out) == list(range(50))
    assert len(held_out) == 5
    assert split(50, 0.1, seed=3) == (train, held_out)
    assert split(3, 0.1, seed=3) == ([0, 1, 2], [])


def test_tracks_are_stored_exactly_and_damage_is_said(tmp_path):
    demonstration = make_demonstrations(1, 16, steps=8)[0][0]
    file = tmp_path / "tracks.npz"
    demonstration.save(file)
    loaded = Demonstration.load(file, demonstration.name)
    for name in ("stamp_ns", "uv_px", "visible", "confidence", "robot", "action"):
        assert np.array_equal(getattr(loaded, name), getattr(demonstration, name))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DemonstrationError, match="delete it"):
        Demonstration.load(file, "x")


def test_the_key_of_the_cache_changes_with_everything_that_tracks_depend_on(tmp_path, monkeypatch):
    """Otherwise a policy is trained on tracks that the robot will not see."""
    bags = [make_bag(tmp_path / name) for name in "ab"]
    for bag in bags:
        (bag / "0.mcap").write_bytes(b"the same")
    image = np.zeros((48, 64, 3), np.uint8)
    points = KeypointSet.create("set", [[10, 10], [20, 20]], image)
    moved = KeypointSet.create("set", [[10, 10], [20, 21]], image)
    rigid = RigidParts(np.zeros(2, np.int64), np.array([[30, 30]], np.float32), np.zeros(1, np.int64))
    tracking = Tracking("sift", "template_lk")
    key = module._content_key(bags[0], [points], ROBOT, tracking)
    assert key == module._content_key(bags[1], [points], ROBOT, tracking), "a bag is what it holds"
    (bags[1] / "0.mcap").write_bytes(b"not the same")
    # Weights are found beside the code.
    weights = tmp_path / "package" / "learned" / "atk.safetensors"
    weights.parent.mkdir(parents=True)
    versions = []
    for content in (b"1", b"2"):
        weights.write_bytes(content)
        monkeypatch.setattr(module.atk_perception, "__file__", str(tmp_path / "package" / "__init__.py"))
        versions.append(module._perception_version.__wrapped__())
    others = {
        module._content_key(bags[1], [points], ROBOT, tracking),
        module._content_key(bags[0], [moved], ROBOT, tracking),
        module._content_key(bags[0], [replace(points, rigid=rigid)], ROBOT, tracking),
        module._content_key(
            bags[0],
            [replace(points, rigid=replace(rigid, of_companions=np.ones(1, np.int64)))],
            ROBOT,
            tracking,
        ),
        module._content_key(bags[0], [points], TWO_CAMERAS, tracking),
        module._content_key(bags[0], [points], ROBOT, Tracking("atk", "template_lk")),
        module._content_key(bags[0], [points], ROBOT, Tracking("sift", "atk")),
    }
    assert len(others) == 7
    assert key not in others
    assert versions[0] != versions[1]


def test_trackability_tells_points_that_are_rarely_seen():
    demonstrations, kind, _ = make_demonstrations(6, 64)
    quality = trackability(demonstrations)
    assert quality.visible[kind == FLICKER].max() < 0.2 < 0.9 < quality.visible[kind == OBJECT].min()
    assert quality.transferred[kind == OBJECT].min() == 1.0


def test_a_demonstration_begins_where_its_points_are_found():
    demonstrations, _, _ = make_demonstrations(1, 8)
    seen = demonstrations[0]
    late = replace(seen, visible=seen.visible & (np.arange(len(seen)) >= 5)[:, None])
    assert once_found(late).stamp_ns.tolist() == seen.stamp_ns[5:].tolist()
    assert len(once_found(late).action) == len(once_found(late)) == len(seen) - 5
    assert len(once_found(replace(seen, visible=np.zeros_like(seen.visible)))) == 0

"""What the tests of bringup share."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from atk_perception.keypoint_set import KeypointSet
from atk_perception.registry import DEFAULT_MATCHER, DEFAULT_TRACKER
from atk_perception.robot_description import RobotDescription
from atk_policy.policies import make_policy
from atk_policy.run_folder import PolicyFile, RunFolder, SeenSet

PACKAGE = Path(__file__).parents[1]
# One DDS domain per graph, apart from those of the other packages' tests.
_DOMAINS = itertools.count(os.getpid() % 40)


@pytest.fixture
def domain_id() -> int:
    return 60 + next(_DOMAINS) % 40


def write_run_folder(path: Path, robot_name: str) -> Path:
    """A whole run folder with an untrained policy: enough for nodes to come up and work."""
    robot = RobotDescription.load(PACKAGE / "config" / "robots" / f"{robot_name}.yaml")
    uv_px = np.array([[200, 200], [300, 220], [260, 300], [340, 320]], np.float32)
    sets = []
    for number, camera in enumerate(robot.cameras):
        template = np.random.default_rng(number).integers(
            0, 256, (camera.height, camera.width, 3), dtype=np.uint8
        )
        name, points = (f"test_{camera.name}", uv_px[:3]) if number else ("test", uv_px)
        ids = 4 * number + np.arange(len(points))
        sets.append(KeypointSet(name, ids, points, camera.name, template))
    file = PolicyFile(
        policy="mlp",
        **SeenSet.of(sets[0]).model_dump(),
        more_cameras=[SeenSet.of(points) for points in sets[1:]],
        horizon=4,
        history=1,
        history_stride=1,
        ensemble_decay=0.1,
        control_rate_hz=robot.control_rate_hz,
        joint_names=list(robot.joints.names),
        matcher=DEFAULT_MATCHER,
        tracker=DEFAULT_TRACKER,
    )
    count = sum(map(len, sets))
    policy = make_policy("mlp", keypoints=count, joints=robot.joint_count, horizon=4, history=1)
    RunFolder(path, sets[0], policy, file, robot, tuple(sets[1:])).save()
    return path


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_folder(tmp_path_factory.mktemp("bringup") / "run", "sim_panda")


@pytest.fixture(scope="session")
def two_cameras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose policy sees through two cameras."""
    return write_run_folder(tmp_path_factory.mktemp("bringup") / "two", "sim_panda_two_cameras")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "launch.log"

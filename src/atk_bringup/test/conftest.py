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
from atk_policy.run_folder import PolicyFile, RunFolder

PACKAGE = Path(__file__).parents[1]
# One DDS domain per graph, apart from those of the other packages' tests.
_DOMAINS = itertools.count(os.getpid() % 40)


@pytest.fixture
def domain_id() -> int:
    return 60 + next(_DOMAINS) % 40


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run folder with an untrained policy: enough for nodes to come up and work."""
    path = tmp_path_factory.mktemp("bringup") / "run"
    robot = RobotDescription.load(PACKAGE / "config" / "robots" / "sim_panda.yaml")
    camera = robot.camera
    template = np.random.default_rng(0).integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8)
    uv_px = np.array([[200, 200], [300, 220], [260, 300], [340, 320]], np.float32)
    keypoint_set = KeypointSet("test", np.arange(4), uv_px, camera.name, template)
    file = PolicyFile(
        policy="mlp",
        keypoint_set="test",
        keypoint_ids=[0, 1, 2, 3],
        horizon=4,
        history=1,
        history_stride=1,
        ensemble_decay=0.1,
        control_rate_hz=robot.control_rate_hz,
        joint_names=list(robot.joints.names),
        camera=camera.name,
        image_width=camera.width,
        image_height=camera.height,
        matcher=DEFAULT_MATCHER,
        tracker=DEFAULT_TRACKER,
    )
    policy = make_policy("mlp", keypoints=4, joints=robot.joint_count, horizon=4, history=1)
    RunFolder(path, keypoint_set, policy, file, robot).save()
    return path


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "launch.log"

"""A run folder to launch: whole, but nobody has trained its policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from atk_perception.keypoint_set import KeypointSet
from atk_perception.registry import DEFAULT_MATCHER, DEFAULT_TRACKER
from atk_perception.robot_description import RobotDescription
from atk_policy.policies import make_policy
from atk_policy.run_folder import PolicyFile, RunFolder

PACKAGE = Path(__file__).parents[1]


def write_untrained_run(path: Path) -> Path:
    """Write it for the simulated Panda; enough for nodes to come up and work."""
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

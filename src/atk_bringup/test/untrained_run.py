"""A run folder to launch: whole, but nobody has trained its policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from atk_perception.keypoint_set import KeypointSet
from atk_perception.registry import DEFAULT_MATCHER, DEFAULT_TRACKER
from atk_perception.robot_description import RobotDescription
from atk_policy.policies import make_policy
from atk_policy.run_folder import PolicyFile, RunFolder, SeenSet

PACKAGE = Path(__file__).parents[1]


def write_untrained_run(path: Path, robot_name: str = "sim_panda") -> Path:
    """Write it for a simulated Panda, with points of each of its cameras; enough for nodes to come up and work."""
    robot = RobotDescription.load(PACKAGE / "config" / "robots" / f"{robot_name}.yaml")
    uv_px = np.array([[200, 200], [300, 220], [260, 300], [340, 320]], np.float32)
    sets = []
    for number, camera in enumerate(robot.cameras):
        size = (camera.height, camera.width, 3)
        template = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
        name, points = (f"test_{camera.name}", uv_px[:3]) if number else ("test", uv_px)
        sets.append(KeypointSet(name, 4 * number + np.arange(len(points)), points, camera.name, template))
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

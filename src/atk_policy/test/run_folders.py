"""A whole run folder without training: a small untrained policy over a few keypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from atk_perception.keypoint_set import KeypointSet
from atk_perception.robot_description import RobotDescription
from atk_policy.policies import make_policy
from atk_policy.run_folder import PolicyFile, RunFolder, SeenSet

ROBOT_PATH = Path(__file__).parents[2] / "atk_bringup" / "config" / "robots" / "sim_panda.yaml"
ROBOT = RobotDescription.load(ROBOT_PATH)
TWO_CAMERAS_PATH = ROBOT_PATH.with_name("sim_panda_two_cameras.yaml")
TWO_CAMERAS = RobotDescription.load(TWO_CAMERAS_PATH)
SIZES = {"width": 16, "blocks": 1}
HORIZON = 6


def write_run_folder(
    path: Path,
    *,
    keypoints: int = 4,
    name: str = "cups",
    haste_rad: float = 0.02,
    robot: RobotDescription = ROBOT,
    policy_name: str = "mlp",
    encoder: str = "concat",
    history: int = 1,
    execution_horizon: int = 1,
    ensemble_decay: float = 0.2,
) -> RunFolder:
    """Write and return a run folder whose policy moves the robot some `haste_rad` from where it is.

    It takes `keypoints` points of each camera.
    """
    torch.manual_seed(0)
    policy = make_policy(
        policy_name,
        keypoints=keypoints * len(robot.cameras),
        joints=robot.joint_count,
        horizon=HORIZON,
        history=history,
        encoder=encoder,
        **SIZES,
    )
    policy.action_scale.fill_(haste_rad)
    policy.action_mean[:, -1] = 0.04
    policy.uv_mean_px.fill_(200.0)
    policy.uv_scale_px.fill_(100.0)
    uv_px = np.stack([100.0 + 40.0 * np.arange(keypoints), np.full(keypoints, 200.0)], axis=1)
    sets = [
        KeypointSet.create(
            f"{name}_{camera.name}" if number else name,
            uv_px,
            np.random.default_rng(number).integers(0, 255, (480, 640, 3), dtype=np.uint8),
            camera_name=camera.name,
            ids=10 + keypoints * number + np.arange(keypoints),
        )
        for number, camera in enumerate(robot.cameras)
    ]
    run = RunFolder(
        path,
        sets[0],
        policy.eval(),
        PolicyFile(
            policy=policy_name,
            encoder=encoder,
            sizes=policy.sizes,
            **SeenSet.of(sets[0]).model_dump(),
            more_cameras=[SeenSet.of(points) for points in sets[1:]],
            horizon=HORIZON,
            history=history,
            history_stride=1,
            ensemble_decay=ensemble_decay,
            execution_horizon=execution_horizon,
            control_rate_hz=robot.control_rate_hz,
            joint_names=list(robot.joints.names),
            matcher="sift",
            tracker="template_lk",
        ),
        robot,
        tuple(sets[1:]),
    )
    run.save()
    return run

"""A whole run folder without training: a small untrained policy over a few keypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from atk_perception.keypoint_set import KeypointSet
from atk_perception.robot_description import RobotDescription
from atk_policy.policies import make_policy
from atk_policy.run_folder import PolicyFile, RunFolder

ROBOT_PATH = Path(__file__).parents[2] / "atk_bringup" / "config" / "robots" / "sim_panda.yaml"
ROBOT = RobotDescription.load(ROBOT_PATH)
SIZES = {"width": 16, "blocks": 1}
HORIZON = 6


def write_run_folder(
    path: Path,
    *,
    keypoints: int = 4,
    name: str = "cups",
    haste_rad: float = 0.02,
    policy_name: str = "mlp",
    encoder: str = "concat",
    history: int = 1,
    execution_horizon: int = 1,
    ensemble_decay: float = 0.2,
) -> RunFolder:
    """Write and return a run folder whose policy moves the robot some `haste_rad` from where it is."""
    torch.manual_seed(0)
    policy = make_policy(
        policy_name,
        keypoints=keypoints,
        joints=ROBOT.joint_count,
        horizon=HORIZON,
        history=history,
        encoder=encoder,
        **SIZES,
    )
    policy.action_scale.fill_(haste_rad)
    policy.action_mean[:, -1] = 0.04
    policy.uv_mean_px.fill_(200.0)
    policy.uv_scale_px.fill_(100.0)
    template = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    ids = np.arange(10, 10 + keypoints)
    uv_px = np.stack([100.0 + 40.0 * np.arange(keypoints), np.full(keypoints, 200.0)], axis=1)
    run = RunFolder(
        path,
        KeypointSet.create(name, uv_px, template, camera_name=ROBOT.camera.name, ids=ids),
        policy.eval(),
        PolicyFile(
            policy=policy_name,
            encoder=encoder,
            sizes=policy.sizes,
            keypoint_set=name,
            keypoint_ids=ids.tolist(),
            horizon=HORIZON,
            history=history,
            history_stride=1,
            ensemble_decay=ensemble_decay,
            execution_horizon=execution_horizon,
            control_rate_hz=ROBOT.control_rate_hz,
            joint_names=list(ROBOT.joints.names),
            camera=ROBOT.camera.name,
            image_width=640,
            image_height=480,
            matcher="sift",
            tracker="template_lk",
        ),
        ROBOT,
    )
    run.save()
    return run

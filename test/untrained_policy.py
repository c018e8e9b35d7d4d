"""A run folder without training: points on what each camera sees, and a policy that moves a little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from atk_perception.candidates import sample_candidates
from atk_perception.keypoint_set import KeypointSet
from atk_perception.registry import DEFAULT_MATCHER, DEFAULT_TRACKER
from atk_perception.robot_description import RobotDescription
from atk_policy.policies import make_policy
from atk_policy.run_folder import PolicyFile, RunFolder, SeenSet
from atk_sim.simulation import Simulation

POINTS = 12  # of each camera


def save_untrained_run(
    path: Path,
    robot: RobotDescription,
    seed: int,
    *,
    history: int,
    step_rad: float,
    uv_mean_px: float,
    uv_scale_px: float,
) -> Path:
    """Write it; `seed` is that of the sushi scene, `step_rad` how far it moves."""
    simulation = Simulation(robot)
    simulation.reset("sushi", "RP", seed)
    templates = [renderer.rgb() for renderer in simulation.renderers]
    simulation.close()
    first, *more = (
        KeypointSet.create(
            f"points_{camera.name}",
            sample_candidates(template, POINTS, np.random.default_rng(0), "textured"),
            template,
            camera_name=camera.name,
        )
        for camera, template in zip(robot.cameras, templates, strict=True)
    )
    torch.manual_seed(0)
    sizes, horizon, count = {"width": 16, "blocks": 1}, 6, POINTS * len(templates)
    policy = make_policy(
        "mlp", keypoints=count, joints=robot.joint_count, horizon=horizon, history=history, **sizes
    )
    policy.action_scale.fill_(step_rad)
    policy.action_mean[:, -1] = 0.04
    policy.uv_mean_px.fill_(uv_mean_px)
    policy.uv_scale_px.fill_(uv_scale_px)
    file = PolicyFile(
        policy="mlp",
        sizes=sizes,
        **SeenSet.of(first).model_dump(),
        more_cameras=[SeenSet.of(points) for points in more],
        horizon=horizon,
        history=history,
        history_stride=1,
        ensemble_decay=0.2,
        control_rate_hz=robot.control_rate_hz,
        joint_names=list(robot.joints.names),
        matcher=DEFAULT_MATCHER,
        tracker=DEFAULT_TRACKER,
    )
    RunFolder(path, first, policy.eval(), file, robot, tuple(more)).save()
    return path

"""What the baselines look at, and by which encoder.

    rgb          ResNet-18 over the colour image      (paper: R3M, a ResNet with weights from human video)
    depth        ResNet-18 over the depth image       (paper: the same)
    pointcloud   the encoder of DP3 over 3D points    (paper: the same, Ze et al. 2024)
    pose         where every object really is         (ours: an upper bound for anything that must look)

ResNet-18 is that of the package transformers. R3M's weights cannot be shipped here, so every encoder is trained end to end on
the demonstrations. DP3's encoder is three layers on every point, a maximum and one layer; it is written out here, because no
package on PyPI has it: the authors' code is no package, `lerobot` has no policy on points, and what else is called PointNet
there is another network, unmaintained, or needs torchvision.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atk_perception.robot_description import RobotDescription
from atk_sim.camera import back_project
from atk_sim.graph import robot_file
from atk_sim.robots.panda import ROBOT_PREFIX
from atk_sim.simulation import Simulation
from atk_sim.tasks import make_task
from atk_sim.world import World

FEATURES = 128
# Width, height. With it, and the batches below, 1500 steps take a quarter of an hour of one core (0.65 s a step of rgb).
IMAGE_SIZE = (96, 72)
IMAGE_BATCH, POINTS_BATCH = 24, 96
SHIFT_PX = 4  # augmentation: a random shift, as usual with images (DrQ, Yarats et al. 2021)
POINTS = 512
CROP_M = ((0.15, -0.45, 0.004), (0.80, 0.45, 0.60))  # the table's top is left out, as in DP3
DEPTH_MAX_M = 2.0


class Modality(Protocol):
    """What is looked at, and by which encoder; `batch_max` is what a CPU bears, None as much as anybody asks for."""

    name: str
    batch_max: int | None

    def missing(self) -> str:
        """What is not installed that the encoder needs, and how to install it; empty where nothing is."""
        ...

    def observe(self, simulation: Simulation) -> NDArray[Any]:
        """The present view, small enough to keep thousands of them."""
        ...

    def augment(self, views: Tensor, generator: torch.Generator) -> Tensor:
        """(B, ...) views as `encoder` takes them, a little changed."""
        ...

    def prepare(self, views: NDArray[Any]) -> Tensor:
        """(B, ...) observed views as `encoder` takes them."""
        ...

    def encoder(self) -> nn.Module:
        """(B, ...) to (B, FEATURES)."""
        ...


# ---------------------------------------------------------------------------------------------- images


def _without_transformers() -> str:
    return (
        ""
        if find_spec("transformers")
        else "its ResNet-18 is that of the package transformers: pip install -r requirements/baselines.txt"
    )


def resnet18(channels: int) -> nn.Module:
    """ResNet-18 without weights, then one layer to `FEATURES`.

    Raises:
        ModuleNotFoundError: transformers is not installed.
    """
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(
        num_channels=channels,
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
    )
    return _Pooled(ResNetModel(config), 512)


class _Pooled(nn.Module):
    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.head = network, nn.Linear(channels, FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.head(self.network(images).pooler_output.flatten(1))
        return features


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, C, H, W) each shifted by up to `SHIFT_PX`, its edge repeated."""
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, [SHIFT_PX] * 4, mode="replicate")
    offsets = torch.randint(0, 2 * SHIFT_PX + 1, (count, 2), generator=generator).tolist()
    return torch.stack(
        [p[:, v : v + height, u : u + width] for p, (v, u) in zip(padded, offsets, strict=True)]
    )


class Rgb:
    """Colour."""

    name = "rgb"
    batch_max: int | None = IMAGE_BATCH

    def missing(self) -> str:
        """See `Modality`."""
        return _without_transformers()

    def observe(self, simulation: Simulation) -> NDArray[Any]:
        """(h, w, 3) uint8."""
        return np.asarray(cv2.resize(simulation.rgb(), IMAGE_SIZE, interpolation=cv2.INTER_AREA))

    def prepare(self, views: NDArray[Any]) -> Tensor:
        """(B, 3, h, w) in [-1, 1]."""
        return torch.from_numpy(views).permute(0, 3, 1, 2).float() / 127.5 - 1.0

    def augment(self, views: Tensor, generator: torch.Generator) -> Tensor:
        """Shifted."""
        return shifted(views, generator)

    def encoder(self) -> nn.Module:
        """ResNet-18."""
        return resnet18(3)


class Depth:
    """Distance, as a depth camera gives it."""

    name = "depth"
    batch_max: int | None = IMAGE_BATCH

    def missing(self) -> str:
        """See `Modality`."""
        return _without_transformers()

    def observe(self, simulation: Simulation) -> NDArray[Any]:
        """(h, w) float16 [m]."""
        depth_m = np.minimum(simulation.depth(), DEPTH_MAX_M)
        return np.asarray(cv2.resize(depth_m, IMAGE_SIZE, interpolation=cv2.INTER_AREA), np.float16)

    def prepare(self, views: NDArray[Any]) -> Tensor:
        """(B, 1, h, w), 0 at 1 m."""
        return torch.from_numpy(views)[:, None].float() - 1.0

    def augment(self, views: Tensor, generator: torch.Generator) -> Tensor:
        """Shifted."""
        return shifted(views, generator)

    def encoder(self) -> nn.Module:
        """ResNet-18."""
        return resnet18(1)


# ---------------------------------------------------------------------------------------------- points


class PointCloud:
    """Points above the table, in the robot's frame."""

    name = "pointcloud"
    batch_max: int | None = POINTS_BATCH

    def missing(self) -> str:
        """See `Modality`."""
        return ""

    def observe(self, simulation: Simulation) -> NDArray[Any]:
        """(POINTS, 3) float16 [m]; an even choice of those in the crop, the last one again where there are too few."""
        depth_m = simulation.depth()[::4, ::4]
        height, width = simulation.robot.camera.height, simulation.robot.camera.width
        row, column = np.mgrid[0:height:4, 0:width:4]
        uv_px = np.stack([column.ravel(), row.ravel()], axis=1).astype(np.float64)
        # The camera that the demonstrations were recorded with: nobody tells a policy that it was moved.
        camera = simulation.world.task.camera
        points = back_project(
            uv_px,
            depth_m.ravel().astype(np.float64),
            camera.T_world_camera,
            camera.intrinsics(width, height),
        )
        low, high = CROP_M
        points = points[((points > low) & (points < high)).all(axis=1)]
        if len(points) == 0:
            points = np.zeros((1, 3))
        return np.asarray(points[np.linspace(0, len(points) - 1, POINTS).astype(int)], np.float16)

    def prepare(self, views: NDArray[Any]) -> Tensor:
        """(B, POINTS, 3), about the middle of the table."""
        return torch.from_numpy(views).float() - torch.tensor([0.48, 0.0, 0.1])

    def augment(self, views: Tensor, generator: torch.Generator) -> Tensor:
        """Sensor noise of 2 mm."""
        return views + 0.002 * torch.randn(views.shape, generator=generator)

    def encoder(self) -> nn.Module:
        """DP3's: a small network on every point, the maximum over them, one layer."""
        return _PointEncoder()


class _PointEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = (3, 64, 128, 256)
        layers: list[nn.Module] = []
        for inside, outside in pairwise(sizes):
            layers += [nn.Linear(inside, outside), nn.LayerNorm(outside), nn.ReLU()]
        self.each, self.head = (
            nn.Sequential(*layers),
            nn.Sequential(nn.Linear(256, FEATURES), nn.LayerNorm(FEATURES)),
        )

    def forward(self, points: Tensor) -> Tensor:
        features: Tensor = self.head(self.each(points).amax(dim=1))
        return features


# ----------------------------------------------------------------------------------------------- truth


@cache
def object_names(task: str) -> tuple[str, ...]:
    """Bodies of a task's objects, moving parts among them, that are there whatever the seed."""
    robot = RobotDescription.load(robot_file("sim_panda"))
    models = [World(robot, make_task(task), "RP", seed).model for seed in range(8)]
    found = [{model.body(k).name for k in range(1, model.nbody)} for model in models]
    common = set.intersection(*found) - {"table", "wall"}
    return tuple(sorted(name for name in common if not name.startswith(ROBOT_PREFIX)))


class Pose:
    """The truth: position and rotation of every object."""

    name = "pose"
    batch_max: int | None = None

    def missing(self) -> str:
        """See `Modality`."""
        return ""

    def observe(self, simulation: Simulation) -> NDArray[Any]:
        """(B, 12) float32: position [m] and rotation matrix of every body."""
        data = simulation.world.data
        bodies = [data.body(name) for name in object_names(simulation.task)]
        return np.array([np.concatenate([body.xpos, body.xmat]) for body in bodies], np.float32)

    def prepare(self, views: NDArray[Any]) -> Tensor:
        """(batch, B, 12), positions in decimetres: of the size of a rotation."""
        scale = torch.tensor([10.0] * 3 + [1.0] * 9)
        return torch.from_numpy(views) * scale

    def augment(self, views: Tensor, generator: torch.Generator) -> Tensor:
        """As it is."""
        return views

    def encoder(self) -> nn.Module:
        """Two layers."""
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(256), nn.SiLU(), nn.Linear(256, FEATURES))

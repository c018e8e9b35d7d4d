"""What ATK is compared with: policies that see the whole picture, or that need not look (method.md, baselines: input modality).

    rgb          ResNet-18 over the colour image      (paper: R3M, a ResNet with weights from human video)
    depth        ResNet-18 over the depth image       (paper: the same)
    pointcloud   the encoder of DP3 over 3D points    (paper: the same, Ze et al. 2024)
    pose         where every object really is         (ours: an upper bound for anything that must look)

Each is followed by the policy class that ATK's keypoints feed, with the same chunks, temporal ensembling and safety
layer. The features stand where the keypoints would. R3M's weights cannot be shipped here, so every encoder
is trained end to end on the demonstrations; the picture's size and the number of samples are what a CPU allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atk_perception.robot_description import RobotDescription
from atk_policy.action_queue import ActionQueue
from atk_policy.checkpoint import load_checkpoint, save_checkpoint
from atk_policy.distillation import TrainingData
from atk_policy.kinematics import scene_of
from atk_policy.policies.mlp import MlpPolicy
from atk_policy.policies.protocol import PolicyInput
from atk_policy.safe_motion import SafeMotion
from atk_policy.safety import SafetyLimits
from atk_policy.selection import SelectionConfig
from atk_sim.camera import FloatArray, back_project
from atk_sim.graph import robot_file
from atk_sim.methods.protocol import Lesson
from atk_sim.robots.panda import ROBOT_PREFIX
from atk_sim.rollout import Agent, AgentStep
from atk_sim.simulation import Simulation
from atk_sim.tasks import make_task
from atk_sim.world import World

WEIGHTS = "policy.safetensors"
FRAMES = "frames.npz"
IMAGE_SIZE = (112, 84)  # width, height: a quarter of the paper's pixels, for the time that a CPU takes
SHIFT_PX = 4  # augmentation: a random shift, as usual with images (DrQ, Yarats et al. 2021)
POINTS = 512
CROP_M = ((0.15, -0.45, 0.004), (0.80, 0.45, 0.60))  # the table's top is left out, as in DP3
DEPTH_MAX_M = 2.0
FEATURES = 128
STEPS, LEARNING_RATE, WEIGHT_DECAY = 1500, 1e-3, 1e-4  # as many steps as ATK's policy


class Modality(Protocol):
    """What is looked at, and by which encoder; `batch` is what a CPU bears."""

    name: str
    batch: int

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


def resnet18(channels: int) -> nn.Module:
    """ResNet-18 without weights (transformers), then one layer to `FEATURES`.

    Raises:
        ModuleNotFoundError: transformers is not installed; says how to.
    """
    try:
        from transformers import ResNetConfig, ResNetModel
    except ImportError as error:
        raise ModuleNotFoundError(
            "the baselines rgb and depth take their encoder from the package transformers, which is not installed: "
            "pip install -r requirements/baselines.txt"
        ) from error
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
    batch = 32

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
    batch = 32

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


class PointCloud:
    """Points above the table, in the robot's frame."""

    name = "pointcloud"
    batch = 64

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
    batch = 512

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


class VisionPolicy(nn.Module):
    """An encoder, its features in the place of keypoints, the policy class of ATK."""

    def __init__(self, encoder: nn.Module, joints: int, horizon: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.policy = MlpPolicy(FEATURES // 2, joints, horizon, 1)

    def seen(self, views: Tensor, robot: Tensor) -> PolicyInput:
        """(B, ...) views and (B, J + 1) robot states as the policy takes them."""
        features = self.encoder(views).reshape(len(views), 1, FEATURES // 2, 2)
        return PolicyInput(features, torch.ones(features.shape[:-1]), robot[:, None])


@dataclass(frozen=True)
class _Frames:
    """Demonstrations as a modality sees them: (M, ...) views, and the rest as TrainingData has it."""

    views: NDArray[Any]
    data: TrainingData


class Vision:
    """A method that sees the whole picture."""

    def __init__(self, modality: Modality, steps: int = STEPS) -> None:
        self.name, self._modality, self._steps = modality.name, modality, steps

    def available(self) -> str:
        """See `Method`."""
        return ""

    def train(
        self, lesson: Lesson, seed: int, folder: Path, report: Callable[[str], None] = lambda line: None
    ) -> None:
        """See `Method`."""
        frames = self._watch(lesson, folder, report)
        config, data = SelectionConfig(), frames.data
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        model = VisionPolicy(self._modality.encoder(), lesson.robot.joint_count, config.policy.horizon)
        statistics = data.statistics(config.policy.horizon)
        # Features come normalised out of the encoder.
        neutral = {"uv_mean_px": torch.zeros(FEATURES // 2, 2), "uv_scale_px": torch.ones(FEATURES // 2, 2)}
        model.policy.set_statistics(statistics._replace(**neutral))
        model.encoder(
            self._modality.prepare(frames.views[:2])
        )  # some layers learn their size from what they see
        optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        noise = torch.full((lesson.robot.joint_count + 1,), config.augmentation.joint_noise_rad)
        noise[-1] = config.augmentation.gripper_noise_m
        model.train()
        for step in range(self._steps):
            index = torch.randint(len(data), (self._modality.batch,), generator=generator)
            views = self._modality.prepare(frames.views[index.numpy()])
            robot = data.robot[index]
            robot = robot + noise * torch.randn(robot.shape, generator=generator)
            seen = model.seen(self._modality.augment(views, generator), robot)
            loss = model.policy.negative_log_likelihood(
                seen, data.chunks(index, config.policy.horizon)
            ).mean()
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / self._steps))
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            if step % 50 == 0:
                report(f"step {step} of {self._steps}, loss {float(loss.detach()):.3f}")
        save_checkpoint(folder / WEIGHTS, model.state_dict(), {})
        (folder / FRAMES).unlink(missing_ok=True)

    def _watch(self, lesson: Lesson, folder: Path, report: Callable[[str], None]) -> _Frames:
        """See the demonstrations again: the same seeds give the same episodes, to be looked at in any way."""
        file = folder / FRAMES
        if not file.is_file():
            views, robot, action, lengths = [], [], [], []
            simulation = Simulation(lesson.robot, lesson.servo_noise)
            try:
                for number, seed in enumerate(lesson.seeds):
                    report(f"watching demonstration {number + 1} of {len(lesson.seeds)}")
                    simulation.reset(lesson.task, "RP", seed)
                    while not simulation.done:
                        views.append(self._modality.observe(simulation))
                        robot.append(simulation.measured())
                        action.append(simulation.expert_command())
                        simulation.step(action[-1])
                    lengths.append(simulation.steps)
            finally:
                simulation.close()
            arrays = {"views": views, "robot": robot, "action": action, "lengths": lengths}
            whole: dict[str, Any] = {name: np.array(array) for name, array in arrays.items()}
            np.savez(file.with_suffix(".partial.npz"), **whole)
            file.with_suffix(".partial.npz").rename(file)
        with np.load(file, allow_pickle=False) as stored:
            views_array, robot_array, action_array = (stored[name] for name in ("views", "robot", "action"))
            counts = stored["lengths"]
        start = np.cumsum(counts) - counts
        count = len(robot_array)
        data = TrainingData(
            torch.zeros(count, FEATURES // 2, 2),
            torch.ones(count, FEATURES // 2),
            torch.from_numpy(robot_array.astype(np.float32)),
            torch.from_numpy(action_array.astype(np.float32)),
            torch.from_numpy(np.repeat(start, counts)),
            torch.from_numpy(np.repeat(start + counts - 1, counts)),
        )
        return _Frames(views_array, data)

    def agent(self, lesson: Lesson, folder: Path, simulation: Simulation) -> Agent:
        """See `Method`."""
        config = SelectionConfig()
        model = VisionPolicy(self._modality.encoder(), lesson.robot.joint_count, config.policy.horizon)
        tensors, _ = load_checkpoint(folder / WEIGHTS)
        model.load_state_dict(tensors)
        model.eval()
        return VisionAgent(self._modality, model, config.ensemble_decay, lesson)


class VisionAgent:
    """Encoder, policy, temporal ensembling and the same jerk-limited, collision-checked motion as ATK's."""

    def __init__(
        self, modality: Modality, model: VisionPolicy, ensemble_decay: float, lesson: Lesson
    ) -> None:
        self._modality, self._model, self._decay = modality, model, ensemble_decay
        self._robot, self._limits = lesson.robot, SafetyLimits.of(lesson.robot)

    def begin(self, simulation: Simulation) -> None:
        """See `Agent`."""
        robot = self._robot
        self._motion = SafeMotion(self._limits.motion, scene_of(robot))
        self._motion.reset(simulation.measured()[:-1])
        self._queue = ActionQueue(robot.control_period_ns, self._decay, self._model.policy.horizon)
        self._opening_m = float(simulation.measured()[-1])

    def act(self, simulation: Simulation, stamp_ns: int) -> AgentStep:
        """See `Agent`."""
        period_ns = self._robot.control_period_ns
        hold = "image_stale" if simulation.image_lost else ""
        if not hold:
            self._queue.add(stamp_ns, self._chunk(simulation))
            now, after = (self._queue.action_at(stamp_ns + k * period_ns) for k in (0, 1))
            if now is None or not np.isfinite(now).all():
                hold = "no_action"
            else:
                rate = np.zeros_like(now) if after is None else (after - now) / (period_ns / 1e9)
                hold = self._motion.advance(now[:-1], rate[:-1], period_ns / 1e9)
                if not hold:
                    self._opening_m = float(
                        np.clip(now[-1], self._limits.gripper_min_m, self._limits.gripper_max_m)
                    )
        if hold:
            self._queue.clear()
        if hold in ("image_stale", "no_action"):  # else `advance` has braked
            self._motion.brake(period_ns / 1e9)
        return AgentStep(np.append(self._motion.position, self._opening_m), hold=hold)

    def _chunk(self, simulation: Simulation) -> FloatArray:
        with torch.inference_mode():
            views = self._modality.prepare(self._modality.observe(simulation)[None])
            robot = torch.from_numpy(simulation.measured().astype(np.float32))[None]
            chunk = self._model.policy.act(self._model.seen(views, robot))[0]
        return np.asarray(chunk.double().numpy())

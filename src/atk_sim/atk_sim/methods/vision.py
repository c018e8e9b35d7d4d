"""What ATK is compared with: policies that see the whole picture, or that need not look (method.md, baselines: input modality).

An encoder (modalities.py) is followed by the policy class that ATK's keypoints feed, with the same chunks, temporal ensembling
and safety layer, trained with the same settings (vision_training.py). The features stand where the keypoints would.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atk_policy.action_queue import ActionQueue
from atk_policy.checkpoint import load_checkpoint, save_checkpoint
from atk_policy.demonstrations import split
from atk_policy.kinematics import scene_of
from atk_policy.safe_motion import SafeMotion
from atk_policy.safety import SafetyLimits
from atk_sim.camera import FloatArray
from atk_sim.methods.modalities import IMAGE_BATCH, IMAGE_SIZE, POINTS, POINTS_BATCH, Modality
from atk_sim.methods.protocol import Lesson
from atk_sim.methods.vision_training import Frames, VisionPolicy, train_vision
from atk_sim.rollout import Agent, AgentStep
from atk_sim.simulation import Simulation, demonstrated

WEIGHTS = "policy.safetensors"
FRAMES, CHECKPOINT = "frames.npz", "training.safetensors"
DIFFERENCES = (
    "Every method learns from the same demonstrations, with the same policy class, steps, optimiser, learning rate and schedule, "
    "running mean of the weights, held-out demonstrations and noise on the robot's state. `rgb`, `depth` and `pointcloud` train "
    "their encoders along, end to end (R3M's weights cannot be shipped), and differ by what a CPU bears in a quarter of an hour: "
    f"images of {IMAGE_SIZE[0]}x{IMAGE_SIZE[1]} (the paper: 224x224), {POINTS} points (4096), and batches of {IMAGE_BATCH}, "
    f"{IMAGE_BATCH} and {POINTS_BATCH} in place of 512. Images are shifted at random, points get 2 mm of noise, where keypoints are "
    "given the failures of a tracker. `pose` differs in nothing but that it is told where the objects are."
)


class Vision:
    """A method that sees the whole picture."""

    def __init__(self, modality: Modality) -> None:
        self.name, self._modality = modality.name, modality
        self.needs: tuple[str, ...] = ()

    def available(self) -> str:
        """See `Method`."""
        return self._modality.missing()

    def train(
        self, lesson: Lesson, seed: int, folder: Path, report: Callable[[str], None] = lambda line: None
    ) -> None:
        """See `Method`."""
        settings, joints = lesson.settings, lesson.robot.joint_count
        training, _ = split(len(lesson.bags), settings.held_out, seed)
        frames = self._watch(lesson, training, folder, report)
        model = train_vision(self._modality, frames, joints, settings, seed, folder / CHECKPOINT, report)
        save_checkpoint(folder / WEIGHTS, model.state_dict(), {})
        for done in (FRAMES, CHECKPOINT):
            (folder / done).unlink(missing_ok=True)

    def _watch(
        self, lesson: Lesson, training: list[int], folder: Path, report: Callable[[str], None]
    ) -> Frames:
        """See the demonstrations again: the same seeds give the same episodes, to be looked at in any way."""
        file = folder / FRAMES
        if not file.is_file():
            views: list[NDArray[Any]] = []
            robot: list[FloatArray] = []
            action: list[FloatArray] = []
            lengths: list[int] = []
            simulation = Simulation(lesson.robot, lesson.servo_noise)
            try:
                for number, seed in enumerate(lesson.seeds):
                    report(f"watching demonstration {number + 1} of {len(lesson.seeds)}")
                    before = len(views)
                    for command in demonstrated(simulation, lesson.task, "RP", seed):
                        views.append(self._modality.observe(simulation))
                        robot.append(simulation.measured())
                        action.append(command)
                    lengths.append(len(views) - before)
            finally:
                simulation.close()
            partial = file.with_suffix(".partial.npz")
            np.savez(
                partial,
                views=np.array(views),
                robot=np.array(robot),
                action=np.array(action),
                lengths=np.array(lengths),
            )
            partial.rename(file)
        with np.load(file, allow_pickle=False) as stored:
            return Frames.of(
                stored["views"], stored["robot"], stored["action"], stored["lengths"], chosen=training
            )

    def agent(self, lesson: Lesson, folder: Path, simulation: Simulation) -> Agent:
        """See `Method`."""
        model = VisionPolicy(self._modality.encoder(), lesson.robot.joint_count, lesson.settings)
        tensors, _ = load_checkpoint(folder / WEIGHTS)
        model.load_state_dict(tensors)
        return VisionAgent(self._modality, model.eval(), lesson)


class VisionAgent:
    """Encoder, policy, temporal ensembling and the same jerk-limited, collision-checked motion as ATK's."""

    def __init__(self, modality: Modality, model: VisionPolicy, lesson: Lesson) -> None:
        self._modality, self._model, self._decay = modality, model, lesson.settings.ensemble_decay
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
        hold, inference_ms = "image_stale" if simulation.image_lost else "", 0.0
        if not hold:
            started = time.perf_counter()
            self._queue.add(stamp_ns, self._chunk(simulation))
            inference_ms = 1e3 * (time.perf_counter() - started)
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
        return AgentStep(
            np.append(self._motion.position, self._opening_m), hold=hold, inference_ms=inference_ms
        )

    def _chunk(self, simulation: Simulation) -> FloatArray:
        with torch.inference_mode():
            views = self._modality.prepare(self._modality.observe(simulation)[None])
            robot = torch.from_numpy(simulation.measured().astype(np.float32))[None]
            chunk = self._model.policy.act(self._model.seen(views, robot))[0]
        return np.asarray(chunk.double().numpy())

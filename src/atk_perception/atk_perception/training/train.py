"""Train the backbone and the tracker on generated clips, on a CPU or a GPU.

    python -m atk_perception.training.generator CLIPS
    python -m atk_perception.training.train CLIPS OUTPUT --pair-minutes 20 --head-minutes 15 --clip-minutes 30

Three stages, each with a budget of minutes and a learning rate that falls to nothing by its end:

- pairs: two frames of a clip; each point must be found among all cells of the other frame (InfoNCE), both ways.
- heads: the tracker's own parts on the encoder as it is, which is kept: twice as many steps in the same time.
- clips: everything. In this stage and the one before, the tracker is run as it will be used, frame by frame on its own state. Losses: the posterior's cross entropy,
  Huber on every refinement (later ones weigh more), visibility, and whether the estimate is within 8 px.

A checkpoint (OUTPUT/checkpoint.safetensors, with the optimiser's moments, and OUTPUT/checkpoint.json) is written every
minute; running the same command again goes on from it. OUTPUT/atk.safetensors are the weights alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from atk_perception.learned.network import (
    CELL_PX,
    CERTAIN_WITHIN_PX,
    PointNetwork,
    PointState,
    begin,
    channels_last,
    describe_points,
)
from atk_perception.learned.weights import save_weights
from atk_perception.training.clip import Clip, load_clip

STAGES = ("pair", "head", "clip")


@dataclass(frozen=True)
class TrainingParameters:
    """What a run is made of.

    Attributes:
        pair_minutes, head_minutes, clip_minutes: budgets of the stages.
        pair_batch, clip_batch: clips per step.
        clip_frames: frames the tracker is unrolled over.
        points: per clip.
        iterations: refinements per frame.
        turned_fraction: share of templates that are turned and scaled.
        known_start_fraction: share of batches in which the tracker is told where the points are at first.
        teacher_fraction: share of visible points put back to the truth after each frame. A tracker that has not learnt to
            see yet would otherwise spend every frame searching.
        crop_width, crop_height: training sees a window of the clip's frames, multiples of 16: more clips per second.
        pair_learning_rate, head_learning_rate, clip_learning_rate: at the top of the schedule.
        seed: of weights, and of every step's draw.
        threads: of torch.
        device: "cpu" or "cuda".
    """

    pair_minutes: float = 20.0
    head_minutes: float = 15.0
    clip_minutes: float = 30.0
    pair_batch: int = 8
    clip_batch: int = 3
    clip_frames: int = 6
    points: int = 32
    iterations: int = 3
    turned_fraction: float = 0.25
    known_start_fraction: float = 0.6
    teacher_fraction: float = 0.4
    crop_width: int = 224
    crop_height: int = 192
    pair_learning_rate: float = 1.5e-3
    head_learning_rate: float = 2e-3
    clip_learning_rate: float = 7e-4
    seed: int = 0
    threads: int = 2
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Batch:
    """B clips of T frames: (B, T, 3, H, W) in [0, 1], (B, N, T, 2) px, (B, N, T) bool."""

    frames: Tensor
    uv_px: Tensor
    visible: Tensor


def draw_clip(
    clip: Clip, rng: np.random.Generator, frames: Sequence[int], parameters: TrainingParameters
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    """The clip's `frames`, the first of them as the template, each a window around one of the points.

    The template is often turned by any angle and scaled, which neither generator does to every object; everything is
    mirrored and its colours are exchanged at random. Points are drawn among those that the template shows.

    Returns:
        (T, H, W, 3) images, (N, T, 2) positions, (N, T) visible.
    """
    width, height = parameters.crop_width, parameters.crop_height
    size = np.array([width, height])
    order = list(frames)
    usable = np.flatnonzero(clip.visible[:, order[0]])
    often = usable[np.argsort(-clip.visible[usable][:, order].sum(axis=1), kind="stable")]
    centre = int(often[rng.integers(max(1, len(often) // 2))])
    full_size = np.array([clip.video_rgb.shape[2], clip.video_rgb.shape[1]])

    turned = rng.random() < parameters.turned_fraction
    angle, scale = (rng.uniform(-np.pi, np.pi), np.exp(rng.uniform(-0.4, 0.4))) if turned else (0.0, 1.0)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    at = size * rng.uniform(0.2, 0.8, 2)
    T_window = np.column_stack([linear, at - linear @ clip.uv_px[centre, order[0]]])
    if not turned:
        T_window[:, 2] = -np.clip(np.rint(-T_window[:, 2]), 0, full_size - size)
    middle = clip.uv_px[centre, order[1:]].mean(axis=0)
    corner = np.clip(np.rint(middle - size * rng.uniform(0.3, 0.7, 2)), 0, full_size - size)
    T_others = np.column_stack([np.eye(2), -corner])

    channels, mirror = rng.permutation(3), rng.random(2) < 0.5
    images, places, visibles = [], [], []
    for k, frame in enumerate(order):
        T = T_window if k == 0 else T_others
        image = np.asarray(
            cv2.warpAffine(clip.video_rgb[frame], T, (width, height), borderMode=cv2.BORDER_REFLECT), np.uint8
        )[:, :, channels]
        place = clip.uv_px[:, frame] @ T[:, :2].T + T[:, 2]
        inside = np.all((place >= 0) & (place <= size - 1), axis=1)
        if mirror[0]:
            image, place = image[:, ::-1], np.array([width - 1, 0]) + place * np.array([-1, 1])
        if mirror[1]:
            image, place = image[::-1], np.array([0, height - 1]) + place * np.array([1, -1])
        images.append(image)
        places.append(place)
        visibles.append(clip.visible[:, frame] & inside)
    uv_px, visible = np.stack(places, axis=1), np.stack(visibles, axis=1)
    candidates = np.flatnonzero(visible[:, 0])
    chosen = rng.choice(candidates, parameters.points, replace=len(candidates) < parameters.points)
    return np.stack(images), uv_px[chosen].astype(np.float32), visible[chosen]


def draw_batch(
    paths: Sequence[Path], rng: np.random.Generator, parameters: TrainingParameters, *, pairs: bool
) -> Batch:
    """A random batch of either stage."""
    images, places, visibles = [], [], []
    for _ in range(parameters.pair_batch if pairs else parameters.clip_batch):
        clip = load_clip(paths[int(rng.integers(len(paths)))])
        length = len(clip)
        if pairs:
            # Frame 0 may be another scene; other pairs are the same scene some time later.
            first = 0 if rng.random() < 0.6 else int(rng.integers(length))
            second = int(rng.choice([t for t in range(length) if t != first]))
            frames = [first, second]
        else:
            begin_at = int(rng.integers(1, length - parameters.clip_frames + 1))
            order = list(range(begin_at, begin_at + parameters.clip_frames))
            frames = [0, *(order if rng.random() < 0.7 else order[::-1])]
        image, place, visible = draw_clip(clip, rng, frames, parameters)
        images.append(image)
        places.append(place)
        visibles.append(visible)
    device = parameters.device
    frames_tensor = torch.from_numpy(np.stack(images)).to(device).permute(0, 1, 4, 2, 3).float() / 255.0
    return Batch(
        frames_tensor,
        torch.from_numpy(np.stack(places)).to(device),
        torch.from_numpy(np.stack(visibles)).to(device),
    )


def encode_all(network: PointNetwork, frames: Tensor) -> Tensor:
    """(B, T, 3, H, W) -> (B, T, 64, h, w), in bfloat16 where that is fast."""
    batch, length = frames.shape[:2]
    flat = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    with torch.autocast(frames.device.type, torch.bfloat16):
        features = network.encode(flat)
    return features.float().reshape(batch, length, *features.shape[1:])


def cell_loss(log_posterior: Tensor, uv_px: Tensor, visible: Tensor, shape: tuple[int, int]) -> Tensor:
    """Cross entropy with the four cells around the truth, weighted bilinearly, mean over visible points.

    `log_posterior` (B, N, h*w), `uv_px` (B, N, 2), `visible` (B, N).
    """
    height, width = shape
    at = uv_px / CELL_PX
    low = at.floor()
    fraction = at - low
    total = torch.zeros_like(uv_px[..., 0])
    for du in (0, 1):
        for dv in (0, 1):
            u = (low[..., 0] + du).clamp(0, width - 1).long()
            v = (low[..., 1] + dv).clamp(0, height - 1).long()
            share_u = fraction[..., 0] if du else 1.0 - fraction[..., 0]
            share_v = fraction[..., 1] if dv else 1.0 - fraction[..., 1]
            picked = log_posterior.gather(2, (v * width + u)[..., None])[..., 0]
            total = total - share_u * share_v * picked
    return mean_over(total, visible)


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of `values` where `chosen`, 0 where nothing is."""
    weight = chosen.float()
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def pair_loss(network: PointNetwork, batch: Batch) -> dict[str, Tensor]:
    """InfoNCE over all cells of the other frame, both ways."""
    features = encode_all(network, batch.frames)
    both = batch.visible[..., 0] & batch.visible[..., 1]
    shape = (features.shape[3], features.shape[4])
    scale = torch.exp(network.log_scale_template)
    losses, found = [], []
    for a, b in ((0, 1), (1, 0)):
        query = describe_points(features[:, a], batch.uv_px[:, :, a])
        logits = scale * network.similarity(features[:, b], query)
        losses.append(cell_loss(functional.log_softmax(logits, dim=2), batch.uv_px[:, :, b], both, shape))
        best = logits.detach().argmax(dim=2)
        place = CELL_PX * torch.stack([best % shape[1], best // shape[1]], dim=2)
        found.append(mean_over(((place - batch.uv_px[:, :, b]).norm(dim=2) < 8.0).float(), both))
    return {"loss": (losses[0] + losses[1]) / 2, "found": (found[0] + found[1]) / 2}


def clip_loss(
    network: PointNetwork, batch: Batch, parameters: TrainingParameters, know_start: bool
) -> dict[str, Tensor]:
    """The tracker run over a clip; frame 0 is the template. `know_start`: it is told where the points are in frame 1."""
    features = encode_all(network, batch.frames)
    shape = (features.shape[3], features.shape[4])
    template = describe_points(features[:, 0], batch.uv_px[:, :, 0])
    # A matcher told it, a pixel or two off.
    start = batch.uv_px[:, :, 1] + 1.5 * torch.randn_like(batch.uv_px[:, :, 1]) if know_start else None
    state = begin(template, start)
    terms: dict[str, list[Tensor]] = {
        name: [] for name in ("cell", "template", "huber", "visible", "certain", "px4", "oa")
    }
    scale = torch.exp(network.log_scale_template)
    for t in range(1, batch.frames.shape[1]):
        frame, truth, visible = features[:, t], batch.uv_px[:, :, t], batch.visible[:, :, t]
        estimate = network.estimate(frame, state, parameters.iterations)
        terms["cell"].append(cell_loss(estimate.log_posterior, truth, visible, shape))
        alone = functional.log_softmax(scale * network.similarity(frame, template), dim=2)
        terms["template"].append(cell_loss(alone, truth, visible, shape))
        # A start that is out of the windows' reach cannot be corrected: it teaches doubt, not direction.
        within_reach = (estimate.start_px - truth).norm(dim=2) < 40.0
        for k in range(parameters.iterations):
            weight = 0.8 ** (parameters.iterations - 1 - k)
            uv_px = estimate.uv_px[k]
            # In cells, linear from half a cell on: sub-pixel errors still count, outliers do not dominate.
            huber = functional.smooth_l1_loss(
                uv_px / CELL_PX, truth / CELL_PX, reduction="none", beta=0.5
            ).sum(dim=2)
            terms["huber"].append(weight * mean_over(huber, visible & within_reach))
            close = ((uv_px.detach() - truth).norm(dim=2) < CERTAIN_WITHIN_PX).float()
            certain = functional.binary_cross_entropy_with_logits(
                estimate.certain_logit[k], close, reduction="none"
            )
            # Hidden points are certain to be uncertain; visible ones carry the information.
            terms["certain"].append(weight * mean_over(certain, visible))
            terms["visible"].append(
                weight
                * functional.binary_cross_entropy_with_logits(estimate.visible_logit[k], visible.float())
            )
        terms["px4"].append(mean_over(close, visible))
        state = network.advance(frame, state, estimate)
        state = put_back(
            frame, state, truth, visible & (torch.rand_like(truth[..., 0]) < parameters.teacher_fraction)
        )
        said = torch.sigmoid(estimate.visible_logit[-1]) * torch.sigmoid(estimate.certain_logit[-1]) > 0.5
        terms["oa"].append((said == visible).float().mean())
    mean = {name: torch.stack(values).mean() for name, values in terms.items()}
    loss = (
        0.15 * mean["cell"]
        + 0.15 * mean["template"]
        + mean["huber"]
        + mean["visible"]
        + 0.5 * mean["certain"]
    )
    return {"loss": loss, **{name: value.detach() for name, value in mean.items()}}


def put_back(features: Tensor, state: PointState, uv_px: Tensor, chosen: Tensor) -> PointState:
    """The state with `chosen` (B, N) points seen, with certainty 0.9, about where they truly are."""
    pick = chosen[..., None]
    off_px = uv_px + torch.randn_like(uv_px)
    return replace(
        state,
        uv_px=torch.where(pick, off_px, state.uv_px),
        latest=torch.where(pick, describe_points(features, off_px), state.latest),
        certain=torch.where(chosen, torch.full_like(state.certain, 0.9), state.certain),
        unseen=torch.where(chosen, torch.zeros_like(state.unseen), state.unseen),
    )


@dataclass
class Progress:
    """Where a run is: (stage minutes spent, steps, running means of the terms)."""

    pair_minutes: float = 0.0
    head_minutes: float = 0.0
    clip_minutes: float = 0.0
    step: int = 0


class Trainer:
    """Network, optimiser and progress, saved and resumed together."""

    def __init__(self, output: Path, parameters: TrainingParameters) -> None:
        self.output, self.parameters = output, parameters
        torch.manual_seed(parameters.seed)
        if parameters.device == "cpu":
            torch.set_num_threads(parameters.threads)
        self.network = channels_last(PointNetwork().to(parameters.device))
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.98)
        )
        self.progress = Progress()
        self.means: dict[str, float] = {}
        if (output / "checkpoint.json").exists():
            self._resume()

    def save(self) -> None:
        """Checkpoint and weights; each file appears whole or not at all."""
        self.output.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"network.{k}": v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()
        }
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{key}.{name}"] = value.detach().cpu().contiguous()
        save_file(tensors, self.output / "checkpoint.partial")
        (self.output / "checkpoint.partial").replace(self.output / "checkpoint.safetensors")
        about = {
            "format_version": 1,
            "parameters": asdict(self.parameters),
            "progress": asdict(self.progress),
            "means": self.means,
        }
        (self.output / "checkpoint.json").write_text(json.dumps(about, indent=2))
        save_weights(self.output / "atk.safetensors", self.network)

    def _resume(self) -> None:
        about = json.loads((self.output / "checkpoint.json").read_text())
        tensors = load_file(self.output / "checkpoint.safetensors", device=self.parameters.device)
        self.network.load_state_dict(
            {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
        )
        for name, parameter in self.network.named_parameters():
            stored = {
                key: tensors[f"optimiser.{key}.{name}"].cpu()
                if key == "step"
                else tensors[f"optimiser.{key}.{name}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimiser.{key}.{name}" in tensors
            }
            if stored:
                self.optimiser.state[parameter] = stored
        self.progress = Progress(**about["progress"])
        self.means = about["means"]

    def run(self, clips: Path) -> None:
        """All stages, from where they are to the end of their budgets.

        Raises:
            ValueError: no clips.
        """
        for stage in STAGES:
            self.network.encoder.requires_grad_(stage != "head")
            self._stage(clips, stage)
        self.save()

    def _stage(self, clips: Path, stage: str) -> None:
        parameters, progress = self.parameters, self.progress
        key, pairs = f"{stage}_minutes", stage == "pair"
        budget_minutes: float = getattr(parameters, key)
        top: float = getattr(parameters, f"{stage}_learning_rate")
        spent, saved, started, paths = (
            getattr(progress, key),
            time.monotonic(),
            time.monotonic(),
            clip_files(clips),
        )
        bar = tqdm(
            total=round(budget_minutes * 60),
            initial=round(spent * 60),
            unit="s",
            desc=key,
            dynamic_ncols=True,
        )
        while spent < budget_minutes:
            share = spent / budget_minutes
            for group in self.optimiser.param_groups:
                group["lr"] = top * min(1.0, share / 0.03 + 0.02) * 0.5 * (1.0 + np.cos(np.pi * share))
            rng = np.random.default_rng([parameters.seed, progress.step])
            batch = draw_batch(paths, rng, parameters, pairs=pairs)
            terms = (
                pair_loss(self.network, batch)
                if pairs
                else clip_loss(
                    self.network, batch, parameters, bool(rng.random() < parameters.known_start_fraction)
                )
            )
            self.optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(terms["loss"])
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()
            progress.step += 1
            for name, value in terms.items():
                self.means[name] = 0.98 * self.means.get(name, float(value.detach())) + 0.02 * float(
                    value.detach()
                )
            now = time.monotonic()
            spent, started = spent + (now - started) / 60, now
            setattr(progress, key, spent)
            bar.update(round(spent * 60) - bar.n)
            if now - saved > 60.0:
                bar.set_postfix_str(
                    " ".join(f"{k}={v:.3f}" for k, v in self.means.items()) + f" step={progress.step}"
                )
                self.save()
                # Clips may still be generated while training runs.
                saved, paths = now, clip_files(clips)
        bar.close()


def clip_files(folder: Path) -> list[Path]:
    """The clips in `folder`, in order of their names.

    Raises:
        ValueError: there are none.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise ValueError(
            f"no clips (*.npz) in {folder}; make some: python -m atk_perception.training.generator {folder}"
        )
    return paths


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, help="folder of clips made by the generator")
    parser.add_argument("output", type=Path, help="folder of checkpoints; resumed if there is one")
    defaults = TrainingParameters()
    for name, value in asdict(defaults).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = vars(parser.parse_args(arguments))
    clips, output = options.pop("clips"), options.pop("output")
    Trainer(output, TrainingParameters(**options)).run(clips)


if __name__ == "__main__":
    main()

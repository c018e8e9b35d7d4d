"""Train the backbone and the tracker on generated clips, on a CPU or a GPU.

    python -m atk_perception.training.generator CLIPS
    python -m atk_perception.training.train CLIPS OUTPUT
    python -m atk_perception.training.train CLIPS OUTPUT --pair-steps 1500 --clip-steps 2500      # an hour of a CPU; it learns

Two stages, each with a number of steps and a learning rate that falls to nothing by its end:

- pair: two frames of a clip; each point must be found among all cells of the other frame (InfoNCE), both ways.
- clip: everything; the tracker is run as it will be used, frame by frame on its own state. Losses: the posterior's cross entropy,
  Huber on every refinement (later ones weigh more), visibility, and whether the estimate is within 8 px.

Every fiftieth clip is kept for checks (the figures beside the progress bar). What is saved as weights is a running mean over the
last thousand steps or so. A checkpoint (OUTPUT/checkpoint.safetensors, with the optimiser's moments) is written now and then; running the same command again goes on from it, to the same weights on the same
machine and threads. OUTPUT/atk.safetensors are the weights alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
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

STAGES = ("pair", "clip")
# Every so manieth clip is for checks, which run on so many batches, once in so many steps.
HELD_OUT_EVERY = 50
CHECK_BATCHES, CHECK_STEPS = 12, 1000
SAVE_S = 120.0
# The mean over steps weighs them by this power of their age.
MEAN_DECAY = 0.999


@dataclass(frozen=True)
class TrainingParameters:
    """What a run is made of.

    Attributes:
        pair_steps, clip_steps: of the stages.
        pair_batch, clip_batch: clips per step.
        clip_frames: frames the tracker is unrolled over.
        points: per clip, at most; a batch of clips has half, a quarter or all of them.
        iterations: refinements per frame.
        turned_fraction: share of templates that are turned, scaled and stretched.
        turned_rad, scaled_log, stretched_log: by how much.
        known_start_fraction: share of points of which the tracker is told where they are at first.
        stale_start_fraction: share of points that it saw somewhere else, a while ago, and must find again.
        stale_px, drift_px: how far away that was; how far off a point's latest appearance was taken, at most: a tracker that
            runs for minutes drifts on what it saw last, and must hold on to the template.
        teacher_fraction: share of visible points put back to the truth after each frame. A tracker that has not learnt to
            see yet would otherwise spend every frame searching. Falls to a quarter of this in the course of the stage.
        crop_width, crop_height: training sees a window of the clip's frames, multiples of 16: more clips per second.
        pair_learning_rate, clip_learning_rate: at the top of the schedule.
        seed: of weights, and of every step's draw.
        threads: of torch.
        device: "cpu" or "cuda".
        compile: translate the network with torch.compile: a minute or two for each size of sets, then a third faster.
    """

    pair_steps: int = 5000
    clip_steps: int = 25000
    pair_batch: int = 16
    clip_batch: int = 8
    clip_frames: int = 6
    points: int = 48
    iterations: int = 3
    turned_fraction: float = 0.35
    turned_rad: float = 0.6
    scaled_log: float = 0.3
    stretched_log: float = 0.25
    known_start_fraction: float = 0.4
    stale_start_fraction: float = 0.25
    stale_px: float = 14.0
    drift_px: float = 3.0
    teacher_fraction: float = 0.4
    crop_width: int = 224
    crop_height: int = 192
    pair_learning_rate: float = 1.5e-3
    clip_learning_rate: float = 8e-4
    seed: int = 0
    threads: int = 2
    device: str = "cpu"
    compile: bool = False


@dataclass(frozen=True, eq=False)
class Batch:
    """B clips of T frames: (B, T, 3, H, W) in [0, 1], (B, N, T, 2) px, (B, N, T) bool."""

    frames: Tensor
    uv_px: Tensor
    visible: Tensor


def draw_clip(
    clip: Clip, rng: np.random.Generator, frames: Sequence[int], points: int, parameters: TrainingParameters
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    """The clip's `frames`, the first of them as the template, each a window around one of the points.

    The template is often turned, scaled and stretched, as far as the template bank leaves it so (see
    `learned.template_bank`); everything is mirrored and its colours are exchanged at random. Points are drawn among those that
    the template shows.

    Args:
        points: how many.

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
    linear = _turned(rng, parameters) if turned else np.eye(2)
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
    chosen = rng.choice(candidates, points, replace=len(candidates) < points)
    return np.stack(images), uv_px[chosen].astype(np.float32), visible[chosen]


def _turned(rng: np.random.Generator, parameters: TrainingParameters) -> NDArray[np.float64]:
    """(2, 2) a turn, a scale and a stretch along any direction, as a face that is seen from another side."""

    def rotation(angle: float) -> NDArray[np.float64]:
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    along = rotation(rng.uniform(0, np.pi))
    scale, stretch = np.exp(
        rng.uniform(-1, 1, 2) * np.array([parameters.scaled_log, 0.5 * parameters.stretched_log])
    )
    turn = rotation(parameters.turned_rad * rng.uniform(-1, 1))
    return np.asarray(scale * turn @ along @ np.diag([stretch, 1.0 / stretch]) @ along.T)


def draw_frames(rng: np.random.Generator, length: int, frames: int) -> list[int]:
    """Frame 0, the template, and `frames` later ones in or against the order of time; now and then some are left out."""
    most = (length - 2) // max(1, frames - 1)
    step = int(rng.choice([1, 1, 1, 2, 2, 0]))
    if step == 0 and length - 1 > frames:
        order = np.sort(rng.choice(np.arange(1, length), frames, replace=False))
    else:
        step = max(1, min(step, most))
        begin_at = int(rng.integers(1, length - (frames - 1) * step))
        order = begin_at + step * np.arange(frames)
    return [0, *(order if rng.random() < 0.7 else order[::-1]).tolist()]


def draw_batch(
    paths: Sequence[Path], rng: np.random.Generator, parameters: TrainingParameters, *, pairs: bool
) -> Batch:
    """A random batch of either stage."""
    images, places, visibles = [], [], []
    # Sets of all sizes: selection tracks hundreds of points, a robot a handful.
    points = parameters.points if pairs else max(1, parameters.points // int(rng.choice([1, 1, 2, 4])))
    for _ in range(parameters.pair_batch if pairs else parameters.clip_batch):
        clip = load_clip(paths[int(rng.integers(len(paths)))])
        length = len(clip)
        if pairs:
            # Frame 0 may be another scene; other pairs are the same scene some time later.
            shown = np.flatnonzero(clip.visible.any(axis=0))
            first = 0 if rng.random() < 0.6 else int(rng.choice(shown))
            second = int(rng.choice([t for t in range(length) if t != first]))
            frames = [first, second]
        else:
            frames = draw_frames(rng, length, parameters.clip_frames)
        image, place, visible = draw_clip(clip, rng, frames, points, parameters)
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
    features = encode_all(network, batch.frames).unbind(dim=1)
    both = batch.visible[..., 0] & batch.visible[..., 1]
    shape = (features[0].shape[2], features[0].shape[3])
    scale = torch.exp(network.log_scale_template)
    losses, found = [], []
    for a, b in ((0, 1), (1, 0)):
        query = describe_points(features[a], batch.uv_px[:, :, a])
        logits = scale * network.similarity(features[b], query)
        losses.append(cell_loss(functional.log_softmax(logits, dim=2), batch.uv_px[:, :, b], both, shape))
        best = logits.detach().argmax(dim=2)
        place = CELL_PX * torch.stack([best % shape[1], best // shape[1]], dim=2)
        found.append(mean_over(((place - batch.uv_px[:, :, b]).norm(dim=2) < 8.0).float(), both))
    return {"loss": (losses[0] + losses[1]) / 2, "found": (found[0] + found[1]) / 2}


def draw_start(
    features: Sequence[Tensor], batch: Batch, template: Tensor, parameters: TrainingParameters
) -> PointState:
    """What the tracker knows before frame 1: of some points where they are, of some where they were, of some nothing."""
    truth = batch.uv_px[:, :, 1]
    shape = truth.shape[:2]
    drawn = torch.rand(shape, device=truth.device)
    known = drawn < parameters.known_start_fraction
    stale = ~known & (drawn < parameters.known_start_fraction + parameters.stale_start_fraction)
    away_px = torch.where(known, 1.5, parameters.stale_px)[..., None] * torch.randn_like(truth)
    # What was seen last: the point in some later frame, as if time ran back, not quite where it is.
    other = int(torch.randint(1, len(features), ()))
    drift_px = parameters.drift_px * torch.rand((*shape, 1), device=truth.device)
    seen = describe_points(features[other], batch.uv_px[:, :, other] + drift_px * torch.randn_like(truth))
    usable = (known | stale) & batch.visible[:, :, other] & (torch.rand_like(drawn) < 0.7)
    certain = torch.where(known, torch.ones_like(drawn), 0.5 + 0.5 * torch.rand_like(drawn))
    unseen = torch.where(
        stale, torch.randint(1, 30, shape, device=truth.device).float(), torch.zeros_like(drawn)
    )
    start = begin(template, batch.uv_px[:, :, 0], truth + away_px)
    return replace(
        start,
        latest=torch.where(usable[..., None], seen, template),
        visible=torch.where(known, certain, torch.zeros_like(drawn)),
        certain=torch.where(known | stale, certain, torch.zeros_like(drawn)),
        unseen=unseen,
    )


def clip_loss(
    network: PointNetwork, batch: Batch, parameters: TrainingParameters, teacher_fraction: float = 0.0
) -> dict[str, Tensor]:
    """The tracker run over a clip; frame 0 is the template.

    Args:
        teacher_fraction: of the points are put back to the truth after each frame.
    """
    # Unbound at once: a slice each would fill as many gradients of the whole with zeros.
    features = encode_all(network, batch.frames).unbind(dim=1)
    shape = (features[0].shape[2], features[0].shape[3])
    template = describe_points(features[0], batch.uv_px[:, :, 0])
    state = draw_start(features, batch, template, parameters)
    terms: dict[str, list[Tensor]] = {
        name: [] for name in ("cell", "template", "huber", "visible", "certain", "px4", "oa")
    }
    scale = torch.exp(network.log_scale_template)
    for t in range(1, batch.frames.shape[1]):
        frame, truth, visible = features[t], batch.uv_px[:, :, t], batch.visible[:, :, t]
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
        again = visible & (torch.rand_like(truth[..., 0]) < teacher_fraction)
        state = put_back(frame, state, truth, again, parameters.drift_px)
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


def put_back(
    features: Tensor, state: PointState, uv_px: Tensor, chosen: Tensor, drift_px: float
) -> PointState:
    """The state with `chosen` (B, N) points seen, with certainty 0.9, about where they truly are."""
    pick = chosen[..., None]
    off_px = uv_px + torch.randn_like(uv_px)
    drift = drift_px * torch.rand_like(uv_px[..., :1]) * torch.randn_like(uv_px)
    return replace(
        state,
        uv_px=torch.where(pick, off_px, state.uv_px),
        latest=torch.where(pick, describe_points(features, uv_px + drift), state.latest),
        certain=torch.where(chosen, torch.full_like(state.certain, 0.9), state.certain),
        unseen=torch.where(chosen, torch.zeros_like(state.unseen), state.unseen),
    )


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        pair_step, clip_step: done in either stage.
        means: running means of the terms of the loss.
        checks: figures on held-out clips, by stage and step.
    """

    pair_step: int = 0
    clip_step: int = 0
    means: dict[str, float] = field(default_factory=dict)
    checks: dict[str, dict[str, float]] = field(default_factory=dict)


class Trainer:
    """Network, its mean over steps, optimiser and progress, saved and resumed together."""

    def __init__(self, output: Path, parameters: TrainingParameters) -> None:
        self.output, self.parameters = output, parameters
        torch.manual_seed(parameters.seed)
        if parameters.device == "cpu":
            torch.set_num_threads(parameters.threads)
        self.network = channels_last(PointNetwork().to(parameters.device))
        self.mean = channels_last(PointNetwork().to(parameters.device)).requires_grad_(False)
        self.mean.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.98)
        )
        if parameters.compile:
            for name in ("encode", "estimate"):
                setattr(self.network, name, torch.compile(getattr(self.network, name), dynamic=False))
        self.progress = Progress()
        if (output / "checkpoint.safetensors").exists():
            self._resume()

    def save(self) -> None:
        """Checkpoint and weights; each file appears whole or not at all."""
        self.output.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{which}.{k}": v.detach().cpu().contiguous()
            for which, network in (("network", self.network), ("mean", self.mean))
            for k, v in network.state_dict().items()
        }
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{key}.{name}"] = value.detach().cpu().contiguous()
        about = {
            "format_version": "2",
            "parameters": json.dumps(asdict(self.parameters)),
            "progress": json.dumps(asdict(self.progress)),
        }
        # One file, so that a kill never leaves weights of one step beside the progress of another.
        save_file(tensors, self.output / "checkpoint.partial", about)
        (self.output / "checkpoint.partial").replace(self.output / "checkpoint.safetensors")
        save_weights(self.output / "atk.safetensors", self.mean)

    def _resume(self) -> None:
        path = self.output / "checkpoint.safetensors"
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        if about.get("format_version") != "2":
            raise ValueError(
                f"{path} is of format version {about.get('format_version')}, this code reads 2; "
                "give another output folder"
            )
        tensors = load_file(path, device=self.parameters.device)
        for which, network in (("network", self.network), ("mean", self.mean)):
            network.load_state_dict(
                {k.removeprefix(f"{which}."): v for k, v in tensors.items() if k.startswith(f"{which}.")}
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
        self.progress = Progress(**json.loads(about["progress"]))

    def run(self, clips: Path) -> None:
        """All stages, from where they are to their ends.

        Raises:
            ValueError: no clips.
        """
        paths = clip_files(clips)
        held_out = paths[::HELD_OUT_EVERY]
        learnt = [path for path in paths if path not in set(held_out)] or held_out
        for stage in STAGES:
            self._stage(stage, learnt, held_out)
        self.save()

    def _loss(
        self, network: PointNetwork, stage: str, batch: Batch, step: int, seed: int
    ) -> dict[str, Tensor]:
        """The terms of a step; what is drawn on the way depends on `seed` alone."""
        parameters = self.parameters
        if stage == "pair":
            return pair_loss(network, batch)
        torch.manual_seed(seed)
        share = 1.0 - 0.75 * step / max(1, parameters.clip_steps)
        return clip_loss(network, batch, parameters, share * parameters.teacher_fraction)

    def _draw(self, stage: str, paths: Sequence[Path], step: int) -> Batch:
        rng = np.random.default_rng([self.parameters.seed, STAGES.index(stage), step])
        return draw_batch(paths, rng, self.parameters, pairs=stage == "pair")

    def _stage(
        self, stage: str, paths: Sequence[Path], held_out: Sequence[Path], until: int | None = None
    ) -> None:
        parameters, progress = self.parameters, self.progress
        steps: int = getattr(parameters, f"{stage}_steps")
        top: float = getattr(parameters, f"{stage}_learning_rate")
        first: int = getattr(progress, f"{stage}_step")
        saved = time.monotonic()
        bar = tqdm(total=steps, initial=first, unit="step", desc=stage, dynamic_ncols=True)
        with ThreadPoolExecutor(1) as ahead:
            drawn = ahead.submit(self._draw, stage, paths, first)
            for step in range(first, steps if until is None else until):
                batch = drawn.result()
                drawn = ahead.submit(self._draw, stage, paths, step + 1)
                share = step / steps
                for group in self.optimiser.param_groups:
                    group["lr"] = top * min(1.0, share / 0.03 + 0.02) * 0.5 * (1.0 + np.cos(np.pi * share))
                terms = self._loss(self.network, stage, batch, step, parameters.seed * steps + step)
                self.optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(terms["loss"])
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
                self.optimiser.step()
                self._take_mean(stage, step)
                for name, value in terms.items():
                    before = progress.means.get(name, float(value.detach()))
                    progress.means[name] = 0.98 * before + 0.02 * float(value.detach())
                setattr(progress, f"{stage}_step", step + 1)
                bar.update()
                if (step + 1) % CHECK_STEPS == 0 or step + 1 == steps:
                    self._check(stage, step + 1, held_out)
                if time.monotonic() - saved > SAVE_S:
                    bar.set_postfix_str(" ".join(f"{k}={v:.3f}" for k, v in progress.means.items()))
                    self.save()
                    saved = time.monotonic()
        bar.close()

    @torch.no_grad()
    def _take_mean(self, stage: str, step: int) -> None:
        # A short mean at first, which forgets the random beginning.
        done = step + (self.parameters.pair_steps if stage == "clip" else 0)
        decay = min(MEAN_DECAY, (1.0 + done) / (10.0 + done))
        for mean, value in zip(self.mean.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(value, 1.0 - decay)

    @torch.no_grad()
    def _check(self, stage: str, step: int, held_out: Sequence[Path]) -> None:
        """Figures of the mean network on the same held-out batches every time, without a teacher."""
        found: dict[str, list[float]] = {}
        for number in range(CHECK_BATCHES):
            rng = np.random.default_rng([7, number])
            batch = draw_batch(held_out, rng, self.parameters, pairs=stage == "pair")
            if stage == "pair":
                terms = pair_loss(self.mean, batch)
            else:
                torch.manual_seed(number)
                terms = clip_loss(self.mean, batch, self.parameters)
            for name, value in terms.items():
                found.setdefault(name, []).append(float(value))
        check = {name: round(float(np.mean(values)), 4) for name, values in found.items()}
        self.progress.checks[f"{stage} {step}"] = check
        tqdm.write(f"{stage} {step}: " + " ".join(f"{k}={v:.3f}" for k, v in check.items()))


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
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=value)
        else:
            parser.add_argument(option, type=type(value), default=value)
    options = vars(parser.parse_args(arguments))
    clips, output = options.pop("clips"), options.pop("output")
    Trainer(output, TrainingParameters(**options)).run(clips)


if __name__ == "__main__":
    main()

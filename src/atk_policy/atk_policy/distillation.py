"""Train gates and policy together, then the policy alone on the set that survived.

    min over phi, theta   E [ -log pi_theta(a given m * K) ]  +  alpha * E |m|_1        (method.md)

Several members, each a policy with gates of its own, are trained side by side in one vectorised run. As
published that is one member with `gates` bernoulli, a fixed penalty and `cross_fit` off. What is our own:

* Cross-fitting. Each member's policy is trained without one fold of the demonstrations, and its gates
  learn on that fold. With some 50 demonstrations a policy can otherwise tell them apart by points whose
  position is arbitrary (a match on a bare table), and the published objective keeps such points
  because they lower the training error.
* A penalty that needs no tuning, see penalty.py, and other gates to learn with, see gates/.
* Pace. The published learning rate of 1e-5 and batch of 4096 are made for GPUs and far more
  samples; on some 5,000 samples and a CPU they would take hours. `StageConfig` holds the values that
  work in a minute; the published ones can be set there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from atk_policy.augmentation import Augmentation, AugmentationConfig
from atk_policy.best_weights import BestWeights
from atk_policy.checkpoint import load_checkpoint, save_checkpoint
from atk_policy.demonstrations import Demonstration
from atk_policy.gates import DEFAULT_GATES, make_gates
from atk_policy.penalty import Penalty, PenaltyConfig
from atk_policy.policies import DEFAULT_POLICY, check_policy, make_policy
from atk_policy.policies.encoders import DEFAULT_ENCODER
from atk_policy.policies.protocol import Noise, Policy, PolicyInput, Statistics, encode_action
from atk_policy.stored_rows import RowWriter, StoredRows, writing

Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]

# A point that moves less than this over all demonstrations says where noise is, not where things are.
UV_SCALE_MIN_PX = 16.0
# The same for robot and actions: encoder noise [rad, m] must not be blown up to unit size.
ROBOT_SCALE_MIN = 0.01
ACTION_SCALE_MIN = 0.005
# Normalisation, and the curves of what is held out, are taken from at most so many frames, evenly spaced: more of a thousand
# demonstrations say the same again, and cost memory and more time than the training.
STATISTICS_FRAMES = 32_768
MEASURED_FRAMES = 8_192
# The loss of a sampling policy is measured at the same noise every time, or its curve would tell of the draw.
EVALUATION_SEED = 0


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PolicyConfig(_Config):
    """Which policy, and how it sees time."""

    name: str = DEFAULT_POLICY  # atk_policy.policies
    encoder: str = DEFAULT_ENCODER  # atk_policy.policies.encoders
    horizon: Count = 16  # 0.8 s at 20 Hz: longer than an expert's pause, so that a chunk leads out of it
    history: Count = 1
    history_stride: Count = 1  # control periods between two frames of history
    sizes: dict[str, int] = {}  # of the policy class, such as width and blocks

    @model_validator(mode="after")
    def _exists(self) -> PolicyConfig:
        check_policy(self.name, self.encoder, self.sizes)
        return self


class StageConfig(_Config):
    """One run of Adam."""

    steps: Count
    batch: Count  # per member
    members: Count  # policies trained side by side
    learning_rate: Positive  # published: 1e-5 to 1e-4
    weight_decay: NotNegative = 1e-4
    ema: Probability = 0.995  # weights that are kept are a running mean over some 200 steps
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    folds: Count = 4  # of the demonstrations; member k leaves out fold k modulo `folds`
    # Of the gates, where there are any:
    gates: str = DEFAULT_GATES  # atk_policy.gates
    gate_learning_rate: Positive = 0.05
    penalty: PenaltyConfig = PenaltyConfig()
    warm_up: Probability = 0.0  # share of the steps before the gates begin to learn
    cross_fit: bool = True  # the gates learn on demonstrations that the policy does not; see above
    # Which weights are kept: the last, or those of the record with the smallest held-out action error. With a mask only the
    # last: while it takes points away the error can only rise.
    keep: Literal["last", "best"] = "last"
    patience: Annotated[int, Field(ge=0)] = 0  # end after so many records without a better one; 0: never


class DistillationHistory(_Config):
    """Curves of a stage, one entry per record."""

    step: list[int] = []
    train: list[float] = []
    held_out: list[float] = []
    held_out_error: list[
        float
    ] = []  # mean |error| of the normalised action chunk, comparable between policy classes
    best_step: int | None = None  # of the weights that were kept, when those are the best
    kept: list[float] = []  # E |m|_1, mean over members
    price: list[float] = []  # of a point, mean over members
    retention: list[list[list[float]]] = []  # (records, members, C)

    def kept_record(self) -> tuple[float, float, float]:
        """(train, held-out, held-out action error) of the record whose weights were kept."""
        at = -1 if self.best_step is None else self.step.index(self.best_step)
        return self.train[at], self.held_out[at], self.held_out_error[at]


@dataclass(frozen=True)
class TrainingData:
    """All frames of some demonstrations, flat: M frames, N keypoints.

    Attributes:
        uv_px: (M, N, 2); visible: (M, N); robot: (M, J + 1); action: (M, J + 1), float32. The two of the keypoints are on
            disk where they are many.
        first, last: (M,) index of the first and last frame of each frame's demonstration.
    """

    uv_px: Tensor | StoredRows
    visible: Tensor | StoredRows
    robot: Tensor
    action: Tensor
    first: Tensor
    last: Tensor

    @classmethod
    def of(
        cls,
        demonstrations: Iterable[Demonstration],
        keep: npt.NDArray[np.bool_] | None = None,
        folder: Path | None = None,
    ) -> TrainingData:
        """Concatenate demonstrations, each looked at once and not held.

        Args:
            keep: (C,) the keypoints to take; None takes all.
            folder: where to store the keypoints; None holds them in memory. It must stay as long as they are used.

        Raises:
            ValueError: there are none.
        """
        robot, action = _InMemory(), _InMemory()
        lengths = []
        with ExitStack() as open_files:
            uv_px: _InMemory | RowWriter = _InMemory()
            visible: _InMemory | RowWriter = _InMemory()
            if folder is not None:
                uv_px = open_files.enter_context(writing(folder / "uv_px.f32", np.float32))
                visible = open_files.enter_context(writing(folder / "visible.u8", np.uint8))
            for d in demonstrations:
                lengths.append(len(d))
                uv_px.append(d.uv_px if keep is None else np.ascontiguousarray(d.uv_px[:, keep]))
                visible.append(d.visible if keep is None else np.ascontiguousarray(d.visible[:, keep]))
                robot.append(d.robot)
                action.append(d.action)
        if not lengths:
            raise ValueError("no demonstrations to train on")
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        first = np.repeat(starts, lengths)
        last = np.repeat(starts + np.array(lengths) - 1, lengths)
        return cls(
            uv_px.stored(),
            visible.stored(),
            robot.stored(),
            action.stored(),
            torch.from_numpy(first),
            torch.from_numpy(last),
        )

    def __len__(self) -> int:
        return len(self.robot)

    def keypoints(self, keep: Tensor) -> TrainingData:
        """The same frames with only the keypoints where `keep` (N,) is true; all of them stay on disk, others are in memory."""

        def kept(rows: Tensor | StoredRows) -> Tensor | StoredRows:
            if isinstance(rows, StoredRows):
                return rows if bool(keep.all()) else rows.columns(keep)
            return rows[:, keep]

        return replace(self, uv_px=kept(self.uv_px), visible=kept(self.visible))

    def every(self, most: int) -> Tensor:
        """(M',) at most `most` frames, evenly spaced over all."""
        return torch.arange(0, len(self), max(1, -(-len(self) // most)))

    def seen(self, index: Tensor, history: int, stride: int) -> PolicyInput:
        """Inputs of the frames `index` (...,); before an episode's start its first frame is repeated."""
        frames = self._seen_frames(index, history, stride)
        return PolicyInput(self.uv_px[frames], self.visible[frames], self.robot[frames])

    def seen_uv_px(self, index: Tensor, history: int, stride: int) -> Tensor:
        """The keypoints' places of `seen`."""
        return self.uv_px[self._seen_frames(index, history, stride)]

    def seen_robot(self, index: Tensor, history: int, stride: int) -> Tensor:
        """The robot's part of `seen`."""
        return self.robot[self._seen_frames(index, history, stride)]

    def _seen_frames(self, index: Tensor, history: int, stride: int) -> Tensor:
        back = torch.arange(history - 1, -1, -1) * stride
        return torch.maximum(index[..., None] - back, self.first[index][..., None])

    def demonstration(self) -> Tensor:
        """(M,) the number of each frame's demonstration, 0 to D - 1."""
        number: Tensor = torch.unique(self.first, return_inverse=True)[1]
        return number

    def chunks(self, index: Tensor, horizon: int) -> Tensor:
        """(..., H, J + 1) actions from frame `index` on; after an episode's end its last one holds."""
        frames = torch.minimum(index[..., None] + torch.arange(horizon), self.last[index][..., None])
        return self.action[frames]

    def statistics(self, horizon: int) -> Statistics:
        """Normalisation over these frames; keypoints count where they are visible."""
        frames = self.every(STATISTICS_FRAMES)
        uv_px, visible = self.uv_px, self.visible
        # What is in memory and not too much is taken as it lies there: in another layout sums round otherwise.
        if isinstance(uv_px, StoredRows) or isinstance(visible, StoredRows) or len(frames) < len(self):
            uv_px, visible = uv_px[frames], visible[frames]
        weight = visible[..., None]
        count = weight.sum(0).clamp_min(1.0)
        uv_mean = (uv_px * weight).sum(0) / count
        uv_variance = ((uv_px - uv_mean).square() * weight).sum(0) / count
        encoded = encode_action(self.chunks(frames, horizon), self.robot[frames])
        return Statistics(
            uv_mean,
            uv_variance.sqrt().clamp_min(UV_SCALE_MIN_PX),
            self.robot.mean(0),
            self.robot.std(0).clamp_min(ROBOT_SCALE_MIN),
            encoded.mean(0),
            encoded.std(0).clamp_min(ACTION_SCALE_MIN),
        )


class _InMemory:
    """Takes rows as `RowWriter` does, and keeps them."""

    def __init__(self) -> None:
        self._pieces: list[npt.NDArray[Any]] = []

    def append(self, rows: npt.NDArray[Any]) -> None:
        self._pieces.append(rows)

    def stored(self) -> Tensor:
        """All of them as float32."""
        return torch.from_numpy(np.concatenate(self._pieces).astype(np.float32))


@dataclass(frozen=True)
class Distilled:
    """What a stage leaves: one trained policy per member, their gates' (S, N) retention, and the curves."""

    policies: list[Policy]
    retention: Tensor | None
    history: DistillationHistory


Report = Callable[[float, str], None]
Log = Callable[[int, Mapping[str, float]], None]


def distill(
    train: TrainingData,
    held_out: TrainingData | None,
    template_uv_px: npt.NDArray[np.float32],
    policy_config: PolicyConfig,
    augmentation_config: AugmentationConfig,
    stage: StageConfig,
    *,
    masked: bool,
    seed: int,
    masks: Tensor | None = None,
    report: Report = lambda fraction, detail: None,
    log: Log = lambda step, scalars: None,
    checkpoint: Path | None = None,
    records: int = 40,
) -> Distilled:
    """Train `stage.members` policies, each jointly with gates over the keypoints when `masked`.

    Args:
        train, held_out: frames; the held-out ones are only ever measured.
        template_uv_px: (N, 2).
        masks: (S, N) 0 or 1, the keypoints that each member has, `stage.folds` members in a row for each set; without
            them all have all. Members with masks are trained without their fold (see `fold_of`), so that they can be
            measured on it.
        report: called now and then with (share done, one line); what it raises ends the training.
        log: called as often with (step, scalars by name), see training_log.py.
        checkpoint: file to continue from when it exists and to write now and then; a run that is
            continued ends with the weights of an unbroken one.
        records: how many points the curves have.

    Raises:
        ValueError: a stage with a mask that is to keep its best weights or to end early; a GPU is asked for that is not there.
    """
    if masked and (stage.keep != "last" or stage.patience):
        raise ValueError(
            "with a mask only the last weights can be kept, after all steps: the error rises as points go"
        )
    run = _Run(
        train,
        template_uv_px,
        policy_config,
        augmentation_config,
        stage,
        masked=masked,
        masks=masks,
        seed=seed,
    )
    every = max(1, stage.steps // records)
    if checkpoint is not None and checkpoint.is_file():
        run.restore(checkpoint)
    while run.step < stage.steps and not run.best.exhausted:
        loss = run.advance()
        if run.step % every == 0 or run.step == stage.steps:
            held_out_loss, held_out_error = float("nan"), float("nan")
            if held_out is not None:
                held_out_loss, held_out_error = run.evaluate(held_out), run.action_error(held_out)
            run.record(loss, held_out_loss, held_out_error)
            kept = f", {run.history.kept[-1]:.1f} points" if masked else ""
            ends = ", no longer improves" if run.best.exhausted else ""
            report(run.step / stage.steps, f"loss {loss:.3f}, held out {held_out_loss:.3f}{kept}{ends}")
            log(run.step, run.scalars())
            if checkpoint is not None:
                run.save(checkpoint)
    return Distilled(run.policies(), None if run.gates is None else run.gates.retention().cpu(), run.history)


class _Run:
    """State of a training run: everything that a checkpoint holds."""

    def __init__(
        self,
        train: TrainingData,
        template_uv_px: npt.NDArray[np.float32],
        policy_config: PolicyConfig,
        augmentation_config: AugmentationConfig,
        stage: StageConfig,
        *,
        masked: bool,
        masks: Tensor | None,
        seed: int,
    ) -> None:
        self._train, self._policy_config, self._stage = train, policy_config, stage
        self._augment = Augmentation(augmentation_config, template_uv_px)
        self._generator = torch.Generator().manual_seed(seed)
        # What is random, and the frames, stay with the CPU, whose generator a checkpoint holds; the networks go to the device.
        self._device = training_device(stage.device)
        self._masks = None if masks is None else masks.to(self._device)
        # Members with other masks but the same fold differ in nothing else, neither weights nor batches nor failures:
        # so their errors differ by what the masks are worth, and not by luck.
        self._different = stage.members if masks is None else stage.folds
        self._policy_frames, self._gate_frames = _frames(
            train, stage, seed, learnt=masked, given=masks is not None
        )
        points, size = train.uv_px.shape[1], train.robot.shape[1]
        statistics = train.statistics(policy_config.horizon)
        self._members: list[Policy] = []
        with torch.random.fork_rng(devices=[]):
            for number in range(stage.members):
                if number % self._different == 0:
                    torch.manual_seed(seed)
                member = make_policy(
                    policy_config.name,
                    keypoints=points,
                    joints=size - 1,
                    horizon=policy_config.horizon,
                    history=policy_config.history,
                    encoder=policy_config.encoder,
                    **policy_config.sizes,
                )
                member.set_statistics(statistics)
                self._members.append(member)
        parameters, buffers = stack_module_state(list[nn.Module](self._members))
        self._buffers = {k: v.to(self._device) for k, v in buffers.items()}
        self._parameters: dict[str, Tensor] = {
            k: nn.Parameter(v.detach().to(self._device)) for k, v in parameters.items()
        }
        self._ema = {k: v.detach().clone() for k, v in self._parameters.items()}
        self.gates = make_gates(stage.gates, stage.members, points).to(self._device) if masked else None
        self._penalty = Penalty(stage.penalty, stage.members)
        self._penalty.state = self._penalty.state.to(self._device)
        groups: list[dict[str, Any]] = [
            {
                "params": list(self._parameters.values()),
                "lr": stage.learning_rate,
                "weight_decay": stage.weight_decay,
            }
        ]
        if self.gates is not None:
            groups.append({"params": [self.gates.phi], "lr": stage.gate_learning_rate, "weight_decay": 0.0})
        self._optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.99))
        self._peak_rates = [group["lr"] for group in groups]
        self.history = DistillationHistory()
        self.best = BestWeights(stage.patience)
        self.step = 0

    # -- training --------------------------------------------------------------------------------

    def advance(self) -> float:
        """One step of Adam on the objective at the top of this file; returns the mean -log pi."""
        stage, gates = self._stage, self.gates
        learns = gates is not None and self.step >= stage.warm_up * stage.steps
        together = learns and not stage.cross_fit
        loss = self._loss(self._parameters, self._policy_frames, stage.batch, gates_learn=together)
        # Members are independent, so their losses add up.
        objective = loss.sum()
        if gates is not None and learns:
            gates_loss = loss
            if stage.cross_fit:
                frozen = {name: value.detach() for name, value in self._parameters.items()}
                gates_loss = self._loss(frozen, self._gate_frames, stage.batch, gates_learn=True)
                objective = objective + gates_loss.sum()
            if self._penalty.compares:
                with torch.no_grad():
                    full = self._loss(self._parameters, self._gate_frames, stage.batch, open_share=1.0)
                self._penalty.observe(gates_loss.detach(), full)
            objective = objective + (self._price() * gates.penalty()).sum()
        self._set_learning_rates()
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(objective)
        self._optimiser.step()
        if gates is not None:
            gates.limit()
        self.step += 1
        # Early on the running mean must not remember the initial weights.
        keep = min(stage.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self._parameters.items():
                self._ema[name].lerp_(value, 1.0 - keep)
        return float(loss.detach().mean())

    def _price(self) -> Tensor:
        """(S,) what a point costs now."""
        begin = self._stage.warm_up * self._stage.steps
        return self._penalty.price(max(0.0, (self.step - begin) / max(1.0, self._stage.steps - begin)))

    def _loss(
        self,
        parameters: dict[str, Tensor],
        frames: list[Tensor],
        batch: int,
        *,
        gates_learn: bool = False,
        open_share: float | None = None,
    ) -> Tensor:
        """(S,) mean -log pi of every member on a batch of its own with failures, out of its `frames`.

        `open_share` of the samples see all points.
        """
        config, generator = self._policy_config, self._generator
        frames = frames[: self._different]
        index = torch.stack([f[torch.randint(len(f), (batch,), generator=generator)] for f in frames])
        seen = self._augment.observe(self._train, index, config.history, config.history_stride, generator)
        action = self._train.chunks(index, config.horizon)
        if self._masks is not None:
            sets = len(self._masks) // len(frames)
            action = action.repeat(sets, 1, 1, 1)
            seen = PolicyInput(*(v.repeat(sets, *[1] * (v.dim() - 1)) for v in seen if v is not None))
        action, seen = action.to(self._device), self._moved(seen)
        if self.gates is not None:
            drawn = self.gates.sample(batch, generator)
            drawn = drawn if gates_learn else drawn.detach()
            if open_share is None:  # who is to be compared with the full set must know it
                open_share = 0.25 if self._penalty.compares and not gates_learn else 0.0
            full = round(open_share * batch)
            seen = seen._replace(mask=torch.cat([torch.ones_like(drawn[:, :full]), drawn[:, full:]], dim=1))
        elif self._masks is not None:
            seen = seen._replace(mask=self._masks[:, None].expand(-1, batch, -1))
        noise = self._noise((self._stage.members, batch), generator)
        return self._losses(parameters, seen, action, noise).mean(dim=1)

    def _noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Noise | None:
        """What a policy that samples needs for `shape` samples; nothing is drawn for the others."""
        skeleton = self._members[0]
        if not skeleton.samples:
            return None
        chunk = torch.randn((*shape, skeleton.horizon, skeleton.joints + 1), generator=generator)
        return Noise(chunk.to(self._device), torch.rand(shape, generator=generator).to(self._device))

    def _moved(self, seen: PolicyInput) -> PolicyInput:
        """On the device."""
        return PolicyInput(*(v.to(self._device) for v in seen if v is not None))

    def _losses(
        self, parameters: dict[str, Tensor], seen: PolicyInput, action: Tensor, noise: Noise | None
    ) -> Tensor:
        """(S, B) -log pi of every member on its own batch."""
        return self._each(_Likelihood(self._members[0]), parameters, seen, action, *(noise or ()))

    def _each(
        self, module: nn.Module, parameters: dict[str, Tensor], seen: PolicyInput, *arrays: Tensor
    ) -> Tensor:
        """(S, ...) `module` around each member, on inputs and arrays (S, ...)."""

        def one(state: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Tensor) -> Tensor:
            given, others = inputs[: len(present)], inputs[len(present) :]
            result: Tensor = functional_call(
                module, _prefixed(state, buffers), (PolicyInput(*given), *others)
            )
            return result

        present = [value for value in seen if value is not None]
        return vmap(one)(parameters, self._buffers, *present, *arrays)

    def _set_learning_rates(self) -> None:
        """Cosine to a twentieth, after a short linear rise."""
        rise = 0.03 * self._stage.steps
        done = self.step / self._stage.steps
        factor = min(1.0, (self.step + 1) / rise) * (0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * done)))
        self._optimiser.param_groups[0]["lr"] = self._peak_rates[0] * factor
        # The mask keeps its pace: with a falling rate an undecided candidate would stay undecided.

    # -- measuring -------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, data: TrainingData) -> float:
        """Mean -log pi of the running-mean weights on all frames (see MEASURED_FRAMES), without noise, under hard masks."""
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        total = 0.0
        for seen, action in self._measured(data):
            noise = self._noise((1, action.shape[1]), generator)
            if noise is not None:
                noise = Noise(*(value.expand(self._stage.members, *value.shape[1:]) for value in noise))
            total += float(self._losses(self._ema, seen, action, noise).mean(0).sum())
        return total / len(data.every(MEASURED_FRAMES))

    @torch.no_grad()
    def action_error(self, data: TrainingData) -> float:
        """Mean |error| of the normalised chunk that is acted, by the same weights on the same frames."""
        total = 0.0
        for seen, action in self._measured(data):
            error = self._each(_ActionError(self._members[0]), self._ema, seen, action)
            total += float(error.mean(0).sum())
        return total / len(data.every(MEASURED_FRAMES))

    def _measured(self, data: TrainingData) -> Iterator[tuple[PolicyInput, Tensor]]:
        """Frames and their chunks, the same for every member, under hard masks."""
        config, members = self._policy_config, self._stage.members
        for index in torch.split(data.every(MEASURED_FRAMES), 1024):
            seen = self._moved(data.seen(index, config.history, config.history_stride))
            action = data.chunks(index, config.horizon).to(self._device)
            wide = PolicyInput(*(v.expand(members, *v.shape) for v in seen if v is not None))
            masks = self._masks if self.gates is None else self.gates.hard()
            if masks is not None:
                wide = wide._replace(mask=masks[:, None].expand(-1, len(index), -1))
            yield wide, action.expand(members, *action.shape)

    def record(self, train: float, held_out: float, held_out_error: float) -> None:
        """Append to the curves."""
        history = self.history
        history.step.append(self.step)
        history.train.append(train)
        history.held_out.append(held_out)
        history.held_out_error.append(held_out_error)
        if self.gates is not None:
            retention = self.gates.retention()
            history.kept.append(float(retention.sum(1).mean()))
            history.price.append(float(self._price().mean()))
            history.retention.append([[round(r, 3) for r in member] for member in retention.tolist()])
        if self._stage.keep == "best" or self._stage.patience:
            self.best.consider(self.step, held_out_error, self._ema)
            if self._stage.keep == "best":
                self.history = history.model_copy(update={"best_step": self.best.step})

    def scalars(self) -> dict[str, float]:
        """The newest record, for a log."""
        history = self.history
        scalars = {"loss/train": history.train[-1], "learning_rate": self._optimiser.param_groups[0]["lr"]}
        if not math.isnan(history.held_out[-1]):
            scalars["loss/held_out"] = history.held_out[-1]
            scalars["action_error/held_out"] = history.held_out_error[-1]
        if history.kept:
            scalars["expected_points"] = history.kept[-1]
        return scalars

    def policies(self) -> list[Policy]:
        """Every member with its running-mean weights, the last or the best."""
        kept = self.best.or_else(self._ema) if self._stage.keep == "best" else self._ema
        for number, member in enumerate(self._members):
            member.load_state_dict({k: v[number] for k, v in kept.items()}, strict=False)
            member.eval()
        return self._members

    # -- checkpoint ------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write everything that the rest of the run depends on."""
        tensors = {f"parameter.{k}": v.detach() for k, v in self._parameters.items()}
        tensors |= {f"ema.{k}": v for k, v in self._ema.items()}
        tensors["generator"] = self._generator.get_state()
        if self.gates is not None:
            tensors |= {"phi": self.gates.phi.detach(), "price": self._penalty.state}
        for number, state in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{k}": v for k, v in state.items()}
        tensors |= self.best.tensors()
        facts = {"step": self.step, "history": self.history.model_dump(), "best": self.best.facts()}
        save_checkpoint(path, tensors, facts)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of the same run."""
        tensors, facts = load_checkpoint(path)
        with torch.no_grad():
            for name, value in self._parameters.items():
                value.copy_(tensors[f"parameter.{name}"])
                self._ema[name].copy_(tensors[f"ema.{name}"])
            if self.gates is not None:
                self.gates.phi.copy_(tensors["phi"])
                self._penalty.state = tensors["price"].to(self._device)
        self._generator.set_state(tensors["generator"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".", 2)
                state.setdefault(int(number), {})[key] = value
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": state})
        self.step = int(facts["step"])
        self.history = DistillationHistory.model_validate(facts["history"])
        self.best.restore(tensors, facts["best"])


def training_device(name: str) -> torch.device:
    """Where the networks are trained: 'cpu', 'cuda', or 'auto' for a GPU where there is one.

    Raises:
        ValueError: 'cuda', and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch finds no GPU; give 'auto' or 'cpu'")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def fold_of(demonstrations: int, folds: int, seed: int | Sequence[int]) -> npt.NDArray[np.int64]:
    """(D,) the fold of each demonstration, at random and of equal sizes."""
    return np.random.default_rng(seed).permutation(demonstrations) % folds


def _frames(
    data: TrainingData, stage: StageConfig, seed: int, *, learnt: bool, given: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Frames that each member's policy is trained on, and those that its gates learn on.

    Folds go by demonstration. Where gates are learnt every round of `folds` members splits anew; members with
    masks that are given all split alike, so that their errors can be compared. Without cross-fitting, or with
    too few demonstrations for it, both are all frames.
    """
    everything = torch.arange(len(data))
    demonstration = data.demonstration()
    count = int(demonstration.max()) + 1
    if not (given or (learnt and stage.cross_fit)) or not 2 <= stage.folds <= count:
        return [everything] * stage.members, [everything] * stage.members
    policy, gates = [], []
    for member in range(stage.members):
        number = 0 if given else member // stage.folds
        fold = torch.from_numpy(fold_of(count, stage.folds, (seed, number)))[demonstration]
        policy.append(everything[fold != member % stage.folds])
        gates.append(everything[fold == member % stage.folds])
    return policy, gates


class _Likelihood(nn.Module):
    """A policy's -log pi as a forward pass, which is what `functional_call` can call."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, seen: PolicyInput, action: Tensor, *noise: Tensor) -> Tensor:
        return self.policy.negative_log_likelihood(seen, action, Noise(*noise) if noise else None)


class _ActionError(nn.Module):
    """A policy's mean |error| of the normalised chunk, (B,), as a forward pass."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, seen: PolicyInput, action: Tensor) -> Tensor:
        policy = self.policy
        return (policy.target(seen, policy.act(seen)) - policy.target(seen, action)).abs().mean(dim=(-2, -1))


def _prefixed(*states: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"policy.{name}": value for state in states for name, value in state.items()}

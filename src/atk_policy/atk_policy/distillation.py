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
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

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
from atk_policy.worker_processes import Tell, in_processes

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
# A process takes seconds to start: it pays for so many steps of members with gates.
WORKER_STEPS = 1_500


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
    # How fast an action counts less in the loss, per control period that it lies ahead: `chunk_weights`. 0: all alike.
    chunk_decay: NotNegative = 0.0
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
    """Curves of a stage, one entry per record; means over the members."""

    step: list[int] = []
    train: list[float] = []
    held_out: list[float] = []
    # Mean |error| of the normalised action chunk, comparable between policy classes.
    held_out_error: list[float] = []
    best_step: int | None = None  # of the weights that were kept, when those are the best
    kept: list[float] = []  # E |m|_1
    price: list[float] = []  # of a point
    retention: list[list[list[float]]] = []  # (records, members, C)

    def kept_record(self) -> tuple[float, float, float]:
        """(train, held-out, held-out action error) of the record whose weights were kept."""
        at = -1 if self.best_step is None else self.step.index(self.best_step)
        return self.train[at], self.held_out[at], self.held_out_error[at]


class _Record(NamedTuple):
    """What is known after a step, of each of some members; the last three are empty where there are no gates."""

    step: int
    train: list[float]
    held_out: list[float]
    held_out_error: list[float]
    kept: list[float]
    price: list[float]
    retention: list[list[float]]


def _beside(records: Sequence[_Record]) -> _Record:
    """One record of the members of all `records`, which are of one step."""
    columns = list(zip(*records, strict=True))[1:]
    return _Record(records[0].step, *([value for values in column for value in values] for column in columns))


def _history(records: Sequence[_Record], best_step: int | None) -> DistillationHistory:
    def means(name: str) -> list[float]:
        values = [getattr(record, name) for record in records]
        return [sum(v) / len(v) for v in values if v]

    return DistillationHistory(
        step=[record.step for record in records],
        **{name: means(name) for name in ("train", "held_out", "held_out_error", "kept", "price")},
        retention=[record.retention for record in records if record.retention],
        best_step=best_step,
    )


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
    workers: int = 1,
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
        workers: processes among which members with gates are shared out, where that is worth starting them and no GPU takes
            them all at once. What comes of them does not depend on how many there are.
        report: called now and then with (share done, one line); what it raises ends the training.
        log: called as often with (step, scalars by name), see training_log.py.
        checkpoint: file to continue from when it exists and to write now and then; a run that is
            continued ends with the weights of an unbroken one. Each of several processes has its own beside it.
        records: how many points the curves have.

    Raises:
        ValueError: a stage with a mask that is to keep its best weights or to end early; a GPU is asked for that is not there.
    """
    if masked and (stage.keep != "last" or stage.patience):
        raise ValueError(
            "with a mask only the last weights can be kept, after all steps: the error rises as points go"
        )
    shares = _shares(stage, workers) if masked else [range(stage.members)]
    told: dict[int, dict[int, _Told]] = {}

    def hear(number: int, message: _Told) -> None:
        """When all shares have told of a step, it is known."""
        here = told.setdefault(message.record.step, {})
        here[number] = message
        if len(here) < len(shares):
            return
        record = _beside([here[k].record for k in range(len(shares))])
        known = _history([record], None)
        kept = f", {known.kept[0]:.1f} points" if masked else ""
        ends = ", no longer improves" if message.exhausted else ""
        apart = "" if math.isnan(known.held_out[0]) else f", held out {known.held_out[0]:.3f}"
        line = f"loss {known.train[0]:.3f}{apart}{kept}{ends}"
        report(record.step / stage.steps, line)
        log(record.step, _scalars(known, stage))

    train_members = partial(
        _train_members,
        train,
        held_out,
        template_uv_px,
        policy_config,
        augmentation_config,
        stage,
        masked=masked,
        masks=masks,
        seed=seed,
        every=max(1, stage.steps // records),
    )
    if len(shares) == 1:
        trained = [train_members(partial(hear, 0), members=shares[0], checkpoint=checkpoint)]
    else:
        files = share_files(checkpoint, len(shares))
        calls = [
            partial(train_members, members=share, checkpoint=file)
            for share, file in zip(shares, files, strict=True)
        ]
        trained = in_processes(calls, hear)
    retention = [share.retention for share in trained if share.retention is not None]
    all_records = [_beside(same) for same in zip(*(share.records for share in trained), strict=True)]
    return Distilled(
        [policy for share in trained for policy in share.policies],
        torch.cat(retention) if retention else None,
        _history(all_records, trained[0].best_step),
    )


def share_files(checkpoint: Path | None, count: int) -> list[Path | None]:
    """The checkpoints of `count` processes that share the work of one."""
    if checkpoint is None:
        return [None] * count
    return [checkpoint.with_stem(f"{checkpoint.stem}-{k + 1}-of-{count}") for k in range(count)]


def _shares(stage: StageConfig, workers: int) -> list[range]:
    """The members that each process trains; at least two, whose arithmetic is that of many."""
    count = min(workers, stage.members // 2, stage.members * stage.steps // WORKER_STEPS)
    if count < 2 or training_device(stage.device).type != "cpu":
        return [range(stage.members)]
    ends = np.linspace(0, stage.members, count + 1).round().astype(int).tolist()
    return [range(begin, end) for begin, end in pairwise(ends)]


class _Told(NamedTuple):
    """While training."""

    record: _Record
    exhausted: bool


class _Trained(NamedTuple):
    """Some of the members, in the end."""

    policies: list[Policy]
    retention: Tensor | None
    records: list[_Record]
    best_step: int | None


def _train_members(
    train: TrainingData,
    held_out: TrainingData | None,
    template_uv_px: npt.NDArray[np.float32],
    policy_config: PolicyConfig,
    augmentation_config: AugmentationConfig,
    stage: StageConfig,
    tell: Tell,
    *,
    members: range,
    masked: bool,
    masks: Tensor | None,
    seed: int,
    every: int,
    checkpoint: Path | None,
) -> _Trained:
    """Train some of the members, telling of a record after `every` so many steps."""
    run = _Run(
        train,
        template_uv_px,
        policy_config,
        augmentation_config,
        stage,
        members=members,
        masked=masked,
        masks=masks,
        seed=seed,
    )
    if checkpoint is not None and checkpoint.is_file():
        run.restore(checkpoint)
    while run.step < stage.steps and not run.best.exhausted:
        loss = run.advance()
        if run.step % every == 0 or run.step == stage.steps:
            run.record(loss, held_out)
            tell(_Told(run.records[-1], run.best.exhausted))
            if checkpoint is not None:
                run.save(checkpoint)
    retention = None if run.gates is None else run.gates.retention().cpu()
    return _Trained(run.policies(), retention, run.records, run.best_step)


def _scalars(known: DistillationHistory, stage: StageConfig) -> dict[str, float]:
    """The newest record, for a log."""
    rate = stage.learning_rate * pace(stage, known.step[-1] - 1)
    scalars = {"loss/train": known.train[-1], "learning_rate": rate}
    if not math.isnan(known.held_out[-1]):
        scalars["loss/held_out"] = known.held_out[-1]
        scalars["action_error/held_out"] = known.held_out_error[-1]
    if known.kept:
        scalars["expected_points"] = known.kept[-1]
    return scalars


def pace(stage: StageConfig, step: int) -> float:
    """Of the learning rate in the step after so many: cosine to a twentieth, after a short linear rise."""
    rise = 0.03 * stage.steps
    fall = 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * step / stage.steps))
    return min(1.0, (step + 1) / rise) * fall


def memory(stage: StageConfig, step: int) -> float:
    """Of the running mean after so many steps: early on it must not remember the initial weights."""
    return min(stage.ema, (1 + step) / (10 + step))


class _Batch(NamedTuple):
    """What one member sees and is to do; B samples."""

    seen: PolicyInput
    action: Tensor
    noise: Noise | None


class _Run:
    """State of a training run: everything that a checkpoint holds.

    A member's weights, batches and failures are its own, by its number: so it trains as it does beside others, whoever they are.
    """

    def __init__(
        self,
        train: TrainingData,
        template_uv_px: npt.NDArray[np.float32],
        policy_config: PolicyConfig,
        augmentation_config: AugmentationConfig,
        stage: StageConfig,
        *,
        members: range,
        masked: bool,
        masks: Tensor | None,
        seed: int,
    ) -> None:
        self._train, self._policy_config, self._stage = train, policy_config, stage
        self._augment = Augmentation(augmentation_config, template_uv_px)
        # What is random, and the frames, stay with the CPU, whose generator a checkpoint holds; the networks go to the device.
        self._device = training_device(stage.device)
        self._chunk_weights = chunk_weights(policy_config.horizon, stage.chunk_decay).to(self._device)
        self._masks = None if masks is None else masks.to(self._device)
        # Members with other masks but the same fold differ in nothing else, neither weights nor batches nor failures:
        # so their errors differ by what the masks are worth, and not by luck.
        different = stage.members if masks is None else stage.folds
        frames = _frames(train, stage, seed, learnt=masked, given=masks is not None)
        drawing = members if masks is None else range(different)
        self._policy_frames, self._gate_frames = ([some[k] for k in drawing] for some in frames)
        self._generators = [_generator(seed, k) for k in drawing]
        points, size = train.uv_px.shape[1], train.robot.shape[1]
        statistics = train.statistics(policy_config.horizon)
        self._members: list[Policy] = []
        with torch.random.fork_rng(devices=[]):
            for number in range(members.stop):
                if number % different == 0:
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
                if number in members:
                    member.set_statistics(statistics)
                    self._members.append(member)
        parameters, buffers = stack_module_state(list[nn.Module](self._members))
        self._buffers = {k: v.to(self._device) for k, v in buffers.items()}
        self._parameters: dict[str, Tensor] = {
            k: nn.Parameter(v.detach().to(self._device)) for k, v in parameters.items()
        }
        self._ema = {k: v.detach().clone() for k, v in self._parameters.items()}
        self.gates = make_gates(stage.gates, len(members), points).to(self._device) if masked else None
        self._penalty = Penalty(stage.penalty, len(members))
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
        self.records: list[_Record] = []
        self.best = BestWeights(stage.patience)
        self.step = 0

    # -- training --------------------------------------------------------------------------------

    def advance(self) -> Tensor:
        """One step of Adam on the objective at the top of this file; returns the -log pi of every member, (S,)."""
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
        keep = memory(stage, self.step)
        with torch.no_grad():
            for name, value in self._parameters.items():
                self._ema[name].lerp_(value, 1.0 - keep)
        return loss.detach()

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
        drawn = [self._draw(f, batch, g) for f, g in zip(frames, self._generators, strict=True)]
        # Members with masks that are given see what that of their fold sees, set by set.
        sets = 1 if self._masks is None else len(self._masks) // len(frames)

        def of_all(arrays: Iterable[Tensor]) -> Tensor:
            stacked = torch.stack(list(arrays))
            return stacked.repeat(sets, *[1] * (stacked.dim() - 1)).to(self._device)

        seen = PolicyInput(
            of_all(d.seen.uv_px for d in drawn),
            of_all(d.seen.visible for d in drawn),
            of_all(d.seen.robot for d in drawn),
        )
        action = of_all(d.action for d in drawn)
        noises = [d.noise for d in drawn if d.noise is not None]
        noise = Noise(of_all(n.chunk for n in noises), of_all(n.time for n in noises)) if noises else None
        if self.gates is not None:
            mask = self.gates.sample(batch, self._generators)
            mask = mask if gates_learn else mask.detach()
            if open_share is None:  # who is to be compared with the full set must know it
                open_share = 0.25 if self._penalty.compares and not gates_learn else 0.0
            full = round(open_share * batch)
            seen = seen._replace(mask=torch.cat([torch.ones_like(mask[:, :full]), mask[:, full:]], dim=1))
        elif self._masks is not None:
            seen = seen._replace(mask=self._masks[:, None].expand(-1, batch, -1))
        return self._losses(parameters, seen, action, noise).mean(dim=1)

    def _draw(self, frames: Tensor, batch: int, generator: torch.Generator) -> _Batch:
        """A batch of one member out of its `frames`, with failures."""
        config = self._policy_config
        index = frames[torch.randint(len(frames), (batch,), generator=generator)]
        seen = self._augment.observe(self._train, index, config.history, config.history_stride, generator)
        action = self._train.chunks(index, config.horizon)
        return _Batch(seen, action, self._noise((batch,), generator))

    def _noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Noise | None:
        """What a policy that samples needs for `shape` samples; nothing is drawn for the others."""
        skeleton = self._members[0]
        if not skeleton.samples:
            return None
        chunk = torch.randn((*shape, skeleton.horizon, skeleton.joints + 1), generator=generator)
        return Noise(chunk, torch.rand(shape, generator=generator))

    def _moved(self, seen: PolicyInput) -> PolicyInput:
        """On the device."""
        return PolicyInput(*(v.to(self._device) for v in seen if v is not None))

    def _losses(
        self, parameters: dict[str, Tensor], seen: PolicyInput, action: Tensor, noise: Noise | None
    ) -> Tensor:
        """(S, B) -log pi of every member on its own batch, see `chunk_weights`."""
        each = self._each(_Likelihood(self._members[0]), parameters, seen, action, *(noise or ()))
        return each @ self._chunk_weights

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
        # The mask keeps its pace: with a falling rate an undecided candidate would stay undecided.
        rate = self._stage.learning_rate * pace(self._stage, self.step)
        self._optimiser.param_groups[0]["lr"] = rate

    # -- measuring -------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, data: TrainingData) -> Tensor:
        """(S,) -log pi of the running-mean weights on all frames (see MEASURED_FRAMES), without noise, under hard masks."""
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        total = torch.zeros(len(self._members))
        for seen, action in self._measured(data):
            noise = self._noise((action.shape[1],), generator)
            if noise is not None:
                noise = Noise(*(v.to(self._device).expand(len(self._members), *v.shape) for v in noise))
            total += self._losses(self._ema, seen, action, noise).sum(1).cpu()
        return total / len(data.every(MEASURED_FRAMES))

    @torch.no_grad()
    def action_error(self, data: TrainingData) -> Tensor:
        """(S,) |error| of the normalised chunk that is acted, by the same weights on the same frames."""
        total = torch.zeros(len(self._members))
        for seen, action in self._measured(data):
            total += self._each(_ActionError(self._members[0]), self._ema, seen, action).sum(1).cpu()
        return total / len(data.every(MEASURED_FRAMES))

    def _measured(self, data: TrainingData) -> Iterator[tuple[PolicyInput, Tensor]]:
        """Frames and their chunks, the same for every member, under hard masks."""
        config, members = self._policy_config, len(self._members)
        for index in torch.split(data.every(MEASURED_FRAMES), 1024):
            seen = self._moved(data.seen(index, config.history, config.history_stride))
            action = data.chunks(index, config.horizon).to(self._device)
            wide = PolicyInput(*(v.expand(members, *v.shape) for v in seen if v is not None))
            masks = self._masks if self.gates is None else self.gates.hard()
            if masks is not None:
                wide = wide._replace(mask=masks[:, None].expand(-1, len(index), -1))
            yield wide, action.expand(members, *action.shape)

    def record(self, loss: Tensor, held_out: TrainingData | None) -> None:
        """Append to the curves; `loss` (S,) is that of the last step."""
        unknown = torch.full((len(self._members),), math.nan)
        held_out_loss = unknown if held_out is None else self.evaluate(held_out)
        error = unknown if held_out is None else self.action_error(held_out)
        record = _Record(self.step, loss.tolist(), held_out_loss.tolist(), error.tolist(), [], [], [])
        if self.gates is not None:
            retention = self.gates.retention()
            record = record._replace(
                kept=retention.sum(1).tolist(),
                price=self._price().tolist(),
                retention=[[round(r, 3) for r in member] for member in retention.tolist()],
            )
        self.records.append(record)
        if self._stage.keep == "best" or self._stage.patience:
            self.best.consider(self.step, float(error.mean()), self._ema)

    @property
    def best_step(self) -> int | None:
        """Of the weights that are kept, when those are the best."""
        return self.best.step if self._stage.keep == "best" else None

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
        tensors |= {f"generator.{k}": g.get_state() for k, g in enumerate(self._generators)}
        if self.gates is not None:
            tensors |= {"phi": self.gates.phi.detach(), "price": self._penalty.state}
        for number, state in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{k}": v for k, v in state.items()}
        tensors |= self.best.tensors()
        facts = {
            "step": self.step,
            "records": [record._asdict() for record in self.records],
            "best": self.best.facts(),
        }
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
        for k, generator in enumerate(self._generators):
            generator.set_state(tensors[f"generator.{k}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".", 2)
                state.setdefault(int(number), {})[key] = value
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": state})
        self.step = int(facts["step"])
        self.records = [_Record(**record) for record in facts["records"]]
        self.best.restore(tensors, facts["best"])


def chunk_weights(horizon: int, decay: float) -> Tensor:
    """(H,) what each action of a chunk counts in the loss, 1 together: exp(-decay * periods ahead).

    With the decay of the temporal ensembling (action_queue.py) it is what the action counts in what is executed. All alike, most
    of the network would go into actions that newer chunks overrule, and the next ones would be less exact.
    """
    weights = torch.exp(-decay * torch.arange(horizon))
    return weights / weights.sum()


def _generator(seed: int, member: int) -> torch.Generator:
    """The random numbers of one member, whoever else is trained."""
    (state,) = np.random.SeedSequence((seed, member)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state) >> 1)


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

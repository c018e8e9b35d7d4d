"""Demonstrations in, run folder out: the whole offline half (method.md, training).

    candidates on the canonical template  ->  tracks in every demonstration
        ->  mask and policy together  ->  tracks of what survived, alone  ->  policy on those  ->  run folder with report

One function, used by the command line and by the selection node.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from atk_perception.bag_calibration import bag_calibration
from atk_perception.candidates import NEED_CLIPS, Clip, sample_candidates
from atk_perception.keypoint_set import KeypointSet
from atk_perception.registry import DEFAULT_MATCHER, DEFAULT_TRACKER
from atk_perception.robot_description import RobotDescription
from atk_policy.augmentation import AugmentationConfig
from atk_policy.camera_sets import kept_of_each, numbered, side_by_side
from atk_policy.demonstrations import (
    Demonstration,
    Trackability,
    Tracking,
    find_bags,
    first_image,
    first_images,
    once_found,
    split,
    track_demonstrations,
    trackability,
)
from atk_policy.distillation import (
    DistillationHistory,
    Distilled,
    Log,
    PolicyConfig,
    StageConfig,
    TrainingData,
    distill,
)
from atk_policy.keypoint_choice import AUTOMATIC, PUBLISHED, Choice, ChoiceConfig, choose_keypoints
from atk_policy.memory_meter import MemoryMeter
from atk_policy.policies import DEFAULT_POLICY, make_policy
from atk_policy.report import write_report
from atk_policy.run_folder import REPORT_FOLDER, PolicyFile, RunFolder, SeenSet, check_execution_horizon
from atk_policy.stability import companions_of_part
from atk_policy.stored_rows import discard
from atk_policy.training_log import LogConfig, TrainingLog, check_log

Progress = Callable[[str, float, str], None]
# Gives the demonstrations of some bags with the points of a set per camera; told how far it is, see `select_keypoints`.
Track = Callable[
    [Sequence[Path], Sequence[KeypointSet], RobotDescription, Callable[[float, str], None]],
    Sequence[Demonstration],
]
# More than so many tracked points, frames times candidates, are drawn from disk instead of memory (12 bytes each).
IN_MEMORY_POINTS = 20_000_000
STAGES = ("read", "track", "select", "measure", "retrack", "refit", "report")
WORK_FOLDER = ".select"
ROWS_FOLDER = "rows"
# What a strategy that tracks is given: 4 s each of 3 demonstrations, at a rate that a point can be followed at; 110 MB of
# images at 640x480.
CLIPS, CLIP_RATE_HZ, CLIP_IMAGES = 3, 10.0, 40

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class SelectionError(ValueError):
    """A selection that cannot be made from these demonstrations; the message says why and what to do."""


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CandidateConfig(_Config):
    """Which candidates are tried, and what a candidate must be able to do."""

    count: Annotated[int, Field(ge=1)] = 256
    # atk_perception.candidates: "random" is the published one, "tracked" tries points in demonstrations.
    strategy: str = "textured"
    # Share of the candidates that are put where demonstrations differ in their first image: what is
    # the same in all of them cannot tell the policy anything. The rest is spread over the template.
    focus: Share = 0.75
    # Points that somebody named, in pixels of the template, in place of sampled ones (one camera). To use them
    # as they are, set choice.objective to 'all'.
    uv_px: tuple[tuple[float, float], ...] = ()
    transferred_min: Share = 0.8  # of the demonstrations must show the point at their start
    # Of all frames. What the hand takes is often hidden from then on, and in a long task that is most of the time.
    visible_min: Share = 0.1
    confidence_min: Share = 0.3


class SelectionConfig(_Config):
    """All settings of a selection; the defaults are meant to be left alone, see keypoint_choice.py."""

    name: str = "task"
    seed: int = 0
    candidates: CandidateConfig = CandidateConfig()
    matcher: str = DEFAULT_MATCHER
    tracker: str = DEFAULT_TRACKER
    viewpoint: Literal["none", "plane", "depth"] = "none"  # where cameras were moved between demonstrations
    template_demonstration: Annotated[int, Field(ge=0)] = 0
    held_out: Share = 0.1
    choice: ChoiceConfig = ChoiceConfig()
    policy: PolicyConfig = PolicyConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    select: StageConfig = AUTOMATIC  # of the gates
    refit: StageConfig = StageConfig(steps=3000, batch=512, members=1, learning_rate=1.5e-3, chunk_decay=0.2)
    ensemble_decay: Annotated[float, Field(ge=0.0)] = 0.2
    execution_horizon: Annotated[int, Field(ge=1)] = 1  # periods that a chunk is followed before the next
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _fits(self) -> SelectionConfig:
        check_execution_horizon(self.execution_horizon, self.policy.horizon)
        if self.select.keep != "last" or self.select.patience:
            raise ValueError(
                "select.keep must be 'last' and select.patience 0: while the mask takes points away the error rises, so the "
                "best weights would be those from before it chose. Give keep and patience to refit"
            )
        return self

    @property
    def selector(self) -> PolicyConfig:
        """The policy that points are chosen with: the quick one, seeing time as the one that is trained on them."""
        p = self.policy
        if p.name == DEFAULT_POLICY:
            return p
        return PolicyConfig(horizon=p.horizon, history=p.history, history_stride=p.history_stride)

    @classmethod
    def published(cls, alpha: float = 0.002, **changes: Any) -> SelectionConfig:
        """The published objective at one `alpha`: the reference that everything else is measured against."""
        penalty = PUBLISHED.penalty.model_copy(update={"alpha": alpha})
        select = PUBLISHED.model_copy(update={"penalty": penalty})
        return cls(**{"choice": ChoiceConfig(objective="published"), "select": select, **changes})

    @classmethod
    def load(cls, path: Path | str | None) -> SelectionConfig:
        """Read a YAML file of entries that differ from the defaults; None or '' gives the defaults.

        Raises:
            SelectionError: missing file, no YAML, an unknown entry or a value out of range.
        """
        if not path:
            return cls()
        try:
            content = yaml.safe_load(Path(path).read_text()) or {}
            objective = (content.get("choice") or {}).get("objective")
            base = cls.published() if objective == "published" else cls()
            return cls.model_validate(_merged(base.model_dump(), content))
        except OSError as error:
            raise SelectionError(f"selection settings {path} cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, ValidationError, TypeError, AttributeError) as error:
            raise SelectionError(f"selection settings {path} cannot be used: {error}") from error


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the entries of `changes`, group by group; a stage may name only what it changes."""
    merged = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


@dataclass
class SelectionResult:
    """Everything that a report tells of a selection. C candidates, N kept."""

    config: SelectionConfig
    candidates: KeypointSet
    demonstrations: Sequence[Demonstration]
    held_out: list[int]
    trackability: Trackability
    trackable: npt.NDArray[np.bool_]
    choice: Choice  # among the trackable ones
    keep: npt.NDArray[np.bool_]
    retracked: Sequence[Demonstration]  # of the N points alone, which the policy was trained on
    refit_history: DistillationHistory
    held_out_joint_error_rad: npt.NDArray[np.float64]
    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_mb: float = 0.0  # of all processes together, at most (memory_meter.py)
    cameras: Sequence[KeypointSet] = ()  # the candidates of each; in `candidates` they stand side by side

    @property
    def kept(self) -> npt.NDArray[np.int64]:
        """(N,) the kept points as indices of the trackable ones."""
        return np.flatnonzero(self.choice.keep)


def select_keypoints(
    demonstrations: Sequence[Path | str],
    output: Path,
    robot: RobotDescription,
    config: SelectionConfig | None = None,
    *,
    resume: bool = True,
    workers: int = 2,
    tracks: Path | None = None,
    track: Track | None = None,
    progress: Progress = lambda stage, fraction, detail: None,
) -> RunFolder:
    """Choose the keypoints of a task, train its policy, and write the run folder.

    Args:
        demonstrations: rosbag2 folders, or folders of them.
        output: the run folder; work in progress is kept in its `.select` folder, so that a selection
            that was interrupted, however hard, continues there.
        robot: the robot that the demonstrations were recorded on.
        resume: continue from `.select`; False begins training anew (tracks stay cached: they
            depend on nothing but bags, candidates and tracker).
        workers: processes that track, train gates and measure sets.
        tracks: folder of the track cache, for several selections from the same demonstrations.
        track: who tracks, where that is not what the robot will: a simulator that knows. None: matcher and tracker of `config`.
        progress: called with (stage, share done, one line); what it raises ends the selection.

    Raises:
        DemonstrationError, BagError, JointStateError: demonstrations that cannot be used.
        SelectionError: no candidate can be tracked, or a setting does not fit the demonstrations.
        TrainingLogError: a log was asked for whose package is not installed.
    """
    config = config or SelectionConfig()
    check_log(config.log)
    _check_packages(config.policy)
    clock = Stopwatch(progress)
    with MemoryMeter() as memory:
        torch.manual_seed(config.seed)
        # These networks are small: handing their work to other threads costs more than it saves (5 times, measured).
        torch.set_num_threads(1)

        if config.candidates.uv_px and len(robot.cameras) > 1:
            raise SelectionError(
                f"candidates.uv_px are points of one camera, but robot '{robot.name}' has {len(robot.cameras)}: "
                "describe it with one, or let candidates be sampled"
            )

        clock.start("read")
        bags = find_bags(demonstrations)
        proposed = numbered(
            [propose_candidates(bags, robot.seen_by(c.name), config, clock.report) for c in robot.cameras]
        )
        candidates = side_by_side(proposed)

        clock.start("track")
        tracking = Tracking(config.matcher, config.tracker, config.viewpoint)
        work = output / WORK_FOLDER

        def as_on_the_robot(
            bags: Sequence[Path],
            sets: Sequence[KeypointSet],
            seen_by: RobotDescription,
            report: Callable[[float, str], None],
        ) -> Sequence[Demonstration]:
            cache = tracks or work / "tracks"
            return track_demonstrations(bags, sets, seen_by, tracking, cache, workers=workers, report=report)

        track = track or as_on_the_robot
        tracked = track(bags, proposed, robot, clock.report)
        chosen = {
            "candidates": len(candidates),
            "strategy": config.candidates.strategy,
            "seed": config.seed,
            "objective": config.choice.objective,
            "demonstrations": len(bags),
        }

        def sets_of(found: ChosenSet) -> list[KeypointSet]:
            return kept_of_each(
                proposed,
                candidates.ids[found.keep],
                found.retention_by_id(candidates),
                chosen,
                found.parts_by_id(candidates),
            )

        def retrack(found: ChosenSet) -> Sequence[Demonstration]:
            sets = sets_of(found)
            return track(bags, sets, robot.seen_by(*(s.camera_name for s in sets)), clock.report)

        result = choose(
            tracked, candidates, config, work, retrack=retrack, resume=resume, workers=workers, clock=clock
        )
        result.selection.seconds, result.selection.cameras = clock.seconds, proposed
        first, *more = sets_of(result.found)
        run = RunFolder(
            output,
            first,
            result.policy,
            PolicyFile(
                policy=config.policy.name,
                encoder=config.policy.encoder,
                sizes=result.policy.sizes,
                **SeenSet.of(first).model_dump(),
                more_cameras=[SeenSet.of(points) for points in more],
                horizon=config.policy.horizon,
                history=config.policy.history,
                history_stride=config.policy.history_stride,
                ensemble_decay=config.ensemble_decay,
                execution_horizon=config.execution_horizon,
                control_rate_hz=robot.control_rate_hz,
                joint_names=list(robot.joints.names),
                matcher=config.matcher,
                tracker=config.tracker,
                trained={
                    "demonstrations": len(bags),
                    "seed": config.seed,
                    "held_out_loss": result.held_out_loss,
                },
            ),
            robot.seen_by(*(points.camera_name for points in (first, *more))),
            tuple(more),
        )
        clock.start("report")
        run.save()
        result.selection.peak_rss_mb = memory.peak_mb
        write_report(result.selection, output / REPORT_FOLDER)
        clock.report(1.0, str(output))
        return run


# ------------------------------------------------------------------------------------------ candidates


def propose_candidates(
    bags: Sequence[Path],
    robot: RobotDescription,
    config: SelectionConfig,
    report: Callable[[float, str], None] = lambda fraction, detail: None,
) -> KeypointSet:
    """Canonical template and candidates of the first camera: the first image of one demonstration, C points on it."""
    if config.template_demonstration >= len(bags):
        raise SelectionError(
            f"template_demonstration is {config.template_demonstration}, but there are {len(bags)} demonstrations; "
            f"give 0 to {len(bags) - 1}"
        )
    template_bag = bags[config.template_demonstration]
    template_rgb = first_image(template_bag, robot)
    calibration = bag_calibration(template_bag, robot, robot.camera)
    if config.candidates.uv_px:
        return replace(_given_candidates(template_rgb, robot, config), calibration=calibration)
    # More first images than this tell nothing new about what differs between them.
    others = [b for b in bags if b != bags[config.template_demonstration]][:11]
    firsts = [template_rgb]
    for number, bag in enumerate(others):
        firsts.append(first_image(bag, robot))
        report((number + 1) / max(1, len(others)), bag.name)
    clips: list[list[npt.NDArray[np.uint8]]] = []
    if config.candidates.strategy in NEED_CLIPS:
        some = [bags[config.template_demonstration], *others][:CLIPS]
        clips = [first_images(bag, robot, CLIP_RATE_HZ, CLIP_IMAGES) for bag in some]
    uv_px = focused_candidates(firsts, config.candidates, np.random.default_rng(config.seed), clips)
    return KeypointSet.create(
        config.name, uv_px, template_rgb, camera_name=robot.camera.name, calibration=calibration
    )


def _given_candidates(
    template_rgb: npt.NDArray[np.uint8], robot: RobotDescription, config: SelectionConfig
) -> KeypointSet:
    uv_px = np.array(config.candidates.uv_px)
    height, width = template_rgb.shape[:2]
    outside = ~((uv_px >= 0) & (uv_px <= (width - 1, height - 1))).all(axis=1)
    if outside.any():
        raise SelectionError(
            f"candidates.uv_px: {uv_px[outside][0].tolist()} is not in the template, which is {width}x{height}; give u, v in pixels"
        )
    return KeypointSet.create(config.name, uv_px, template_rgb, camera_name=robot.camera.name)


def focused_candidates(
    first_rgb: Sequence[npt.NDArray[np.uint8]],
    config: CandidateConfig,
    rng: np.random.Generator,
    clips: Sequence[Clip] = (),
) -> npt.NDArray[np.float32]:
    """(C, 2) candidates on the first of some first images, denser where the others differ from it.

    A share `focus` of them is drawn from a dense sampling of the places whose brightness differs from
    the median of the other images by more than noise; the rest is spread over the whole template. What moves in one
    piece shares its points: an object nine times as large as another one gets three times as many, not nine, so that
    a grape is not left without any beside an oven's door.
    """
    template_rgb, others = first_rgb[0], first_rgb[1:]
    spread = sample_candidates(template_rgb, config.count, rng, config.strategy, clips=clips)
    if len(others) < 2 or config.focus == 0.0:
        return spread
    usual = np.median(np.stack(others), axis=0)
    change = cv2.GaussianBlur(np.abs(template_rgb.astype(np.float32) - usual).max(axis=2), (0, 0), 2.0)
    # Sensor noise and compression stay under 12 of 255 after the blur; dilated, so that the edge of
    # what changed, where the texture is, belongs to it.
    moved = cv2.dilate((change > 12.0).astype(np.uint8), np.ones((9, 9), np.uint8))
    if not moved.any():
        return spread
    pieces = cv2.connectedComponents(moved)[1]  # (H, W) number of the piece, 0 where nothing moved

    def piece_of(uv_px: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        column, row = np.rint(uv_px).astype(int).T
        return np.asarray(pieces[row, column])

    wanted = round(config.focus * config.count)
    # Dense enough that the moved part alone yields what is wanted, within reason.
    density = int(np.clip(3.0 * wanted / moved.mean(), config.count, 16 * config.count))
    dense = sample_candidates(template_rgb, density, rng, config.strategy, clips=clips)
    focused = dense[piece_of(dense) > 0]
    weight = 1.0 / np.sqrt(np.bincount(piece_of(focused))[piece_of(focused)])
    drawn = rng.choice(len(focused), min(wanted, len(focused)), replace=False, p=weight / weight.sum())
    focused = focused[drawn]
    elsewhere = spread[piece_of(spread) == 0]
    elsewhere = elsewhere[rng.permutation(len(elsewhere))]
    chosen = np.concatenate([focused, elsewhere])[: config.count]
    return np.concatenate([chosen, spread[: config.count - len(chosen)]])


# ------------------------------------------------------------------------------------------- choosing


@dataclass(frozen=True)
class ChosenSet:
    """The outcome of `choose_set`. C candidates.

    Attributes:
        training, held_out: numbers of the demonstrations that took part in choosing, and of those that did not.
        trackable: (C,) who could be chosen. choice: among those.
        keep: (C,) the set.
    """

    training: list[int]
    held_out: list[int]
    trackability: Trackability
    trackable: npt.NDArray[np.bool_]
    choice: Choice
    keep: npt.NDArray[np.bool_]

    def retention_by_id(self, candidates: KeypointSet) -> dict[int, float]:
        """Of the kept points."""
        ids = candidates.ids[self.keep].tolist()
        return dict(zip(ids, self.choice.retention[self.choice.keep].round(3).tolist(), strict=True))

    def parts_by_id(self, candidates: KeypointSet) -> dict[int, int]:
        """Number of the rigid part of the kept points, and of the companions that are transferred along with them."""
        choice, ids, uv_px = self.choice, candidates.ids[self.trackable], candidates.uv_px[self.trackable]
        kept, parts = np.flatnonzero(choice.keep), choice.parts
        numbers = {int(ids[i]): int(parts[i]) for i in kept}
        for part in np.unique(parts[kept]).tolist():
            mine = [int(i) for i in kept if parts[i] == part]
            along = companions_of_part(mine, np.flatnonzero(parts == part), choice.worth, uv_px)
            numbers |= {int(ids[i]): part for i in along}
        return numbers


@dataclass(frozen=True)
class Chosen:
    """The outcome of `choose`: policy and facts."""

    policy: Any
    held_out_loss: float
    found: ChosenSet
    selection: SelectionResult


def trackable_candidates(quality: Trackability, config: CandidateConfig) -> npt.NDArray[np.bool_]:
    """(C,) who is tracked well enough to be chosen.

    Raises:
        SelectionError: nobody.
    """
    trackable = (
        (quality.transferred >= config.transferred_min)
        & (quality.visible >= config.visible_min)
        & (quality.confidence >= config.confidence_min)
    )
    if not trackable.any():
        raise SelectionError(
            f"none of {len(trackable)} candidates is trackable: the best is visible in {quality.visible.max():.0%} of all "
            f"frames and at the start of {quality.transferred.max():.0%} of the demonstrations. Do the demonstrations show "
            "the same scene as the template? Lower candidates.visible_min or transferred_min, or choose another template"
        )
    return np.asarray(trackable)


def choose_set(
    demonstrations: Sequence[Demonstration],
    candidates: KeypointSet,
    config: SelectionConfig,
    *,
    workers: int = 1,
    start: Callable[[str], None] = lambda stage: None,
    report: Callable[[float, str], None] = lambda fraction, detail: None,
    log: Log = lambda step, scalars: None,
    checkpoints: Path | None = None,
) -> ChosenSet:
    """The keypoint set of tracked demonstrations, without the policy on it; see `choose_keypoints`.

    Args:
        workers: processes that train gates and measure sets.
        checkpoints: folder of the files from which an interrupted choice continues, and for tracks that are too many for
            memory; without it they are in memory, however many.

    Raises:
        SelectionError: no candidate is trackable.
    """
    training, held_out = split(len(demonstrations), config.held_out, config.seed)
    quality = trackability(demonstrations)
    trackable = trackable_candidates(quality, config.candidates)
    rows = None if checkpoints is None else checkpoints / ROWS_FOLDER
    many = quality.frames * int(trackable.sum()) > IN_MEMORY_POINTS

    def frames_of(which: list[int], name: str) -> TrainingData:
        seen = (demonstrations[i].keypoints(trackable) for i in which)
        return TrainingData.of(seen, folder=rows / name if rows is not None and many else None)

    choice = choose_keypoints(
        frames_of(training, "training"),
        frames_of(held_out, "held_out") if held_out else None,
        candidates.uv_px[trackable],
        quality.score()[trackable],
        math.hypot(candidates.image_width, candidates.image_height),
        config.selector,
        config.augmentation,
        config.select,
        config.choice,
        seed=config.seed,
        workers=workers,
        start=start,
        report=report,
        log=log,
        checkpoints=checkpoints,
    )
    if rows is not None:
        discard(rows)
    keep = trackable.copy()
    keep[trackable] = choice.keep
    return ChosenSet(training, held_out, quality, trackable, choice, keep)


def choose(
    demonstrations: Sequence[Demonstration],
    candidates: KeypointSet,
    config: SelectionConfig,
    work: Path,
    *,
    retrack: Callable[[ChosenSet], Sequence[Demonstration]] | None = None,
    resume: bool = True,
    workers: int = 1,
    clock: Stopwatch | None = None,
) -> Chosen:
    """Keypoint set and policy of tracked demonstrations: everything between tracks and run folder.

    Args:
        retrack: gives the demonstrations with the kept points alone. A point is tracked otherwise among hundreds than
            on the robot, where the tracker gives the few helpers of their own: the policy learns from what it will
            see. None: from the kept points' tracks among the candidates.

    Raises:
        SelectionError: no candidate is trackable, or the kept points alone are found in no demonstration.
    """
    clock = clock or Stopwatch(lambda stage, fraction, detail: None)
    checkpoints = work / _training_key(demonstrations, candidates, config)
    if not resume:
        for file in checkpoints.glob("*.safetensors"):
            file.unlink()

    select_log = TrainingLog(config.log, work, "select")
    found = choose_set(
        demonstrations,
        candidates,
        config,
        workers=workers,
        start=clock.start,
        report=clock.report,
        log=select_log,
        checkpoints=checkpoints,
    )
    select_log.close()
    keep = found.keep
    if retrack is None:
        alone = [demonstrations[i].keypoints(keep) for i in range(len(demonstrations))]
    else:
        clock.start("retrack")
        alone = [once_found(demonstration) for demonstration in retrack(found)]
    for_training, for_test = (
        [alone[i] for i in which if len(alone[i])] for which in (found.training, found.held_out)
    )
    if not for_training:
        raise SelectionError(
            f"the {keep.sum()} kept points are found among the other candidates, but alone in no demonstration: more of them "
            "would be. Raise choice.part_points or choice.keypoints_min"
        )
    train = TrainingData.of(for_training)
    test = TrainingData.of(for_test) if for_test else None

    clock.start("refit")
    refit_log = TrainingLog(config.log, work, "refit")
    refit = distill(
        train,
        test,
        candidates.uv_px[keep],
        config.policy,
        config.augmentation,
        config.refit,
        masked=False,
        seed=config.seed + 1,
        report=clock.report,
        log=refit_log,
        checkpoint=checkpoints / "refit.safetensors",
    )
    refit_log.close()
    policy = refit.policies[0]
    measured = test if test is not None else train
    selection = SelectionResult(
        config=config,
        candidates=candidates,
        demonstrations=demonstrations,
        held_out=found.held_out,
        trackability=found.trackability,
        trackable=found.trackable,
        choice=found.choice,
        keep=keep,
        retracked=alone,
        refit_history=refit.history,
        held_out_joint_error_rad=joint_error_by_horizon(refit, measured, config.policy),
    )
    return Chosen(policy, refit.history.kept_record()[1], found, selection)


@torch.no_grad()
def joint_error_by_horizon(
    distilled: Distilled, data: TrainingData, config: PolicyConfig
) -> npt.NDArray[np.float64]:
    """(H,) mean absolute joint error [rad] of the chunk's k-th action."""
    index = torch.arange(len(data))
    predicted = distilled.policies[0].act(data.seen(index, config.history, config.history_stride))
    error = (predicted - data.chunks(index, config.horizon))[..., :-1].abs()
    return np.asarray(error.mean(dim=(0, 2)).double().numpy())


# -------------------------------------------------------------------------------------------- details


def _training_key(
    demonstrations: Sequence[Demonstration], candidates: KeypointSet, config: SelectionConfig
) -> str:
    """Changes with anything that training depends on, so that a checkpoint is never continued wrongly."""
    # Of the viewpoint, tracks tell.
    ignored = {"log", "ensemble_decay", "execution_horizon", "viewpoint"}
    settings = config.model_dump(mode="json", exclude=ignored)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(candidates.uv_px.tobytes())
    for d in demonstrations:
        for array in (d.uv_px, d.visible, d.robot, d.action):
            digest.update(np.ascontiguousarray(array).tobytes())
    return f"training-{digest.hexdigest()[:16]}"


def _check_packages(config: PolicyConfig) -> None:
    """Whatever the policy class needs is there, before anything is tracked.

    Raises:
        SelectionError: it is not.
    """
    try:
        make_policy(
            config.name, keypoints=1, joints=1, horizon=config.horizon, history=config.history, **config.sizes
        )
    except ValueError as error:
        raise SelectionError(str(error)) from error


class Stopwatch:
    """Times the stages and hands progress on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage = STAGES[0]
        self._started = time.monotonic()
        self.seconds: dict[str, float] = {}

    def start(self, stage: str) -> None:
        self._stage, self._started = stage, time.monotonic()
        self.report(0.0, "")

    def report(self, fraction: float, detail: str) -> None:
        self.seconds[self._stage] = round(time.monotonic() - self._started, 2)
        self._progress(self._stage, fraction, detail)

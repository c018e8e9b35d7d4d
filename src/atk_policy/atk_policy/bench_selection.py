"""Does the selection need tuning? The automatic one against the published objective at several alphas, on any tasks.

    python -m atk_policy.bench_selection runs/sushi/demonstrations runs/clock_button/demonstrations --output runs/bench_selection
    python -m atk_policy.bench_selection ... --ablation        # penalty, gates, failures, merging: one change at a time
    python -m atk_policy.bench_selection ... --strategies random textured tracked    # of the candidates, each tracked anew
    python -m atk_policy.bench_selection ... --stages 2 3      # would other points in each stage of the task do better?

Each argument is a folder of bags, one task. Tracks are made once and cached in OUTPUT. The automatic selection runs with
several seeds: other weights, batches, folds and held-out demonstrations; with --resample other candidates and their tracks
too. All sets of a task are then measured side by side: held-out action error under imitated failures, the same for all.
The last line of standard output is JSON. Closed-loop success is another matter, and needs a simulator.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atk_perception.candidates import STRATEGIES
from atk_perception.frames import BagError, JointStateError
from atk_perception.image_codec import ImageFormatError
from atk_perception.keypoint_set import KeypointSet
from atk_perception.public_models import BackendError
from atk_perception.robot_description import RobotDescriptionError
from atk_policy.agreement import mean_agreement
from atk_policy.augmentation import AugmentationConfig
from atk_policy.cross_validation import errors_of_sets
from atk_policy.demonstrations import (
    Demonstration,
    DemonstrationError,
    Tracking,
    find_bags,
    track_demonstrations,
    trackability,
)
from atk_policy.distillation import TrainingData
from atk_policy.gates import GATES
from atk_policy.penalty import PenaltyConfig
from atk_policy.rigid_parts import rigid_parts, rigid_share
from atk_policy.select_command import robot_of
from atk_policy.selection import (
    SelectionConfig,
    SelectionError,
    choose_set,
    peak_rss_mb,
    propose_candidates,
    trackable_candidates,
)
from atk_policy.stages import compare_stages, learn_stages

USER_ERRORS = (
    BackendError,
    BagError,
    DemonstrationError,
    ImageFormatError,
    JointStateError,
    RobotDescriptionError,
    SelectionError,
)
ALPHAS = (0.001, 0.002, 0.005)  # the published range
Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """Tracked demonstrations of one task, for one seed of its candidates."""

    name: str
    candidates: KeypointSet
    demonstrations: Sequence[Demonstration]

    @classmethod
    def load(cls, folder: Path, output: Path, config: SelectionConfig, workers: int, say: Say) -> Task:
        """Track the bags of `folder`, or read their tracks from `output`.

        Raises:
            BagError, DemonstrationError, JointStateError, RobotDescriptionError: bags that cannot be used.
        """
        robot, bags = robot_of([folder], None), find_bags([folder])
        candidates = propose_candidates(bags, robot, config)
        demonstrations = track_demonstrations(
            bags,
            [candidates],
            robot,
            Tracking(config.matcher, config.tracker),
            output / "tracks",
            workers=workers,
            report=lambda fraction, detail: say(f"{folder}: tracked {fraction:.0%}"),
        )
        return cls(task_name(folder), candidates, demonstrations)


@dataclass(frozen=True)
class Selected:
    """What one selection chose, and at what cost."""

    variant: str
    seed: int
    task: Task
    keep: np.ndarray
    seconds: float


def task_name(folder: Path) -> str:
    """The folder's name, or that of the folder around one that is just called demonstrations."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "demonstrations" else folder.name


def select(task: Task, variant: str, config: SelectionConfig, say: Say) -> Selected:
    """One selection, timed.

    Raises:
        SelectionError: no candidate is trackable.
    """
    begin = time.monotonic()
    found = choose_set(task.demonstrations, task.candidates, config)
    seconds = time.monotonic() - begin
    say(f"{task.name}, {variant}, seed {config.seed}: {found.keep.sum()} points in {seconds:.0f} s")
    return Selected(variant, config.seed, task, found.keep, seconds)


def held_out_errors(selected: Sequence[Selected], config: SelectionConfig) -> list[float]:
    """Mean held-out error of each set, all on one task's tracks, in one run under the same failures."""
    task = selected[0].task
    errors = errors_of_sets(
        TrainingData.of(task.demonstrations),
        np.stack([s.keep for s in selected]),
        task.candidates.uv_px,
        config.selector,
        AugmentationConfig(),
        config.choice.measure,
        seed=0,
    )
    return [float(e) for e in errors.mean(1)]


def set_agreement(selected: Sequence[Selected], config: SelectionConfig) -> float:
    """Mean agreement of sets; what lies on one body is told by the rigid parts of all candidates on the first tracks."""
    sets, labels = [], []
    first = selected[0].task
    able = trackable_candidates(trackability(first.demonstrations), config.candidates)
    uv_px = first.candidates.uv_px[able]
    parts = rigid_parts(rigid_share(TrainingData.of(first.demonstrations, able), uv_px))
    for s in selected:
        points = s.task.candidates.uv_px[s.keep]
        nearest = np.linalg.norm(points[:, None] - uv_px[None], axis=2).argmin(1)
        sets.append(points)
        labels.append(parts[nearest].tolist())
    diagonal_px = float(np.hypot(first.candidates.image_width, first.candidates.image_height))
    return mean_agreement(sets, diagonal_px, labels)


def variants(config: SelectionConfig) -> dict[str, SelectionConfig]:
    """The ablation: the default, and one change at a time."""

    def select_with(**changes: Any) -> SelectionConfig:
        return config.model_copy(update={"select": config.select.model_copy(update=changes)})

    quiet = {
        name: 0
        for name in AugmentationConfig.model_fields
        if name not in ("cluster_radius_px", "dropped_frames_max")
    }
    return {
        "default": config,
        **{f"gates {name}": select_with(gates=name) for name in GATES if name != config.select.gates},
        **{
            f"penalty {form}": select_with(penalty=PenaltyConfig.model_validate({"form": form}))
            for form in ("fixed", "constraint")
        },
        "without cross-fitting": select_with(cross_fit=False),
        "without failures": config.model_copy(update={"augmentation": AugmentationConfig(**quiet)}),
        "without merging": config.model_copy(
            update={"choice": config.choice.model_copy(update={"merge": False})}
        ),
    }


def benchmark(
    folder: Path,
    output: Path,
    config: SelectionConfig,
    seeds: int,
    alphas: Sequence[float],
    resample: bool,
    workers: int,
    say: Say,
) -> dict[str, Any]:
    """The figures of one task, as in the last line of output."""
    auto = []
    for seed in range(seeds):
        changed = config.model_copy(update={"seed": seed})
        if seed == 0 or resample:
            task = Task.load(folder, output, changed, workers, say)
        auto.append(select(task, "automatic", changed, say))
    shared = [s for s in auto if s.task is auto[0].task]
    as_published = config.choice.model_copy(update={"objective": "published"})
    changes = {"choice": as_published, "policy": config.policy, "candidates": config.candidates}
    published = [
        select(
            auto[0].task,
            f"alpha {alpha}",
            SelectionConfig.published(alpha, **changes),
            say,
        )
        for alpha in alphas
    ]
    errors = held_out_errors([*shared, *published], config)
    tuned = errors[len(shared) :]
    best = int(np.argmin(tuned))
    return {
        "kept": [int(s.keep.sum()) for s in auto],
        "agreement": round(set_agreement(auto, config), 3),
        "seconds": round(float(np.mean([s.seconds for s in auto])), 1),
        "peak_memory_mb": round(peak_rss_mb()),
        "held_out_error_auto": round(float(np.mean(errors[: len(shared)])), 4),
        "held_out_error_tuned": round(tuned[best], 4),
        "tuned_alpha": alphas[best],
        "published": {
            str(a): {"kept": int(s.keep.sum()), "held_out_error": round(e, 4)}
            for a, s, e in zip(alphas, published, tuned, strict=True)
        },
    }


def ablation(
    folder: Path, output: Path, config: SelectionConfig, seeds: int, workers: int, say: Say
) -> list[dict[str, Any]]:
    """One row per variant of one task."""
    task = Task.load(folder, output, config, workers, say)
    selected = [
        select(task, name, changed.model_copy(update={"seed": seed}), say)
        for name, changed in variants(config).items()
        for seed in range(seeds)
    ]
    errors = held_out_errors(selected, config)
    rows = []
    for name in variants(config):
        mine = [k for k, s in enumerate(selected) if s.variant == name]
        kept = [int(selected[k].keep.sum()) for k in mine]
        rows.append(
            {
                "task": task.name,
                "variant": name,
                "kept": " ".join(map(str, kept)),
                "agreement": round(set_agreement([selected[k] for k in mine], config), 3),
                "held_out_error": round(float(np.mean([errors[k] for k in mine])), 4),
                "seconds": round(float(np.mean([selected[k].seconds for k in mine])), 1),
            }
        )
    return rows


def compare_strategies(
    folder: Path,
    output: Path,
    config: SelectionConfig,
    strategies: Sequence[str],
    seeds: int,
    workers: int,
    say: Say,
) -> list[dict[str, Any]]:
    """One row per strategy of one task: how many of its candidates can be tracked, and what becomes of them."""
    rows = []
    for strategy in strategies:
        candidates = config.candidates.model_copy(update={"strategy": strategy})
        selected: list[Selected] = []
        errors: list[float] = []
        trackable: list[int] = []
        for seed in range(seeds):
            changed = config.model_copy(update={"candidates": candidates, "seed": seed})
            task = Task.load(folder, output, changed, workers, say)
            trackable.append(int(trackable_candidates(trackability(task.demonstrations), candidates).sum()))
            selected.append(select(task, strategy, changed, say))
            # Other candidates are other tracks: the sets share the held-out demonstrations and the failures only.
            errors += held_out_errors(selected[-1:], config)
        rows.append(
            {
                "task": task_name(folder),
                "strategy": strategy,
                "trackable": " ".join(map(str, trackable)),
                "kept": " ".join(str(int(s.keep.sum())) for s in selected),
                "agreement": round(set_agreement(selected, config), 3),
                "held_out_error": round(float(np.mean(errors)), 4),
                "seconds": round(float(np.mean([s.seconds for s in selected])), 1),
            }
        )
    return rows


def with_stages(
    folder: Path,
    output: Path,
    config: SelectionConfig,
    counts: Sequence[int],
    seeds: int,
    workers: int,
    say: Say,
) -> list[dict[str, Any]]:
    """One row per number of stages and seed of one task: one set against sets that differ by stage (stages.py)."""
    task = Task.load(folder, output, config, workers, say)
    rows = []
    for seed in range(seeds):
        changed = config.model_copy(update={"seed": seed})
        found = choose_set(task.demonstrations, task.candidates, changed)
        training = TrainingData.of([task.demonstrations[i] for i in found.training], found.trackable)
        for count in counts:
            compared = compare_stages(
                training,
                found.choice.path,
                found.choice.knee,
                found.choice.parts,
                learn_stages(training.robot, count, seed),
                config.choice.tolerance,
                partial(_errors, task=task, trackable=found.trackable, config=config, seed=seed),
            )
            rows.append(
                {
                    "task": task.name,
                    "stages": count,
                    "seed": seed,
                    "one_set": round(compared.one, 4),
                    "points": round(compared.in_use[0], 1),
                    "fewer_error": round(compared.fewer, 4),
                    "fewer_points": round(compared.in_use[1], 1),
                    "smaller_whole_set": round(compared.smaller, 4),
                    "more_error": round(compared.more, 4),
                    "more_points": round(compared.in_use[2], 1),
                }
            )
            say(f"{task.name}, {count} stages, seed {seed}: {rows[-1]}")
    return rows


def _errors(
    data: TrainingData,
    sets: list[list[int]],
    task: Task,
    trackable: np.ndarray,
    config: SelectionConfig,
    seed: int,
) -> np.ndarray:
    """Held-out errors of sets of copies of the trackable candidates (stages.py), under imitated failures."""
    template_px = task.candidates.uv_px[trackable]
    copies = data.uv_px.shape[1] // len(template_px)
    rows = np.zeros((len(sets), copies * len(template_px)), np.bool_)
    for row, indices in zip(rows, sets, strict=True):
        row[indices] = True
    return errors_of_sets(
        data,
        rows,
        np.tile(template_px, (copies, 1)),
        config.selector,
        AugmentationConfig(),
        config.choice.measure,
        seed=seed,
    )


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table of rows with the same entries."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="bench_selection", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="+", type=Path, help="a folder of bags for each task")
    parser.add_argument("--output", type=Path, required=True, help="folder of tracks and tables")
    parser.add_argument(
        "--seeds", type=int, help="independent selections (default: 5; ablation, strategies, stages: 3)"
    )
    parser.add_argument(
        "--alphas",
        nargs="+",
        type=float,
        default=ALPHAS,
        help="of the published objective (default: 0.001 0.002 0.005)",
    )
    parser.add_argument(
        "--resample", action="store_true", help="other candidates for every seed, tracked anew"
    )
    parser.add_argument(
        "--ablation", action="store_true", help="one change at a time, instead of the published one"
    )
    parser.add_argument(
        "--strategies", nargs="+", choices=list(STRATEGIES), help="compare ways to propose candidates"
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        type=int,
        metavar="N",
        help="compare one set with one for each of N learned stages",
    )
    parser.add_argument("--config", type=Path, help="settings (YAML) that differ from the defaults")
    parser.add_argument("--workers", type=int, default=2, help="processes that track (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        config = SelectionConfig.load(args.config)
        if args.ablation:
            rows = [
                row
                for folder in args.tasks
                for row in ablation(folder, args.output, config, args.seeds or 3, args.workers, say)
            ]
            name, figures = "ablation", json.dumps(rows)
        elif args.strategies:
            rows = [
                row
                for folder in args.tasks
                for row in compare_strategies(
                    folder, args.output, config, args.strategies, args.seeds or 3, args.workers, say
                )
            ]
            name, figures = "strategies", json.dumps(rows)
        elif args.stages:
            rows = [
                row
                for folder in args.tasks
                for row in with_stages(
                    folder, args.output, config, args.stages, args.seeds or 3, args.workers, say
                )
            ]
            name, figures = "stages", json.dumps(rows)
        else:
            found = {
                task_name(folder): benchmark(
                    folder,
                    args.output,
                    config,
                    args.seeds or 5,
                    args.alphas,
                    args.resample,
                    args.workers,
                    say,
                )
                for folder in args.tasks
            }
            rows = [
                {"task": task, **{k: v for k, v in f.items() if k != "published"}}
                for task, f in found.items()
            ]
            name, figures = "selection", json.dumps(found)
    except USER_ERRORS as error:
        raise SystemExit(f"bench_selection: {error}") from error
    with (args.output / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (args.output / f"{name}.md").write_text(markdown(rows) + "\n")
    print(markdown(rows))
    print(figures)


if __name__ == "__main__":
    main()

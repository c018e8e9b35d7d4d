"""Does the selection need tuning? The automatic one against the published objective at several alphas, on any tasks.

    python -m atk_policy.bench_selection runs/sushi/demonstrations runs/clock_button/demonstrations --output runs/bench_selection
    python -m atk_policy.bench_selection ... --benchmark runs/benchmark    # with success in closed loop, as `benchmark` left it
    python -m atk_policy.bench_selection ... --ablation        # one change at a time: penalty, gates, failures, merging, policy
    python -m atk_policy.bench_selection ... --strategies random textured tracked    # of the candidates
    python -m atk_policy.bench_selection ... --stages 2 3      # would other points in each stage of the task do better?

Each argument is a folder of bags, one task; without any, every task that is recorded in the --benchmark folder. What belongs to
one seed is independent of the others: candidates and their tracks, weights, batches, folds and held-out demonstrations. With
--same-candidates (cheaper: bags are tracked once) only the tracks of seed 0 are used. All sets of a seed are measured side by
side: held-out action error under imitated failures, the same for all.

Killed at any moment, the same command goes on (resumable.py); OUTPUT/results.jsonl holds what was done. The last line of
standard output is JSON.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from atk_perception.candidates import STRATEGIES
from atk_perception.keypoint_set import KeypointSet
from atk_policy.agreement import mean_agreement
from atk_policy.augmentation import AugmentationConfig
from atk_policy.bench_policy import train
from atk_policy.closed_loop_results import closed_loop, recorded_tasks
from atk_policy.cross_validation import errors_of_sets
from atk_policy.demonstrations import (
    Demonstration,
    Tracking,
    find_bags,
    track_demonstrations,
    trackability,
)
from atk_policy.distillation import TrainingData
from atk_policy.gates import GATES
from atk_policy.keypoint_choice import choose_keypoints
from atk_policy.penalty import PenaltyConfig
from atk_policy.policies import POLICIES
from atk_policy.policies.encoders import ENCODERS
from atk_policy.resumable import Piece, Report, Result, Say, done_once
from atk_policy.rigid_parts import rigid_parts, rigid_share
from atk_policy.select_command import USER_ERRORS, robot_of
from atk_policy.selection import (
    CandidateConfig,
    SelectionConfig,
    choose_set,
    propose_candidates,
    trackable_candidates,
)
from atk_policy.stages import compare_stages, learn_stages, staged

ALPHAS = (0.001, 0.002, 0.005)  # the published range
# Of a configuration, what a keypoint set does not depend on.
AFTERWARDS = {"name", "seed", "refit", "log", "ensemble_decay", "execution_horizon", "viewpoint"}
Row = dict[str, Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """Tracked demonstrations of one task, for one seed of its candidates.

    Attributes:
        tracks: changes with anything that the tracks depend on.
        needed: what a candidate must be able to do.
    """

    name: str
    candidates: KeypointSet
    demonstrations: Sequence[Demonstration]
    tracks: str
    needed: CandidateConfig

    @classmethod
    def load(cls, folder: Path, output: Path, config: SelectionConfig, workers: int, say: Say) -> Task:
        """Track the bags of `folder`, or read their tracks: those beside it, as `benchmark` leaves them, or in `output`.

        Raises:
            BagError, DemonstrationError, JointStateError, RobotDescriptionError: bags that cannot be used.
        """
        robot, bags = robot_of([folder], None), find_bags([folder])
        candidates = propose_candidates(bags, robot, config)
        beside = folder.resolve().parent / "tracks"
        demonstrations = track_demonstrations(
            bags,
            [candidates],
            robot,
            Tracking(config.matcher, config.tracker),
            beside if beside.is_dir() else output / "tracks",
            workers=workers,
            report=lambda fraction, detail: say(f"{folder}, seed {config.seed}: tracked {fraction:.0%}"),
        )
        tracks = digest(*(file.name for file in demonstrations.files))
        return cls(task_name(folder), candidates, demonstrations, tracks, config.candidates)

    @cached_property
    def parts(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Places (T, 2) and rigid parts (T,) of the trackable candidates."""
        able = trackable_candidates(trackability(self.demonstrations), self.needed)
        uv_px = self.candidates.uv_px[able]
        return uv_px, rigid_parts(rigid_share(TrainingData.of(self.demonstrations, able), uv_px))


@dataclass(frozen=True)
class Selected:
    """What one selection chose, and at what cost (see `done_once`)."""

    variant: str
    task: Task
    config: SelectionConfig
    keep: npt.NDArray[np.bool_]
    cost: Result

    @property
    def points(self) -> int:
        """How many are kept."""
        return int(self.keep.sum())


@dataclass(frozen=True)
class Bench:
    """What all questions have in common: where, how many processes, whom to tell."""

    output: Path
    workers: int
    same_candidates: bool
    say: Say

    def tasks(self, folder: Path, config: SelectionConfig, seeds: int) -> list[Task]:
        """One for each seed; with the candidates of one seed the same for all."""
        count = 1 if self.same_candidates else seeds
        loaded = [
            Task.load(folder, self.output, _seeded(config, seed), self.workers, self.say)
            for seed in range(count)
        ]
        return loaded * (seeds // count)

    def write(self, tables: Mapping[str, Sequence[Row]]) -> None:
        """OUTPUT/NAME.md and NAME.csv of each table."""
        for name, rows in tables.items():
            (self.output / f"{name}.md").write_text(markdown(rows) + "\n")
            with (self.output / f"{name}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(rows[0])
                writer.writerows([cell(value) for value in row.values()] for row in rows)

    def done(self, pieces: Sequence[Piece]) -> list[Result]:
        """See `done_once`."""
        return done_once(pieces, self.output, self.workers, self.say)

    def select(self, wanted: Sequence[tuple[str, Task, SelectionConfig]]) -> list[Selected]:
        """Selections: (variant, task, configuration with its seed)."""
        pieces = [
            Piece(
                digest("set", task.tracks, settings(config), config.seed),
                f"{task.name}, {variant}, seed {config.seed}",
                partial(choose, task, config),
            )
            for variant, task, config in wanted
        ]
        return [
            Selected(*job, np.isin(job[1].candidates.ids, found["kept"]), found)
            for job, found in zip(wanted, self.done(pieces), strict=True)
        ]

    def errors(self, selected: Sequence[Selected], config: SelectionConfig) -> list[float]:
        """Mean held-out error of each set; those on the same tracks are measured in one run, under the same failures."""
        groups: dict[str, list[Selected]] = {}
        for one in selected:
            groups.setdefault(one.task.tracks, []).append(one)
        pieces, places = [], {}
        for tracks, group in groups.items():
            # Seeds and variants often choose the same.
            sets, places[tracks] = np.unique([one.keep for one in group], axis=0, return_inverse=True)
            key = digest("errors", tracks, settings(config), sets.tolist())
            says = f"{group[0].task.name}: errors of {len(sets)} sets"
            pieces.append(Piece(key, says, partial(measure, group[0].task, sets, config)))
        found = self.done(pieces)
        by_tracks = {
            tracks: iter(np.array(result["errors"])[places[tracks]].tolist())
            for tracks, result in zip(groups, found, strict=True)
        }
        return [next(by_tracks[one.task.tracks]) for one in selected]


def digest(*parts: object) -> str:
    """A name for what these JSON-able parts say together."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def settings(config: SelectionConfig) -> dict[str, Any]:
    """What a keypoint set depends on, but for the seed."""
    return config.model_dump(mode="json", exclude=AFTERWARDS)


def _seeded(config: SelectionConfig, seed: int) -> SelectionConfig:
    return config.model_copy(update={"seed": seed})


def task_name(folder: Path) -> str:
    """The folder's name, or that of the folder around one that is just called demonstrations."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "demonstrations" else folder.name


def set_agreement(selected: Sequence[Selected]) -> float:
    """Mean agreement of sets; what lies on one body is told by the rigid parts of all candidates on the first tracks."""
    uv_px, parts = selected[0].task.parts
    sets = [one.task.candidates.uv_px[one.keep] for one in selected]
    labels = [
        parts[np.linalg.norm(points[:, None] - uv_px[None], axis=2).argmin(1)].tolist() for points in sets
    ]
    template = selected[0].task.candidates
    return mean_agreement(sets, float(np.hypot(template.image_width, template.image_height)), labels)


def mean(values: Iterable[float], digits: int) -> float:
    """Rounded."""
    return round(float(np.mean(list(values))), digits)


# ------------------------------------------------------------------ what is done in a process of its own


def choose(task: Task, config: SelectionConfig, work: Path, report: Report) -> Result:
    """One selection.

    Raises:
        SelectionError: no candidate is trackable.
    """
    found = choose_set(task.demonstrations, task.candidates, config, report=report, checkpoints=work)
    return {"kept": task.candidates.ids[found.keep].tolist()}


def measure(
    task: Task, sets: npt.NDArray[np.bool_], config: SelectionConfig, work: Path, report: Report
) -> Result:
    """Mean held-out error of each of some sets."""
    errors = errors_of_sets(
        TrainingData.of(task.demonstrations),
        sets,
        task.candidates.uv_px,
        config.selector,
        AugmentationConfig(),
        config.choice.measure,
        seed=0,
        report=report,
        checkpoint=work / "errors.safetensors",
    )
    return {"errors": errors.mean(1).round(5).tolist()}


def refit(one: Selected, name: str, encoder: str, steps: int, work: Path, report: Report) -> Result:
    """A policy of another class on a set that was chosen, on the demonstrations that took no part in choosing."""
    demonstrations = [
        one.task.demonstrations[k].keypoints(one.keep) for k in range(len(one.task.demonstrations))
    ]
    return vars(
        train(name, encoder, demonstrations, one.task.candidates.uv_px[one.keep], steps, one.config.seed)
    )


def with_stages(
    task: Task, config: SelectionConfig, counts: Sequence[int], work: Path, report: Report
) -> Result:
    """For each number of learned stages: one set against sets that differ by stage (stages.py)."""
    found = choose_set(task.demonstrations, task.candidates, config, report=report, checkpoints=work / "one")
    training = TrainingData.of([task.demonstrations[i] for i in found.training], found.trackable)
    template_px = task.candidates.uv_px[found.trackable]
    trackable = found.trackability.score()[found.trackable]
    rows = []
    for count in counts:
        stage = learn_stages(training.robot, count, config.seed)
        checkpoints = work / f"stages_{count}"
        copies_px = np.tile(template_px, (count, 1))
        gated = choose_keypoints(
            staged(training, stage, count),
            None,
            copies_px,
            np.tile(trackable, count),
            float(np.hypot(task.candidates.image_width, task.candidates.image_height)),
            config.selector,
            config.augmentation,
            config.select,
            config.choice,
            seed=config.seed,
            report=report,
            checkpoints=checkpoints,
        )

        compared = compare_stages(
            training,
            found.choice.path,
            found.choice.knee,
            np.flatnonzero(gated.keep).tolist(),
            found.choice.parts,
            stage,
            config.choice.tolerance,
            partial(errors_of_copies, copies_px, config, checkpoints, report),
        )
        rows += [{"task": task.name, "stages": count, "seed": config.seed, **row} for row in compared.rows()]
    return {"rows": rows}


def errors_of_copies(
    copies_px: npt.NDArray[np.float32],
    config: SelectionConfig,
    work: Path,
    report: Report,
    data: TrainingData,
    sets: Sequence[Sequence[int]],
) -> Floats:
    """(G, F) held-out errors of sets of copies of the trackable candidates (stages.py), under imitated failures."""
    rows = np.zeros((len(sets), len(copies_px)), np.bool_)
    for row, indices in zip(rows, sets, strict=True):
        row[list(indices)] = True
    return errors_of_sets(
        data,
        rows,
        copies_px,
        config.selector,
        AugmentationConfig(),
        config.choice.measure,
        seed=config.seed,
        report=report,
        checkpoint=work / f"{digest(sets)}.safetensors",
    )


# --------------------------------------------------------------------------------------- the questions


def compare_with_published(
    bench: Bench,
    tasks: Sequence[Task],
    config: SelectionConfig,
    alphas: Sequence[float],
    benchmark: Path | None,
) -> Row:
    """The figures of one task, as in the last line of output; `tasks` has its tracks for each seed."""
    tried = {f"alpha {alpha:g}": published(config, alpha) for alpha in alphas}
    selected = bench.select(
        [
            (variant, task, _seeded(changed, seed))
            for variant, changed in {"automatic": config, **tried}.items()
            for seed, task in enumerate(tasks)
        ]
    )
    errors = bench.errors(selected, config)

    def of(variant: str) -> Row:
        mine = [k for k, one in enumerate(selected) if one.variant == variant]
        return {
            "kept": [selected[k].points for k in mine],
            "agreement": round(set_agreement([selected[k] for k in mine]), 3),
            "seconds": mean((selected[k].cost["seconds"] for k in mine), 1),
            "core_seconds": mean((selected[k].cost["core_seconds"] for k in mine), 1),
            "peak_memory_mb": max(selected[k].cost["peak_memory_mb"] for k in mine),
            "held_out_error": mean((errors[k] for k in mine), 4),
        }

    tuned = {variant: of(variant) for variant in tried}
    best = min(tuned, key=lambda variant: tuned[variant]["held_out_error"])
    return {
        **of("automatic"),
        "held_out_error_tuned": tuned[best]["held_out_error"],
        "kept_tuned": tuned[best]["kept"],
        "tuned": best,
        "published": tuned,
        **(closed_loop(benchmark, tasks[0].name) if benchmark else {"success": None}),
    }


def published(config: SelectionConfig, alpha: float = 0.002) -> SelectionConfig:
    """The published objective on the same candidates, measured in the same way."""
    choice = config.choice.model_copy(update={"objective": "published"})
    return SelectionConfig.published(alpha, policy=config.policy, candidates=config.candidates, choice=choice)


def variants(config: SelectionConfig) -> dict[str, SelectionConfig]:
    """The ablation of choosing: the default, the published objective, and between them one change at a time."""

    def select_with(**changes: Any) -> SelectionConfig:
        return config.model_copy(update={"select": config.select.model_copy(update=changes)})

    # Failures of tracker and camera; the arm's own noise is no matter of keypoints.
    kept = ("cluster_radius_px", "dropped_frames_max", "joint_noise_rad", "gripper_noise_m")
    perfect = {name: 0 for name in AugmentationConfig.model_fields if name not in kept}
    # As many points as otherwise can be chosen, though each is then a part.
    apart = {"merge": False, "parts_max": config.choice.keypoints_max}
    return {
        "default": config,
        "published": published(config),
        **{
            f"penalty {form}": select_with(penalty=PenaltyConfig.model_validate({"form": form}))
            for form in ("fixed", "constraint")
        },
        **{f"gates {name}": select_with(gates=name) for name in GATES if name != config.select.gates},
        "without cross-fitting": select_with(cross_fit=False),
        "without failures": config.model_copy(update={"augmentation": AugmentationConfig(**perfect)}),
        "without merging": config.model_copy(update={"choice": config.choice.model_copy(update=apart)}),
    }


def ablation(bench: Bench, tasks: Sequence[Task], config: SelectionConfig) -> dict[str, list[Row]]:
    """Of one task: a row per way to choose, and per policy class and encoder on what the default chose."""
    ways = variants(config)
    selected = bench.select(
        [
            (name, task, _seeded(changed, seed))
            for name, changed in ways.items()
            for seed, task in enumerate(tasks)
        ]
    )
    errors = bench.errors(selected, config)
    choosing = []
    for name in ways:
        mine = [k for k, one in enumerate(selected) if one.variant == name]
        choosing.append(
            {
                "task": tasks[0].name,
                "variant": name,
                "kept": [selected[k].points for k in mine],
                "agreement": round(set_agreement([selected[k] for k in mine]), 3),
                "held_out_error": mean((errors[k] for k in mine), 4),
                "core_seconds": mean((selected[k].cost["core_seconds"] for k in mine), 1),
            }
        )
    default = [one for one in selected if one.variant == "default"]
    classes = [(name, encoder) for name in POLICIES for encoder in ENCODERS]
    pieces = [
        Piece(
            digest(
                "refit",
                one.task.tracks,
                one.keep.tolist(),
                one.config.seed,
                name,
                encoder,
                config.refit.steps,
            ),
            f"{one.task.name}, {name} {encoder}, seed {one.config.seed}",
            partial(refit, one, name, encoder, config.refit.steps),
        )
        for name, encoder in classes
        for one in default
    ]
    trained = bench.done(pieces)
    policies = []
    for number, (name, encoder) in enumerate(classes):
        of_seeds = trained[number * len(default) : (number + 1) * len(default)]
        policies.append(
            {
                "task": tasks[0].name,
                "policy": name,
                "encoder": encoder,
                "joint_error_mrad": mean((one["joint_error_mrad"] for one in of_seeds), 2),
                "of_each_seed": [one["joint_error_mrad"] for one in of_seeds],
                "next_action_mrad": mean((one["first_mrad"] for one in of_seeds), 2),
                "core_seconds": mean((one["core_seconds"] for one in of_seeds), 1),
            }
        )
    return {"ablation": choosing, "policies": policies}


def with_strategy(config: SelectionConfig, strategy: str) -> SelectionConfig:
    """The same with other candidates."""
    proposed = config.candidates.model_copy(update={"strategy": strategy})
    return config.model_copy(update={"candidates": proposed})


def compare_strategies(
    bench: Bench, tasks_by_strategy: Mapping[str, Sequence[Task]], config: SelectionConfig
) -> list[Row]:
    """One row per strategy of one task: how many of its candidates can be tracked, and what becomes of them."""
    rows = []
    for strategy, tasks in tasks_by_strategy.items():
        changed = with_strategy(config, strategy)
        selected = bench.select([(strategy, task, _seeded(changed, k)) for k, task in enumerate(tasks)])
        rows.append(
            {
                "task": tasks[0].name,
                "strategy": strategy,
                "trackable": [len(task.parts[0]) for task in tasks],
                "kept": [one.points for one in selected],
                "agreement": round(set_agreement(selected), 3),
                # Other candidates are other tracks: the sets share the held-out demonstrations and the failures only.
                "held_out_error": mean(bench.errors(selected, changed), 4),
                "core_seconds": mean((one.cost["core_seconds"] for one in selected), 1),
            }
        )
    return rows


def stages(bench: Bench, tasks: Sequence[Task], config: SelectionConfig, counts: Sequence[int]) -> list[Row]:
    """Rows of one task: one set, and sets that differ by stage, for each seed."""
    pieces = [
        Piece(
            digest("stages", task.tracks, settings(config), seed, list(counts)),
            f"{task.name}, stages, seed {seed}",
            partial(with_stages, task, _seeded(config, seed), counts),
        )
        for seed, task in enumerate(tasks)
    ]
    return [row for result in bench.done(pieces) for row in result["rows"]]


# --------------------------------------------------------------------------------------------- command


def cell(value: Any) -> str:
    """An entry of a table."""
    if isinstance(value, list):
        return " ".join(map(cell, value))
    if isinstance(value, Mapping):  # success, see Driven.success
        low, high = value["interval"]
        return f"{value['successes']}/{value['episodes']} {value['success']:.2f} ({low:.2f} to {high:.2f})"
    return "" if value is None else str(value)


def markdown(rows: Sequence[Row]) -> str:
    """A table of rows with the same entries."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="bench_selection", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", type=Path, help="a folder of bags for each task")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/bench_selection"), help="(default: %(default)s)"
    )
    parser.add_argument("--benchmark", type=Path, help="folder of 'ros2 run atk_sim benchmark'")
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
        "--same-candidates", action="store_true", help="for every seed: quicker, and no independent runs"
    )
    parser.add_argument("--ablation", action="store_true", help="one change at a time")
    parser.add_argument(
        "--strategies", nargs="+", choices=list(STRATEGIES), help="compare ways to propose candidates"
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        type=int,
        metavar="N",
        help="compare one set with sets that differ by N learned stages",
    )
    parser.add_argument("--config", type=Path, help="settings (YAML) that differ from the defaults")
    parser.add_argument(
        "--workers", type=int, default=2, help="pieces of work at a time (default: %(default)s)"
    )
    args = parser.parse_args()
    folders = args.tasks or (recorded_tasks(args.benchmark) if args.benchmark else [])
    if not folders:
        parser.error("give folders of demonstrations, or --benchmark FOLDER with recorded tasks")
    torch.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(args.output, args.workers, args.same_candidates, lambda line: print(line, flush=True))
    try:
        tables, figures = answer(bench, folders, SelectionConfig.load(args.config), args)
    except USER_ERRORS as error:
        raise SystemExit(f"bench_selection: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("bench_selection: interrupted; give the same command again to continue") from None
    for rows in tables.values():
        print(f"\n{markdown(rows)}")
    print(json.dumps(figures))


def answer(
    bench: Bench, folders: Sequence[Path], config: SelectionConfig, args: argparse.Namespace
) -> tuple[dict[str, list[Row]], Any]:
    """Tables by name, and the figures of the last line."""
    seeds = args.seeds or (3 if args.ablation or args.strategies or args.stages else 5)
    tables: dict[str, list[Row]] = {}
    figures: Row = {}
    # One task after the other: their tracks together are too much for memory.
    for folder in folders:
        if args.strategies:
            by_strategy = {s: bench.tasks(folder, with_strategy(config, s), seeds) for s in args.strategies}
            found = {"strategies": compare_strategies(bench, by_strategy, config)}
        elif args.ablation:
            found = ablation(bench, bench.tasks(folder, config, seeds), config)
        elif args.stages:
            found = {"stages": stages(bench, bench.tasks(folder, config, seeds), config, args.stages)}
        else:
            tasks = bench.tasks(folder, config, seeds)
            figures[tasks[0].name] = compare_with_published(bench, tasks, config, args.alphas, args.benchmark)
            found = {"selection": [summary(tasks[0].name, figures[tasks[0].name])]}
        for name, rows in found.items():
            tables.setdefault(name, []).extend(rows)
        bench.write(tables)
    return tables, figures or tables


def summary(task: str, figures: Row) -> Row:
    """What a table shows of a task."""
    success = figures["success"] or {"auto": None, "tuned": None}
    tuned = success["tuned"]
    shown = ("kept", "agreement", "seconds", "core_seconds", "peak_memory_mb", "held_out_error")
    return {
        "task": task,
        **{name: figures[name] for name in shown},
        "select_seconds": figures.get("select_seconds"),
        "success": success["auto"],
        "success_tuned": tuned,
        "tuned_by_success": tuned and f"{tuned['method']}: {cell(tuned['points'])} points",
        "tuned_by_error": f"{figures['tuned']}: {cell(figures['kept_tuned'])} points",
        "held_out_error_tuned": figures["held_out_error_tuned"],
    }


if __name__ == "__main__":
    main()

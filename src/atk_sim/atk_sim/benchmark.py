"""Success of methods on tasks under disturbances: the paper's tables, in our simulator.

For every task the expert is recorded once, over ROS as a robot would be. Every method learns from those bags,
once per training seed, and then drives episodes in one process, rendered pixels through the real transfer and
tracker. Everything lies in the output folder and is done once: give the same command again to go on after an
interruption, or with more seeds, episodes or tasks to add to it.

    OUTPUT/TASK/demonstrations/         what was recorded
    OUTPUT/TASK/tracks/                 candidates in the demonstrations, for all methods
    OUTPUT/TASK/METHOD/seed_K/          what was learnt (for keypoint methods a run folder), and from what: learnt.json
    OUTPUT/TASK/METHOD/seed_K/episodes.jsonl    one line per episode; with --viewpoint episodes_VIEWPOINT.jsonl
    OUTPUT/TASK/METHOD/seed_K/videos/   a success and a failure of every column
    OUTPUT/report/                      tables and pictures of all that is there, whatever failed (see benchmark_report)

Nothing is added to what was learnt from other code, weights, settings or demonstrations: see --relearn.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from atk_perception.viewpoint import VIEWPOINTS
from atk_policy.closed_loop_results import wilson_interval
from atk_policy.json_lines import read_json_lines
from atk_policy.selection import SelectionConfig, SelectionError
from atk_policy.worker_processes import CONTEXT
from atk_sim import demo
from atk_sim.benchmark_cell import (
    DEMONSTRATIONS,
    RECORDED,
    RECORDING,
    SERVO_NOISE,
    Cell,
    recorded_bags,
    recorded_noise,
    run_cell,
    run_cell_over_ros,
)
from atk_sim.benchmark_plan import Block, bars
from atk_sim.benchmark_report import REPORT, write_benchmark_report
from atk_sim.benchmark_rows import NoEpisodesError
from atk_sim.disturbances import DISTURBANCES, Disturbance
from atk_sim.graph import GraphError, robot_file
from atk_sim.methods import METHODS
from atk_sim.provenance import LearntError
from atk_sim.tasks import TASKS

FIRST_REPORT_SEED = demo.FIRST_REPORT_SEED
FIRST_TUNING_SEED = 2_000
TRAINING_SEEDS, EPISODES_EACH = 3, 30
ERROR_TAIL = 600  # characters of a failed cell's error that are shown


# ---------------------------------------------------------------------------------------------- stages


def record_missing(cells: Sequence[Cell], workers: int, domain_id: int) -> None:
    """Record every task's demonstrations, those that are not there yet; what the expert fails at is made up for.

    Raises:
        LearntError: some are there, recorded with other servo noise, or the expert hardly ever succeeds.
        GraphError: a node failed.
    """
    for folder, cell in {cell.recordings: cell for cell in cells}.items():
        tried, seeds, wanted = 0, cell.demonstrations, cell.demonstrations
        while (kept := len(recorded_bags(folder))) < wanted:
            if kept and recorded_noise(folder) != cell.servo_noise:
                raise LearntError(
                    f"{folder} holds {kept} of {wanted} demonstrations, recorded with servo noise {recorded_noise(folder):g}; "
                    f"those that are missing would have {cell.servo_noise:g}. Give another --output"
                )
            if tried >= 2 * wanted:
                raise LearntError(
                    f"{cell.task}: the expert succeeded in {kept} of {tried} seeds, and {wanted} demonstrations are asked for; "
                    f"look at 'expert --task {cell.task}'"
                )
            folder.mkdir(parents=True, exist_ok=True)
            (folder / RECORDED).unlink(missing_ok=True)
            (folder / RECORDING).write_text(json.dumps({"servo_noise": cell.servo_noise}) + "\n")
            arguments = ["--task", cell.task, "--demonstrations", str(seeds), "--workers", str(workers)]
            arguments += ["--servo-noise", str(cell.servo_noise)]
            demo.record(demo.parse_arguments(arguments), robot_file("sim_panda"), folder, domain_id)
            tried, seeds = seeds, seeds + wanted - len(recorded_bags(folder))
        if not (folder / RECORDED).is_file():
            (folder / RECORDED).write_text(json.dumps({"demonstrations": kept}) + "\n")


def run_cells(cells: Sequence[Cell], workers: int) -> list[str]:
    """Learn and drive in parallel; returns one line per cell that failed, the others are finished."""
    total = sum(len(cell.seeds) * len(cell.disturbances) for cell in cells)

    def count() -> int:
        return total - sum(len(cell.missing()) for cell in cells)

    failed: list[str] = []
    waiting, running = list(cells), dict[Future[None], Cell]()
    # A process per cell: it runs the code that its learnt.json then names, also where somebody edits that code meanwhile.
    with (
        ProcessPoolExecutor(workers, CONTEXT, max_tasks_per_child=1) as pool,
        tqdm(total=total, initial=count(), desc="benchmark", unit="episode", file=sys.stderr) as bar,
    ):
        while waiting or running:
            for cell in next_cells(waiting, list(running.values()), workers):
                waiting.remove(cell)
                running[pool.submit(run_cell, cell)] = cell
            done, _ = wait(running, timeout=2.0, return_when=FIRST_COMPLETED)
            for job in done:
                cell, error = running.pop(job), job.exception()
                if error is not None:
                    line = f"{cell.name}: {error}"[:ERROR_TAIL]
                    failed.append(line)
                    tqdm.write(line, file=sys.stderr)
            bar.update(count() - bar.n)
    return failed


def next_cells(waiting: Sequence[Cell], running: Sequence[Cell], workers: int) -> list[Cell]:
    """Which cells to begin now: the first ones that would not wait for another that is before them."""
    chosen: list[Cell] = []
    for place, cell in enumerate(waiting):
        ahead = {other.folder for other in (*running, *waiting[:place])}
        free = not ahead & {cell.folder, *(needed.folder for needed in cell.needed())}
        if free and len(running) + len(chosen) < workers:
            chosen.append(cell)
    return chosen


def summary(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Successes by task, method, column and training seed."""
    rows = []
    for cell in cells:
        wanted = set(cell.seeds)
        episodes = [row for row in read_json_lines(cell.episodes) if row["seed"] in wanted]
        for disturbance in cell.disturbances:
            mine = [row for row in episodes if row["disturbance"] == disturbance]
            rows.append(
                {
                    "task": cell.task,
                    "method": cell.method,
                    "column": disturbance,
                    "training_seed": cell.training_seed,
                    "successes": sum(row["success"] for row in mine),
                    "episodes": len(mine),
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text: training seeds put together, with 95% intervals."""
    lines = [f"{'task':<16}{'method':<12}{'column':<14}{'success':>10}   95% interval"]
    keys = list(dict.fromkeys((row["task"], row["method"], row["column"]) for row in rows))
    for key in keys:
        mine = [row for row in rows if (row["task"], row["method"], row["column"]) == key]
        successes, episodes = (sum(row[name] for row in mine) for name in ("successes", "episodes"))
        low, high = wilson_interval(successes, episodes)
        task, method, column = key
        lines.append(
            f"{task:<16}{method:<12}{column:<14}{successes:4d}/{episodes:<4d} {successes / max(1, episodes):5.2f}"
            f"   {low:.2f} to {high:.2f}"
        )
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------- command


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: benchmark --task sushi --method atk --training-seeds 3 --episodes 30",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"), help="default: %(default)s")
    parser.add_argument(
        "--plan",
        choices=("bars",),
        help="all that the benchmark's bars ask for, the most telling first: the paper's tasks, methods and columns, and curves "
        "over severity (benchmark_plan.py); --task, --method and --column then leave out the others",
    )
    parser.add_argument(
        "--task", action="append", choices=sorted(TASKS), help="may be repeated (default: all)"
    )
    parser.add_argument(
        "--method",
        action="append",
        choices=list(METHODS),
        help="may be repeated (default: all that can be used)",
    )
    parser.add_argument(
        "--column",
        action="append",
        type=_disturbance,
        metavar="NAME[:SEVERITY]",
        help=f"may be repeated (default: {' '.join(DISTURBANCES)})",
    )
    parser.add_argument(
        "--training-seeds", type=int, default=None, help=f"0 to N-1 (default: {TRAINING_SEEDS})"
    )
    parser.add_argument("--episodes", type=int, default=None, help=f"per column (default: {EPISODES_EACH})")
    parser.add_argument(
        "--demonstrations",
        type=int,
        default=DEMONSTRATIONS,
        help="expert episodes, the same number for every task (default: %(default)s)",
    )
    parser.add_argument(
        "--servo-noise", type=float, default=SERVO_NOISE, help="while recording (default: %(default)s)"
    )
    parser.add_argument(
        "--selection",
        type=Path,
        default=None,
        help="settings (YAML) of selection and training, for all tasks",
    )
    parser.add_argument(
        "--relearn",
        action="store_true",
        help="learn and drive anew what was learnt from something else; its episodes are deleted",
    )
    parser.add_argument(
        "--tuning",
        action="store_true",
        help=f"drive seeds from {FIRST_TUNING_SEED}, for trying things out; "
        f"those from {FIRST_REPORT_SEED} are for reports and nothing may be tuned on them",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)"
    )
    parser.add_argument(
        "--viewpoint",
        choices=VIEWPOINTS,
        default="none",
        help="reproject keypoints into the camera of the demonstrations, by the robot's work_plane or by depth images; "
        "for column camera (default: %(default)s)",
    )
    parser.add_argument(
        "--ros",
        action="store_true",
        help="drive over ROS, through separate node processes (slower; only for methods with keypoints)",
    )
    args = parser.parse_args(arguments)
    if args.plan and (args.training_seeds is not None or args.episodes is not None):
        parser.error(
            f"--plan {args.plan} says how many training seeds and episodes there are; leave --training-seeds and --episodes out"
        )
    for name in args.method or ():
        if missing := METHODS[name].available():
            parser.error(f"method {name} cannot be used: {missing}")
    return args


def _disturbance(text: str) -> str:
    try:
        Disturbance.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def left_out() -> dict[str, str]:
    """Methods that cannot be used here, and why."""
    reasons = {name: method.available() for name, method in METHODS.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """What the command line asks for. Training seeds come last, so that an interrupted run has every method once.

    Raises:
        SelectionError: the settings cannot be read.
    """
    first = FIRST_TUNING_SEED if args.tuning else FIRST_REPORT_SEED
    settings = SelectionConfig.load(args.selection)
    usable = tuple(name for name in METHODS if name not in left_out())
    if args.plan:
        blocks = [block.only(args.task, args.method, args.column) for block in bars(usable)]
    else:
        blocks = [
            Block(
                tuple(args.task or sorted(TASKS)),
                tuple(args.method or usable),
                tuple(args.column or DISTURBANCES),
                tuple(range(TRAINING_SEEDS if args.training_seeds is None else args.training_seeds)),
                EPISODES_EACH if args.episodes is None else args.episodes,
            )
        ]
    return [
        Cell(
            args.output.resolve(),
            task,
            method,
            training_seed,
            block.columns,
            tuple(range(first, first + block.episodes)),
            args.demonstrations,
            args.servo_noise,
            settings,
            args.viewpoint,
            args.relearn,
        )
        for block in blocks
        for training_seed in block.training_seeds
        for method in block.methods
        for task in block.tasks
        if block.columns
    ]


def run(cells: Sequence[Cell], workers: int, *, ros: bool = False) -> list[str]:
    """Everything that is missing; returns one line per cell that failed.

    Raises:
        GraphError: a node of a graph failed.
        LearntError: see `record_missing`.
    """
    domain_id = int(os.environ.get("ROS_DOMAIN_ID") or 10 + os.getpid() % 80)
    record_missing(cells, workers, domain_id)
    if not ros:
        return run_cells(cells, workers)
    failed = run_cells([replace(cell, seeds=()) for cell in cells], workers)
    for cell in cells:
        run_cell_over_ros(cell, domain_id)
    return failed


def main() -> None:
    """Console entry; the last line of standard output is JSON; exit status 1 where a cell failed."""
    args = parse_arguments()
    unusable = {} if args.method else left_out()
    for name, reason in unusable.items():
        print(f"without {name}: {reason}", file=sys.stderr)
    try:
        cells = cells_of(args)
        failed = run(cells, args.workers, ros=args.ros)
    except (GraphError, LearntError, SelectionError) as error:
        raise SystemExit(f"benchmark: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("benchmark: interrupted; give the same command again to continue") from None
    rows = summary(cells)
    print(table(rows))
    for line in failed:
        print(f"failed: {line}")
    result: dict[str, Any] = {"cells": len(rows), "failed": failed, "left_out": sorted(unusable)}
    if not args.tuning:
        folder = args.output / REPORT
        try:
            write_benchmark_report(args.output, folder, " ".join(["benchmark", *sys.argv[1:]]))
            result["report"] = str(folder)
        except (NoEpisodesError, LearntError) as error:
            print(f"no report: {error}")
    print(json.dumps(result))
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""Success of methods on tasks under disturbances: the paper's tables, in our simulator.

For every task the expert is recorded once, over ROS as a robot would be. Every method learns from those bags,
once per training seed, and then drives episodes in one process, rendered pixels through the real transfer and
tracker. Everything lies in the output folder and is done once: give the same command again to go on after an
interruption, or with more seeds, episodes or tasks to add to it.

    OUTPUT/TASK/demonstrations/         what was recorded
    OUTPUT/TASK/tracks/                 candidates in the demonstrations, for all methods
    OUTPUT/TASK/METHOD/seed_K/          what was learnt (for keypoint methods a run folder)
    OUTPUT/TASK/METHOD/seed_K/episodes.jsonl    one line per episode; with --viewpoint episodes_VIEWPOINT.jsonl
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import torch
from tqdm import tqdm

from atk_perception.image_codec import RgbImage
from atk_perception.overlay import Overlay
from atk_perception.robot_description import RobotDescription
from atk_perception.viewpoint import VIEWPOINTS
from atk_sim import demo
from atk_sim.closed_loop_node import Episode
from atk_sim.disturbances import DISTURBANCES, Disturbance
from atk_sim.graph import GraphError, robot_file
from atk_sim.methods import METHODS, make_method
from atk_sim.methods.protocol import Lesson
from atk_sim.rollout import Agent, AgentStep, run_episode
from atk_sim.simulation import Simulation
from atk_sim.statistics import wilson_interval
from atk_sim.tasks import TASKS

EPISODES = "episodes.jsonl"
LEARNT = "learnt.json"
# The one thing that differs between tasks, as in the paper (30 to 80): how many demonstrations there are to learn from.
DEMONSTRATIONS = 50
TASK_DEMONSTRATIONS = {"sushi": 80}  # where the piece lies and how it is turned
FIRST_REPORT_SEED = demo.FIRST_REPORT_SEED
FIRST_TUNING_SEED = 2_000
ERROR_TAIL = 600  # characters of a failed cell's error that are shown


@dataclass(frozen=True)
class Cell:
    """One method, trained once on one task, and the episodes that it is to drive."""

    output: Path
    task: str
    method: str
    training_seed: int
    disturbances: tuple[str, ...]
    seeds: tuple[int, ...]
    servo_noise: float
    videos: bool = False
    viewpoint: str = "none"

    @property
    def episodes(self) -> Path:
        """What came of its episodes."""
        return self.folder / (EPISODES if self.viewpoint == "none" else f"episodes_{self.viewpoint}.jsonl")

    @property
    def demonstrations(self) -> Path:
        """Where the task's bags are."""
        return self.output / self.task / "demonstrations"

    @property
    def folder(self) -> Path:
        """Where the method learns into."""
        return self.output / self.task / self.method / f"seed_{self.training_seed}"

    def lesson(self) -> Lesson:
        """What the method learns from."""
        bags = sorted(path.parent for path in self.demonstrations.glob("episode_*/metadata.yaml"))
        seeds = [int(bag.name.removeprefix("episode_")) for bag in bags]
        robot = RobotDescription.load(robot_file("sim_panda"))
        tracks = self.output / self.task / "tracks"
        return Lesson(self.task, robot, bags, seeds, self.servo_noise, tracks, self.viewpoint)

    def missing(self) -> list[tuple[str, int]]:
        """Episodes that were not driven yet; seeds first, so that an interrupted run has some of every column."""
        done = {(row["disturbance"], row["seed"]) for row in read_episodes(self.episodes)}
        wanted = [(disturbance, seed) for seed in self.seeds for disturbance in self.disturbances]
        return [entry for entry in wanted if entry not in done]


def read_episodes(path: Path) -> list[dict[str, Any]]:
    """Lines of an episodes file; one that a kill cut short does not count."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def run_cell(cell: Cell) -> None:
    """Learn, then drive what is missing. Runs in a process of its own, on one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    method, lesson = make_method(cell.method), cell.lesson()
    learnt = cell.folder / LEARNT
    if not learnt.is_file():
        started = time.monotonic()
        cell.folder.mkdir(parents=True, exist_ok=True)
        method.train(lesson, cell.training_seed, cell.folder)
        learnt.write_text(
            json.dumps({"demonstrations": len(lesson.bags), "seconds": round(time.monotonic() - started, 1)})
        )
    if not cell.missing() and not cell.videos:
        return
    simulation = Simulation(lesson.robot)
    try:
        agent = method.agent(lesson, cell.folder, simulation)
        for disturbance, seed in cell.missing():
            outcome = run_episode(simulation, agent, cell.task, disturbance, seed)
            _append(cell, asdict(outcome))
        if cell.videos:
            film(cell, simulation, agent)
    finally:
        simulation.close()


def film(cell: Cell, simulation: Simulation, agent: Agent) -> None:
    """Drive the first success and the first failure of every column once more, and write videos of them."""
    folder = cell.folder / cell.episodes.stem.replace("episodes", "videos")
    folder.mkdir(exist_ok=True)
    rows = [row for row in read_episodes(cell.episodes) if row["seed"] in cell.seeds]
    for disturbance in cell.disturbances:
        for outcome, wanted in (("success", True), ("failure", False)):
            stem = folder / f"{disturbance.replace(':', '_')}_{outcome}"
            seeds = [r["seed"] for r in rows if r["disturbance"] == disturbance and r["success"] is wanted]
            if not seeds or stem.with_suffix(".mp4").is_file():
                continue
            video, overlay = demo.RolloutVideo(), Overlay()

            def add(
                image: RgbImage,
                step: AgentStep,
                video: demo.RolloutVideo = video,
                overlay: Overlay = overlay,
            ) -> None:
                video.add(image if step.seen is None else overlay.draw(image, step.seen))

            run_episode(simulation, agent, cell.task, disturbance, min(seeds), add)
            video.save(stem)


def _append(cell: Cell, outcome: dict[str, Any]) -> None:
    path = cell.episodes
    cut_short = path.is_file() and not path.read_bytes().endswith(b"\n")
    row = {"method": cell.method, "training_seed": cell.training_seed, **outcome}
    with path.open("a") as lines:
        lines.write(("\n" if cut_short else "") + json.dumps(row) + "\n")


def run_cell_over_ros(cell: Cell, domain_id: int) -> None:
    """The same episodes through separate node processes; only for methods that leave a run folder."""
    path = robot_file("sim_panda")
    args = demo.parse_arguments(["--task", cell.task])
    with demo.Graph(
        cell.folder / "logs",
        domain_id,
        lambda nodes: demo.start_run(nodes, args, path, cell.folder, cell.viewpoint),
    ) as client:
        for disturbance, seed in cell.missing():
            episode: Episode = client.run_policy(cell.task, disturbance, seed)
            row = {key: value for key, value in asdict(episode).items() if key != "inference_ms"}
            _append(cell, {**row, "cause": episode.cause})


# ---------------------------------------------------------------------------------------------- stages


def record_missing(cells: list[Cell], demonstrations: int | None, workers: int, domain_id: int) -> None:
    """Record every task's demonstrations, those that are not there yet; None: as many as the task is given."""
    given = demonstrations
    for task, folder in sorted({(cell.task, cell.demonstrations) for cell in cells}):
        demonstrations = given or TASK_DEMONSTRATIONS.get(task, DEMONSTRATIONS)
        marker = folder / "recorded.json"
        if marker.is_file() and json.loads(marker.read_text())["demonstrations"] >= demonstrations:
            continue
        arguments = ["--task", task, "--demonstrations", str(demonstrations), "--workers", str(workers)]
        arguments += ["--servo-noise", str(cells[0].servo_noise)]
        kept = demo.record(demo.parse_arguments(arguments), robot_file("sim_panda"), folder, domain_id)
        marker.write_text(json.dumps({"demonstrations": demonstrations, "kept": len(kept)}))


def run_cells(cells: list[Cell], workers: int) -> list[str]:
    """Learn and drive in parallel; returns one line per cell that failed, the others are finished."""
    total = sum(len(cell.seeds) * len(cell.disturbances) for cell in cells)

    def count() -> int:
        return total - sum(len(cell.missing()) for cell in cells)

    failed: list[str] = []
    # spawn: a forked copy of a process with ROS or torch threads can deadlock.
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, context) as pool,
        tqdm(total=total, initial=count(), desc="benchmark", unit="episode", file=sys.stderr) as bar,
    ):
        jobs: dict[Future[None], Cell] = {pool.submit(run_cell, cell): cell for cell in cells}
        waiting = set(jobs)
        while waiting:
            done, waiting = wait(waiting, timeout=2.0, return_when=FIRST_COMPLETED)
            for job in done:
                error = job.exception()
                if error is not None:
                    cell = jobs[job]
                    line = f"{cell.task} {cell.method} seed {cell.training_seed}: {error}"[:ERROR_TAIL]
                    failed.append(line)
                    tqdm.write(line, file=sys.stderr)
            bar.update(count() - bar.n)
    return failed


def summary(cells: list[Cell]) -> list[dict[str, Any]]:
    """Successes by task, method, column and training seed."""
    rows = []
    for cell in cells:
        wanted = set(cell.seeds)
        episodes = [row for row in read_episodes(cell.episodes) if row["seed"] in wanted]
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
        "--task", action="append", choices=sorted(TASKS), help="may be repeated (default: all)"
    )
    parser.add_argument(
        "--method",
        action="append",
        choices=list(METHODS),
        help="may be repeated (default: all that are configured)",
    )
    parser.add_argument(
        "--column",
        action="append",
        type=_disturbance,
        metavar="NAME[:SEVERITY]",
        help=f"may be repeated (default: {' '.join(DISTURBANCES)})",
    )
    parser.add_argument("--training-seeds", type=int, default=3, help="0 to N-1 (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=30, help="per column (default: %(default)s)")
    parser.add_argument(
        "--demonstrations",
        type=int,
        default=None,
        help=f"expert episodes per task (default: {DEMONSTRATIONS}; "
        + ", ".join(f"{task} {count}" for task, count in TASK_DEMONSTRATIONS.items())
        + ")",
    )
    parser.add_argument(
        "--servo-noise", type=float, default=1.0, help="while recording (default: %(default)s)"
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
        "--videos", action="store_true", help="of the first success and the first failure of every cell"
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
    return parser.parse_args(arguments)


def _disturbance(text: str) -> str:
    try:
        Disturbance.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """What the command line asks for. Training seeds come last, so that an interrupted run has every method once."""
    first = FIRST_TUNING_SEED if args.tuning else FIRST_REPORT_SEED
    return [
        Cell(
            args.output.resolve(),
            task,
            method,
            training_seed,
            tuple(args.column or DISTURBANCES),
            tuple(range(first, first + args.episodes)),
            args.servo_noise,
            args.videos,
            args.viewpoint,
        )
        for training_seed in range(args.training_seeds)
        for method in args.method or [name for name in METHODS if not METHODS[name].available()]
        for task in args.task or sorted(TASKS)
    ]


def run(cells: list[Cell], demonstrations: int | None, workers: int, *, ros: bool = False) -> list[str]:
    """Everything that is missing; returns one line per cell that failed.

    Raises:
        GraphError: a node of a graph failed.
    """
    domain_id = int(os.environ.get("ROS_DOMAIN_ID") or 10 + os.getpid() % 80)
    record_missing(cells, demonstrations, workers, domain_id)
    if not ros:
        return run_cells(cells, workers)
    failed = run_cells([replace(cell, seeds=()) for cell in cells], workers)
    for cell in cells:
        run_cell_over_ros(cell, domain_id)
    return failed


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    args = parse_arguments()
    cells = cells_of(args)
    try:
        failed = run(cells, args.demonstrations, args.workers, ros=args.ros)
    except GraphError as error:
        raise SystemExit(f"benchmark: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("benchmark: interrupted; give the same command again to continue") from None
    rows = summary(cells)
    (args.output / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))
    print(json.dumps({"cells": len(rows), "failed": failed, "results": str(args.output / "results.json")}))
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""The whole method on one task: record an expert, select keypoints, run the policy, count successes.

Every stage goes through the graph of separate node processes that a robot would run; only the
robot is simulated. Several graphs run side by side, one per core, each in a DDS domain of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ament_index_python.packages import get_package_share_directory
from tqdm import tqdm

from atk_perception.image_codec import RgbImage
from atk_perception.keypoint_set import KeypointSet
from atk_perception.recording import UNFINISHED_SUFFIX
from atk_perception.robot_description import RobotDescription
from atk_perception.video import VideoWriter
from atk_policy.closed_loop_results import wilson_interval
from atk_policy.json_lines import append_json_line
from atk_sim.closed_loop_node import ClosedLoopClient
from atk_sim.graph import GraphError, NodeGraph, executable_path, robot_file
from atk_sim.judging import Episode, Referee
from atk_sim.rollout import Outcome

COLUMNS = ("RP", "RB", "RO", "Light")
# Demonstrations use seeds from 0; results are reported on seeds that nothing was tuned on.
FIRST_REPORT_SEED = 10_000
VIDEO_RATE_HZ = 20
# A machine that is busy with something else may lose a message; the same seed gives the same episode again.
RECORDING_TRIES = 3
# A service answer can get lost on a machine that is busy with something else (seen once in some hundred episodes).
GRAPH_RESTARTS = 3


class RolloutVideo:
    """Collects overlay images of one episode and writes an MP4 and a contact sheet."""

    def __init__(self) -> None:
        self._images: list[RgbImage] = []

    def add(self, image_rgb: RgbImage) -> None:
        """One overlay image."""
        self._images.append(image_rgb)

    def save(self, stem: Path) -> None:
        """Write STEM.mp4 (H.264, plays in a browser) and STEM.png (eight moments)."""
        if not self._images:
            return
        height, width = self._images[0].shape[:2]
        with VideoWriter(stem.with_suffix(".mp4"), VIDEO_RATE_HZ) as video:
            for image in self._images:
                video.add(image)
        moments = np.linspace(0, len(self._images) - 1, 8).astype(int)
        small = [
            cv2.resize(self._images[k], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            for k in moments
        ]
        sheet = np.vstack([np.hstack(small[:4]), np.hstack(small[4:])])
        cv2.imwrite(f"{stem}.png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def in_parallel(
    workers: int,
    items: Iterable[Any],
    open_worker: Callable[[int], Any],
    work: Callable[[Any, Any], Any],
    title: str,
    unit: str,
) -> list[Any]:
    """Run `work(worker, item)` over items on several graphs; `open_worker(i)` gives a context manager.

    Results come back in the order of the items. The first error ends all workers and is raised.
    """
    todo: queue.Queue[tuple[int, Any]] = queue.Queue()
    for entry in enumerate(items):
        todo.put(entry)
    results: dict[int, Any] = {}
    errors: list[BaseException] = []
    bar = tqdm(total=todo.qsize(), desc=title, unit=unit, file=sys.stderr)

    def run(index: int) -> None:
        entry: tuple[int, Any] | None = None
        restarts = 0
        try:
            while not errors:
                with open_worker(index) as worker:
                    try:
                        while not errors:
                            entry = entry or todo.get_nowait()
                            results[entry[0]] = work(worker, entry[1])
                            entry = None
                            bar.update()
                    except GraphError as error:
                        restarts += 1
                        if restarts > GRAPH_RESTARTS:
                            raise
                        tqdm.write(f"{error}; starting the graph anew", file=sys.stderr)
        except queue.Empty:
            pass
        except BaseException as error:  # handed to the caller below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bar.close()
    if errors:
        raise errors[0]
    return [results[number] for number in sorted(results)]


class Graph:
    """Nodes of one worker with a client that talks to them."""

    def __init__(self, folder: Path, domain_id: int, start: Callable[[NodeGraph], None]) -> None:
        self._nodes = NodeGraph(folder, domain_id)
        self._start = start

    def __enter__(self) -> ClosedLoopClient:
        self._start(self._nodes)
        try:
            self._client = ClosedLoopClient(self._nodes)
        except BaseException:
            self._nodes.close()
            raise
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._nodes.close()


def record(args: argparse.Namespace, robot: Path, folder: Path, domain_id: int) -> list[Path]:
    """Record expert demonstrations (RP only) as MCAP bags; returns their folders."""

    def start(nodes: NodeGraph) -> None:
        nodes.start(
            "atk_sim", "sim_robot_node", {**_sim_parameters(args, robot), "servo_noise": args.servo_noise}
        )
        recorded = {
            "robot": str(robot),
            "output": str(folder),
            "extra_topics": ["sim/episode"],
            "use_sim_time": True,
        }
        nodes.start("atk_perception", "record_node", recorded)

    kept: list[Path] = []

    def work(client: ClosedLoopClient, seed: int) -> None:
        name = f"episode_{seed:04d}"
        if (folder / name / "metadata.yaml").is_file():  # of a recording that was interrupted
            kept.append(folder / name)
            return
        shutil.rmtree(
            folder / f"{name}{UNFINISHED_SUFFIX}", ignore_errors=True
        )  # of a graph that was started anew
        for _ in range(RECORDING_TRIES):
            success, message = client.record_expert(args.task, "RP", seed, name)
            if not success:
                tqdm.write(f"seed {seed}: the expert failed, discarded", file=sys.stderr)
                return
            if "WITH PROBLEMS" not in message:
                kept.append(folder / name)
                return
            tqdm.write(f"seed {seed}: {message}; recorded again", file=sys.stderr)
            shutil.rmtree(folder / name)
        raise GraphError(f"demonstration {name} had problems {RECORDING_TRIES} times; is the disk too slow?")

    _on_graphs(
        args,
        folder.parent / "logs" / "record",
        domain_id,
        start,
        work,
        range(args.demonstrations),
        "record",
        "demo",
    )
    return sorted(kept)


def select(args: argparse.Namespace, robot: Path, demonstrations: Path, run_folder: Path) -> dict[str, Any]:
    """Run the offline selection as a person would; returns its metrics."""
    command = [str(executable_path("atk_policy", "select")), str(demonstrations), "--output", str(run_folder)]
    command += ["--robot", str(robot)]
    if args.selection:
        command += ["--config", str(args.selection)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    metrics: dict[str, Any] = json.loads((run_folder / "report" / "metrics.json").read_text())
    return metrics


def small_run(folder: Path, robot: Path, demonstrations: int, domain_id: int) -> Path:
    """A run folder from a few demonstrations, made once: for benchmarks that need a policy, not a good one."""
    run = folder / "run"
    if not (run / "policy.safetensors").is_file():
        shutil.rmtree(folder / "demonstrations", ignore_errors=True)
        settings = Path(get_package_share_directory("atk_sim")) / "config" / "quick_selection.yaml"
        arguments = [
            "--demonstrations",
            str(demonstrations),
            "--robot",
            str(robot),
            "--selection",
            str(settings),
        ]
        args = parse_arguments(arguments)
        record(args, robot, folder / "demonstrations", domain_id)
        select(args, robot, folder / "demonstrations", run)
    return run


def start_run(
    nodes: NodeGraph, args: argparse.Namespace, robot: Path, run_folder: Path, viewpoint: str = "none"
) -> None:
    """The nodes that a run folder drives the simulated robot with.

    Args:
        viewpoint: of the tracker; the simulator says where its camera stands.
    """
    image_topic = RobotDescription.load(robot).camera.image_topic
    reliable = {f"qos_overrides./{image_topic}.subscription.reliability": "reliable"}
    run = {"run_folder": str(run_folder), "use_sim_time": True}
    nodes.start("atk_sim", "sim_robot_node", _sim_parameters(args, robot))
    view = {"viewpoint": viewpoint, "robot": str(robot), "pose_from": "topic"}
    nodes.start("atk_perception", "tracker_node", {**run, **reliable, **view})
    nodes.start("atk_policy", "policy_node", {**run, "robot": str(robot)})


def evaluate(
    args: argparse.Namespace,
    robot: Path,
    run_folder: Path,
    folder: Path,
    domain_id: int,
    template_seed: int = 0,
) -> list[Outcome]:
    """Closed-loop episodes in every column; writes episodes.jsonl and one video a column.

    Args:
        template_seed: of the first demonstration, for telling why episodes failed.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def start(nodes: NodeGraph) -> None:
        start_run(nodes, args, robot, run_folder)

    def work(client: ClosedLoopClient, item: tuple[str, int]) -> Episode:
        column, seed = item
        video = RolloutVideo() if seed == FIRST_REPORT_SEED else None
        if video is not None:
            client.watch_overlay(video.add)
        episode = client.run_policy(args.task, column, seed)
        if video is not None:
            client.unwatch_overlay()
            video.save(folder / f"rollout_{column}_{'success' if episode.success else 'failure'}")
        return episode

    items = [(column, FIRST_REPORT_SEED + k) for k in range(args.episodes) for column in COLUMNS]
    episodes = _on_graphs(args, folder / "logs", domain_id, start, work, items, "evaluate", "episode")
    description = RobotDescription.load(robot)
    with closing(Referee(description, KeypointSet.load(run_folder), args.task, template_seed)) as referee:
        outcomes = [referee.outcome(episode) for episode in episodes]
    for outcome in outcomes:
        append_json_line(folder / "episodes.jsonl", asdict(outcome))
    return outcomes


def _on_graphs(
    args: argparse.Namespace,
    logs: Path,
    domain_id: int,
    start: Callable[[NodeGraph], None],
    work: Callable[[ClosedLoopClient, Any], Any],
    items: Iterable[Any],
    title: str,
    unit: str,
) -> list[Any]:
    def open_worker(index: int) -> Graph:
        return Graph(logs / f"graph_{index}", domain_id + index, start)

    return in_parallel(args.workers, items, open_worker, work, title, unit)


def _sim_parameters(args: argparse.Namespace, robot: Path) -> dict[str, Any]:
    return {
        "task": args.task,
        "robot": str(robot),
        "lockstep": True,
        "wait_for_reset": True,
        "real_time_factor": 0.0,
    }


def table(episodes: list[Outcome]) -> tuple[str, dict[str, float]]:
    """The result as text, and the success rate of each column."""
    rates: dict[str, float] = {}
    lines = ["disturbance   success          95% interval    failures"]
    for column in COLUMNS:
        mine = [episode for episode in episodes if episode.disturbance == column]
        successes = sum(episode.success for episode in mine)
        low, high = wilson_interval(successes, len(mine))
        causes = [episode.cause for episode in mine if episode.cause]
        why = ", ".join(f"{causes.count(cause)} {cause}" for cause in sorted(set(causes))) or "none"
        rates[column] = round(successes / max(1, len(mine)), 4)
        lines.append(
            f"{column:<11} {successes:3d} of {len(mine):<3d} {rates[column]:5.2f}    {low:.2f} to {high:.2f}    {why}"
        )
    return "\n".join(lines), rates


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: demo --output runs/demo --demonstrations 50 --episodes 20",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/demo"), help="folder for everything; it is replaced"
    )
    parser.add_argument("--task", default="sushi", help="task of atk_sim (default: %(default)s)")
    parser.add_argument(
        "--demonstrations", type=int, default=50, help="expert episodes to record (default: %(default)s)"
    )
    parser.add_argument(
        "--episodes", type=int, default=20, help="closed-loop episodes per disturbance (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(2, os.cpu_count() or 1),
        help="graphs side by side (default: %(default)s)",
    )
    parser.add_argument(
        "--servo-noise",
        type=float,
        default=1.0,
        help="plant disturbance while recording, 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--selection", type=Path, default=None, help="selection settings (YAML) that differ from the defaults"
    )
    parser.add_argument(
        "--robot", type=Path, default=None, help="robot description (default: the simulated Panda)"
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    args = parse_arguments()
    robot = args.robot or robot_file("sim_panda")
    # A domain of our own, so that demonstrations side by side do not hear each other.
    domain_id = int(os.environ.get("ROS_DOMAIN_ID") or 10 + os.getpid() % 80)
    output: Path = args.output
    if output.exists():
        shutil.rmtree(output)
    output.mkdir(parents=True)
    seconds: dict[str, float] = {}
    try:
        started = time.monotonic()
        demonstrations = record(args, robot, output / "demonstrations", domain_id)
        seconds["record"] = time.monotonic() - started

        started = time.monotonic()
        metrics = select(args, robot, output / "demonstrations", output / "run")
        seconds["select"] = time.monotonic() - started

        started = time.monotonic()
        first_seed = int(demonstrations[0].name.removeprefix("episode_"))
        episodes = evaluate(args, robot, output / "run", output / "evaluation", domain_id, first_seed)
        seconds["evaluate"] = time.monotonic() - started
    except GraphError as error:
        raise SystemExit(f"demo: {error}") from error
    text, rates = table(episodes)
    (output / "evaluation" / "table.txt").write_text(text + "\n")
    print(f"\n{args.task}, {len(demonstrations)} demonstrations, ", end="")
    print(f"{metrics['keypoints_kept']} of {metrics['keypoints_candidates']} keypoints kept\n\n{text}\n")
    print(
        f"pictures: {output / 'run' / 'report' / 'index.html'}\nvideos:   {output / 'evaluation'}/rollout_*.mp4\n"
    )
    summary = {
        "success": rates,
        "episodes": args.episodes,
        "keypoints_kept": metrics["keypoints_kept"],
        "keypoints_candidates": metrics["keypoints_candidates"],
        "seconds": {stage: round(value, 1) for stage, value in seconds.items()},
        # The largest single process of all stages, in MiB (Linux reports KiB).
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

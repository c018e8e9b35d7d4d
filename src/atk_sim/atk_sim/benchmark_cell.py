"""A cell of the benchmark: one method, trained once on one task, and the episodes that it drives. Every step is done once."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import torch

from atk_perception.keypoint_set import KeypointSet
from atk_perception.robot_description import RobotDescription
from atk_policy.json_lines import append_json_line, read_json_lines
from atk_policy.selection import SelectionConfig
from atk_sim import demo
from atk_sim.film import Film
from atk_sim.graph import robot_file
from atk_sim.judging import Referee
from atk_sim.methods import make_method
from atk_sim.methods.protocol import Lesson
from atk_sim.provenance import Learnt, LearntError, Source
from atk_sim.rollout import run_episode
from atk_sim.simulation import Simulation

EPISODES = "episodes.jsonl"
LEARNT = "learnt.json"
# Of a task's demonstrations: with what they are recorded, from the beginning; and that all of them are.
RECORDING, RECORDED = "recording.json", "recorded.json"
DEMONSTRATIONS = 80  # of every task: the most that the paper gave to one
SERVO_NOISE = 1.0  # while recording


@dataclass(frozen=True)
class Cell:
    """One method, trained once on one task, and the episodes that it is to drive.

    Attributes:
        disturbances, seeds: an episode for each pair.
        demonstrations: how many of those that are recorded it learns from.
        servo_noise: that they are recorded with.
        settings: of selection and training.
        relearn: whether it may delete what was learnt from something else, and learn and drive anew.
    """

    output: Path
    task: str
    method: str
    training_seed: int
    disturbances: tuple[str, ...]
    seeds: tuple[int, ...]
    demonstrations: int = DEMONSTRATIONS
    servo_noise: float = SERVO_NOISE
    settings: SelectionConfig = field(default_factory=SelectionConfig)
    viewpoint: str = "none"
    relearn: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.task} {self.method} seed {self.training_seed}"

    @property
    def recordings(self) -> Path:
        """Where the task's bags are."""
        return self.output / self.task / "demonstrations"

    @property
    def folder(self) -> Path:
        """Where the method learns into."""
        return self.output / self.task / self.method / f"seed_{self.training_seed}"

    @property
    def episodes(self) -> Path:
        """What came of its episodes."""
        return self.folder / (EPISODES if self.viewpoint == "none" else f"episodes_{self.viewpoint}.jsonl")

    @property
    def videos(self) -> Path:
        """Where a success and a failure of every column are, COLUMN_OUTCOME.mp4."""
        return self.folder / self.episodes.stem.replace("episodes", "videos")

    def needed(self) -> list[Cell]:
        """What must have been learnt before, without episodes."""
        return [replace(self, method=name, seeds=()) for name in make_method(self.method).needs]

    def lesson(self) -> Lesson:
        """What the method learns from.

        Raises:
            LearntError: fewer demonstrations are recorded, or with other servo noise.
        """
        bags = recorded_bags(self.recordings)[: self.demonstrations]
        noise = recorded_noise(self.recordings)
        if len(bags) < self.demonstrations or noise != self.servo_noise:
            raise LearntError(
                f"{self.recordings} holds {len(bags)} demonstrations with servo noise {noise:g}; {self.demonstrations} with "
                f"{self.servo_noise:g} are asked for. 'benchmark' records those that are missing; for other noise give another --output"
            )
        return Lesson(
            self.task,
            RobotDescription.load(robot_file("sim_panda")),
            bags,
            [int(bag.name.removeprefix("episode_")) for bag in bags],
            self.servo_noise,
            self.output / self.task / "tracks",
            self.settings,
            self.viewpoint,
        )

    def missing(self) -> list[tuple[str, int]]:
        """Episodes that were not driven yet; seeds first, so that an interrupted run has some of every column."""
        done = {(row["disturbance"], row["seed"]) for row in read_json_lines(self.episodes)}
        wanted = [(disturbance, seed) for seed in self.seeds for disturbance in self.disturbances]
        return [entry for entry in wanted if entry not in done]

    def append(self, outcome: dict[str, Any]) -> None:
        """Write what came of an episode."""
        row = {"method": self.method, "training_seed": self.training_seed, **outcome}
        append_json_line(self.episodes, row)


def recorded_bags(folder: Path) -> list[Path]:
    """Finished demonstrations, in the order of their seeds."""
    return sorted(path.parent for path in folder.glob("episode_*/metadata.yaml"))


def recorded_noise(folder: Path) -> float:
    """Servo noise that they were recorded with; before it was written down it was the default."""
    file = folder / RECORDING
    known = json.loads(file.read_text()) if file.is_file() else {}
    return float(known.get("servo_noise", SERVO_NOISE))


# ------------------------------------------------------------------------------------------ processes


def run_cell(cell: Cell) -> None:
    """Learn, then drive what is missing. Runs in a process of its own, on one core.

    Raises:
        LearntError: what is there was learnt from something else, and the cell may not `relearn`.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    lesson = learn(cell)
    with _alone(cell.folder.with_name(f"{cell.folder.name}_{cell.episodes.stem}.lock")):
        if not cell.missing():
            return
        simulation = Simulation(lesson.robot)
        try:
            agent = make_method(cell.method).agent(lesson, cell.folder, simulation)
            for disturbance, seed in cell.missing():
                film = Film()
                outcome = run_episode(simulation, agent, cell.task, disturbance, seed, film.add)
                film.keep_first(cell.videos, disturbance, outcome.success)
                cell.append(asdict(outcome))
        finally:
            simulation.close()


def learn(cell: Cell) -> Lesson:
    """Have the method learn, once, and what it needs before it; returns what it learnt from.

    Raises:
        LearntError: see `run_cell`.
    """
    for needed in cell.needed():
        learn(needed)
    lesson, file = cell.lesson(), cell.folder / LEARNT
    with _alone(cell.folder.with_name(f"{cell.folder.name}.lock")):
        source = Source.of(lesson, cell.method, cell.training_seed)
        if cell.relearn and not _learnt_from(file, source):
            shutil.rmtree(cell.folder, ignore_errors=True)
        if not cell.folder.is_dir():
            cell.folder.mkdir(parents=True)
            Learnt.beginning(source).save(file)
        learnt = Learnt.load(file)
        learnt.require(source, cell.name)
        if learnt.seconds is None:
            started = time.monotonic()
            make_method(cell.method).train(lesson, cell.training_seed, cell.folder)
            seconds = round(time.monotonic() - started, 1)
            learnt.model_copy(update={"seconds": seconds}).save(file)
    return lesson


def _learnt_from(file: Path, source: Source) -> bool:
    try:
        return Learnt.load(file).source == source
    except LearntError:
        return False


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait for whoever does the same: another command, or a process that outlived the one that started it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the process, however that ends
        yield


def run_cell_over_ros(cell: Cell, domain_id: int) -> None:
    """The same episodes through separate node processes; only for methods that leave a run folder."""
    path, lesson = robot_file("sim_panda"), cell.lesson()
    args = demo.parse_arguments(["--task", cell.task])
    chosen = KeypointSet.load(cell.folder)
    with (
        contextlib.closing(Referee(lesson.robot, chosen, cell.task, lesson.seeds[0])) as referee,
        demo.Graph(
            cell.folder / "logs",
            domain_id,
            lambda nodes: demo.start_run(nodes, args, path, cell.folder, cell.viewpoint),
        ) as client,
    ):
        for disturbance, seed in cell.missing():
            cell.append(asdict(referee.outcome(client.run_policy(cell.task, disturbance, seed))))

"""Are the tasks' objects found in new scenes, and followed? Transfer and tracking against the simulator's exact truth.

    ros2 run atk_sim bench_transfer --matchers atk sift --trackers atk template_lk+refinding # or: make bench-transfer

The template is the first image of a task's first demonstration, with points all over the things that a task can move or lets
move (not the robot, nor what the disturbances exchange: table and wall). Every seed and column is another scene: the points are
transferred into it, and, with --follow, tracked from there while the scripted expert does the task in front of them. The objects,
textures and lights are in nobody's training data.

With --sets it is the keypoints that a selection chose, as they are transferred on the robot: parts that the demonstrations have shown
to move in one piece are placed as a whole (part_placement.py). Beside it, as MATCHER, alone: the same points without that.

Columns are those of the benchmark (RP, RB, +RO, +Light); seeds are those of reports. The last line of standard output is JSON:
{"transfer": {MATCHER: {COLUMN or TASK: {"pck8", "confident_wrong", "found", "points"}}}, "tracking": {TRACKER: {COLUMN or TASK:
{"pck8", "oa", "wrong", "points"}}}}, figures between 0 and 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from atk_perception.candidates import sample_candidates
from atk_perception.correspondence.protocol import Matcher, Matches, Template
from atk_perception.evaluation.run import BENCHED, REFINDING
from atk_perception.image_codec import RgbImage
from atk_perception.keypoint_set import KeypointSet, KeypointSetError
from atk_perception.part_placement import RigidParts
from atk_perception.public_models import BackendError
from atk_perception.registry import (
    DEFAULT_MATCHER,
    DEFAULT_TRACKER,
    MATCHERS,
    TRACKERS,
    make_matcher,
)
from atk_perception.robot_description import RobotDescription
from atk_perception.transfer import TransferParameters, transfer
from atk_sim.benchmark import FIRST_REPORT_SEED, FIRST_TUNING_SEED
from atk_sim.benchmark_cell import LEARNT
from atk_sim.demo import COLUMNS
from atk_sim.disturbances import TABLE, WALL
from atk_sim.graph import robot_file
from atk_sim.ground_truth import AttachedPoints, attach, body_names, found_again, locate
from atk_sim.provenance import Learnt, LearntError
from atk_sim.robots.panda import FINGER_BODIES
from atk_sim.simulation import Simulation
from atk_sim.tasks import TASKS
from atk_sim.world import World

CLOSE_PX = 8.0
SURE = 0.5
# So many are sampled over the template; of those on things, this many are taken.
CANDIDATES, POINTS = 3000, 160
TEMPLATE_SEED = 0
RIGHT_RGB, WRONG_RGB = (40, 200, 80), (230, 50, 40)
ALONE = ", alone"  # after a matcher's name: chosen points without their parts


@dataclass(frozen=True, eq=False)
class TaskPoints:
    """Points on a task's things: the template, what they are attached to, by name of the body, and what moves in one piece."""

    template: Template
    attached: AttachedPoints
    names: list[str]
    rigid: RigidParts | None = None

    def place(self, matcher: Matcher, image: RgbImage) -> Matches:
        """Where they are in a scene, as the robot would have it."""
        rigid = self.rigid
        template = self.template if rigid is None else rigid.with_companions(self.template)
        return transfer(matcher, template, image, TransferParameters(), rigid).matches


@dataclass
class Tally:
    """Points judged: how many are truly visible, hidden, and what was said of them."""

    visible: int = 0
    hidden: int = 0
    close: int = 0
    sure_right: int = 0
    sure_wrong: int = 0
    said_rightly: int = 0

    def add(self, error_px: NDArray[np.float64], sure: NDArray[np.bool_], visible: NDArray[np.bool_]) -> None:
        """(N,) errors, whether a place was claimed, and whether the point is there to be seen."""
        close = (error_px <= CLOSE_PX) & visible
        self.visible += int(visible.sum())
        self.hidden += int((~visible).sum())
        self.close += int(close.sum())
        self.sure_right += int((sure & close).sum())
        self.sure_wrong += int((sure & ~close).sum())
        self.said_rightly += int((sure == visible).sum())


@dataclass
class Tallies:
    """By task and by column."""

    cells: dict[tuple[str, str], Tally] = field(default_factory=dict)

    def of(self, task: str, column: str) -> Tally:
        """The tally of one cell."""
        return self.cells.setdefault((task, column), Tally())

    def rows(self) -> dict[str, Tally]:
        """Of every column, every task, and all."""
        sums: dict[str, Tally] = {}
        for (task, column), tally in self.cells.items():
            for name in (column, task, "all"):
                total = sums.setdefault(name, Tally())
                for entry, value in vars(tally).items():
                    setattr(total, entry, getattr(total, entry) + value)
        return sums


def task_points(simulation: Simulation, task: str, column: str = "RP") -> TaskPoints:
    """The template and its points on things that are neither robot nor scenery."""
    simulation.reset(task, column, TEMPLATE_SEED)
    world, image = simulation.world, simulation.rgb()
    uv_px = sample_candidates(image, CANDIDATES, np.random.default_rng(0), "textured").astype(float)
    attached = attach(world, simulation.renderer, uv_px)
    names = body_names(world, attached)
    chosen = np.flatnonzero([_is_thing(world, int(b)) for b in attached.body_ids])[:POINTS]
    parts = {name: getattr(attached, name)[chosen] for name in vars(attached)}
    return TaskPoints(
        Template(image, uv_px[chosen].astype(np.float32)),
        AttachedPoints(**parts),
        [names[i] for i in chosen],
    )


def set_points(simulation: Simulation, task: str, folder: Path) -> TaskPoints:
    """The keypoints that a benchmark's cell chose.

    Raises:
        KeypointSetError, LearntError: the folder holds none, or nobody knows which scene its template shows.
    """
    points = KeypointSet.load(folder)
    first = Learnt.load(folder / LEARNT).source.bags[0]  # whose first image the template is
    simulation.reset(task, "RP", int(first.removeprefix("episode_")))
    world = simulation.world
    attached = attach(world, simulation.renderer, points.uv_px.astype(float))
    names = body_names(world, attached)
    return TaskPoints(points.template, attached, names, points.rigid)


def _is_thing(world: World, body: int) -> bool:
    """Whether a body is neither scenery nor a part of the robot; cloth (-1) is."""
    model = world.model
    robot = model.body_rootid[model.body(FINGER_BODIES[0]).id]
    scenery = (TABLE, WALL)
    return body < 0 or (model.body(body).name not in scenery and model.body_rootid[body] != robot)


def truth(
    simulation: Simulation, points: TaskPoints
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """(N, 2) pixels now, (N,) visible, (N,) whether the point's body is in this scene at all."""
    world = simulation.world
    attached, there = found_again(world, points.attached, points.names)
    uv_px, visible = locate(world, simulation.renderer, attached)
    return uv_px, visible & there, there


def sheet(
    image: RgbImage, matches: Matches, error_px: NDArray[np.float64], visible: NDArray[np.bool_]
) -> RgbImage:
    """The scene with what was claimed: right ones and wrong ones, and open circles where nothing was claimed."""
    picture = image.copy()
    for uv, sure, error, seen in zip(
        matches.uv_px, matches.confidence >= SURE, error_px, visible, strict=True
    ):
        at = tuple(np.rint(uv).astype(int).tolist())
        colour = RIGHT_RGB if error <= CLOSE_PX and seen else WRONG_RGB
        cv2.circle(picture, at, 3, colour, -1 if sure else 1, cv2.LINE_AA)
    return picture


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All tasks, columns and seeds; returns the figures of the last line."""
    matchers = {name: make_matcher(name) for name in args.matchers}
    trackers = {name: BENCHED[name].make() for name in args.trackers} if args.follow else {}
    placed = {name: Tallies() for name in matchers}
    if args.sets is not None:
        placed |= {name + ALONE: Tallies() for name in matchers}
    tracking = {name: Tallies() for name in trackers}
    simulation = Simulation(RobotDescription.load(robot_file("sim_panda")))
    args.output.mkdir(parents=True, exist_ok=True)
    first = FIRST_TUNING_SEED if args.tuning else FIRST_REPORT_SEED
    total = len(args.task) * len(COLUMNS) * args.seeds
    with tqdm(total=total, desc="scenes", unit="scene", file=sys.stderr) as bar:
        for task in args.task:
            if args.sets is None:
                points = task_points(simulation, task)
            else:
                points = set_points(simulation, task, args.sets / task / "atk" / "seed_0")
            pictures: dict[str, list[RgbImage]] = {name: [] for name in matchers}
            for column in COLUMNS:
                for seed in range(first, first + args.seeds):
                    simulation.reset(task, column, seed)
                    image = simulation.rgb()
                    uv_px, visible, there = truth(simulation, points)
                    judge = partial(judged, uv_px=uv_px, visible=visible, there=there)
                    for name, matcher in matchers.items():
                        found = points.place(matcher, image)
                        error_px = judge(found, placed[name].of(task, column))
                        if seed == first:
                            pictures[name].append(sheet(image, found, error_px, visible))
                        if args.sets is not None:
                            alone = replace(points, rigid=None).place(matcher, image)
                            judge(alone, placed[name + ALONE].of(task, column))
                    for name, tracker in trackers.items():
                        simulation.reset(task, column, seed)
                        follow(
                            simulation,
                            points,
                            matchers[args.matchers[0]],
                            tracker,
                            tracking[name].of(task, column),
                        )
                    bar.update()
            for name, images in pictures.items():
                grid = np.vstack([np.hstack(images[:2]), np.hstack(images[2:])])
                small = cv2.resize(grid, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
                cv2.imwrite(str(args.output / f"{task}_{name}.jpg"), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    simulation.close()
    return {
        "transfer": {name: _transfer_figures(tallies) for name, tallies in placed.items()},
        "tracking": {name: _tracking_figures(tallies) for name, tallies in tracking.items()},
    }


def judged(
    found: Matches,
    tally: Tally,
    *,
    uv_px: NDArray[np.float64],
    visible: NDArray[np.bool_],
    there: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Count matches against the truth; returns (N,) errors [px]."""
    error_px: NDArray[np.float64] = np.linalg.norm(found.uv_px - uv_px, axis=1)
    tally.add(error_px[there], (found.confidence >= SURE)[there], visible[there])
    return error_px


def follow(simulation: Simulation, points: TaskPoints, matcher: Any, tracker: Any, tally: Tally) -> None:
    """One episode of the expert, the points tracked from their transfer on."""
    image = simulation.rgb()
    state = tracker.start(points.template, image, points.place(matcher, image))
    while not simulation.done:
        simulation.step(simulation.expert_command())
        state, tracks = tracker.step(state, simulation.rgb())
        uv_px, visible, there = truth(simulation, points)
        error_px = np.linalg.norm(tracks.uv_px - uv_px, axis=1)
        tally.add(error_px[there], tracks.visible[there], visible[there])


def _transfer_figures(tallies: Tallies) -> dict[str, dict[str, float]]:
    return {
        name: {
            "pck8": round(t.close / max(1, t.visible), 4),
            "confident_wrong": round(t.sure_wrong / max(1, t.visible + t.hidden), 4),
            "found": round(t.sure_right / max(1, t.visible), 4),
            "points": t.visible,
        }
        for name, t in tallies.rows().items()
    }


def _tracking_figures(tallies: Tallies) -> dict[str, dict[str, float]]:
    return {
        name: {
            "pck8": round(t.close / max(1, t.visible), 4),
            "oa": round(t.said_rightly / max(1, t.visible + t.hidden), 4),
            "wrong": round(t.sure_wrong / max(1, t.sure_wrong + t.sure_right), 4),
            "points": t.visible,
        }
        for name, t in tallies.rows().items()
    }


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown, a row per backend and column or task."""
    lines: list[str] = []
    for backend, rows in figures.items():
        names = [name for name in next(iter(rows.values())) if name != "points"]
        if not lines:
            lines += [f"| backend | scenes | {' | '.join(names)} | points |", "|---" * (len(names) + 3) + "|"]
        lines += [
            f"| {backend} | {name} | {' | '.join(f'{row[k]:.3f}' for k in names)} | {row['points']} |"
            for name, row in rows.items()
        ]
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench_transfer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/bench_transfer"), help="default: %(default)s"
    )
    parser.add_argument("--task", nargs="+", default=sorted(TASKS), choices=sorted(TASKS))
    parser.add_argument("--matchers", nargs="+", default=[DEFAULT_MATCHER], choices=list(MATCHERS))
    parser.add_argument(
        "--trackers",
        nargs="+",
        default=[DEFAULT_TRACKER + REFINDING],
        choices=list(BENCHED),
        metavar="TRACKER",
        help=f"of {', '.join(TRACKERS)}; TRACKER{REFINDING} as it is run on a robot (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="scenes per task and column (default: %(default)s)"
    )
    parser.add_argument(
        "--sets",
        type=Path,
        metavar="FOLDER",
        help="the keypoints chosen in FOLDER/TASK/atk/seed_0, such as runs/benchmark, in place of points all over the things",
    )
    parser.add_argument("--follow", action="store_true", help="track through the expert's episode as well")
    parser.add_argument(
        "--tuning",
        action="store_true",
        help="other seeds, for trying things out; those of reports are not for that",
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    args = parse_arguments()
    try:
        figures = run(args)
    except (BackendError, KeypointSetError, LearntError) as error:
        raise SystemExit(f"bench_transfer: {error}") from error
    text = "\n\n".join(table(figures[kind]) for kind in ("transfer", "tracking") if figures[kind])
    (args.output / "table.md").write_text(text + "\n")
    (args.output / "metrics.json").write_text(json.dumps({"format_version": 1, **figures}, indent=2) + "\n")
    print(text)
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()

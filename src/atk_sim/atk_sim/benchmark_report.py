"""Tables and pictures of a benchmark's output folder, for people: `benchmark_report runs/benchmark`.

Writes README.md (tables beside the paper's figures), results.json and small pictures: success with 95% intervals,
success over severity, why episodes failed, and where on the template the keypoints were chosen, how many, and how far
the training seeds agree. Where 'benchmark --videos'
filmed ATK, small copies of its successes and failures come too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from atk_perception.keypoint_set import KeypointSet, KeypointSetError
from atk_perception.video import VideoWriter
from atk_policy.agreement import mean_agreement
from atk_sim.benchmark import EPISODES, FIRST_REPORT_SEED, LEARNT, Cell, read_episodes
from atk_sim.disturbances import DISTURBANCES, Disturbance
from atk_sim.methods import METHODS
from atk_sim.paper_results import paper_rate
from atk_sim.rollout import ExactTracks
from atk_sim.simulation import Simulation
from atk_sim.statistics import wilson_interval

matplotlib.use("Agg")

CAUSES = ("transfer", "lost track", "policy", "physics")
CAUSE_COLOURS = dict(zip(CAUSES, ("#d62728", "#ff7f0e", "#1f77b4", "#7f7f7f"), strict=True))
DOTS_PER_INCH = 80
VIDEO_WIDTH_PX = 320


def load_episodes(output: Path) -> list[dict[str, Any]]:
    """Every episode on a report seed, of every task, method and training seed.

    Raises:
        SystemExit: there is none.
    """
    rows = []
    for path in sorted(output.glob(f"*/*/seed_*/{EPISODES}")):
        learnt = json.loads((path.parent / LEARNT).read_text())
        rows += [{**row, "demonstrations": learnt["demonstrations"]} for row in read_episodes(path)]
    rows = [row for row in rows if row["seed"] >= FIRST_REPORT_SEED]
    if not rows:
        raise SystemExit(
            f"benchmark_report: {output} holds no episodes on report seeds (TASK/METHOD/seed_K/{EPISODES}); "
            "make some with 'benchmark' without --tuning"
        )
    return rows


Key = tuple[str, str, str]


def by_cell(rows: list[dict[str, Any]]) -> dict[Key, list[dict[str, Any]]]:
    """Episodes by (task, method, column), in the order of the registry and of the paper's columns."""
    cells: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[row["task"], row["method"], row["disturbance"]].append(row)
    methods = list(METHODS)

    def order(key: Key) -> tuple[str, int, int, str]:
        task, method, column = key
        rank = methods.index(method) if method in methods else len(methods)
        return task, rank, DISTURBANCES.index(column) if column in DISTURBANCES else len(DISTURBANCES), column

    return {key: cells[key] for key in sorted(cells, key=order)}


def results(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What results.json holds: one entry per task, method, column and training seed."""
    entries = []
    for (task, method, column), episodes in by_cell(rows).items():
        for seed in sorted({row["training_seed"] for row in episodes}):
            mine = [row for row in episodes if row["training_seed"] == seed]
            entries.append(
                {
                    "task": task,
                    "method": method,
                    "column": column,
                    "successes": sum(row["success"] for row in mine),
                    "episodes": len(mine),
                    "training_seed": seed,
                }
            )
    return entries


def _rate(episodes: list[dict[str, Any]]) -> tuple[int, int, float, float, float]:
    successes, count = sum(row["success"] for row in episodes), len(episodes)
    return successes, count, successes / max(1, count), *wilson_interval(successes, count)


def keypoint_sets(output: Path, task: str, method: str = "atk") -> list[KeypointSet]:
    """Of every training seed that has a run folder."""
    sets = []
    for folder in sorted((output / task / method).glob("seed_*")):
        with contextlib.suppress(KeypointSetError):
            sets.append(KeypointSet.load(folder))
    return sets


def agreement_of(output: Path, task: str, sets: list[KeypointSet]) -> float | None:
    """Mean agreement (atk_policy.agreement) of the sets of one task; None with fewer than two.

    Which body a point lies on is told by the simulator, in the first image of the first demonstration: the template.
    """
    if len(sets) < 2:
        return None
    lesson = Cell(output, task, "atk", 0, (), (), 0.0).lesson()
    simulation = Simulation(lesson.robot)
    try:
        bodies = [
            ExactTracks(simulation, task, lesson.seeds[0], s.uv_px.astype(np.float64)).names for s in sets
        ]
    finally:
        simulation.close()
    diagonal_px = float(np.hypot(sets[0].image_width, sets[0].image_height))
    return mean_agreement([s.uv_px for s in sets], diagonal_px, bodies)


def keypoint_table(output: Path, tasks: list[str]) -> list[str]:
    """Lines of a table: how many points ATK kept, by training seed, and how far those sets agree."""
    lines = ["| task | points of each training seed | agreement |", "|---|---|---|"]
    for task in tasks:
        if sets := keypoint_sets(output, task):
            agreement = agreement_of(output, task, sets)
            shown = "" if agreement is None else f"{agreement:.2f}"
            lines.append(f"| {task} | {', '.join(str(len(s)) for s in sets)} | {shown} |")
    return lines if len(lines) > 2 else []


def markdown(rows: list[dict[str, Any]], command: str, keypoints: list[str]) -> str:
    """The tables, as README.md; `keypoints` are the lines of `keypoint_table`."""
    cells = by_cell(rows)
    tasks, methods, columns = (list(dict.fromkeys(key[k] for key in cells)) for k in range(3))
    paper_columns = [column for column in DISTURBANCES if column in columns]
    lines = [
        "# Benchmark",
        "",
        "Success in the simulator with rendered pixels through transfer and tracker: `successes/episodes rate (95% Wilson "
        "interval)`, over all training seeds. In brackets what the paper published for that cell: in its simulator, "
        "without tracking, for sushi, pot and clock; on its real robot for the kitchen. One configuration for all tasks, "
        "but for the number of demonstrations.",
        "",
        f"Made by `{command}`.",
        "",
        "![success](success.png)",
        "",
        f"| task | method | demonstrations | training seeds | {' | '.join(paper_columns)} |",
        f"|---|---|---|---|{'---|' * len(paper_columns)}",
    ]
    for task in tasks:
        for method in methods:
            if not any((task, method, column) in cells for column in paper_columns):
                continue
            entries = []
            for column in paper_columns:
                if (task, method, column) not in cells:
                    entries.append("")
                    continue
                successes, count, rate, low, high = _rate(cells[task, method, column])
                published = paper_rate(task, method, column)
                entries.append(
                    f"{successes}/{count} **{rate:.2f}** ({low:.2f} to {high:.2f})"
                    + ("" if published is None else f" [{published:.2f}]")
                )
            mine = [row for key, found in cells.items() if key[:2] == (task, method) for row in found]
            shown, seeds = (
                sorted({row[name] for row in mine}) for name in ("demonstrations", "training_seed")
            )
            taught = " or ".join(map(str, shown))
            lines.append(f"| {task} | {method} | {taught} | {len(seeds)} | {' | '.join(entries)} |")
    others = [column for column in columns if column not in DISTURBANCES]
    if others:
        lines += [
            "",
            "## Severity",
            "",
            "![severity](severity.png)",
            "",
            "| task | method | disturbance | success |",
            "|---|---|---|---|",
        ]
        for (task, method, column), episodes in cells.items():
            if column in others:
                successes, count, rate, low, high = _rate(episodes)
                lines.append(
                    f"| {task} | {method} | {column} | {successes}/{count} **{rate:.2f}** ({low:.2f} to {high:.2f}) |"
                )
    lines += ["", "## Why episodes failed", "", "![causes](causes.png)", ""]
    lines += [
        "`transfer`: the keypoints were not found, or put in the wrong place; `lost track`: they slid or stayed unseen; "
        "`physics`: the privileged expert fails on that seed too; `policy`: everything else.",
        "",
        "## Keypoints",
        "",
        "Where ATK chose them, over the training seeds; each colour is one seed. Agreement: the share of the points of two "
        "seeds that have a partner in the other one, on the same body and within 3% of the image's diagonal.",
        "",
        *keypoints,
        "",
    ]
    lines += [f"![keypoints of {task}](keypoints_{task}.png)" for task in tasks]
    return "\n".join(lines) + "\n"


# -------------------------------------------------------------------------------------------- pictures


def success_figure(rows: list[dict[str, Any]]) -> Figure:
    """One panel per task: bars of every method and column, the paper's figure as a black line."""
    cells = by_cell(rows)
    tasks = list(dict.fromkeys(task for task, _, column in cells if column in DISTURBANCES))
    figure = Figure(figsize=(4.2 * min(3, len(tasks)), 2.8 * -(-len(tasks) // 3)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(-(-len(tasks) // 3), min(3, len(tasks)), sharey=True)).ravel()
    colours = matplotlib.colormaps["tab20"]
    for panel, task in zip(panels, tasks, strict=False):
        methods = list(dict.fromkeys(method for t, method, _ in cells if t == task))
        width = 0.8 / len(methods)
        for number, method in enumerate(methods):
            for place, column in enumerate(DISTURBANCES):
                if (task, method, column) not in cells:
                    continue
                _, _, rate, low, high = _rate(cells[task, method, column])
                x = place + (number - (len(methods) - 1) / 2) * width
                panel.bar(
                    x,
                    rate,
                    width,
                    color=colours(number % 20),
                    label=method if place == 0 else None,
                    yerr=[[rate - low], [high - rate]],
                    error_kw={"lw": 0.8},
                )
                published = paper_rate(task, method, column)
                if published is not None:
                    panel.plot([x - width / 2, x + width / 2], [published] * 2, color="black", lw=1.6)
        panel.set(title=task, ylim=(0, 1.05), xticks=range(len(DISTURBANCES)), xticklabels=DISTURBANCES)
        panel.legend(fontsize=6, ncols=2, loc="lower left")
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    return figure


def severity_figure(rows: list[dict[str, Any]]) -> Figure | None:
    """Success over severity, a panel per disturbance that has more than one; None without any."""
    curves: dict[str, dict[tuple[str, str], dict[float, list[dict[str, Any]]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in rows:
        disturbance = Disturbance.parse(row["disturbance"])
        curves[disturbance.name][row["task"], row["method"]][disturbance.severity].append(row)
    shown = [name for name, lines in curves.items() if any(len(points) > 1 for points in lines.values())]
    if not shown:
        return None
    figure = Figure(figsize=(4.2 * len(shown), 3.2), layout="constrained")
    for panel, name in zip(np.atleast_1d(figure.subplots(1, len(shown), sharey=True)), shown, strict=True):
        for (task, method), points in curves[name].items():
            severities = sorted(points)
            rates = [_rate(points[severity]) for severity in severities]
            low, high = ([r[k] for r in rates] for k in (3, 4))
            panel.plot(severities, [r[2] for r in rates], "o-", label=f"{task} {method}")
            panel.fill_between(severities, low, high, alpha=0.15)
        panel.set(title=name, xlabel="severity", ylim=(0, 1.05))
        panel.legend(fontsize=6)
    return figure


def causes_figure(rows: list[dict[str, Any]]) -> Figure:
    """Failures of each task and method, stacked by cause, as a share of its episodes."""
    cells: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (task, method, _), episodes in by_cell(rows).items():
        cells[f"{task} {method}"] += episodes
    figure = Figure(figsize=(8, 0.8 + 0.28 * len(cells)), layout="constrained")
    panel = figure.subplots()
    names = list(cells)[::-1]
    left = np.zeros(len(names))
    for cause in CAUSES:
        share = [Counter(row["cause"] for row in cells[name])[cause] / len(cells[name]) for name in names]
        panel.barh(names, share, left=left, color=CAUSE_COLOURS[cause], label=cause)
        left += share
    panel.set(xlim=(0, 1), xlabel="share of episodes that failed")
    panel.legend(fontsize=7)
    return figure


def keypoints_figure(output: Path, task: str) -> Figure | None:
    """The keypoints of every training seed of ATK on one template; None when there is no run folder."""
    sets = keypoint_sets(output, task)
    if not sets:
        return None
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    panel = figure.subplots()
    panel.imshow(sets[0].template_rgb)
    for number, chosen in enumerate(sets):
        colour = matplotlib.colormaps["tab10"](number % 10)
        u, v = chosen.uv_px.T
        panel.plot(u, v, "o", ms=11, mfc="none", mec="black", mew=3.5, ls="none")
        panel.plot(
            u, v, "o", ms=11, mfc="none", mec=colour, mew=2, ls="none", label=f"seed {number}: {len(chosen)}"
        )
    panel.set_title(f"{task}: keypoints of {len(sets)} training seeds")
    panel.legend(fontsize=8)
    panel.set_axis_off()
    return figure


# ---------------------------------------------------------------------------------------------- videos


def small_videos(output: Path, folder: Path) -> list[Path]:
    """Copies of ATK's videos, `VIDEO_WIDTH_PX` wide: of every task, column and outcome the first training seed's."""
    copies: dict[str, Path] = {}
    for video in sorted(output.glob("*/atk/seed_*/videos/*.mp4")):
        task = video.parents[3].name
        copies.setdefault(f"{task}_{video.stem}", video)
    for name, video in copies.items():
        _shrink(video, folder / f"{name}.mp4")
    return [folder / f"{name}.mp4" for name in copies]


def _shrink(video: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    reader = cv2.VideoCapture(str(video))
    try:
        with VideoWriter(copy, reader.get(cv2.CAP_PROP_FPS)) as writer:
            while (read := reader.read())[0]:
                height, width = read[1].shape[:2]
                size = (VIDEO_WIDTH_PX, 2 * round(height * VIDEO_WIDTH_PX / width / 2))
                small = cv2.resize(read[1], size, interpolation=cv2.INTER_AREA)
                writer.add(np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8))
    finally:
        reader.release()


def video_links(videos: list[Path], folder: Path) -> str:
    """A section of README.md with a link to every video."""
    links = [f"- [{video.stem.replace('_', ' ')}]({video.relative_to(folder)})" for video in videos]
    return "\n".join(["", "## Videos of ATK", "", *links]) + "\n" if links else ""


def write_benchmark_report(output: Path, folder: Path, command: str) -> list[dict[str, Any]]:
    """Write everything into `folder`; returns what results.json holds."""
    rows = load_episodes(output)
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "success": success_figure(rows),
        "severity": severity_figure(rows),
        "causes": causes_figure(rows),
        **{f"keypoints_{task}": keypoints_figure(output, task) for task in {row["task"] for row in rows}},
    }
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(folder / f"{name}.png", dpi=DOTS_PER_INCH)
    entries = results(rows)
    (folder / "results.json").write_text(json.dumps(entries, indent=1) + "\n")
    videos = small_videos(output, folder / "videos")
    tables = markdown(rows, command, keypoint_table(output, sorted({row["task"] for row in rows})))
    (folder / "README.md").write_text(tables + video_links(videos, folder))
    return entries


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="benchmark_report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", type=Path, help="output folder of 'benchmark'")
    parser.add_argument("--output", type=Path, default=None, help="default: report/ in that folder")
    parser.add_argument("--command", default="make benchmark", help="the command to name in README.md")
    args = parser.parse_args()
    folder = args.output or args.benchmark / "report"
    entries = write_benchmark_report(args.benchmark, folder, args.command)
    print(f"look at {folder / 'README.md'}")
    print(json.dumps({"cells": len(entries), "report": str(folder)}))


if __name__ == "__main__":
    main()

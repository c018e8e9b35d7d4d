"""Tables and pictures of a benchmark's output folder, for people: `benchmark_report runs/benchmark`.

Writes README.md (tables beside the paper's figures), results.json and small pictures: success with 95% intervals,
success over severity, why episodes failed, and where on the template the keypoints were chosen, how many, how often, and how far
the training seeds agree. Of ATK a success and a failure of every column come as small videos, of every other method a failure.
Beside them lies, in cells/, what all of it was made of (benchmark_archive.py). What stood in the folder before is replaced; with
--keep the cells in it stay that were not driven anew, so that a benchmark can be driven in parts and on several machines.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from atk_sim.benchmark_archive import archive_cells, videos_named
from atk_sim.benchmark_figures import (
    causes_figure,
    keypoints_figure,
    severity_curves,
    severity_figure,
    success_figure,
)
from atk_sim.benchmark_keypoints import ChosenPoints, chosen_points
from atk_sim.benchmark_rows import NoEpisodesError, Row, by_cell, load_rows, rate_of, results, write_entries
from atk_sim.disturbances import DISTURBANCES
from atk_sim.film import video_file
from atk_sim.methods.vision import DIFFERENCES
from atk_sim.paper_results import paper_rate
from atk_sim.provenance import LearntError

DOTS_PER_INCH = 80
REPORT, CELLS = "report", "cells"
# Of what is learnt from, the entries that every cell of a report should have in common.
COMMON = ("perception", "policy", "robot", "settings", "libraries", "servo_noise")


def markdown(rows: list[Row], command: str, pictures: dict[str, Figure], keypoints: list[str]) -> str:
    """The tables, as README.md; `keypoints` are the lines of `keypoint_table`."""
    cells = by_cell(rows)
    over_ros = sum(row.path == "ros" for row in rows)
    lines = [
        "# Benchmark",
        "",
        "Success in the simulator with rendered pixels through transfer and tracker: `successes/episodes rate (95% Wilson "
        "interval)`, over all training seeds. In brackets what the paper published for that cell: in its simulator, "
        "without tracking, for sushi, pot and clock; on its real robot for the kitchen. One configuration for all tasks.",
        "",
        f"Made by `{command}`. {len(rows)} episodes, {over_ros or 'none'} of them over ROS, the others in one process.",
        "",
        *versions(rows),
        "![success](success.png)",
        "",
        *success_table(cells),
        "",
        DIFFERENCES,
    ]
    if "severity" in pictures:
        lines += ["", "## Severity", "", "Severity 0 is column RP.", "", "![severity](severity.png)", ""]
        lines += severity_table(rows)
    lines += [
        "",
        "## Why episodes failed",
        "",
        "![causes](causes.png)",
        "",
        "`transfer`: the keypoints were not found, or put in the wrong place; `lost track`: they slid or stayed unseen; "
        "`physics`: the privileged expert fails on that seed too; `policy`: everything else.",
    ]
    if keypoints:
        lines += [
            "",
            "## Keypoints",
            "",
            "Where ATK chose them; each colour is one training seed, and a ring is the larger the more seeds chose a point there. "
            "Agreement: the share of the points of two seeds that have a partner in the other one, on the same body and within "
            "3% of the image's diagonal.",
            "",
            *keypoints,
            "",
        ]
        lines += [
            f"![{name.replace('_', ' ')}]({name}.png)" for name in pictures if name.startswith("keypoints_")
        ]
    return "\n".join(lines) + "\n"


def versions(rows: list[Row]) -> list[str]:
    """Lines that say what all cells were learnt with, or that they were learnt with different things."""
    found: dict[str, dict[str, None]] = {}
    for name in COMMON:
        found[name] = {json.dumps(getattr(row.source, name), sort_keys=True).strip('"'): None for row in rows}
    several = [name for name in COMMON if len(found[name]) > 1]
    if several:
        lines = [f"**These cells were not all learnt with the same {', '.join(several)}:**", ""]
        lines += [f"- {name}: {'; '.join(found[name])}" for name in several]
        return [
            *lines,
            "",
            "'benchmark --relearn' learns anew what is of another version than the present one.",
            "",
        ]
    source = rows[0].source
    libraries = ", ".join(f"{name} {version}" for name, version in source.libraries.items())
    changed = f"settings {json.dumps(source.settings)}" if source.settings else "default settings"
    return [
        f"All cells were learnt with perception {source.perception}, policy {source.policy}, {changed}, servo noise "
        f"{source.servo_noise:g} in the demonstrations; {libraries}.",
        "",
    ]


def success_table(cells: dict[tuple[str, str, str], list[Row]]) -> list[str]:
    """Lines of the table over the paper's columns."""
    columns = [column for column in DISTURBANCES if any(key[2] == column for key in cells)]
    lines = [
        f"| task | method | demonstrations | training seeds | {' | '.join(columns)} |",
        f"|---|---|---|---|{'---|' * len(columns)}",
    ]
    for task, method in dict.fromkeys(key[:2] for key in cells if key[2] in columns):
        entries = []
        for column in columns:
            episodes = cells.get((task, method, column), [])
            published = paper_rate(task, method, column)
            entries.append(
                f"{_told(episodes)}{'' if published is None else f' [{published:.2f}]'}" if episodes else ""
            )
        mine = [row for key, episodes in cells.items() if key[:2] == (task, method) for row in episodes]
        taught = " or ".join(map(str, sorted({row.demonstrations for row in mine})))
        seeds = len({row.training_seed for row in mine})
        lines.append(f"| {task} | {method} | {taught} | {seeds} | {' | '.join(entries)} |")
    return lines


def severity_table(rows: list[Row]) -> list[str]:
    """Lines of the table behind the curves."""
    lines = ["| disturbance | task | method | severity: success |", "|---|---|---|---|"]
    for name, curves in severity_curves(rows).items():
        for (task, method), points in curves.items():
            told = "; ".join(f"{severity:g}: {_told(episodes)}" for severity, episodes in points.items())
            lines.append(f"| {name} | {task} | {method} | {told} |")
    return lines


def _told(episodes: list[Row]) -> str:
    successes, count, rate, low, high = rate_of(episodes)
    return f"{successes}/{count} **{rate:.2f}** ({low:.2f} to {high:.2f})"


def keypoint_table(chosen: dict[str, ChosenPoints]) -> list[str]:
    """Lines of a table: how many points ATK kept, by training seed, and how far those sets agree; none without sets."""
    lines = ["| task | points of each training seed | agreement |", "|---|---|---|"]
    for task, points in chosen.items():
        shown = "" if points.agreement is None else f"{points.agreement:.2f}"
        counts = ", ".join(f"{len(uv_px)} (seed {seed})" for seed, uv_px in points.uv_px.items())
        lines.append(f"| {task} | {counts} | {shown} |")
    return lines if chosen else []


# ---------------------------------------------------------------------------------------------- videos


def video_links(archive: Path, rows: list[Row]) -> str:
    """A section of README.md, which lies beside `archive`, with a link to every video of these rows' methods."""
    lines = []
    cells = by_cell(rows)
    columns = dict.fromkeys(key[2] for key in cells)
    for task, method in dict.fromkeys(key[:2] for key in cells):
        links = [
            f"[{file.stem.replace('_', ' ')}]({file.relative_to(archive.parent)})"
            for column in columns
            for success in (True, False)
            for file in videos_named(archive, task, method, video_file(Path(), column, success).name)[:1]
        ]
        if links:
            lines.append(f"- {task}, {method}: {', '.join(links)}")
    return "\n".join(["", "## Videos", "", *lines]) + "\n" if lines else ""


def write_benchmark_report(
    output: Path, folder: Path, command: str, *, keep: bool = False
) -> list[dict[str, Any]]:
    """Write everything into `folder`; returns what results.json holds.

    Args:
        output: what was driven.
        keep: whether cells that are in the folder and not in `output` stay in the report.

    Raises:
        NoEpisodesError, LearntError: see `load_rows`.
    """
    archive = folder / CELLS
    driven = load_rows(output)  # before anything is replaced
    if not keep:
        shutil.rmtree(archive, ignore_errors=True)
    archive_cells(output, driven, archive)
    rows = load_rows(archive)
    for old in folder.glob("*.png"):
        old.unlink()
    tasks = dict.fromkeys(key[0] for key in by_cell(rows))
    chosen = {task: points for task in tasks if (points := chosen_points(archive, task)) is not None}
    drawn = {
        "success": success_figure(rows),
        "severity": severity_figure(rows),
        "causes": causes_figure(rows),
        **{f"keypoints_{task}": keypoints_figure(task, points) for task, points in chosen.items()},
    }
    pictures = {name: figure for name, figure in drawn.items() if figure is not None}
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=DOTS_PER_INCH)
    entries = results(rows)
    write_entries(entries, folder / "results.json")
    tables = markdown(rows, command, pictures, keypoint_table(chosen))
    (folder / "README.md").write_text(tables + video_links(archive, rows))
    return entries


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="benchmark_report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", type=Path, help="output folder of 'benchmark'")
    parser.add_argument("--output", type=Path, default=None, help=f"default: {REPORT}/ in that folder")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the cells of a report in that folder that were not driven anew",
    )
    parser.add_argument("--command", default="make benchmark", help="the command to name in README.md")
    args = parser.parse_args()
    folder = args.output or args.benchmark / REPORT
    try:
        entries = write_benchmark_report(args.benchmark, folder, args.command, keep=args.keep)
    except (NoEpisodesError, LearntError) as error:
        raise SystemExit(f"benchmark_report: {error}") from error
    print(f"look at {folder / 'README.md'}")
    print(json.dumps({"cells": len(entries), "report": str(folder)}))


if __name__ == "__main__":
    main()

"""Episodes of a benchmark's output folder, as its report and its check look at them."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atk_policy.closed_loop_results import wilson_interval
from atk_policy.json_lines import read_json_lines
from atk_sim.benchmark_cell import EPISODES, LEARNT
from atk_sim.demo import FIRST_REPORT_SEED
from atk_sim.disturbances import DISTURBANCES
from atk_sim.methods import METHODS
from atk_sim.provenance import Learnt, Source

VIEWPOINT = "_viewpoint_"


class NoEpisodesError(ValueError):
    """There is nothing to report; the message says what to do."""


@dataclass(frozen=True)
class Row:
    """One episode.

    Attributes:
        method: with `_viewpoint_NAME` behind it where keypoints were reprojected.
        source, digest: what its policy was learnt from.
        path: 'process' or 'ros'.
    """

    task: str
    method: str
    column: str
    training_seed: int
    seed: int
    success: bool
    cause: str
    path: str
    source: Source
    digest: str

    @property
    def demonstrations(self) -> int:
        """How many its policy was learnt from."""
        return len(self.source.bags)


def load_rows(output: Path) -> list[Row]:
    """Every episode on a report seed, of every task, method and training seed.

    Raises:
        NoEpisodesError: there is none.
        LearntError: nothing says what a policy was learnt from.
    """
    rows = []
    for path in sorted(output.glob(f"*/*/seed_*/{Path(EPISODES).stem}*.jsonl")):
        learnt = Learnt.load(path.parent / LEARNT)
        viewpoint = path.stem.removeprefix(Path(EPISODES).stem).removeprefix("_")
        method = learnt.source.method + (f"{VIEWPOINT}{viewpoint}" if viewpoint else "")
        rows += [
            Row(
                entry["task"],
                method,
                entry["disturbance"],
                entry["training_seed"],
                entry["seed"],
                entry["success"],
                entry["cause"],
                entry.get("path", "process"),
                learnt.source,
                learnt.digest,
            )
            for entry in read_json_lines(path)
            if entry["seed"] >= FIRST_REPORT_SEED
        ]
    if not rows:
        raise NoEpisodesError(
            f"{output} holds no episodes on report seeds (TASK/METHOD/seed_K/{EPISODES}); "
            "make some with 'benchmark' without --tuning"
        )
    return rows


Key = tuple[str, str, str]


def by_cell(rows: list[Row]) -> dict[Key, list[Row]]:
    """Episodes by (task, method, column), in the order of the registry and of the paper's columns."""
    cells: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        cells[row.task, row.method, row.column].append(row)
    methods = list(METHODS)

    def order(key: Key) -> tuple[str, int, str, int, str]:
        task, method, column = key
        plain = method.partition(VIEWPOINT)[0]
        rank = methods.index(plain) if plain in methods else len(methods)
        place = DISTURBANCES.index(column) if column in DISTURBANCES else len(DISTURBANCES)
        return task, rank, method, place, column

    return {key: cells[key] for key in sorted(cells, key=order)}


def results(rows: list[Row]) -> list[dict[str, Any]]:
    """What results.json holds: one entry per task, method, column and training seed, with all it takes to try it again."""
    entries = []
    for (task, method, column), episodes in by_cell(rows).items():
        for seed in sorted({row.training_seed for row in episodes}):
            mine = [row for row in episodes if row.training_seed == seed]
            source = mine[0].source
            plain, _, viewpoint = method.partition(VIEWPOINT)
            entries.append(
                {
                    "task": task,
                    "method": plain,
                    "column": column,
                    "successes": sum(row.success for row in mine),
                    "episodes": len(mine),
                    "training_seed": seed,
                    "viewpoint": viewpoint or "none",
                    "demonstrations": len(source.bags),
                    "servo_noise": source.servo_noise,
                    "settings": source.settings,
                    "digest": mine[0].digest,
                    "seeds": sorted(row.seed for row in mine),
                    "over_ros": sum(row.path == "ros" for row in mine),
                }
            )
    return entries


def write_entries(entries: list[dict[str, Any]], file: Path) -> None:
    """As JSON, an entry a line."""
    file.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


def rate_of(episodes: list[Row]) -> tuple[int, int, float, float, float]:
    """Successes, episodes, their ratio and its 95% interval."""
    successes, count = sum(row.success for row in episodes), len(episodes)
    return successes, count, successes / max(1, count), *wilson_interval(successes, count)

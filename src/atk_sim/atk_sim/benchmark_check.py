"""Run a part of the committed benchmark again and compare: `benchmark_check docs/benchmark/results.json`.

Draws some of its cells, learns them anew from as many demonstrations, and drives fewer episodes, on report seeds after those
that were committed. A cell fails where both counts would hardly come from one success rate: by Fisher's exact test, two-sided,
at a level of 5% divided by the number of comparisons (Bonferroni), so that where nothing has changed one check in twenty fails at
most. One comparison more takes all cells together, each still compared with itself alone: it finds a fall that is
everywhere and too small to be seen in any one of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atk_policy.selection import SelectionConfig
from atk_sim.benchmark import left_out, run, summary
from atk_sim.benchmark_cell import LEARNT, Cell
from atk_sim.graph import GraphError
from atk_sim.provenance import Learnt, LearntError
from atk_sim.statistics import Count, difference_p

LEVEL = 0.05  # of the whole check


@dataclass(frozen=True)
class Comparison:
    """A committed cell and the same one again."""

    name: str
    committed: Count
    again: Count

    @property
    def p(self) -> float:
        """Of a difference at least as large, where there is none."""
        return difference_p([(self.committed, self.again)])

    def __str__(self) -> str:
        (then, of_then), (now, of_now) = self.committed, self.again
        return f"{self.name}: committed {then}/{of_then}, now {now}/{of_now} (p {self.p:.2g})"


def differing(compared: list[Comparison]) -> list[str]:
    """What does not come again, one line each."""
    if not compared:
        return []
    limit = LEVEL / (len(compared) + 1)
    lines = [str(each) for each in compared if each.p < limit]
    together = difference_p([(each.committed, each.again) for each in compared])
    if together < limit:
        lines.append(f"all {len(compared)} cells together (p {together:.2g})")
    return lines


def draw(entries: list[dict[str, Any]], share: float, seed: int) -> list[dict[str, Any]]:
    """A random `share` of the entries, one at least."""
    return random.Random(seed).sample(entries, max(1, round(share * len(entries))))


def cells_again(
    drawn: list[dict[str, Any]], output: Path, seeds: tuple[int, ...]
) -> list[tuple[Cell, list[dict[str, Any]]]]:
    """What to learn and drive for the drawn entries, those of one training together."""
    trainings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in drawn:
        names = ("task", "method", "training_seed", "viewpoint", "demonstrations", "servo_noise", "settings")
        trainings[json.dumps([entry[name] for name in names])].append(entry)
    return [
        (
            Cell(
                output.resolve(),
                entries[0]["task"],
                entries[0]["method"],
                entries[0]["training_seed"],
                tuple(entry["column"] for entry in entries),
                seeds,
                entries[0]["demonstrations"],
                entries[0]["servo_noise"],
                SelectionConfig.model_validate(entries[0]["settings"]),
                entries[0]["viewpoint"],
            ),
            entries,
        )
        for entries in trainings.values()
    ]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmark_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results.json of a committed report")
    parser.add_argument("--share", type=float, default=0.1, help="of its cells (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=10, help="per cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the draw (default: another every time)")
    parser.add_argument("--output", type=Path, default=None, help="default: a temporary folder")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)"
    )
    return parser.parse_args(arguments)


def committed_entries(file: Path) -> list[dict[str, Any]]:
    """The entries of a report's results.json, of methods that can be used here.

    Raises:
        SystemExit: no such file, one of an older version, or nothing in it can be tried here.
    """
    if not file.is_file():
        raise SystemExit(
            f"benchmark_check: {file} does not exist; a report with it is written by 'benchmark_report RUN --output docs/benchmark'"
        )
    entries = json.loads(file.read_text())
    if any("digest" not in entry for entry in entries):
        raise SystemExit(
            f"benchmark_check: {file} does not say how its cells were learnt, it is of an older version; write it anew with "
            "'benchmark_report RUN --output docs/benchmark'"
        )
    unusable = left_out()
    for name in sorted({entry["method"] for entry in entries} & set(unusable)):
        print(f"without {name}: {unusable[name]}")
    usable = [entry for entry in entries if entry["method"] not in unusable]
    if not usable:
        raise SystemExit(f"benchmark_check: {file} holds no cell of a method that can be used here")
    return usable


def main() -> None:
    """Console entry; the last line of standard output is JSON; exit status 1 where a result does not hold."""
    args = parse_arguments()
    entries = committed_entries(args.results)
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(10**6)
    drawn = draw(entries, args.share, seed)
    print(f"seed {seed}: {len(drawn)} of {len(entries)} cells")
    output = args.output or Path(tempfile.mkdtemp(prefix="atk_benchmark_check_"))
    first = 1 + max(s for entry in entries for s in entry["seeds"])
    again = cells_again(drawn, output, tuple(range(first, first + args.episodes)))
    cells = [cell for cell, _ in again]
    try:
        failed = run(cells, args.workers)
    except (GraphError, LearntError) as error:
        raise SystemExit(f"benchmark_check: {error}") from error
    compared: list[Comparison] = []
    same = 0
    for cell, committed in again:
        for entry, row in zip(committed, summary([cell]), strict=True):
            if not row["episodes"]:
                continue  # its cell has failed, and is told
            same += Learnt.load(cell.folder / LEARNT).digest == entry["digest"]
            counts = ((one["successes"], one["episodes"]) for one in (entry, row))
            compared.append(Comparison(f"{cell.name} {entry['column']}", *counts))
    lines = differing(compared)
    print(f"{same} of {len(compared)} cells were learnt from exactly what the committed ones were")
    for line in [*failed, *lines]:
        print(line)
    print(json.dumps({"cells": len(compared), "differing": len(lines), "failed": len(failed), "seed": seed}))
    if failed or lines:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

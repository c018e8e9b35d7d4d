"""Run a part of the committed benchmark again and compare: `benchmark_check docs/benchmark/results.json`.

Draws some of its cells, learns and drives them anew with fewer episodes, and fails where the 95% interval of what
comes out does not meet the committed one's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from atk_sim.benchmark import FIRST_REPORT_SEED, Cell, run, summary
from atk_sim.graph import GraphError
from atk_sim.statistics import wilson_interval


def draw(entries: list[dict[str, Any]], share: float, seed: int) -> list[dict[str, Any]]:
    """A random `share` of the entries, one at least."""
    return random.Random(seed).sample(entries, max(1, round(share * len(entries))))


def disagreement(committed: dict[str, Any], again: dict[str, Any]) -> str:
    """What to say where the two intervals do not meet; empty where they do."""
    (low, high), (low_again, high_again) = (
        wilson_interval(entry["successes"], entry["episodes"]) for entry in (committed, again)
    )
    if low <= high_again and low_again <= high:
        return ""
    return (
        f"{committed['task']} {committed['method']} {committed['column']} training seed {committed['training_seed']}: "
        f"committed {committed['successes']}/{committed['episodes']} ({low:.2f} to {high:.2f}), "
        f"now {again['successes']}/{again['episodes']} ({low_again:.2f} to {high_again:.2f})"
    )


def main() -> None:
    """Console entry; the last line of standard output is JSON; exit status 1 where a result does not hold."""
    parser = argparse.ArgumentParser(
        prog="benchmark_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results.json of a committed report")
    parser.add_argument("--share", type=float, default=0.1, help="of its cells (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=10, help="per cell (default: %(default)s)")
    parser.add_argument(
        "--demonstrations", type=int, default=None, help="as committed (default: as 'benchmark' takes them)"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the draw (default: another every time)")
    parser.add_argument("--output", type=Path, default=None, help="default: a temporary folder")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)"
    )
    args = parser.parse_args()
    if not args.results.is_file():
        raise SystemExit(
            f"benchmark_check: {args.results} does not exist; a report with it is written by 'benchmark_report RUN --output docs/benchmark'"
        )
    committed = json.loads(args.results.read_text())
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(10**6)
    drawn = draw(committed, args.share, seed)
    print(f"seed {seed}: {len(drawn)} of {len(committed)} cells")
    output = args.output or Path(tempfile.mkdtemp(prefix="atk_benchmark_check_"))
    seeds = tuple(range(FIRST_REPORT_SEED, FIRST_REPORT_SEED + args.episodes))
    cells = [
        Cell(output.resolve(), task, method, training_seed, columns, seeds, servo_noise=1.0)
        for (task, method, training_seed), columns in _columns_by_training(drawn).items()
    ]
    try:
        failed = run(cells, args.demonstrations, args.workers)
    except GraphError as error:
        raise SystemExit(f"benchmark_check: {error}") from error
    again = {_key(entry): entry for entry in summary(cells)}
    differing = [
        line
        for entry in drawn
        if again[_key(entry)]["episodes"] and (line := disagreement(entry, again[_key(entry)]))
    ]
    for line in [*failed, *differing]:
        print(line)
    print(json.dumps({"cells": len(drawn), "differing": len(differing), "failed": len(failed), "seed": seed}))
    if failed or differing:
        raise SystemExit(1)


def _key(entry: dict[str, Any]) -> tuple[str, str, str, int]:
    return entry["task"], entry["method"], entry["column"], entry["training_seed"]


def _columns_by_training(entries: list[dict[str, Any]]) -> dict[tuple[str, str, int], tuple[str, ...]]:
    columns: dict[tuple[str, str, int], tuple[str, ...]] = {}
    for task, method, column, training_seed in map(_key, entries):
        columns[task, method, training_seed] = (*columns.get((task, method, training_seed), ()), column)
    return columns


if __name__ == "__main__":
    main()

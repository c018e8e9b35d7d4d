"""Pieces of work that are done once, several at a time: what a benchmark of hours is made of.

In the output folder lie

    results.jsonl    a line for every piece that was done
    work/KEY/        checkpoints of one that was not finished

Killed at any moment, the same command goes on: what is done is read, what was begun continues from its checkpoints.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from atk_policy.json_lines import append_json_line, read_json_lines
from atk_policy.memory_meter import MemoryMeter
from atk_policy.worker_processes import Tell, in_processes

RESULTS, WORK, SPENT = "results.jsonl", "work", "spent.json"
Say = Callable[[str], None]
Result = Mapping[str, Any]
Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Piece:
    """Something to do.

    Attributes:
        key: changes with everything that the result depends on.
        says: what it is, for people.
        do: given a folder for checkpoints and `report` as in `distill`, answers what JSON can hold. It runs in a process of its
            own, so it must be a function of a module, or a `partial` of one.
    """

    key: str
    says: str
    do: Callable[[Path, Report], Result]


def done_once(pieces: Sequence[Piece], output: Path, workers: int, say: Say) -> list[Result]:
    """What came of each piece, `workers` of them at a time, each in a fresh process.

    Beside its own entries a result has `seconds` (by the clock), `core_seconds` (of one core that nobody else uses) and
    `peak_memory_mb`, which counts the processes that it started.

    Args:
        output: see above. say: called with a line for people as each is done.

    Raises:
        WorkerError, and what a piece raises: the others are ended, and go on with the next call.
    """
    file = output / RESULTS
    results = read_lines(file)
    missing = [piece for piece in {p.key: p for p in pieces}.values() if piece.key not in results]
    if pieces and len(missing) < len(pieces):
        say(f"{len(pieces) - len(missing)} of {len(pieces)} are known from {file}")

    def finish(number: int, result: Result) -> None:
        piece = missing[number]
        results[piece.key] = result
        file.parent.mkdir(parents=True, exist_ok=True)
        append_json_line(file, {"key": piece.key, "is": piece.says, **result})
        shutil.rmtree(output / WORK / piece.key, ignore_errors=True)
        say(f"{piece.says}: {result['seconds']:.0f} s, {result['peak_memory_mb']} MiB")

    calls = [partial(_do, piece.do, output / WORK / piece.key) for piece in missing]
    in_processes(calls, at_once=workers, done=finish)
    return [results[piece.key] for piece in pieces]


def read_lines(file: Path) -> dict[str, Result]:
    """Results by key; a line that a kill cut short does not count."""
    return {result["key"]: result for result in read_json_lines(file) if "key" in result}


def _do(do: Callable[[Path, Report], Result], work: Path, tell: Tell) -> Result:
    """Do a piece, and add what it cost to what earlier attempts did."""
    work.mkdir(parents=True, exist_ok=True)
    file = work / SPENT
    spent = json.loads(file.read_text()) if file.is_file() else {}
    began_s, began_core_s = time.monotonic(), _core_s()

    def cost() -> dict[str, float]:
        return {
            "seconds": round(spent.get("seconds", 0.0) + time.monotonic() - began_s, 1),
            "core_seconds": round(spent.get("core_seconds", 0.0) + _core_s() - began_core_s, 1),
            "peak_memory_mb": round(max(spent.get("peak_memory_mb", 0.0), memory.peak_mb)),
        }

    def report(fraction: float, detail: str) -> None:
        partial_file = file.with_suffix(".partial")
        partial_file.write_text(json.dumps(cost()))
        partial_file.replace(file)

    with MemoryMeter() as memory:
        result = do(work, report)
        return {**result, **cost()}


def _core_s() -> float:
    """Processor time of this process and of those it started and that have ended."""
    return sum(os.times()[:4])

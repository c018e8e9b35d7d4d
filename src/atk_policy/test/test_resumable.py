"""Pieces of work that are done once: killed at any moment the same call goes on, and what it cost adds up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from atk_policy.resumable import RESULTS, Piece, done_once


def square(number: int, work: Path, report) -> dict[str, int]:
    """Leaves a mark of having been done."""
    with (work.parent.parent / "done.txt").open("a") as file:
        file.write(f"{number}\n")
    return {"square": number * number}


def refuse(work: Path, report) -> dict[str, int]:
    raise ValueError("none of 3 candidates is trackable")


def count_slowly(work: Path, report) -> dict[str, int]:
    """Counts to 4 in a checkpoint; waits for ever on its way when it begins anew."""
    file = work / "count.txt"
    begun_at = int(file.read_text()) if file.is_file() else 0
    for count in range(begun_at, 4):
        report(count / 4, "")
        file.write_text(str(count + 1))
        time.sleep(0.3 if count < 2 or begun_at else 600)
    return {"begun_at": begun_at}


def pieces(*numbers: int) -> list[Piece]:
    return [Piece(f"key{n}", f"square of {n}", partial(square, n)) for n in numbers]


def test_each_is_done_once_and_in_a_line_of_its_own(tmp_path):
    said: list[str] = []
    results = done_once(pieces(2, 3, 2), tmp_path, 2, said.append)
    assert [r["square"] for r in results] == [4, 9, 4]
    assert all(r["peak_memory_mb"] > 5 and r["seconds"] >= 0 and r["core_seconds"] >= 0 for r in results)
    assert sorted((tmp_path / "done.txt").read_text().split()) == ["2", "3"]
    assert not list((tmp_path / "work").iterdir()), "nothing is left of what is done"
    # A kill cut the last line short: that piece alone is done again.
    file = tmp_path / RESULTS
    file.write_text(file.read_text() + '{"key": "key4", "squ')
    results = done_once(pieces(3, 4), tmp_path, 1, said.append)
    assert [r["square"] for r in results] == [9, 16]
    assert sorted((tmp_path / "done.txt").read_text().split()) == ["2", "3", "4"]
    assert f"1 of 2 are known from {file}" in said
    assert len(done_once(pieces(2, 3, 4), tmp_path, 1, said.append)) == 3
    assert sorted((tmp_path / "done.txt").read_text().split()) == ["2", "3", "4"]


def test_an_error_is_raised_as_it_was_and_what_was_done_stays(tmp_path):
    wanted = [*pieces(5), Piece("bad", "a bad one", refuse)]
    with pytest.raises(ValueError, match="none of 3 candidates is trackable"):
        done_once(wanted, tmp_path, 1, lambda line: None)
    assert json.loads((tmp_path / RESULTS).read_text())["square"] == 25


def test_killed_it_goes_on_from_its_checkpoint_and_its_time_counts_from_the_beginning(tmp_path):
    process = subprocess.Popen([sys.executable, __file__, str(tmp_path)], env={**os.environ})
    count = tmp_path / "work" / "slow" / "count.txt"
    deadline = time.monotonic() + 60
    while not count.is_file() or count.read_text() != "3":
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (result,) = done_once([Piece("slow", "slow", count_slowly)], tmp_path, 1, lambda line: None)
    assert result["begun_at"] == 3
    assert result["seconds"] >= 0.3 + 2 * 0.3


if __name__ == "__main__":
    done_once([Piece("slow", "slow", count_slowly)], Path(sys.argv[1]), 1, print)

"""Work in other processes: results in order, errors and deaths told, and nothing that stays behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from atk_policy.worker_processes import WorkerError, in_processes, worker_pool


def count_to(number: int, tell) -> int:
    for k in range(number):
        tell(k)
    return 10 * number


def fail(tell) -> None:
    raise ValueError("no such demonstration")


def die(tell) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait(tell) -> None:
    tell(os.getpid())
    time.sleep(600)


def wait_with_a_process_of_its_own(tell) -> None:
    in_processes([wait], lambda _, told: tell(told))


def test_results_come_in_order_and_everything_told_is_heard():
    heard: list[tuple[int, int]] = []
    finished: list[tuple[int, int]] = []
    results = in_processes(
        [partial(count_to, n) for n in (3, 0, 2)],
        lambda number, told: heard.append((number, told)),
        at_once=2,
        done=lambda number, result: finished.append((number, result)),
    )
    assert results == [30, 0, 20]
    assert sorted(heard) == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]
    assert sorted(finished) == [(0, 30), (1, 0), (2, 20)]


def test_an_error_ends_the_others_and_is_raised_as_it_was():
    begin = time.monotonic()
    with pytest.raises(ValueError, match="no such demonstration"):
        in_processes([wait, fail])
    assert time.monotonic() - begin < 60
    assert not multiprocessing.active_children()


def test_a_process_that_was_killed_is_said():
    with pytest.raises(WorkerError, match="status -9"):
        in_processes([die])


def test_who_hears_may_end_the_work():
    class Cancelled(Exception):
        pass

    def cancel(number: int, told: object) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        in_processes([wait, wait], cancel)
    assert not multiprocessing.active_children()


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("work", ["in_processes", "nested", "pool"])
def test_workers_end_when_the_one_who_started_them_is_killed(work):
    process = subprocess.Popen(
        [sys.executable, __file__, work], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    workers = [int(process.stdout.readline()) for _ in range(2)]
    assert not any(map(ended, workers))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 20
    while not all(map(ended, workers)):
        assert time.monotonic() < deadline, "a worker stayed"
        time.sleep(0.05)


def say(number: int, told: object) -> None:
    print(told, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "pool":
        with worker_pool(2) as pool:
            for pid in [pool.submit(os.getpid).result(), pool.submit(os.getpid).result()]:
                print(pid, flush=True)
            time.sleep(600)
    else:
        in_processes([wait if sys.argv[1] == "in_processes" else wait_with_a_process_of_its_own] * 2, say)

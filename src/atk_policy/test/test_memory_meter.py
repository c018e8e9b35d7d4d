"""Memory of a piece of work: its peak, though it was given back, and that of processes that it started."""

from __future__ import annotations

import time

import numpy as np

from atk_policy.memory_meter import MemoryMeter
from atk_policy.worker_processes import in_processes

MB = 1 << 20


def hold(tell) -> None:
    block = np.ones(150 * MB, np.uint8)
    tell(int(block[-1]))
    time.sleep(1.5)


def test_what_was_given_back_counts_and_what_was_before_does_not():
    before = np.ones(300 * MB, np.uint8)
    del before
    with MemoryMeter() as nothing:
        pass
    with MemoryMeter() as memory:
        block = np.ones(200 * MB, np.uint8)
        del block
    assert 180 < memory.peak_mb - nothing.peak_mb < 230


def test_processes_that_live_at_one_time_add_up():
    with MemoryMeter() as alone:
        pass
    with MemoryMeter() as memory:
        in_processes([hold, hold])
    assert memory.peak_mb > alone.peak_mb + 2 * 150

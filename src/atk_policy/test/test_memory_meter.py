"""Memory of a piece of work: its peak, though it was given back, and that of processes that it started."""

from __future__ import annotations

import mmap
import time

import numpy as np

from atk_policy.memory_meter import MemoryMeter
from atk_policy.worker_processes import in_processes

MB = 1 << 20


def hold(tell) -> None:
    block = np.ones(150 * MB, np.uint8)
    tell(int(block[-1]))
    time.sleep(1.5)


def use(size_mb: int) -> None:
    """Take pages of the system and give them back: malloc may find room in what this process still holds."""
    with mmap.mmap(-1, size_mb * MB) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1


def test_what_was_given_back_counts_and_what_was_before_does_not():
    use(300)
    with MemoryMeter() as nothing:
        pass
    with MemoryMeter() as memory:
        use(200)
    assert 180 < memory.peak_mb - nothing.peak_mb < 230


def test_processes_that_live_at_one_time_add_up():
    with MemoryMeter() as alone:
        pass
    with MemoryMeter() as memory:
        in_processes([hold, hold])
    assert memory.peak_mb > alone.peak_mb + 2 * 150

"""How much memory a piece of work takes, together with the processes that it starts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

PROCESSES = Path("/proc")
PERIOD_S = 0.5  # the kernel keeps each process's peak itself: only its last half second can be missed


class MemoryMeter:
    """While it is entered: the largest sum of the peaks of this process and of those under it that live at one time.

    An upper bound: peaks need not come at one time, and pages that processes share count in each.
    """

    def __init__(self) -> None:
        self._peak_mb = 0.0
        self._ended = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryMeter:
        """Begin at what is in use now, not at what this process used before."""
        with contextlib.suppress(OSError):  # a kernel without it: the peak is then that of the process's life
            (PROCESSES / "self" / "clear_refs").write_text("5")
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End with a last look."""
        self._ended.set()
        self._thread.join()
        self._look()

    @property
    def peak_mb(self) -> float:
        """So far [MiB]."""
        if not self._ended.is_set():
            self._look()
        return self._peak_mb

    def _watch(self) -> None:
        while not self._ended.wait(PERIOD_S):
            self._look()

    def _look(self) -> None:
        self._peak_mb = max(self._peak_mb, sum(map(_peak_mb, _with_descendants(os.getpid()))))


def _with_descendants(pid: int) -> list[int]:
    """`pid`, its children, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for folder in PROCESSES.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                # PID (COMMAND) STATE PARENT ...; the command may hold anything.
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _peak_mb(pid: int) -> float:
    """Largest memory of a process so far [MiB]; 0 where it has ended."""
    with contextlib.suppress(OSError):
        for line in (PROCESSES / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0

"""Work in processes of its own: each on one thread, gone with whoever started it, telling how far it is.

A process that Python's pools start stays for ever when the one that started it is killed, waiting for more to do; a
selection that is killed and started again would then run beside its own remains.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any, TypeVar

import cv2
import torch

Tell = Callable[[Any], None]
T = TypeVar("T")

# A forked copy of a process with ROS or torch threads can deadlock.
CONTEXT = multiprocessing.get_context("spawn")


class WorkerError(RuntimeError):
    """A process ended without a word, as when the system runs out of memory; the message says how."""


def worker_pool(count: int) -> ProcessPoolExecutor:
    """Python's own, for many small pieces of work."""
    return ProcessPoolExecutor(count, CONTEXT, initializer=begin_worker)


def begin_worker() -> None:
    """Make this process a worker: one thread, for the processes are the parallelism, and an end when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; who started this process ends it
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()


def in_processes(
    calls: Sequence[Callable[[Tell], T]],
    hear: Callable[[int, Any], None] = lambda number, told: None,
    *,
    at_once: int | None = None,
    done: Callable[[int, T], None] = lambda number, result: None,
) -> list[T]:
    """What `calls` return, each called in a process of its own.

    Args:
        calls: each takes `tell`, with which it sends something to `hear`.
        hear: called in this process, with the number of the call and what it told. When it or `done` raises, or a call
            does, all that run are ended, and that is raised.
        at_once: so many at a time; None for all.
        done: called in this process as each call returns.

    Raises:
        WorkerError: a process ended without a result.
    """
    left = list(enumerate(calls))[::-1]
    running: dict[Connection, tuple[int, Any]] = {}
    results: dict[int, T] = {}
    try:
        while left or running:
            while left and len(running) < (at_once or len(calls)):
                number, call = left.pop()
                ours, theirs = CONTEXT.Pipe(duplex=False)
                # Bytes of our own: multiprocessing would move tensors into shared memory, of which a container has little.
                process = CONTEXT.Process(target=_work, args=(pickle.dumps(call), theirs))
                process.start()
                theirs.close()  # so that the end of the process is the end of the pipe
                running[ours] = (number, process)
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                number, process = running[pipe]
                kind, value = _receive(pipe, process)
                if kind == "told":
                    hear(number, value)
                    continue
                process.join()
                pipe.close()
                del running[pipe]
                if kind == "raised":
                    raise value
                results[number] = value
                done(number, value)
    finally:
        for pipe, (_, process) in running.items():
            process.terminate()
            process.join()
            pipe.close()
    return [results[number] for number in range(len(calls))]


def _receive(pipe: Connection, process: Any) -> tuple[str, Any]:
    try:
        message: tuple[str, Any] = pickle.loads(pipe.recv_bytes())
    except EOFError:
        process.join()
        return "raised", WorkerError(
            f"a worker process ended with status {process.exitcode} before it had a result; -9 is what the system does to it "
            "when memory runs out: give fewer workers, or fewer candidates"
        )
    return message


def _work(pickled: bytes, pipe: Connection) -> None:
    begin_worker()

    def send(kind: str, value: Any) -> None:
        pipe.send_bytes(pickle.dumps((kind, value)))

    try:
        result = pickle.loads(pickled)(partial(send, "told"))
    except Exception as error:
        send("raised", error)
    else:
        send("returned", result)

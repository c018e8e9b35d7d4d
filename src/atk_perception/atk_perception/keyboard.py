"""Single key presses of the terminal that a command runs in."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable

# How long a reader that is to end may still wait for a key.
WAKE_S = 0.2


class KeyboardError(RuntimeError):
    """Keys cannot be read; the message says what to do."""


class Keyboard:
    """Hands every key to `on_key`, one after the other, from `start` until `close`, which restores the terminal.

    Raises:
        KeyboardError: standard input is no terminal.
    """

    def __init__(self, on_key: Callable[[str], None]) -> None:
        if not sys.stdin.isatty():
            raise KeyboardError(
                "standard input is no terminal, so no key can be read; run this in a terminal, or use the service or "
                "the joystick"
            )
        self._on_key = on_key
        self._descriptor = sys.stdin.fileno()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keyboard", daemon=True)

    def start(self) -> None:
        """Begin to listen; keys are no longer echoed, Ctrl-C still ends the process."""
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. May be called by `on_key`."""
        self._ending.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def _run(self) -> None:
        while not self._ending.is_set():
            ready, _, _ = select.select([self._descriptor], [], [], WAKE_S)
            if not ready:
                continue
            typed = os.read(self._descriptor, 64)
            if not typed:  # the terminal is gone
                return
            for key in typed.decode(errors="ignore"):
                self._on_key(key)

"""What whole-stack tests share: the demonstration's arguments, changed where a test needs it, and DDS domains."""

from __future__ import annotations

import argparse
import itertools
import os

from atk_sim import demo


def demo_arguments(**changes: object) -> argparse.Namespace:
    arguments = demo.parse_arguments([])
    for name, value in changes.items():
        setattr(arguments, name, value)
    return arguments


# Every graph gets a DDS domain of its own; 101 is the highest whose ports are safe on Linux.
_DOMAINS = itertools.count(os.getpid() % 40)


def next_domain() -> int:
    """A domain that no other graph of this run has."""
    return 11 + next(_DOMAINS) % 90

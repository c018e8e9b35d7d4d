"""The demonstration's arguments, changed where a test needs it."""

from __future__ import annotations

import argparse

from atk_sim import demo


def demo_arguments(**changes: object) -> argparse.Namespace:
    arguments = demo.parse_arguments([])
    for name, value in changes.items():
        setattr(arguments, name, value)
    return arguments

"""Methods by name: ATK and what it is compared with."""

from __future__ import annotations

from atk_sim.methods.atk import Atk
from atk_sim.methods.protocol import Method

METHODS: dict[str, Method] = {method.name: method for method in (Atk(),)}


def make_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method '{name}'; known: {', '.join(METHODS)}")
    return METHODS[name]

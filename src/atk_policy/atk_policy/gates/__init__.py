"""Gates by name: the one place where a name becomes a gate class."""

from __future__ import annotations

from atk_policy.gates.bernoulli import BernoulliGates
from atk_policy.gates.hard_concrete import HardConcreteGates
from atk_policy.gates.protocol import Gates
from atk_policy.gates.stochastic import StochasticGates

GATES: dict[str, type[Gates]] = {
    "bernoulli": BernoulliGates,  # the published ones
    "hard_concrete": HardConcreteGates,
    "stochastic": StochasticGates,
}
DEFAULT_GATES = "stochastic"


def make_gates(name: str, members: int, candidates: int) -> Gates:
    """Gates that are nearly all open.

    Raises:
        ValueError: no such gates.
    """
    if name not in GATES:
        raise ValueError(f"unknown gates '{name}'; known: {', '.join(sorted(GATES))}")
    return GATES[name](members, candidates)

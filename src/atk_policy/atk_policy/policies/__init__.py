"""Policies by name: the one place where a name becomes a policy class."""

from __future__ import annotations

from typing import Any

from atk_policy.policies.mlp import MlpPolicy
from atk_policy.policies.protocol import Policy

POLICIES: dict[str, type[Policy]] = {"mlp": MlpPolicy}
DEFAULT_POLICY = "mlp"


def make_policy(name: str, **sizes: Any) -> Policy:
    """A policy with fresh weights.

    Raises:
        ValueError: no such policy, or sizes that it does not have.
    """
    if name not in POLICIES:
        raise ValueError(f"unknown policy '{name}'; known: {', '.join(sorted(POLICIES))}")
    try:
        return POLICIES[name](**sizes)
    except TypeError as error:
        raise ValueError(f"policy '{name}' cannot be built from {sizes}: {error}") from error

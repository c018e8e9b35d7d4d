"""Policies by name: the one place where a name becomes a policy class."""

from __future__ import annotations

import inspect
from typing import Any

from atk_policy.policies.diffusion import DiffusionPolicy
from atk_policy.policies.encoders import ENCODERS
from atk_policy.policies.flow import FlowPolicy
from atk_policy.policies.gaussian import GaussianPolicy
from atk_policy.policies.mlp import MlpPolicy
from atk_policy.policies.protocol import Policy

POLICIES: dict[str, type[Policy]] = {
    "mlp": MlpPolicy,
    "gaussian": GaussianPolicy,
    "diffusion": DiffusionPolicy,
    "flow": FlowPolicy,
}
DEFAULT_POLICY = "mlp"


def check_policy(name: str, encoder: str, sizes: dict[str, int]) -> None:
    """Refuse what `make_policy` could not make, before anything is trained.

    Raises:
        ValueError: no such policy or encoder, or sizes that the policy does not have or cannot be.
    """
    if name not in POLICIES:
        raise ValueError(f"unknown policy '{name}'; known: {', '.join(sorted(POLICIES))}")
    if encoder not in ENCODERS:
        raise ValueError(f"unknown encoder '{encoder}'; known: {', '.join(sorted(ENCODERS))}")
    known = {
        parameter.name: parameter.default
        for parameter in inspect.signature(POLICIES[name]).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and isinstance(parameter.default, int)
    }
    for size, value in sizes.items():
        if size not in known:
            having = ", ".join(f"{key} ({default})" for key, default in known.items())
            raise ValueError(f"policy '{name}' has no size '{size}'; its sizes and their defaults: {having}")
        if value < 1:
            raise ValueError(f"size '{size}' of policy '{name}' is {value}; at least 1")


def make_policy(name: str, **sizes: Any) -> Policy:
    """A policy with fresh weights.

    Raises:
        ValueError: no such policy, sizes that it does not have, or a package that it needs is not installed.
    """
    if name not in POLICIES:
        raise ValueError(f"unknown policy '{name}'; known: {', '.join(sorted(POLICIES))}")
    try:
        return POLICIES[name](**sizes)
    except TypeError as error:
        raise ValueError(f"policy '{name}' cannot be built from {sizes}: {error}") from error

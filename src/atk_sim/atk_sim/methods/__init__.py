"""Methods by name: ATK and what it is compared with."""

from __future__ import annotations

from atk_sim.methods.atk import Atk
from atk_sim.methods.dagger import Dagger, ExactAtk
from atk_sim.methods.modalities import Depth, PointCloud, Pose, Rgb
from atk_sim.methods.other_sets import ALPHAS, FullSet, ManualSelect, Published, RandomSelect
from atk_sim.methods.protocol import Method
from atk_sim.methods.vision import Vision
from atk_sim.methods.vlm import VlmSelect

_ALL: tuple[Method, ...] = (
    Atk(),
    Dagger("dagger", Atk()),
    Dagger("dagger_exact", ExactAtk()),
    FullSet(),
    RandomSelect(),
    ManualSelect(),
    VlmSelect(),
    *(Published(alpha) for alpha in ALPHAS),
    Vision(Pose()),
    Vision(Rgb()),
    Vision(Depth()),
    Vision(PointCloud()),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def make_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method '{name}'; known: {', '.join(METHODS)}")
    return METHODS[name]

"""Matchers and trackers by name: the one place where a name becomes an object.

Those that need weights of others are never the default; our own are in this package. `get_weights` fetches weights; where they lie is told by ATK_WEIGHTS
(see public_models.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Generic, TypeVar

from atk_perception.correspondence.protocol import Matcher
from atk_perception.correspondence.sift import SiftMatcher
from atk_perception.public_models import MODELS, BackendError
from atk_perception.tracking.lucas_kanade import LucasKanadeTracker
from atk_perception.tracking.protocol import Tracker
from atk_perception.tracking.template_lk import TemplateLkTracker

Made = TypeVar("Made")


class UnknownBackendError(BackendError, ValueError):
    """No matcher or tracker has this name; says which there are."""


@dataclass(frozen=True)
class Backend(Generic[Made]):
    """One implementation and what choosing it means.

    Attributes:
        make: builds it with its default parameters; raises BackendError where a package or weights are missing.
        summary: one line.
        needs_weights: whether a file of weights must be present.
        device: "cpu", or "cuda" where it is too slow without.
        licence: SPDX name of code and weights, the stricter of the two.
        causal: whether a frame's answer depends on that frame and earlier ones only; True for every matcher.
        lag_frames: how many frames later than its own an answer may come.
        inferences: what builds it to run in something else than it usually does, by name of that inference_backend.
    """

    make: Callable[[], Made]
    summary: str
    needs_weights: bool
    device: str
    licence: str
    causal: bool
    lag_frames: int = 0
    inferences: Mapping[str, Callable[[], Made]] = field(default_factory=dict)


def _later(module: str, name: str) -> Callable[[], Any]:
    """Imports when it is chosen: torch takes longer to import than all the rest of this package."""

    def make() -> Any:
        return getattr(import_module(f"atk_perception.{module}"), name)()

    return make


def _atk_tracker_on_graphs() -> Tracker[Any]:
    from atk_perception.learned.backbone import load_backbone
    from atk_perception.tracking.atk import AtkTracker

    return AtkTracker(load_backbone(graphs=True))


MATCHERS: dict[str, Backend[Matcher]] = {
    "sift": Backend(
        SiftMatcher,
        "SIFT features, local votes, affine patch verification",
        needs_weights=False,
        device="cpu",
        licence="Apache-2.0",
        causal=True,
    ),
    "atk": Backend(
        _later("correspondence.atk", "AtkMatcher"),
        "Votes of the learned descriptor and of SIFT, aligned by patches, judged together",
        needs_weights=True,
        device="cpu",
        licence="Apache-2.0",
        causal=True,
    ),
    "dinov2": Backend(
        _later("correspondence.dinov2", "make_dinov2"),
        "DINOv2 ViT-S/14 patch tokens, mutual nearest neighbours",
        needs_weights=True,
        device="cpu",
        licence=MODELS["dinov2"].licence,
        causal=True,
    ),
    "dinov3": Backend(
        _later("correspondence.dinov3", "make_dinov3"),
        "DINOv3 ViT-S/16 patch tokens, mutual nearest neighbours",
        needs_weights=True,
        device="cpu",
        licence=MODELS["dinov3"].licence,
        causal=True,
    ),
    "dift": Backend(
        _later("correspondence.dift", "make_dift"),
        "Diffusion features of Stable Diffusion 2.1, mutual nearest neighbours",
        needs_weights=True,
        device="cuda",
        licence=MODELS["dift"].licence,
        causal=True,
    ),
    "lightglue": Backend(
        _later("correspondence.lightglue", "make_lightglue"),
        "SuperPoint corners matched by LightGlue, points placed by the matches around them",
        needs_weights=True,
        device="cpu",
        licence=MODELS["lightglue"].licence,
        causal=True,
    ),
}

TRACKERS: dict[str, Backend[Tracker[Any]]] = {
    "template_lk": Backend(
        TemplateLkTracker,
        "Lucas-Kanade prediction, affine refinement against the first appearance, co-motion of neighbours",
        needs_weights=False,
        device="cpu",
        licence="Apache-2.0",
        causal=True,
    ),
    "lucas_kanade": Backend(
        LucasKanadeTracker,
        "Pyramidal Lucas-Kanade, forward and back; the baseline, drifts and never re-finds",
        needs_weights=False,
        device="cpu",
        licence="Apache-2.0",
        causal=True,
    ),
    "atk": Backend(
        _later("tracking.atk", "AtkTracker"),
        "Flow, learned network, search and neighbours propose, patches align, fitted evidence decides",
        needs_weights=True,
        device="cpu",
        licence="Apache-2.0",
        causal=True,
        inferences={"onnxruntime": _atk_tracker_on_graphs},
    ),
    "bootstapir": Backend(
        _later("tracking.bootstapir", "make_bootstapir"),
        "Causal BootsTAPIR: features found anew in every frame, refined with what the last ones said",
        needs_weights=True,
        device="cuda",
        licence=MODELS["bootstapir"].licence,
        causal=True,
    ),
    "cotracker3": Backend(
        _later("tracking.cotracker3", "make_cotracker3"),
        "CoTracker3 online: windows of 16 frames, the one being filled run again at every frame instead of every eighth",
        needs_weights=True,
        device="cuda",
        licence=MODELS["cotracker3"].licence,
        causal=True,
    ),
}

DEFAULT_MATCHER = "sift"
DEFAULT_TRACKER = "template_lk"
DEFAULT_INFERENCE = "default"


def make_matcher(name: str = DEFAULT_MATCHER) -> Matcher:
    """The matcher of that name.

    Raises:
        UnknownBackendError: no such name.
        BackendError: its package or weights are missing.
    """
    return _look_up(MATCHERS, name, "matcher").make()


def make_tracker(name: str = DEFAULT_TRACKER, inference_backend: str = DEFAULT_INFERENCE) -> Tracker[Any]:
    """The tracker of that name.

    Args:
        inference_backend: what its network runs in; DEFAULT_INFERENCE: what it usually does.

    Raises:
        UnknownBackendError: no such name.
        BackendError: its package or weights are missing.
        ValueError: it cannot run in that.
    """
    backend = _look_up(TRACKERS, name, "tracker")
    if inference_backend == DEFAULT_INFERENCE:
        return backend.make()
    if inference_backend not in backend.inferences:
        raise ValueError(
            f"tracker '{name}' cannot run in inference_backend '{inference_backend}'; it can in: "
            f"{', '.join((DEFAULT_INFERENCE, *sorted(backend.inferences)))}"
        )
    return backend.inferences[inference_backend]()


def _look_up(backends: dict[str, Backend[Made]], name: str, kind: str) -> Backend[Made]:
    if name not in backends:
        raise UnknownBackendError(f"unknown {kind} '{name}'; known: {', '.join(sorted(backends))}")
    return backends[name]

"""Matchers and trackers by name: the one place where a name becomes an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from atk_perception.correspondence.protocol import Matcher
from atk_perception.correspondence.sift import SiftMatcher
from atk_perception.tracking.lucas_kanade import LucasKanadeTracker
from atk_perception.tracking.protocol import Tracker
from atk_perception.tracking.template_lk import TemplateLkTracker

Made = TypeVar("Made")


@dataclass(frozen=True)
class Backend(Generic[Made]):
    """One implementation and what choosing it means.

    Attributes:
        make: builds it with its default parameters.
        summary: one line.
        needs_weights: whether a file of weights must be present.
        device: "cpu", or "cuda" where it is too slow without.
        licence: SPDX name of code and weights, the stricter of the two.
        causal: whether a frame's answer depends on that frame and earlier ones only; True for every matcher.
        inferences: what builds it to run in something else than it usually does, by name of that inference_backend.
    """

    make: Callable[[], Made]
    summary: str
    needs_weights: bool
    device: str
    licence: str
    causal: bool
    inferences: Mapping[str, Callable[[], Made]] = field(default_factory=dict)


def _atk_matcher() -> Matcher:
    # Imported when chosen: torch takes longer to import than all the rest of this package.
    from atk_perception.correspondence.atk import AtkMatcher

    return AtkMatcher()


def _atk_tracker() -> Tracker[Any]:
    from atk_perception.tracking.atk import AtkTracker

    return AtkTracker()


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
        _atk_matcher,
        "Learned descriptor, posterior over the image, recurrent refinement, checked by going back",
        needs_weights=True,
        device="cpu",
        licence="Apache-2.0",
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
        _atk_tracker,
        "Learned descriptor, posterior over the image, recurrent refinement, visibility and certainty",
        needs_weights=True,
        device="cpu",
        licence="Apache-2.0",
        causal=True,
        inferences={"onnxruntime": _atk_tracker_on_graphs},
    ),
}

DEFAULT_MATCHER = "sift"
DEFAULT_TRACKER = "template_lk"
DEFAULT_INFERENCE = "default"


def make_matcher(name: str = DEFAULT_MATCHER) -> Matcher:
    """The matcher of that name.

    Raises:
        ValueError: no such name.
    """
    return _look_up(MATCHERS, name, "matcher").make()


def make_tracker(name: str = DEFAULT_TRACKER, inference_backend: str = DEFAULT_INFERENCE) -> Tracker[Any]:
    """The tracker of that name.

    Args:
        inference_backend: what its network runs in; DEFAULT_INFERENCE: what it usually does.

    Raises:
        ValueError: no such name, or it cannot run in that.
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
        raise ValueError(f"unknown {kind} '{name}'; known: {', '.join(sorted(backends))}")
    return backends[name]

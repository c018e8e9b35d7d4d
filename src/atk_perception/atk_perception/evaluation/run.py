"""Trackers and matchers run over sequences, as a user would run them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matcher, Matches, Template
from atk_perception.registry import TRACKERS, Backend
from atk_perception.tracking.protocol import Tracker
from atk_perception.tracking.refinding import Refinding
from atk_perception.training.clip import Clip

REFINDING = "+refinding"


def _with_refinding(backend: Backend[Tracker[Any]]) -> Backend[Tracker[Any]]:
    return replace(backend, make=lambda: Refinding(backend.make()))


# Every tracker alone, and as nodes and selection run it.
BENCHED = TRACKERS | {name + REFINDING: _with_refinding(backend) for name, backend in TRACKERS.items()}


def known_matches(uv_px: NDArray[np.float32]) -> Matches:
    """Points of a template found in the template itself."""
    count = len(uv_px)
    return Matches(
        uv_px.astype(np.float32),
        np.ones(count, np.float32),
        np.tile(np.eye(2, dtype=np.float32), (count, 1, 1)),
    )


@dataclass(frozen=True, eq=False)
class ClipTracks:
    """What a tracker said of a clip's N points in its T frames.

    Attributes:
        uv_px: (N, T, 2). visible: (N, T). confidence: (N, T) in [0, 1].
        judged: (N, T) which of it counts: labelled frames after the point's query.
    """

    uv_px: NDArray[np.float32]
    visible: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    judged: NDArray[np.bool_]


def track_clip(tracker: Tracker[Any], clip: Clip) -> ClipTracks:
    """Track all points of `clip`, each from the first frame that shows it ("query first")."""
    count, length = clip.visible.shape
    uv_px, visible = np.zeros((count, length, 2), np.float32), np.zeros((count, length), np.bool_)
    confidence = np.zeros((count, length), np.float32)
    judged = np.zeros((count, length), np.bool_)
    shown = clip.visible & clip.labelled
    first = np.where(shown.any(axis=1), shown.argmax(axis=1), length)
    for begin in np.unique(first[first < length]):
        chosen = np.flatnonzero(first == begin)
        template = Template(clip.video_rgb[begin], clip.uv_px[chosen, begin])
        state = tracker.start(template, clip.video_rgb[begin], known_matches(template.uv_px))
        for t in range(begin + 1, length):
            state, tracks = tracker.step(state, clip.video_rgb[t])
            uv_px[chosen, t], visible[chosen, t] = tracks.uv_px, tracks.visible
            confidence[chosen, t] = tracks.confidence
        judged[chosen, begin + 1 :] = clip.labelled[chosen, begin + 1 :]
    return ClipTracks(uv_px, visible, confidence, judged)


def tracking_ms(tracker: Tracker[Any], clip: Clip, points: int, frames: int) -> NDArray[np.float64]:
    """(frames,) wall time of each step [ms], after three to warm up; points are repeated if the clip has too few."""
    uv_px = np.resize(clip.uv_px[:, 0], (points, 2)) + np.random.default_rng(0).uniform(-2, 2, (points, 2))
    template = Template(clip.video_rgb[0], uv_px.astype(np.float32))
    state = tracker.start(template, clip.video_rgb[0], known_matches(template.uv_px))
    times_ms = []
    for t in range(frames + 3):
        started = time.perf_counter()
        state, _ = tracker.step(state, clip.video_rgb[1 + t % (len(clip) - 1)])
        times_ms.append(1e3 * (time.perf_counter() - started))
    return np.array(times_ms[3:])


def transfer_errors(
    matcher: Matcher, pair: Clip
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], Matches]:
    """One transfer: (N,) errors [px at 640 px width], (N,) confidences, (N,) whether the scene shows the point."""
    matches = matcher.match(Template(pair.video_rgb[0], pair.uv_px[:, 0]), pair.video_rgb[1])
    error_px = np.linalg.norm(matches.uv_px - pair.uv_px[:, 1], axis=1) * 640.0 / pair.video_rgb.shape[2]
    return error_px.astype(np.float32), matches.confidence, pair.visible[:, 1], matches


def transfer_ms(matcher: Matcher, pair: Clip, points: int = 256, repeats: int = 5) -> float:
    """Median wall time of a transfer [ms], the template known already."""
    uv_px = np.resize(pair.uv_px[:, 0], (points, 2)) + np.random.default_rng(0).uniform(-2, 2, (points, 2))
    template = Template(pair.video_rgb[0], uv_px.astype(np.float32))
    times_ms = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        matcher.match(template, pair.video_rgb[1])
        times_ms.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times_ms[1:]))

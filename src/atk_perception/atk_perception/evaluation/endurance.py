"""Half an hour of a scene in which nothing happens: nothing may drift, and no memory may be lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Template
from atk_perception.evaluation import held_out
from atk_perception.evaluation.run import known_matches
from atk_perception.tracking.protocol import Tracker

RATE_HZ = 30
NOISE = 2.0  # [grey levels], of a camera in a lit room
LIGHT = 0.15  # share by which the light goes up and down, once a minute
# What a process takes as it warms up is no growth.
WARM_UP_SHARE = 0.1


@dataclass(frozen=True)
class Endurance:
    """What became of the points and of the memory.

    Attributes:
        frames: that were tracked.
        drift_px: largest distance of a visible point from where it began, over the last minute.
        visible: share of the points that are visible in the mean over the last minute.
        growth_mib: resident memory at the end less that after the warm-up.
    """

    frames: int
    drift_px: float
    visible: float
    growth_mib: float


def endurance(
    tracker: Tracker[Any],
    minutes: float,
    memory_mib: Callable[[], float],
    report: Callable[[float], None] = lambda share: None,
    points: int = 32,
) -> Endurance:
    """Track a still scene of solids at 640x480, 30 images a second, as fast as the machine can.

    Args:
        memory_mib: of this process, now.
        report: called once in a while with the share done.
    """
    clip = held_out.tracking_clip("robot_textured", 0, 2, points)
    image = clip.video_rgb[0]
    rng = np.random.default_rng(0)
    # One long piece of noise, begun anywhere: drawing it anew would take longer than tracking.
    noise = rng.normal(0.0, NOISE, 2 * image.size).astype(np.float32)
    template = Template(image, clip.uv_px[:, 0])
    state = tracker.start(template, image, known_matches(template.uv_px))
    frames = max(2, round(minutes * 60 * RATE_HZ))
    last = range(max(0, frames - 60 * RATE_HZ), frames)
    drift_px, visible, warm_mib = 0.0, [], 0.0
    for k in range(frames):
        state, tracks = tracker.step(state, _seen(image, noise, rng, k))
        if k == int(WARM_UP_SHARE * frames):
            warm_mib = memory_mib()
        if k in last and tracks.visible.any():
            off_px = np.linalg.norm(tracks.uv_px - template.uv_px, axis=1)[tracks.visible]
            drift_px = max(drift_px, float(off_px.max()))
            visible.append(float(tracks.visible.mean()))
        if k % RATE_HZ == 0:
            report(k / frames)
    return Endurance(frames, drift_px, float(np.mean(visible)) if visible else 0.0, memory_mib() - warm_mib)


def _seen(
    image: NDArray[np.uint8], noise: NDArray[np.float32], rng: np.random.Generator, frame: int
) -> NDArray[np.uint8]:
    start = int(rng.integers(image.size))
    light = 1.0 + LIGHT * np.sin(2 * np.pi * frame / (60 * RATE_HZ))
    lit = np.float32(light) * image + noise[start : start + image.size].reshape(image.shape)
    return np.asarray(np.clip(lit, 0, 255), np.uint8)

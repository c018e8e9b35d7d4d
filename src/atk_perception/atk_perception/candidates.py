"""Candidate keypoints `K_can` on the canonical template, before the task chooses among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.correspondence.sift import SiftMatcher
from atk_perception.patches import grey_image
from atk_perception.tracking.lucas_kanade import LucasKanadeTracker

# Images of one demonstration in order, close enough in time to follow points through, the first one its first.
Clip = Sequence[NDArray[np.uint8]]
Strategy = Callable[[NDArray[np.uint8], int, np.random.Generator, float, Sequence[Clip]], NDArray[np.float32]]

# Of "tracked": candidates that are tried per candidate wanted, and how near a round trip must end to where it began:
# what counts as right everywhere in this package.
TRIED_PER_CANDIDATE = 1.5
RETURN_WITHIN_PX = 8.0
# Points matched at a time; memory grows with their number times that of the features.
CHUNK = 1024


def random_candidates(
    template_rgb: NDArray[np.uint8],
    count: int,
    rng: np.random.Generator,
    margin_px: float,
    clips: Sequence[Clip] = (),
) -> NDArray[np.float32]:
    """Uniform over the image, as in the paper (method.md, training step 1)."""
    height, width = template_rgb.shape[:2]
    low = np.full(2, margin_px)
    high = np.array([width - 1, height - 1]) - margin_px
    return rng.uniform(low, high, size=(count, 2)).astype(np.float32)


def textured_candidates(
    template_rgb: NDArray[np.uint8],
    count: int,
    rng: np.random.Generator,
    margin_px: float,
    clips: Sequence[Clip] = (),
) -> NDArray[np.float32]:
    """Spread over the image, each on the most trackable pixel of its neighbourhood.

    Trackability is the smaller eigenvalue of the gradient's structure tensor (Shi and Tomasi, "Good features to
    track", 1994), compressed by a logarithm so that a plain object still gets points. Points are drawn one by one
    with probability proportional to it, and each draw suppresses its surroundings, so that neither a textured
    background nor one corner takes all of them.
    """
    height, width = template_rgb.shape[:2]
    cornerness = cv2.cornerMinEigenVal(grey_image(template_rgb), 5, ksize=3).astype(np.float64)
    weight = np.log1p(cornerness / max(float(np.median(cornerness)), 1e-6))
    weight *= (cornerness == cv2.dilate(cornerness, np.ones((3, 3), np.uint8))) + 1e-6  # peaks, else anything
    margin = int(np.ceil(margin_px))
    inside = np.zeros_like(weight)
    inside[margin : height - margin, margin : width - margin] = 1.0
    weight *= inside
    # Half the spacing of an even grid: dense enough to let texture decide, sparse enough to cover the image.
    radius = 0.5 * np.sqrt((width - 2 * margin) * (height - 2 * margin) / count)
    reach = int(np.ceil(radius))
    offset_v, offset_u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.hypot(offset_u, offset_v) <= radius

    flat_weight = weight.ravel()
    order = np.argsort(-np.log(rng.uniform(size=weight.size)) / np.maximum(flat_weight, 1e-300))
    free = np.ones((height + 2 * reach, width + 2 * reach), bool)
    chosen: list[tuple[int, int]] = []
    leftover: list[tuple[int, int]] = []
    for index in order:
        if len(chosen) == count or flat_weight[index] == 0.0:
            break
        v, u = divmod(int(index), width)
        if not free[v + reach, u + reach]:
            if len(leftover) < count:
                leftover.append((u, v))
            continue
        free[v : v + 2 * reach + 1, u : u + 2 * reach + 1] &= ~disc
        chosen.append((u, v))
    chosen += leftover[: count - len(chosen)]
    return np.array(chosen, np.float32)


def tracked_candidates(
    template_rgb: NDArray[np.uint8],
    count: int,
    rng: np.random.Generator,
    margin_px: float,
    clips: Sequence[Clip] = (),
) -> NDArray[np.float32]:
    """Of half as many textured candidates more, those that lead home from the demonstrations; see `cycle_consistency`.

    Raises:
        ValueError: no clips.
    """
    if not clips:
        raise ValueError("candidate strategy 'tracked' needs clips of some demonstrations to track through")
    tried = textured_candidates(template_rgb, round(TRIED_PER_CANDIDATE * count), rng, margin_px)
    order = np.argsort(-cycle_consistency(template_rgb, tried, clips), kind="stable")
    # Equals stay in the order in which they were drawn, spread over the image.
    return tried[np.sort(order[:count])]


def cycle_consistency(
    template_rgb: NDArray[np.uint8], uv_px: NDArray[np.float32], clips: Sequence[Clip]
) -> NDArray[np.float64]:
    """(C,) in [0, 1]: through how much of some demonstrations points of the template go and come home again.

    A point is found in a clip's first image and from there on the template again; it is followed through the clip, forward
    and back in every step, and from where that ends all the way back. If a round trip does not end where it began, the clip
    counts nothing for the point; else the share of its images through which the point was followed.

    Forward-backward error as a measure of trackability: Kalal et al., ICPR 2010. Matched by SIFT and followed by Lucas-Kanade
    whatever backends are used later: what these can do, others can.
    """
    score = np.zeros(len(uv_px))
    for clip in clips:
        for begin in range(0, len(uv_px), CHUNK):
            chosen = slice(begin, begin + CHUNK)
            score[chosen] += _followed(template_rgb, uv_px[chosen], clip)
    return score / len(clips)


def _followed(template_rgb: NDArray[np.uint8], uv_px: NDArray[np.float32], clip: Clip) -> NDArray[np.float64]:
    """(N,) share of a clip's images through which each point was followed; 0 where a round trip missed."""
    matcher, tracker = SiftMatcher(), LucasKanadeTracker()
    there = matcher.match(Template(template_rgb, uv_px), clip[0])
    back = matcher.match(Template(clip[0], there.uv_px), template_rgb)
    found = (
        (there.confidence >= 0.5)
        & (back.confidence >= 0.5)
        & (np.linalg.norm(back.uv_px - uv_px, axis=1) < RETURN_WITHIN_PX)
    )
    state = tracker.start(Template(clip[0], there.uv_px), clip[0], _seen(there, found))
    path, last = [there.uv_px], np.zeros(len(uv_px), np.int_)
    for k, image in enumerate(clip[1:], start=1):
        state, tracks = tracker.step(state, image)
        path.append(tracks.uv_px)
        last[tracks.visible] = k
    # All the way back, each point from the image in which it was last seen: errors too small for one step add up.
    home_px, returning = there.uv_px, found
    for k in range(len(clip) - 1, 0, -1):
        home_px = np.where((last == k)[:, None], path[k], home_px)
        under_way = returning & (last >= k)
        state = tracker.start(
            Template(clip[k], home_px), clip[k], _seen(replace(there, uv_px=home_px), under_way)
        )
        _, tracks = tracker.step(state, clip[k - 1])
        returning = returning & (tracks.visible | ~under_way)
        home_px = np.where(under_way[:, None], tracks.uv_px, home_px)
    at_home = returning & (np.linalg.norm(home_px - there.uv_px, axis=1) < RETURN_WITHIN_PX)
    return np.where(at_home, (1 + last) / len(clip), 0.0)


def _seen(matches: Matches, alive: NDArray[np.bool_]) -> Matches:
    return replace(matches, confidence=alive.astype(np.float32))


STRATEGIES: dict[str, Strategy] = {
    "random": random_candidates,
    "textured": textured_candidates,
    "tracked": tracked_candidates,
}
NEED_CLIPS = frozenset({"tracked"})


def sample_candidates(
    template_rgb: NDArray[np.uint8],
    count: int,
    rng: np.random.Generator,
    strategy: str = "random",
    margin_px: float = 8.0,
    clips: Sequence[Clip] = (),
) -> NDArray[np.float32]:
    """Sample `count` candidate keypoints.

    Args:
        template_rgb: (H, W, 3) uint8.
        count: how many, C >= 1.
        rng: the only source of randomness.
        strategy: a name in `STRATEGIES`.
        margin_px: distance kept to the image border; a point nearer than a patch radius cannot be matched.
        clips: of some demonstrations, for the strategies in `NEED_CLIPS`.

    Returns:
        (C, 2) float32 pixels.

    Raises:
        ValueError: unknown strategy, no points asked for, clips missing, or a margin that leaves no room.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown candidate strategy '{strategy}'; known: {', '.join(sorted(STRATEGIES))}")
    height, width = template_rgb.shape[:2]
    if count < 1 or 2 * margin_px >= min(height, width) - 1:
        raise ValueError(
            f"cannot sample {count} candidates in a {width}x{height} image with a margin of {margin_px} px: "
            "give count >= 1 and a margin under half the image"
        )
    return STRATEGIES[strategy](template_rgb, count, rng, margin_px, clips)

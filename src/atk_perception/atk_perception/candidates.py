"""Candidate keypoints `K_can` on the canonical template, before the task chooses among them."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.patches import grey_image

Strategy = Callable[[NDArray[np.uint8], int, np.random.Generator, float], NDArray[np.float32]]


def random_candidates(
    template_rgb: NDArray[np.uint8], count: int, rng: np.random.Generator, margin_px: float
) -> NDArray[np.float32]:
    """Uniform over the image, as in the paper (method.md, training step 1)."""
    height, width = template_rgb.shape[:2]
    low = np.full(2, margin_px)
    high = np.array([width - 1, height - 1]) - margin_px
    return rng.uniform(low, high, size=(count, 2)).astype(np.float32)


def textured_candidates(
    template_rgb: NDArray[np.uint8], count: int, rng: np.random.Generator, margin_px: float
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


STRATEGIES: dict[str, Strategy] = {"random": random_candidates, "textured": textured_candidates}


def sample_candidates(
    template_rgb: NDArray[np.uint8],
    count: int,
    rng: np.random.Generator,
    strategy: str = "random",
    margin_px: float = 8.0,
) -> NDArray[np.float32]:
    """Sample `count` candidate keypoints.

    Args:
        template_rgb: (H, W, 3) uint8.
        count: how many, C >= 1.
        rng: the only source of randomness.
        strategy: a name in `STRATEGIES`.
        margin_px: distance kept to the image border; a point nearer than a patch radius cannot be matched.

    Returns:
        (C, 2) float32 pixels.

    Raises:
        ValueError: unknown strategy, no points asked for, or a margin that leaves no room.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown candidate strategy '{strategy}'; known: {', '.join(sorted(STRATEGIES))}")
    height, width = template_rgb.shape[:2]
    if count < 1 or 2 * margin_px >= min(height, width) - 1:
        raise ValueError(
            f"cannot sample {count} candidates in a {width}x{height} image with a margin of {margin_px} px: "
            "give count >= 1 and a margin under half the image"
        )
    return STRATEGIES[strategy](template_rgb, count, rng, margin_px)

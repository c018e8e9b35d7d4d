"""Procedural pictures for training scenes: noise, shapes, stripes, cells, writing, and almost nothing at all.

Drawn from a generator of random numbers and from nothing else; none is used by, or made like, a task of `atk_sim`.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]  # (H, W, 3), 0 to 255


def random_colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """(3,) RGB, 0 to 255; greys and saturated colours both occur."""
    grey = rng.uniform(25, 230)
    return np.clip(grey + rng.normal(0, rng.choice([8.0, 35.0, 80.0]), 3), 8, 247).astype(np.float32)


def noise(rng: np.random.Generator, height: int, width: int, cell_px: float) -> Picture:
    """(H, W, 3) smooth noise of mean 0 and deviation about 1, one value per cell."""
    small = rng.normal(size=(max(2, round(height / cell_px) + 1), max(2, round(width / cell_px) + 1), 3))
    return np.asarray(
        cv2.resize(small.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC), np.float32
    )


def add_noise(rng: np.random.Generator, picture: Picture, contrast: float) -> Picture:
    """Noise of several scales on top."""
    height, width = picture.shape[:2]
    colourful = rng.uniform(0, 1)
    for cell_px in (3.0, 7.0, 16.0, 40.0):
        layer = noise(rng, height, width, cell_px)
        layer = colourful * layer + (1 - colourful) * layer[:, :, :1]
        picture = picture + rng.uniform(0, contrast) * layer
    return picture


def add_shapes(rng: np.random.Generator, picture: Picture, count: int, size_px: float) -> Picture:
    """Discs, polygons, lines and writing with hard edges."""
    height, width = picture.shape[:2]
    picture = np.ascontiguousarray(picture)
    for _ in range(count):
        centre = rng.uniform([0, 0], [width, height])
        size = size_px * float(np.exp(rng.normal(0, 0.5)))
        colour = random_colour(rng).tolist()
        at = (int(centre[0]), int(centre[1]))
        kind = rng.integers(5)
        if kind == 0:
            cv2.circle(picture, at, max(1, int(size / 2)), colour, -1, cv2.LINE_AA)
        elif kind == 1:
            corners = centre + rng.uniform(-size, size, (int(rng.integers(3, 7)), 2))
            cv2.fillPoly(picture, [corners.astype(np.int32)], colour, cv2.LINE_AA)
        elif kind == 2:
            end = centre + rng.uniform(-3 * size, 3 * size, 2)
            cv2.line(picture, at, (int(end[0]), int(end[1])), colour, int(rng.integers(1, 4)), cv2.LINE_AA)
        elif kind == 3:
            axes = (max(1, int(size * rng.uniform(0.3, 1))), max(1, int(size * rng.uniform(0.2, 0.6))))
            thickness = int(rng.choice([-1, 1, 2]))
            cv2.ellipse(picture, at, axes, rng.uniform(0, 180), 0, 360, colour, thickness, cv2.LINE_AA)
        else:
            letters = "".join(chr(int(c)) for c in rng.integers(48, 122, int(rng.integers(1, 6))))
            cv2.putText(
                picture,
                letters,
                at,
                int(rng.integers(0, 4)),
                size / 22,
                colour,
                int(rng.integers(1, 3)),
                cv2.LINE_AA,
            )
    return picture


def stripes(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Bent stripes or a chequerboard of two colours; repeats, as tiles and cloth do."""
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 40)
    bend = rng.uniform(0, 0.5) * noise(rng, height, width, 30)[:, :, 0]
    phase = (u * np.cos(angle) + v * np.sin(angle)) / period + bend
    wave = np.floor(phase) % 2
    if rng.random() < 0.4:
        wave = (wave + np.floor((v * np.cos(angle) - u * np.sin(angle)) / period)) % 2
    first, second = random_colour(rng), random_colour(rng)
    return np.asarray(first + wave[:, :, None] * (second - first), np.float32)


def cells(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Voronoi cells of random colours."""
    count = int(rng.integers(5, 40))
    seeds = np.full((height, width), 255, np.uint8)
    at = rng.uniform([0, 0], [width, height], (count, 2)).astype(int)
    seeds[at[:, 1], at[:, 0]] = 0
    _, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    base, spread = random_colour(rng), rng.uniform(10, 70)
    palette = (base + rng.normal(0, spread, (count + 2, 3))).astype(np.float32)
    return np.asarray(palette[label % len(palette)], np.float32)


def random_texture(
    rng: np.random.Generator, height: int, width: int, *, plain: bool | None = None
) -> Picture:
    """One picture, (H, W, 3) float32 in 0..255.

    Args:
        rng: the only source of variety.
        height, width: [px].
        plain: one colour with at most a few marks of it; None: now and then.
    """
    if plain is None:
        plain = bool(rng.random() < 0.3)
    base = np.zeros((height, width, 3), np.float32) + random_colour(rng)
    size = min(height, width)
    if plain:
        slow = noise(rng, height, width, max(size / 2, 8)) * rng.uniform(0, 6)
        picture = base + slow[:, :, :1]
        if rng.random() < 0.5:
            picture = add_shapes(rng, picture, int(rng.integers(1, 4)), size * rng.uniform(0.08, 0.3))
        return np.clip(picture, 4, 251).astype(np.float32)
    kind = rng.integers(5)
    if kind == 0:
        base = stripes(rng, height, width)
    elif kind == 1:
        base = cells(rng, height, width)
    picture = add_noise(rng, base, rng.choice([4.0, 15.0, 40.0])) if kind != 2 else base
    if kind != 3:
        count = int(rng.integers(4, 20)) + height * width // 4000
        picture = add_shapes(rng, picture, min(count, 60), rng.uniform(0.04, 0.22) * size)
    return np.clip(picture, 4, 251).astype(np.float32)

"""Meshes of the kitchen: printed sheets (panels, frames, handles) and clusters of balls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atk_sim.shapes import TexturedMesh, lathe

FloatArray = NDArray[np.float64]


def sheet(
    outlines_m: Sequence[FloatArray],
    thickness_m: float,
    right: tuple[float, float, float],
    up: tuple[float, float, float],
) -> TexturedMesh:
    """Flat pieces of one thickness, printed on both faces.

    `outlines_m` are convex polygons (N, 2), counter-clockwise, in metres along `right` and `up`; the printed face lies in
    the plane of these two and looks along right x up, the other lies `thickness_m` behind it. The left half of the
    texture shows the face, the right half its back as seen from behind; both span the outlines' bounding box.
    """
    every = np.concatenate(outlines_m)
    low, high = every.min(axis=0), every.max(axis=0)
    axes = np.array([right, up], np.float64)
    behind = -thickness_m * np.cross(axes[0], axes[1])
    vertices, uv, faces, count = [], [], [], 0
    for outline in outlines_m:
        corners = len(outline)
        share = (outline - low) / (high - low)
        share[:, 1] = 1.0 - share[:, 1]  # a picture's first row is its top
        face_uv = np.stack([0.5 * share[:, 0], share[:, 1]], axis=1)
        back_uv = np.stack([1.0 - 0.5 * share[:, 0], share[:, 1]], axis=1)
        points = outline @ axes
        # Four rings: face, face again (rim), back, back again (rim); the rim shows the colour of the face's border.
        vertices += [points, points, points + behind, points + behind]
        uv += [face_uv, face_uv, back_uv, face_uv]
        k, after = np.arange(corners), (np.arange(corners) + 1) % corners
        fan = np.arange(1, corners - 1)
        rim, far = count + corners + k, count + 3 * corners + k
        rim_after, far_after = count + corners + after, count + 3 * corners + after
        faces += [
            np.stack([np.full_like(fan, count), count + fan, count + fan + 1], axis=1),
            2 * corners + np.stack([np.full_like(fan, count), count + fan + 1, count + fan], axis=1),
            np.stack([rim, far, far_after], axis=1),
            np.stack([rim, far_after, rim_after], axis=1),
        ]
        count += 4 * corners
    return TexturedMesh(np.concatenate(vertices), np.concatenate(faces).astype(np.int32), np.concatenate(uv))


def rectangle(left: float, bottom: float, right: float, top: float) -> FloatArray:
    """Outline (4, 2) of a rectangle, counter-clockwise."""
    return np.array([[left, bottom], [right, bottom], [right, top], [left, top]])


def balls(centres_m: FloatArray, radii_m: FloatArray, stretch: float = 1.15) -> TexturedMesh:
    """Balls (N, 3), (N,), each `stretch` times as long along x as it is wide.

    Each shows a square of its own of the texture, N of them in rows of `cells_across(N)`.
    """
    across = cells_across(len(radii_m))
    latitude = np.linspace(np.pi / 2, -np.pi / 2, 9)
    vertices, uv, faces, count = [], [], [], 0
    for number, (centre, radius) in enumerate(zip(centres_m, radii_m, strict=True)):
        profile = radius * np.stack([np.cos(latitude), np.sin(latitude)], axis=1)
        profile[[0, -1], 0] = 0.0
        ball = lathe(profile, segments=16, scale=(stretch, 1.0))
        cell = np.array([number % across, number // across])
        vertices.append(ball.vertices_m + centre)
        uv.append((cell + ball.texture_uv) / across)
        faces.append(ball.faces + count)
        count += len(ball.vertices_m)
    return TexturedMesh(np.concatenate(vertices), np.concatenate(faces).astype(np.int32), np.concatenate(uv))


def cells_across(count: int) -> int:
    """How many squares each row of the texture of `count` balls has."""
    return int(np.ceil(np.sqrt(count)))

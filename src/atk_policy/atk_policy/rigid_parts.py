"""Which candidates moved as one rigid part in the demonstrations: found from their tracks alone.

Two points of one part say nearly the same, so the gates keep now one of them and now the other. What is
stable is the part; points are chosen on it.

In every frame, the points that one affine map takes from the template to where they are count as one part
(sequential RANSAC: Fischler and Bolles 1981; a plane seen from some distance moves so, turned and tilted). One frame
may be chance, such as a clock's hand that stands as on the template; over all demonstrations it shows who stays together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from atk_policy.distillation import TrainingData

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NOISE_PX = 5.0  # of a track, and what a small object's relief adds to an affine map
POINTS_MIN = 4  # that share a map: any three do
MAPS_MAX = 6  # looked for in a frame
# A map is guessed from a point and two of its nearest, the nearer the more likely: they most likely lie on one
# object. As many as find a body of 4 points among 50 in nearly every frame.
DRAWS = 200
NEIGHBOURS = 10
AREA_MIN_PX2 = 20.0  # of their triangle on the template
RIGID_SHARE = 0.6  # of the frames that show both
FRAMES_MIN = 20  # that show both, or nothing is known
FRAMES_MAX = 400  # looked at in all; more say the same again


def rigid_share(data: TrainingData, template_uv_px: npt.NDArray[np.float32], seed: int = 0) -> Floats:
    """(C, C) share of the frames that show both points in which one affine map from the template explains both.

    0 where fewer than FRAMES_MIN frames show both.
    """
    rng = np.random.default_rng(seed)
    template_px = template_uv_px.astype(np.float64)
    count = len(template_px)
    both, together = np.zeros((count, count)), np.zeros((count, count))
    frames = torch.from_numpy(np.unique(np.linspace(0, len(data) - 1, FRAMES_MAX).astype(np.int64)))
    for index in torch.split(frames, 128):
        seen_px = data.uv_px[index].numpy().astype(np.float64)
        for uv_px, visible in zip(seen_px, data.visible[index].numpy() > 0, strict=True):
            labels = moved_together(template_px, uv_px, visible, rng)
            both += visible[:, None] & visible[None]
            together += (labels[:, None] == labels[None]) & (labels >= 0)[:, None]
    return np.where(both >= min(FRAMES_MIN, len(frames)), together / np.maximum(both, 1.0), 0.0)


def moved_together(
    template_px: Floats, uv_px: Floats, visible: Bools, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """(C,) number of the affine map that explains each point of one frame, the map of most points first; -1 for none.

    Args:
        template_px, uv_px: (C, 2) on the template and in the frame. visible: (C,) who is seen there.
    """
    labels = np.full(len(template_px), -1, np.int64)
    source = np.column_stack([template_px, np.ones(len(template_px))])
    left = np.flatnonzero(visible)
    for number in range(MAPS_MAX):
        if len(left) < POINTS_MIN:
            break
        explained = _largest_consensus(source[left], uv_px[left], rng)
        if explained.sum() < POINTS_MIN:
            break
        labels[left[explained]] = number
        left = left[~explained]
    return labels


def _largest_consensus(source: Floats, target_px: Floats, rng: np.random.Generator) -> Bools:
    """(R,) which of R points the best of some guessed affine maps explains; `source` (R, 3) is homogeneous."""
    offset_px = source[:, None, :2] - source[None, :, :2]
    nearest = np.argsort(np.hypot(offset_px[..., 0], offset_px[..., 1]), axis=1)[:, 1 : NEIGHBOURS + 1]
    first = rng.integers(len(source), size=DRAWS)
    ranks = np.arange(nearest.shape[1]) + 1.0
    others = np.argsort(ranks / rng.random((DRAWS, len(ranks))), axis=1)[:, :2]
    corners = np.column_stack([first, np.take_along_axis(nearest[first], others, axis=1)])
    corners = corners[np.abs(np.linalg.det(source[corners])) > 2.0 * AREA_MIN_PX2]
    if len(corners) == 0:
        return np.zeros(len(source), np.bool_)
    maps = np.linalg.solve(source[corners], target_px[corners])
    explained = np.linalg.norm(source @ maps - target_px, axis=2) < NOISE_PX
    best = explained[np.argmax(explained.sum(axis=1))]
    for _ in range(2):  # with all that agree, a map reaches further
        refit = np.linalg.lstsq(source[best], target_px[best], rcond=None)[0]
        wider = np.linalg.norm(source @ refit - target_px, axis=1) < NOISE_PX
        if wider.sum() < best.sum():
            break
        best = wider
    return np.asarray(best)


def rigid_parts(share: Floats) -> npt.NDArray[np.int64]:
    """(C,) number of each point's rigid part, 0 for the part with the most points.

    Average linkage: parts are joined while the mean `rigid_share` between their points is at least
    RIGID_SHARE. A chain of neighbours, as around the pivot of a clock's hand, does not join two parts.
    """
    parts = [[i] for i in range(len(share))]
    link = share.astype(np.float64).copy()
    np.fill_diagonal(link, -1.0)
    while len(parts) > 1:
        a, b = sorted(np.unravel_index(int(np.argmax(link)), link.shape))
        if link[a, b] < RIGID_SHARE:
            break
        mean = (len(parts[a]) * link[a] + len(parts[b]) * link[b]) / (len(parts[a]) + len(parts[b]))
        mean[a] = -1.0
        link[a], link[:, a] = mean, mean
        link = np.delete(np.delete(link, b, axis=0), b, axis=1)
        parts[a] += parts.pop(b)
    labels = np.zeros(len(share), np.int64)
    for number, part in enumerate(sorted(parts, key=lambda p: (-len(p), p[0]))):
        labels[part] = number
    return labels


def consistency(share: Floats, parts: npt.NDArray[np.int64]) -> Floats:
    """(C,) in [0, 1]: how often a point is where its rigid part is, next to the best of the part; 1 where nobody can tell.

    A point on the rim of a part may be taken for one of what lies beside it in every other scene, and be sure of it. Then it
    moves with the rest of its part in half of the demonstrations only. The upper quartile over the rest, because a point is not
    to blame for companions that go astray.

    Args:
        share: (C, C) from `rigid_share`. parts: (C,) from `rigid_parts`.
    """
    result = np.ones(len(parts))
    for part in range(int(parts.max()) + 1):
        mine = np.flatnonzero(parts == part)
        if len(mine) < POINTS_MIN:
            continue
        others = share[np.ix_(mine, mine)].astype(np.float64)
        np.fill_diagonal(others, np.nan)
        together = np.nanquantile(others, 0.75, axis=1)
        result[mine] = together / max(float(together.max()), 1e-9)
    return result

"""Which candidates moved as one rigid part in the demonstrations: found from their tracks alone.

Two points of one part say nearly the same, so the gates keep now one of them and now the other. What is
stable is the part; points are chosen on it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from atk_policy.distillation import TrainingData

# Two points are on one rigid part when their distance in the image stays what it is on the template,
# up to foreshortening (a quarter of it) and tracking noise. Far points have the foreshortening of points
# at REACH_PX only, or two objects at opposite ends of the image would pass for one.
STRETCH_MAX = 0.25
NOISE_PX = 4.0
REACH_PX = 90.0
RIGID_SHARE = 0.8  # of the frames that show both
FRAMES_MIN = 50  # that show both, or nothing is known
FRAMES_MAX = 3000  # looked at in all; more say the same again


def rigid_share(data: TrainingData, template_uv_px: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(C, C) share of the frames that show both points in which they are as far apart as on the template.

    0 where fewer than FRAMES_MIN frames show both.
    """
    template_px = _distances(template_uv_px)
    allowed_px = NOISE_PX + STRETCH_MAX * np.minimum(template_px, REACH_PX)
    both, rigid = np.zeros(template_px.shape), np.zeros(template_px.shape)
    every = -(-len(data) // FRAMES_MAX)
    frames = torch.arange(len(data))
    for index in torch.split(frames[(frames - data.first) % every == 0], 256):
        for uv_px, visible in zip(data.uv_px[index].numpy(), data.visible[index].numpy() > 0, strict=True):
            seen = visible[:, None] & visible[None]
            both += seen
            rigid += seen & (np.abs(_distances(uv_px) - template_px) <= allowed_px)
    return np.where(both >= FRAMES_MIN / every, rigid / np.maximum(both, 1.0), 0.0)


def _distances(uv_px: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(C, C) distances [px]."""
    return np.asarray(np.hypot(*(uv_px[:, None] - uv_px[None]).transpose(2, 0, 1)), np.float64)


def rigid_parts(share: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
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

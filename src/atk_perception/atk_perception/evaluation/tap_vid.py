"""The metrics of TAP-Vid (Doersch et al., NeurIPS 2022), and two of our own: re-finding and transfer.

Distances are in pixels of a 256 x 256 image, whatever the size of the video.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atk_perception.evaluation.run import ClipTracks
from atk_perception.training.clip import Clip

THRESHOLDS_PX = (1.0, 2.0, 4.0, 8.0, 16.0)
# A point hidden for at least this many frames was lost to sight; it is re-found when, within so many frames of its
# return, it is said to be visible within 8 px of where it is.
HIDDEN_FRAMES = 3
REFIND_FRAMES = 10


@dataclass(frozen=True)
class TrackingScore:
    """Figures between 0 and 1 of one video.

    Attributes:
        delta: share of visible points within each of THRESHOLDS_PX.
        oa: occlusion accuracy, share of points whose visibility is said rightly.
        aj: average Jaccard.
        refound: returns from an occlusion after which the point was found again.
        returns: how often a point came back into sight.
    """

    delta: tuple[float, ...]
    oa: float
    aj: float
    refound: int
    returns: int

    @property
    def delta_avg(self) -> float:
        """Mean over the thresholds."""
        return float(np.mean(self.delta))


def claims(clip: Clip, tracks: ClipTracks) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(M,) confidence of every judged point that is said to be visible, and whether it is, within 8 px of 640x480."""
    said = tracks.visible & tracks.judged
    off_px = np.linalg.norm(tracks.uv_px - clip.uv_px, axis=2) * 640.0 / clip.video_rgb.shape[2]
    return tracks.confidence[said], (clip.visible & (off_px <= 8.0))[said]


def tracking_score(clip: Clip, tracks: ClipTracks) -> TrackingScore:
    """Compare tracks with a clip's truth.

    Raises:
        ValueError: nothing is judged.
    """
    uv_px, visible, judged = tracks.uv_px, tracks.visible, tracks.judged
    if not judged.any():
        raise ValueError("no frame is labelled after the points' queries: nothing to measure")
    height, width = clip.video_rgb.shape[1:3]
    error_px = np.linalg.norm((uv_px - clip.uv_px) * np.array([256.0 / width, 256.0 / height]), axis=2)
    truly = clip.visible & judged
    said = visible & judged
    delta, jaccard = [], []
    for threshold in THRESHOLDS_PX:
        within = error_px < threshold
        delta.append(float((within & truly).sum() / max(int(truly.sum()), 1)))
        right = int((within & truly & said).sum())
        # A visible point placed wrongly is both a miss and a false alarm.
        false = int((said & ~(truly & within)).sum())
        jaccard.append(right / max(int(truly.sum()) + false, 1))
    refound, returns = _refound(clip, error_px, visible, judged)
    return TrackingScore(
        tuple(delta),
        float((clip.visible == visible)[judged].mean()),
        float(np.mean(jaccard)),
        refound,
        returns,
    )


def _refound(
    clip: Clip, error_px: NDArray[np.float64], visible: NDArray[np.bool_], judged: NDArray[np.bool_]
) -> tuple[int, int]:
    refound = returns = 0
    for truly, found, counts in zip(clip.visible, visible & (error_px < 8.0), judged, strict=True):
        # Sparse labels do not say when a point came back.
        if not counts[np.argmax(counts) :].all():
            continue
        back = np.flatnonzero(~truly[:-1] & truly[1:]) + 1
        for t in back:
            if t < HIDDEN_FRAMES or truly[t - HIDDEN_FRAMES : t].any():
                continue
            span = slice(t, t + REFIND_FRAMES)
            returns += 1
            refound += int((found[span] & truly[span]).any())
    return refound, returns


@dataclass(frozen=True)
class TransferScore:
    """Figures between 0 and 1 over all transfers.

    Attributes:
        pck8: share of points visible in the scene that are placed within 8 px of 640x480.
        confident_wrong: share of all points that are placed with confidence 0.5 or more and are not within 8 px.
        confident: share of visible points placed with confidence 0.5 or more.
    """

    pck8: float
    confident_wrong: float
    confident: float


def transfer_score(
    error_px: NDArray[np.float32], confidence: NDArray[np.float32], visible: NDArray[np.bool_]
) -> TransferScore:
    """From (N,) errors [px at 640x480], (N,) confidences, and (N,) truth of visibility, pooled over scenes."""
    close, sure = error_px <= 8.0, confidence >= 0.5
    seen = max(int(visible.sum()), 1)
    # A hidden point that is "found" is wrong wherever it is put.
    return TransferScore(
        float((close & visible).sum() / seen),
        float((sure & ~(close & visible)).mean()),
        float((sure & visible).sum() / seen),
    )

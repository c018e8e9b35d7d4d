"""A video with tracks of points, in the layout of TAP-Vid's label files.

Generated clips, held-out sequences and hand-labelled real video are all this one thing. On disk it is an NPZ file
(never a pickle) with TAP-Vid's keys: `video` (T, H, W, 3) uint8, `points` (N, T, 2) float32 with x / width and
y / height in [0, 1], `occluded` (N, T) bool.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames and what is known about points in them.

    Attributes:
        video_rgb: (T, H, W, 3) uint8.
        uv_px: (N, T, 2) float32, pixel centres at integers.
        visible: (N, T) bool.
        labelled: (N, T) bool, where uv_px and visible are known; sparse hand labels leave most frames out.
    """

    video_rgb: NDArray[np.uint8]
    uv_px: NDArray[np.float32]
    visible: NDArray[np.bool_]
    labelled: NDArray[np.bool_]

    def __post_init__(self) -> None:
        count, length = self.visible.shape
        if self.video_rgb.shape[0] != length or self.video_rgb.ndim != 4 or self.video_rgb.shape[3] != 3:
            raise ValueError(
                f"tracks cover {length} frames, the video has shape {self.video_rgb.shape}; expected ({length}, H, W, 3)"
            )
        if self.uv_px.shape != (count, length, 2) or self.labelled.shape != (count, length):
            raise ValueError(
                f"uv_px {self.uv_px.shape} and labelled {self.labelled.shape} do not fit visible {self.visible.shape}"
            )

    def __len__(self) -> int:
        return len(self.video_rgb)


def every_frame_labelled(
    video_rgb: NDArray[np.uint8], uv_px: NDArray[np.float32], visible: NDArray[np.bool_]
) -> Clip:
    """A generated clip: everything is known."""
    return Clip(video_rgb, uv_px.astype(np.float32), visible, np.ones_like(visible))


def save_clip(path: Path, clip: Clip) -> None:
    """Write `clip`; the file appears whole or not at all."""
    height, width = clip.video_rgb.shape[1:3]
    # TAP-Vid counts from the corner of the first pixel, we from its centre.
    points = (clip.uv_px + 0.5) / np.array([width, height], np.float32)
    unfinished = path.with_suffix(".partial")
    with unfinished.open("wb") as file:
        np.savez(
            file,
            video=clip.video_rgb,
            points=points.astype(np.float32),
            occluded=~clip.visible,
            labelled=clip.labelled,
        )
    unfinished.replace(path)


def load_clip(path: Path) -> Clip:
    """Read a clip; `labelled` may be missing (then every frame is).

    Raises:
        ValueError: a key is missing or shapes do not fit.
    """
    with np.load(path, allow_pickle=False) as file:
        missing = {"video", "points", "occluded"} - set(file.files)
        if missing:
            raise ValueError(
                f"{path} lacks {sorted(missing)}; expected the TAP-Vid keys video, points, occluded"
            )
        video = file["video"]
        occluded = file["occluded"].astype(np.bool_)
        labelled = file["labelled"].astype(np.bool_) if "labelled" in file.files else np.ones_like(occluded)
        size = np.array([video.shape[2], video.shape[1]], np.float32)
        uv_px = file["points"].astype(np.float32) * size - 0.5
    return Clip(video, uv_px.astype(np.float32), ~occluded, labelled)

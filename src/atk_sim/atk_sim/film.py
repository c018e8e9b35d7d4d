"""Small videos of the benchmark's episodes: of every column the first success and the first failure."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from atk_perception.image_codec import RgbImage
from atk_perception.overlay import Overlay
from atk_perception.video import VideoWriter
from atk_sim.rollout import AgentStep

WIDTH_PX = 320
EVERY = 2  # images: with the cameras' 20 Hz
RATE_HZ = 10.0


class Film:
    """What a person would watch of one episode, with the keypoints in it."""

    def __init__(self) -> None:
        self._overlay = Overlay()
        self._count = 0
        self._images: list[RgbImage] = []

    def add(self, image_rgb: RgbImage, step: AgentStep) -> None:
        """One image and what the agent made of it."""
        self._count += 1
        if self._count % EVERY:
            return
        drawn = image_rgb if step.seen is None else self._overlay.draw(image_rgb, step.seen)
        height, width = drawn.shape[:2]
        size = (WIDTH_PX, 2 * round(height * WIDTH_PX / width / 2))
        self._images.append(np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.uint8))

    def keep_first(self, folder: Path, column: str, success: bool) -> None:
        """Write FOLDER/COLUMN_OUTCOME.mp4, unless there is one."""
        path = video_file(folder, column, success)
        if path.is_file() or not self._images:
            return
        partial = path.with_suffix(".partial.mp4")
        with VideoWriter(partial, RATE_HZ) as video:
            for image in self._images:
                video.add(image)
        partial.replace(path)


def video_file(folder: Path, column: str, success: bool) -> Path:
    """Of a column's first success or failure."""
    return folder / f"{column.replace(':', '_')}_{'success' if success else 'failure'}.mp4"

"""RGB images to a video that plays in a browser (H.264), one image at a time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2

from atk_perception.image_codec import RgbImage


class VideoError(RuntimeError):
    """A video cannot be written; the message says why."""


class VideoWriter:
    """An MP4 file that grows by one image per `add`. The first image decides the size.

    Written by ffmpeg where it is installed; else by OpenCV as MPEG-4, which browsers do not play.

    Args:
        path: ends in .mp4.
        rate_hz: images per second.
    """

    def __init__(self, path: Path, rate_hz: float) -> None:
        self._path, self._rate_hz = path, rate_hz
        self._ffmpeg: subprocess.Popen[bytes] | None = None
        self._opencv: Any = None

    def add(self, image_rgb: RgbImage) -> None:
        """One (H, W, 3) image.

        Raises:
            VideoError: the encoder has failed.
        """
        if self._ffmpeg is None and self._opencv is None:
            self._open(image_rgb)
        if self._ffmpeg is None:
            self._opencv.write(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
            return
        assert self._ffmpeg.stdin is not None
        try:
            self._ffmpeg.stdin.write(image_rgb.tobytes())
        except OSError as error:
            raise VideoError(f"{self._path} cannot be written: {self._complaint()}") from error

    def close(self) -> None:
        """Finish the file.

        Raises:
            VideoError: the encoder has failed.
        """
        if self._opencv is not None:
            self._opencv.release()
        if self._ffmpeg is not None and self._ffmpeg.stdin is not None:
            self._ffmpeg.stdin.close()
            complaint = self._complaint()
            if self._ffmpeg.wait() != 0:
                raise VideoError(f"{self._path} cannot be written: {complaint}")

    def _open(self, image_rgb: RgbImage) -> None:
        height, width = image_rgb.shape[:2]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.which("ffmpeg") is None:
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            self._opencv = cv2.VideoWriter(str(self._path), fourcc, self._rate_hz, (width, height))
            return
        source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {self._rate_hz:g} -i -"
        # Odd sizes have no half-resolution colour planes; one black row or column makes them even.
        target = (
            "-vf pad=ceil(iw/2)*2:ceil(ih/2)*2 -c:v libx264 -crf 26 -pix_fmt yuv420p -movflags +faststart"
        )
        command = ["ffmpeg", "-y", "-loglevel", "error", *source.split(), *target.split(), str(self._path)]
        self._ffmpeg = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def _complaint(self) -> str:
        assert self._ffmpeg is not None
        assert self._ffmpeg.stderr is not None
        return self._ffmpeg.stderr.read().decode(errors="replace").strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

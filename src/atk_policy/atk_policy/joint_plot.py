"""Commanded beside measured joints as one picture, for viewers that draw no curves (RViz)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from atk_perception.image_codec import RgbImage

FloatArray = npt.NDArray[np.float64]
# RGB, told apart also with red-green colour blindness (Okabe and Ito), on a dark ground.
MEASURED, COMMANDED, GRID, TEXT = (86, 180, 233), (240, 170, 0), (70, 70, 70), (220, 220, 220)
COLUMNS, CELL_WIDTH, CELL_HEIGHT, MARGIN = 2, 320, 96, 6
# A joint that stands still would otherwise fill its cell with noise.
SPAN_MIN = 0.02


class JointPlot:
    """The last seconds of every joint, small multiples.

    Args:
        names: (A,) of the rows of a vector; the last is the gripper's opening.
        window_s: time that a cell spans.
    """

    def __init__(self, names: Sequence[str], window_s: float) -> None:
        self._names = list(names)
        self._window_s = window_s
        self._measured: deque[tuple[float, FloatArray]] = deque()
        self._commanded: deque[tuple[float, FloatArray]] = deque()

    def add_measured(self, time_s: float, values: FloatArray) -> None:
        """(A,) joint positions [rad] and gripper opening [m]."""
        self._add(self._measured, time_s, values)

    def add_commanded(self, time_s: float, values: FloatArray) -> None:
        """(A,) as measured ones."""
        self._add(self._commanded, time_s, values)

    def _add(self, series: deque[tuple[float, FloatArray]], time_s: float, values: FloatArray) -> None:
        if series and time_s < series[-1][0]:  # another replay or simulation
            self._measured.clear()
            self._commanded.clear()
        series.append((time_s, np.asarray(values, np.float64)))
        while series[-1][0] - series[0][0] > self._window_s:
            series.popleft()

    def draw(self, state: str) -> RgbImage:
        """(H, W, 3) uint8; `state` is written at the top."""
        rows = -(-len(self._names) // COLUMNS)
        head = 26
        picture = np.full((head + rows * CELL_HEIGHT, COLUMNS * CELL_WIDTH, 3), 24, np.uint8)
        _write(picture, state[:60], (MARGIN, 18), 0.5, TEXT)
        for text, colour, left in (("commanded", COMMANDED, 430), ("measured", MEASURED, 545)):
            _write(picture, text, (left, 18), 0.45, colour)
        newest_s = max((series[-1][0] for series in (self._measured, self._commanded) if series), default=0.0)
        for k, name in enumerate(self._names):
            row, column = k // COLUMNS, k % COLUMNS
            top, left = head + row * CELL_HEIGHT, column * CELL_WIDTH
            cell = picture[top : top + CELL_HEIGHT, left : left + CELL_WIDTH]
            self._draw_cell(cell, k, name, newest_s)
        return picture

    def _draw_cell(self, cell: RgbImage, k: int, name: str, newest_s: float) -> None:
        height, width = cell.shape[:2]
        top, bottom, left, right = 20, height - MARGIN, MARGIN, width - MARGIN
        unit = "m" if k == len(self._names) - 1 else "rad"
        curves = [
            (MEASURED, np.array([(t, v[k]) for t, v in self._measured]).reshape(-1, 2)),
            (COMMANDED, np.array([(t, v[k]) for t, v in self._commanded]).reshape(-1, 2)),
        ]
        cv2.rectangle(cell, (left, top), (right, bottom), GRID, 1)
        text = f"{name} [{unit}]"
        if all(len(curve) for _, curve in curves):
            difference = curves[1][1][-1, 1] - curves[0][1][-1, 1]
            text += f"  {curves[0][1][-1, 1]:+.3f}  diff {1e3 * difference:+.1f} m{unit}"
        _write(cell, text, (left, 14), 0.38, TEXT)
        values = np.concatenate([curve[:, 1] for _, curve in curves])
        if not values.size:
            return
        middle = (values.max() + values.min()) / 2
        span = max(SPAN_MIN, float(np.ptp(values))) * 1.1
        for colour, curve in curves:
            if len(curve) < 2:
                continue
            x = right - (newest_s - curve[:, 0]) / self._window_s * (right - left)
            y = (top + bottom) / 2 - (curve[:, 1] - middle) / span * (bottom - top)
            points = np.rint(np.stack([x, y], axis=1)).astype(np.int32)[:, None]
            cv2.polylines(cell, [points], False, colour, 1, cv2.LINE_AA)


def _write(
    picture: RgbImage, text: str, at: tuple[int, int], size: float, colour: tuple[int, int, int]
) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)

"""What a matcher takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Template:
    """The canonical template and points on it.

    Attributes:
        image_rgb: (H, W, 3) uint8.
        uv_px: (N, 2) float32, pixel centres at integers.
    """

    image_rgb: NDArray[np.uint8]
    uv_px: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.uv_px)


@dataclass(frozen=True, eq=False)
class Matches:
    """Where the template points are in a scene.

    Attributes:
        uv_px: (N, 2) float32 pixels of the scene image.
        confidence: (N,) float32 in [0, 1]: probability that uv_px lies within 8 px of the truth; 0: not found.
        warp: (N, 2, 2) float32, the local linear map template -> scene (d uv_scene / d uv_template), so that a
            tracker can lay the template's appearance over the scene; the identity where it is unknown.
    """

    uv_px: NDArray[np.float32]
    confidence: NDArray[np.float32]
    warp: NDArray[np.float32]


class Matcher(Protocol):
    """Finds template points in a scene image in one shot, without memory of earlier scenes."""

    def match(self, template: Template, scene_rgb: NDArray[np.uint8]) -> Matches:
        """Place every template point in `scene_rgb`, (H', W', 3) uint8.

        A point that cannot be placed gets confidence 0; nothing is raised for a scene that does not show it.
        """
        ...

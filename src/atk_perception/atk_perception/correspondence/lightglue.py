"""Matching by SuperPoint and LightGlue, through the package transformers.

SuperPoint (DeTone et al., CVPRW 2018) finds and describes corners, LightGlue (Lindenberger et al., ICCV 2023) matches those of
two images; template points are placed by the matches around them (`sparse.py`). SuperPoint's weights forbid commercial use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atk_perception.correspondence.dense import network_image, network_size
from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.correspondence.sparse import FeatureMatches, place_points
from atk_perception.local_affine import Float
from atk_perception.public_models import find_weights, package
from atk_perception.torch_device import best_device

# SuperPoint was trained at 640x480; its map has a cell per 8 px.
WIDTH_PX, MULTIPLE = 640, 8


class LightGlueMatcher:
    """The `Matcher`; `model` is a transformers LightGlueForKeypointMatching, whose detector is a SuperPoint."""

    def __init__(self, model: Any, device: torch.device, width_px: int = WIDTH_PX) -> None:
        self._model = model.to(device).eval().requires_grad_(False)
        self._device, self._width_px = device, width_px

    def match(self, template: Template, scene_rgb: NDArray[np.uint8]) -> Matches:
        """See `Matcher.match`."""
        return place_points(template.uv_px, self.feature_matches(template.image_rgb, scene_rgb))

    @torch.inference_mode()
    def feature_matches(
        self, template_rgb: NDArray[np.uint8], scene_rgb: NDArray[np.uint8]
    ) -> FeatureMatches:
        """Corners of two images that LightGlue holds for the same.

        The scene is brought to the template's size in the network, so both may have any.
        """
        size = network_size(template_rgb, self._width_px, MULTIPLE)
        pair = torch.stack([self._grey(template_rgb, size), self._grey(scene_rgb, size)])[None]
        found = self._model(pixel_values=pair.to(self._device))
        partner = found.matches[0, 0].cpu().numpy()
        chosen = np.flatnonzero((partner >= 0) & (found.mask[0, 0].cpu().numpy() > 0))
        return FeatureMatches(
            _to_image(found.keypoints[0, 0], size, template_rgb)[chosen],
            _to_image(found.keypoints[0, 1], size, scene_rgb)[partner[chosen]],
            found.matching_scores[0, 0].float().cpu().numpy()[chosen],
        )

    def _grey(self, image_rgb: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
        """(3, height, width) of three equal channels, as SuperPoint wants it."""
        red_green_blue = network_image(image_rgb, size)[0].permute(1, 2, 0).numpy()
        grey = cv2.cvtColor(np.ascontiguousarray(red_green_blue), cv2.COLOR_RGB2GRAY)
        return torch.from_numpy(grey).expand(3, -1, -1)


def _to_image(relative: Tensor, size: tuple[int, int], image_rgb: NDArray[np.uint8]) -> Float:
    """(K, 2) pixels of the image from SuperPoint's shares of the network's image."""
    pixels = relative.float().cpu().numpy() * np.array(size, np.float32)
    scale = np.array([image_rgb.shape[1] / size[0], image_rgb.shape[0] / size[1]], np.float32)
    return np.asarray((pixels + 0.5) * scale - 0.5, np.float32)


def make_lightglue(folder: Path | None = None, device: torch.device | None = None) -> LightGlueMatcher:
    """The matcher with the weights in `folder`; if not given, those that `get_weights lightglue` fetched.

    Raises:
        BackendError: weights or transformers are missing.
    """
    folder = folder or find_weights("lightglue")
    transformers = package("transformers", "pip install -r requirements/backends.txt")
    model = transformers.LightGlueForKeypointMatching.from_pretrained(folder, local_files_only=True)
    return LightGlueMatcher(model, device or best_device())

"""Patch tokens of a vision transformer as a dense map: what DINOv2 and DINOv3 share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from atk_perception.correspondence.dense import DenseMap, network_image, network_size

# What both were trained with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VitFeatures:
    """`DenseFeatures` of a transformer of the package transformers.

    Args:
        model: called with `pixel_values` (1, 3, H, W); answers with `last_hidden_state` (1, leading + patches, C).
        leading_tokens: that are no patches: class and registers.
        width_px: images are brought to about this width, a multiple of the model's patch.
    """

    def __init__(self, model: Any, leading_tokens: int, width_px: int, device: torch.device) -> None:
        self._model = model.to(device).eval().requires_grad_(False)
        self._patch_px = int(model.config.patch_size)
        self._leading, self._width_px, self._device = leading_tokens, width_px, device
        self._mean, self._std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
        )

    @torch.inference_mode()
    def __call__(self, image_rgb: NDArray[np.uint8]) -> DenseMap:
        """See `DenseFeatures`."""
        width, height = network_size(image_rgb, self._width_px, self._patch_px)
        image = network_image(image_rgb, (width, height)).to(self._device)
        tokens = self._model(pixel_values=(image - self._mean) / self._std).last_hidden_state[
            0, self._leading :
        ]
        features = tokens.T.unflatten(1, (height // self._patch_px, width // self._patch_px))
        return DenseMap(
            functional.normalize(features.float(), dim=0), (image_rgb.shape[1], image_rgb.shape[0])
        )

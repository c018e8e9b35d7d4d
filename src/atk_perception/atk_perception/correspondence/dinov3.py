"""Matching by DINOv3 patch tokens (Simeoni et al., 2025), through the package transformers. Weights under their own licence."""

from __future__ import annotations

from pathlib import Path

import torch

from atk_perception.correspondence.dense import DenseMatcher
from atk_perception.correspondence.vit import VitFeatures
from atk_perception.public_models import find_weights, package
from atk_perception.torch_device import best_device

# As many patches as DINOv2 gets, of 16 px.
WIDTH_PX = 704


def make_dinov3(
    folder: Path | None = None, device: torch.device | None = None, width_px: int = WIDTH_PX
) -> DenseMatcher:
    """The matcher with the weights in `folder`; if not given, those that `get_weights dinov3` fetched.

    Raises:
        BackendError: weights or transformers are missing.
    """
    folder = folder or find_weights("dinov3")
    transformers = package("transformers", "pip install -r requirements/backends.txt")
    model = transformers.DINOv3ViTModel.from_pretrained(folder, local_files_only=True)
    leading = 1 + int(model.config.num_register_tokens)
    return DenseMatcher(VitFeatures(model, leading, width_px, device or best_device()))

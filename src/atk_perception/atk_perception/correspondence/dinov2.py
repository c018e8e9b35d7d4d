"""Matching by DINOv2 patch tokens (Oquab et al., TMLR 2024), through the package transformers."""

from __future__ import annotations

from pathlib import Path

import torch

from atk_perception.correspondence.dense import DenseMatcher
from atk_perception.correspondence.vit import VitFeatures
from atk_perception.public_models import find_weights, package
from atk_perception.torch_device import best_device

# 44 x 33 patches of 14 px at 4:3, 0.6 s for ViT-S on two cores. Finer maps cost more than they find.
WIDTH_PX = 616


def make_dinov2(
    folder: Path | None = None, device: torch.device | None = None, width_px: int = WIDTH_PX
) -> DenseMatcher:
    """The matcher with the weights in `folder`; if not given, those that `get_weights dinov2` fetched.

    Raises:
        BackendError: weights or transformers are missing.
    """
    folder = folder or find_weights("dinov2")
    transformers = package("transformers", "pip install -r requirements/backends.txt")
    model = transformers.Dinov2Model.from_pretrained(folder, local_files_only=True)
    return DenseMatcher(VitFeatures(model, 1, width_px, device or best_device()))

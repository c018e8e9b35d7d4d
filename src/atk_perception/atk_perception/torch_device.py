"""Where public models run."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """The GPU where there is one that torch can use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

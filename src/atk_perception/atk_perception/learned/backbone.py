"""Images to feature maps, and pixels of the image to pixels of the network: defined here once for matcher and tracker."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atk_perception.image_codec import require_rgb
from atk_perception.learned.network import Estimate, PointNetwork, PointState, channels_last
from atk_perception.learned.onnx_graphs import OnnxNetwork
from atk_perception.learned.weights import PACKAGED, load_network

# Images of any size are brought to this width; the network was trained at 320x240.
NETWORK_WIDTH = 320
# Strides of the encoder go down to 16.
MULTIPLE = 16


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """What the network makes of one image.

    Attributes:
        features: (1, 64, h, w) unit descriptors.
        scale: network pixels per image pixel.
    """

    features: Tensor
    scale: float

    def to_network(self, uv_px: NDArray[np.float32]) -> Tensor:
        """(N, 2) pixels of the image -> (1, N, 2) pixels of the network."""
        return torch.from_numpy(
            ((np.asarray(uv_px, np.float32) + 0.5) * self.scale - 0.5).astype(np.float32)
        )[None]

    def to_image(self, uv_px: Tensor) -> NDArray[np.float32]:
        """(1, N, 2) pixels of the network -> (N, 2) pixels of the image."""
        return np.asarray((uv_px[0].numpy() + 0.5) / self.scale - 0.5, np.float32)


class Backbone:
    """The network and how images go into it.

    The encoder computes in bfloat16 where the processor does that faster (AVX-512 with BF16, AMX), and in single precision
    elsewhere; descriptors differ by about a hundredth.

    Args:
        network: the weights.
        graphs: what encoder and refinement run in instead, made of the same weights.
        half: whether to compute in bfloat16; by default where it is fast.
    """

    def __init__(
        self, network: PointNetwork, graphs: OnnxNetwork | None = None, *, half: bool | None = None
    ) -> None:
        self.network = channels_last(network).eval()
        self._graphs = graphs
        self._encoder = self.network.encoder
        if half_is_fast() if half is None else half:
            self._encoder = copy.deepcopy(self.network.encoder).to(torch.bfloat16)

    @torch.inference_mode()
    def __call__(self, image_rgb: NDArray[np.uint8]) -> FeatureMap:
        """Feature map of an (H, W, 3) uint8 image.

        Raises:
            ValueError: another shape or type.
        """
        require_rgb(image_rgb)
        scale = NETWORK_WIDTH / image_rgb.shape[1]
        height = max(MULTIPLE, round(image_rgb.shape[0] * scale))
        smaller = cv2.resize(
            image_rgb,
            (NETWORK_WIDTH, height),
            interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
        )
        if self._graphs is not None:
            return FeatureMap(self._graphs.encode(_as_input(smaller)), scale)
        return FeatureMap(self.describe(np.asarray(smaller, np.uint8)), scale)

    def describe(self, picture_rgb: NDArray[np.uint8]) -> Tensor:
        """(1, 64, h, w) descriptors of an (H, W, 3) uint8 picture of the network's own scale, of any size; always in torch."""
        features: Tensor = self._encoder(_as_input(picture_rgb))
        return features

    def estimate(self, frame: FeatureMap, state: PointState, iterations: int) -> Estimate:
        """Look for the points of `state` in a frame; with `graphs` without the posterior, see `OnnxNetwork.estimate`."""
        runs = self._graphs or self.network
        return runs.estimate(frame.features, state, iterations)


def _as_input(picture_rgb: NDArray[np.uint8]) -> Tensor:
    """(1, 3, H, W) in [0, 1]; rows and columns are repeated up to the encoder's stride, not stretched: pixels stay where they are."""
    down, right = -picture_rgb.shape[0] % MULTIPLE, -picture_rgb.shape[1] % MULTIPLE
    padded = cv2.copyMakeBorder(picture_rgb, 0, down, 0, right, cv2.BORDER_REPLICATE)
    image = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255.0
    return image.contiguous(memory_format=torch.channels_last)


def half_is_fast() -> bool:
    """Whether this processor multiplies in bfloat16 (elsewhere it is imitated, slowly)."""
    return "avx512_bf16" in _processor_flags() or "amx_bf16" in _processor_flags()


@lru_cache(maxsize=1)
def _processor_flags() -> frozenset[str]:
    """As Linux tells them; none elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in text.splitlines() if line.startswith("flags")), "").split())


@lru_cache(maxsize=2)
def load_backbone(path: Path = PACKAGED, *, graphs: bool = False) -> Backbone:
    """The backbone with the weights at `path`; matcher and tracker of a process share one.

    Args:
        graphs: run the ONNX graphs beside the weights.

    Raises:
        WeightsError: see `load_network`.
        OnnxGraphError: see `OnnxNetwork`.
    """
    network = load_network(path)
    return Backbone(network, OnnxNetwork(path.parent, network) if graphs else None)

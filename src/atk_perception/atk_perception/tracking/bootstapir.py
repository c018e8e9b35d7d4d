"""Tracking by causal BootsTAPIR (Doersch et al., "BootsTAP", ACCV 2024; Apache-2.0), through its authors' package tapnet.

A point is its features in one frame, found anew in every frame over the whole image and refined with what the last frames said;
so it comes back after an occlusion. Points that were found at transfer take their features from the scene, the others from the
template, with which they are looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.image_codec import require_rgb
from atk_perception.local_affine import Float
from atk_perception.public_models import find_weights, package
from atk_perception.torch_device import best_device
from atk_perception.tracking.protocol import Tracks

WEIGHTS = "causal_bootstapir_checkpoint.pt"
CODE = (
    'pip install --no-deps "tapnet @ git+https://github.com/google-deepmind/tapnet@'
    'c2cbab81cc06092b5f05bfe2da7bfec54e2079c9" && pip install -r requirements/backends.txt'
)
# What it was trained with, width and height; other sizes are slower and, by its authors, no better online.
SIZE_PX = 256
# Authors' threshold on the probability that a point is visible and near its place.
VISIBLE_PROBABILITY = 0.5
# Points are handled so many at a time, which bounds memory.
CHUNK = 64


@dataclass(frozen=True, eq=False)
class BootstapirState:
    """What is remembered of N points.

    Attributes:
        features: tapnet's QueryFeatures: (1, N, C) per resolution of the network, coarse and fine.
        context: of each refinement step, name -> (1, N, 2, C): what its causal convolutions saw in the last two frames.
        uv_px: (N, 2) last estimate, of the image.
    """

    features: Any
    context: tuple[dict[str, Tensor], ...]
    uv_px: Float


class BootstapirTracker:
    """The `Tracker`; `model` is a tapnet.torch.tapir_model.TAPIR with causal convolutions."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model.to(device).eval().requires_grad_(False)
        self._device = device

    @torch.inference_mode()
    def start(self, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches) -> BootstapirState:
        """See `Tracker.start`."""
        in_frame = self._describe(frame_rgb, matches.uv_px)
        on_template = self._describe(template.image_rgb, template.uv_px)
        found = torch.from_numpy(matches.confidence >= VISIBLE_PROBABILITY).to(self._device)[None, :, None]

        features = _each(in_frame, on_template, lambda seen, stored: torch.where(found, seen, stored))
        context = self._model.construct_initial_causal_state(len(template), len(features.resolutions) - 1)
        return BootstapirState(
            features,
            tuple({name: value.to(self._device) for name, value in step.items()} for step in context),
            matches.uv_px.astype(np.float32),
        )

    @torch.inference_mode()
    def step(self, state: BootstapirState, frame_rgb: NDArray[np.uint8]) -> tuple[BootstapirState, Tracks]:
        """See `Tracker.step`."""
        if len(state.uv_px) == 0:
            return state, Tracks(state.uv_px, np.zeros(0, np.bool_), np.zeros(0, np.float32))
        video = self._video(frame_rgb)
        estimate = self._model.estimate_trajectories(
            (SIZE_PX, SIZE_PX),
            False,
            self._model.get_feature_grids(video, is_training=False),
            state.features,
            query_points_in_video=None,
            query_chunk_size=CHUNK,
            # A copy of the dictionaries: the model replaces their entries while it works.
            causal_context=[dict(step) for step in state.context],
            get_causal_context=True,
        )
        hidden, far = (torch.sigmoid(estimate[name][-1][0, :, 0]) for name in ("occlusion", "expected_dist"))
        confidence = ((1.0 - hidden) * (1.0 - far)).float().cpu().numpy()
        visible = confidence > VISIBLE_PROBABILITY
        found_px = _to_image(estimate["tracks"][-1][0, :, 0], frame_rgb)
        uv_px = np.where(visible[:, None], found_px, state.uv_px)
        after = BootstapirState(state.features, tuple(estimate["causal_context"]), uv_px)
        return after, Tracks(uv_px, visible, confidence)

    def select(self, state: BootstapirState, keep: NDArray[np.int_]) -> BootstapirState:
        """See `Tracker.select`."""
        rows = torch.from_numpy(np.asarray(keep, np.int64)).to(self._device)
        return BootstapirState(
            _each(state.features, state.features, lambda value, _: value[:, rows]),
            tuple({name: value[:, rows] for name, value in step.items()} for step in state.context),
            state.uv_px[keep],
        )

    def extend(
        self, state: BootstapirState, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches
    ) -> BootstapirState:
        """See `Tracker.extend`."""
        more = self.start(template, frame_rgb, matches)
        return BootstapirState(
            _each(state.features, more.features, lambda old, new: torch.cat([old, new], dim=1)),
            tuple(
                {name: torch.cat([value, new[name]], dim=1) for name, value in old.items()}
                for old, new in zip(state.context, more.context, strict=True)
            ),
            np.concatenate([state.uv_px, more.uv_px]),
        )

    def _describe(self, image_rgb: NDArray[np.uint8], uv_px: Float) -> Any:
        """QueryFeatures of points (N, 2) in an image."""
        video = self._video(image_rgb)
        scale = np.array([SIZE_PX / image_rgb.shape[1], SIZE_PX / image_rgb.shape[0]], np.float32)
        x, y = ((uv_px + 0.5) * scale).T  # its pixels have their centres at halves
        queries = np.stack([np.zeros_like(x), y, x], axis=1).astype(np.float32)
        return self._model.get_query_features(
            video, is_training=False, query_points=torch.from_numpy(queries)[None].to(self._device)
        )

    def _video(self, image_rgb: NDArray[np.uint8]) -> Tensor:
        """(1, 1, 256, 256, 3) in [-1, 1]."""
        require_rgb(image_rgb)
        small = cv2.resize(image_rgb, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
        return torch.from_numpy(small).to(self._device)[None, None].float() / 127.5 - 1.0


def _each(one: Any, other: Any, combine: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """Two QueryFeatures combined tensor by tensor."""
    return one._replace(
        lowres=tuple(combine(a, b) for a, b in zip(one.lowres, other.lowres, strict=True)),
        hires=tuple(combine(a, b) for a, b in zip(one.hires, other.hires, strict=True)),
    )


def _to_image(xy: Tensor, image_rgb: NDArray[np.uint8]) -> Float:
    """(N, 2) pixels of the image from the network's."""
    scale = np.array([image_rgb.shape[1] / SIZE_PX, image_rgb.shape[0] / SIZE_PX], np.float32)
    return np.asarray(xy.float().cpu().numpy() * scale - 0.5, np.float32)


def make_bootstapir(folder: Path | None = None, device: torch.device | None = None) -> BootstapirTracker:
    """The tracker with the weights in `folder`; if not given, those that `get_weights bootstapir` fetched.

    Raises:
        BackendError: weights or tapnet are missing.
    """
    folder = folder or find_weights("bootstapir")
    model = package("tapnet.torch.tapir_model", CODE).TAPIR(pyramid_level=1, use_casual_conv=True)
    # A pickle: restricted to tensors, so that it can run no code.
    model.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
    return BootstapirTracker(model, device or best_device())

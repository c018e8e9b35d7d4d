"""Tracking by CoTracker3 online (Karaev et al., 2024), through its authors' package. Code and weights forbid commercial use.

The network works on windows of 16 frames that advance by 8. Its authors run it every 8 frames, so that an answer is up to 8
frames late. Here the window that is being filled is run again at every frame, padded as the network itself pads the end of a
video: every frame gets its answer at once, from that frame and earlier ones only, at the price of one run of the network per
frame (1.4 s on two cores; it wants a GPU). What was said of a frame is not revised.

Points that were found at transfer take their features from the scene, the others from the template; these are looked for
around where the transfer guesses them. A point that leaves that surrounding for long is not found again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.image_codec import require_rgb
from atk_perception.local_affine import Float
from atk_perception.public_models import find_weights, package
from atk_perception.torch_device import best_device
from atk_perception.tracking.protocol import Tracks

WEIGHTS = "scaled_online.pth"
CODE = (
    'pip install --no-deps "cotracker @ git+https://github.com/facebookresearch/co-tracker@'
    '82e02e8029753ad4ef13cf06be7f4fc5facdda4d"'
)
WINDOW = 16
STEP = WINDOW // 2
ITERATIONS = 6  # as its authors run it
# Authors' threshold on the product of visibility and confidence.
VISIBLE_PROBABILITY = 0.6
# Matches below this take their features from the template.
FOUND_PROBABILITY = 0.5
# All points' features are put in before the first window; to the network they were queried before the video began.
BEFORE = -1.0


@dataclass(frozen=True, eq=False)
class Features:
    """The appearance of N points, a tensor per level of the network: (1, 1, N, C) centre, (1, K, N, C) around it."""

    centre: tuple[Tensor, ...]
    around: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Cotracker3State:
    """What is remembered of N points.

    Attributes:
        features: how they look.
        start_xy: (1, N, 2) where they began [px of the network].
        frames: (F, 3, H, W) uint8, those of the window that is being filled; 16 of them begin the next.
        said: logits and places in the window that was last filled: (1, 16, N, 4), x, y, visible, confident; None in the first.
        uv_px: (N, 2) last estimate [px of the image].
    """

    features: Features
    start_xy: Tensor
    frames: Tensor
    said: Tensor | None
    uv_px: Float


class Cotracker3Tracker:
    """The `Tracker`; `model` is a CoTrackerThreeOnline of its authors' code."""

    def __init__(self, model: Any, device: torch.device, iterations: int = ITERATIONS) -> None:
        if model.window_len != WINDOW:
            raise ValueError(f"expected a CoTracker3 of {WINDOW} frames a window, got {model.window_len}")
        self._model = model.to(device).eval().requires_grad_(False)
        self._device, self._iterations = device, iterations
        height, width = model.model_resolution
        self._size = (int(height), int(width))

    @torch.inference_mode()
    def start(self, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches) -> Cotracker3State:
        """See `Tracker.start`."""
        return Cotracker3State(
            self._appearance(template, frame_rgb, matches),
            self._to_network(matches.uv_px, frame_rgb),
            self._frame(frame_rgb),
            None,
            matches.uv_px.astype(np.float32),
        )

    @torch.inference_mode()
    def step(self, state: Cotracker3State, frame_rgb: NDArray[np.uint8]) -> tuple[Cotracker3State, Tracks]:
        """See `Tracker.step`."""
        if len(state.frames) == WINDOW:
            # Filled at the last frame: its second half begins the next window.
            state = replace(state, frames=state.frames[STEP:])
        frames = torch.cat([state.frames, self._frame(frame_rgb)])
        if len(state.uv_px) == 0:
            return replace(state, frames=frames), Tracks(
                state.uv_px, np.zeros(0, np.bool_), np.zeros(0, np.float32)
            )
        said = self._run(state, frames)
        now = said[0, len(frames) - 1]
        confidence = torch.sigmoid(now[:, 2:]).prod(dim=1).float().cpu().numpy()
        uv_px = self._to_image(now[:, :2], frame_rgb)
        after = replace(state, frames=frames, uv_px=uv_px)
        if len(frames) == WINDOW:
            after = replace(after, said=said)
        return after, Tracks(uv_px, confidence > VISIBLE_PROBABILITY, confidence)

    def select(self, state: Cotracker3State, keep: NDArray[np.int_]) -> Cotracker3State:
        """See `Tracker.select`."""
        rows = torch.from_numpy(np.asarray(keep, np.int64)).to(self._device)
        return Cotracker3State(
            Features(
                tuple(value[:, :, rows] for value in state.features.centre),
                tuple(value[:, :, rows] for value in state.features.around),
            ),
            state.start_xy[:, rows],
            state.frames,
            None if state.said is None else state.said[:, :, rows],
            state.uv_px[keep],
        )

    @torch.inference_mode()
    def extend(
        self, state: Cotracker3State, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches
    ) -> Cotracker3State:
        """See `Tracker.extend`."""
        features = self._appearance(template, frame_rgb, matches)
        start_xy = self._to_network(matches.uv_px, frame_rgb)
        said = state.said
        if said is not None:
            # As if they had rested there, with nothing known about their visibility.
            rested = torch.cat([start_xy, torch.zeros_like(start_xy)], dim=2)
            said = torch.cat([said, rested[:, None].expand(-1, WINDOW, -1, -1)], dim=2)
        pairs = ((state.features.centre, features.centre), (state.features.around, features.around))
        joined = [tuple(torch.cat(two, dim=2) for two in zip(old, new, strict=True)) for old, new in pairs]
        return Cotracker3State(
            Features(*joined),
            torch.cat([state.start_xy, start_xy], dim=1),
            state.frames,
            said,
            np.concatenate([state.uv_px, matches.uv_px]).astype(np.float32),
        )

    def _appearance(self, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches) -> Features:
        """Features of points, in the frame where they were found there, else on the template."""
        found = torch.from_numpy(matches.confidence >= FOUND_PROBABILITY).to(self._device)
        in_frame = self._describe(frame_rgb, matches.uv_px)
        on_template = self._describe(template.image_rgb, template.uv_px)

        def pick(seen: tuple[Tensor, ...], stored: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            choice = found[None, None, :, None]
            return tuple(torch.where(choice, a, b) for a, b in zip(seen, stored, strict=True))

        return Features(pick(in_frame.centre, on_template.centre), pick(in_frame.around, on_template.around))

    def _describe(self, image_rgb: NDArray[np.uint8], uv_px: Float) -> Features:
        """Features of points (N, 2) in an image: what the network keeps of a video of that image alone."""
        model = self._model
        model.init_video_online_processing()
        xy = self._to_network(uv_px, image_rgb)
        queries = torch.cat([torch.zeros_like(xy[..., :1]), xy], dim=2)
        model(video=self._frame(image_rgb)[None].float(), queries=queries, iters=1, is_online=True)
        return Features(tuple(model.online_track_feat), tuple(model.online_track_support))

    def _run(self, state: Cotracker3State, frames: Tensor) -> Tensor:
        """(1, F, N, 4) x, y, visible, confident in the frames (F, 3, H, W) of the window; the state is left as it is."""
        model = self._model
        model.init_video_online_processing()
        # It adds to these in place.
        model.online_track_feat = [value.clone() for value in state.features.centre]
        model.online_track_support = [value.clone() for value in state.features.around]
        offset = 0
        if state.said is not None:
            # Time is counted from the window before, so that it never grows.
            offset = model.online_ind = STEP
            model.online_coords_predicted = state.said[..., :2]
            model.online_vis_predicted = state.said[..., 2]
            model.online_conf_predicted = state.said[..., 3]
        queries = torch.cat([torch.full_like(state.start_xy[..., :1], BEFORE), state.start_xy], dim=2)
        model(video=frames[None].float(), queries=queries, iters=self._iterations, is_online=True)
        # What it keeps are logits; what it returns are probabilities.
        logits = torch.stack([model.online_vis_predicted, model.online_conf_predicted], dim=-1)
        said = torch.cat([model.online_coords_predicted, logits], dim=-1)
        return said[:, offset : offset + len(frames)]

    def _frame(self, image_rgb: NDArray[np.uint8]) -> Tensor:
        """(1, 3, H, W) uint8 of the network's size."""
        require_rgb(image_rgb)
        image = torch.from_numpy(np.ascontiguousarray(image_rgb)).to(self._device).permute(2, 0, 1)[None]
        # Corners on corners, as its authors do.
        resized = functional.interpolate(image.float(), self._size, mode="bilinear", align_corners=True)
        return resized.round().to(torch.uint8)

    def _scale(self, image_rgb: NDArray[np.uint8]) -> Float:
        height, width = image_rgb.shape[:2]
        return np.array([(self._size[1] - 1) / (width - 1), (self._size[0] - 1) / (height - 1)], np.float32)

    def _to_network(self, uv_px: Float, image_rgb: NDArray[np.uint8]) -> Tensor:
        """(1, N, 2) pixels of the network."""
        return torch.from_numpy((uv_px * self._scale(image_rgb)).astype(np.float32))[None].to(self._device)

    def _to_image(self, xy: Tensor, image_rgb: NDArray[np.uint8]) -> Float:
        """(N, 2) pixels of the image."""
        return np.asarray(xy.float().cpu().numpy() / self._scale(image_rgb), np.float32)


def make_cotracker3(folder: Path | None = None, device: torch.device | None = None) -> Cotracker3Tracker:
    """The tracker with the weights in `folder`; if not given, those that `get_weights cotracker3` fetched.

    Raises:
        BackendError: weights or cotracker are missing.
    """
    folder = folder or find_weights("cotracker3")
    build = package("cotracker.models.build_cotracker", CODE).build_cotracker
    model = build(checkpoint=None, offline=False, window_len=WINDOW)
    # A pickle: restricted to tensors, so that it can run no code.
    weights = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
    model.load_state_dict(weights.get("model", weights))
    return Cotracker3Tracker(model, device or best_device())

"""What light and the camera do to a rendered frame: gain, colour, shading, shadow, blur, noise, compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.training.textures import noise


@dataclass(frozen=True)
class PhotometricStrength:
    """How much of each effect, 0: none, 1: as in training.

    Attributes:
        light: gain, colour cast, gamma, shading across the image, moving shadows and exposure jumps.
        blur: motion and focus blur.
        noise: sensor noise [grey levels].
    """

    light: float = 1.0
    blur: float = 1.0
    noise: float = 3.0


class Photometry:
    """Smooth change of light over `length` frames, with now and then a jump."""

    def __init__(
        self, rng: np.random.Generator, length: int, height: int, width: int, strength: PhotometricStrength
    ) -> None:
        self._rng = rng
        self._strength = strength
        time = np.arange(length, dtype=np.float32)
        amount = strength.light

        def drift(scale: float, channels: int) -> NDArray[np.float32]:
            """(T, channels): a constant, a slow wave, and a jump in one clip of three."""
            wave = np.sin(time[:, None] / rng.uniform(4, 30) + rng.uniform(0, 6.3, channels))
            jump = (time[:, None] >= rng.uniform(0, 3 * length)) * rng.normal(0, 1, channels)
            total = 0.5 * rng.normal(0, 1, channels) + 0.5 * wave + 0.8 * jump
            return (amount * scale * total).astype(np.float32)

        self._gain = np.exp(drift(0.25, 1) + drift(0.08, 3))
        self._bias = drift(10.0, 1)
        self._gamma = np.exp(drift(0.15, 1))[:, 0]
        v, u = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
        self._ramp_angle = rng.uniform(0, 6.3) + drift(0.7, 1)[:, 0]
        self._ramp = amount * rng.uniform(0, 0.35)
        self._u, self._v = u.astype(np.float32), v.astype(np.float32)
        clouds = noise(rng, 2 * height, 2 * width, max(height, width) * rng.uniform(0.15, 0.5))[:, :, 0]
        self._shadow = cv2.GaussianBlur((clouds > 0.4).astype(np.float32), (0, 0), rng.uniform(1, 12))
        self._shadow_depth = amount * (rng.uniform(0.1, 0.5) if rng.random() < 0.5 else 0.0)
        self._shadow_at = np.stack(
            [
                (0.5 + 0.45 * np.sin(time / rng.uniform(8, 60) + rng.uniform(0, 6.3))) * side
                for side in (height, width)
            ],
            axis=1,
        ).astype(int)

    def __call__(
        self, frame: NDArray[np.float32], index: int, motion_px: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """`frame` (H, W, 3), 0 to 255, as the camera sees it at time `index`; `motion_px` (2,) smears it."""
        height, width = frame.shape[:2]
        rng, strength = self._rng, self._strength
        shade = 1.0 + self._ramp * (
            np.cos(self._ramp_angle[index]) * self._u + np.sin(self._ramp_angle[index]) * self._v
        )
        if self._shadow_depth > 0:
            top, left = self._shadow_at[index]
            shade = shade * (1.0 - self._shadow_depth * self._shadow[top : top + height, left : left + width])
        lit = frame * (shade[:, :, None] * self._gain[index]) + self._bias[index]
        if abs(self._gamma[index] - 1) > 0.02:
            lit = 255.0 * np.power(np.clip(lit, 0, 255) / 255.0, self._gamma[index])
        if strength.blur > 0:
            lit = _motion_blur(lit.astype(np.float32), strength.blur * motion_px)
            if rng.random() < 0.15 * strength.blur:
                lit = cv2.GaussianBlur(lit, (0, 0), rng.uniform(0.4, 1.2) * width / 320)
        # Luma noise of a Bayer sensor is coarser than a pixel after demosaicing; white noise is harder on corners.
        lit = lit + rng.normal(0, strength.noise, (height, width, 1)) * rng.uniform(0.3, 1.0)
        seen: NDArray[np.uint8] = np.clip(lit, 0, 255).astype(np.uint8)
        if rng.random() < 0.3:
            _, packed = cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 95))])
            seen = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
        return seen


def _motion_blur(image: NDArray[np.float32], motion_px: NDArray[np.float32]) -> NDArray[np.float32]:
    length = float(np.hypot(*motion_px))
    if length < 1.5:
        return image
    size = min(int(np.ceil(length)) | 1, 31)
    kernel = np.zeros((size, size), np.float32)
    half = motion_px / length * (size - 1) / 2
    middle = (size - 1) / 2
    start, end = np.rint([middle - half, middle + half]).astype(int).tolist()
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_AA)
    return np.asarray(
        cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), np.float32
    )

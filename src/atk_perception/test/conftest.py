"""Synthetic video with exact tracks: textured planar objects that move over a table, with light and occluders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
import torch

from atk_perception.correspondence.protocol import Template
from atk_perception.keypoint_set import KeypointSet, KeypointSetError

WIDTH, HEIGHT = 640, 480
# Threads that wait for each other make a busy machine ten times slower; what comes out is the same to the bit.
torch.set_num_threads(1)


def random_texture(rng: np.random.Generator, height: int, width: int, contrast: float = 60.0) -> np.ndarray:
    """(height, width, 3) float32 colour noise at several scales with a few hard-edged shapes."""
    base = rng.uniform(70, 180, 3)
    image = np.zeros((height, width, 3), np.float32) + base.astype(np.float32)
    for scale in (4, 9, 20, 45):
        small = rng.normal(size=(max(2, height // scale), max(2, width // scale), 3)).astype(np.float32)
        image += contrast / 3 * cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(max(6, height * width // 12000)):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        radius = int(rng.integers(3, max(4, min(height, width) // 12)))
        cv2.circle(image, centre, radius, rng.uniform(20, 235, 3).tolist(), -1, cv2.LINE_AA)
    return np.clip(image, 5, 250)


@dataclass(frozen=True)
class Pose:
    """Where an object's centre is [px], how it is turned [rad] and how large it is."""

    u: float
    v: float
    angle: float = 0.0
    scale: float = 1.0

    def matrix(self, size: int) -> np.ndarray:
        """(2, 3) from the object's texture pixels to image pixels."""
        c, s = self.scale * np.cos(self.angle), self.scale * np.sin(self.angle)
        half = (size - 1) / 2
        linear = np.array([[c, -s], [s, c]])
        return np.column_stack([linear, np.array([self.u, self.v]) - linear @ [half, half]]).astype(
            np.float32
        )


@dataclass(frozen=True)
class Light:
    """Per-channel gain, and a linear fall-off across the image (fraction at the right edge)."""

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    falloff: float = 0.0

    def __call__(self, image: np.ndarray) -> np.ndarray:
        ramp = 1.0 - self.falloff * np.linspace(0, 1, image.shape[1], dtype=np.float32)[None, :, None]
        lit = image * np.array(self.gain, np.float32) * ramp
        return np.clip(lit, 0, 255).astype(np.uint8)


@dataclass
class SyntheticScene:
    """Objects of `size` px over a background; the template shows them at their home poses."""

    seed: int = 0
    objects: int = 3
    size: int = 81
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.background = random_texture(self.rng, HEIGHT, WIDTH)
        self.textures = [random_texture(self.rng, self.size, self.size, 90.0) for _ in range(self.objects)]
        grid = np.arange(self.size) - (self.size - 1) / 2
        radius = np.hypot(grid[:, None], grid[None, :])
        self.alpha = np.clip(self.size / 2 - 1 - radius, 0, 1).astype(np.float32)
        spots = [(150, 160), (330, 300), (500, 170), (180, 370), (480, 380)]
        self.home = [Pose(*spots[i]) for i in range(self.objects)]

    def new_background(self, seed: int) -> np.ndarray:
        """Another table."""
        return random_texture(np.random.default_rng([self.seed, seed]), HEIGHT, WIDTH)

    def render(
        self,
        poses: list[Pose] | None = None,
        background: np.ndarray | None = None,
        light: Light | None = None,
        occluder: tuple[float, float, float, float] | None = None,
        noise: float = 2.0,
    ) -> np.ndarray:
        """(480, 640, 3) uint8; `occluder` is a textured rectangle u0, v0, u1, v1 in front of everything."""
        image = (self.background if background is None else background).copy()
        for texture, pose in zip(self.textures, poses or self.home, strict=True):
            matrix = pose.matrix(self.size)
            mask = cv2.warpAffine(self.alpha, matrix, (WIDTH, HEIGHT))[:, :, None]
            layer = cv2.warpAffine(texture, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
            image = image * (1 - mask) + layer * mask
        if occluder is not None:
            u0, v0, u1, v1 = (round(x) for x in occluder)
            region = image[max(v0, 0) : max(v1, 0), max(u0, 0) : max(u1, 0)]
            stripes = 140 + 25 * np.sin(np.arange(region.shape[1]) / 3.0)
            region[:] = stripes[None, :, None]
        image = image + np.random.default_rng(7).normal(scale=noise, size=image.shape).astype(np.float32)
        return (light or Light())(image)

    def template(self, per_object: int = 12, on_background: int = 0, reach: float = 0.8) -> Template:
        """Points on the objects, in order of the objects, then on the background, with the picture they are on."""
        points = []
        for pose in self.home:
            radius = reach * self.size / 2 * np.sqrt(self.rng.uniform(size=per_object))
            angle = self.rng.uniform(0, 2 * np.pi, per_object)
            points.append(
                np.stack([pose.u + radius * np.cos(angle), pose.v + radius * np.sin(angle)], axis=1)
            )
        while on_background:
            spot = self.rng.uniform([20, 20], [WIDTH - 20, HEIGHT - 20])
            if all(np.hypot(spot[0] - p.u, spot[1] - p.v) > 0.75 * self.size for p in self.home):
                points.append(spot[None])
                on_background -= 1
        return Template(self.render(), np.concatenate(points).astype(np.float32))

    def truth(self, template: Template, poses: list[Pose], per_object: int = 12) -> np.ndarray:
        """(N, 2) where the template's points are with the objects at `poses`."""
        uv = template.uv_px.astype(np.float64).copy()
        for k, pose in enumerate(poses):
            chosen = slice(k * per_object, (k + 1) * per_object)
            local = uv[chosen] - [self.home[k].u, self.home[k].v]
            linear = pose.matrix(self.size)[:, :2].astype(np.float64)
            uv[chosen] = local @ linear.T + [pose.u, pose.v]
        return uv


@pytest.fixture
def make_scene() -> Callable[..., SyntheticScene]:
    return SyntheticScene


@pytest.fixture
def pose() -> type[Pose]:
    return Pose


@pytest.fixture
def light() -> type[Light]:
    return Light


@pytest.fixture
def refused_when_edited(tmp_path) -> Callable[[KeypointSet, str, str, str], None]:
    """Asserts that a keypoint set is refused with a message once a piece of its file is replaced."""

    def check(keypoint_set: KeypointSet, old: str, new: str, message: str) -> None:
        keypoint_set.save(tmp_path)
        path = tmp_path / "keypoints.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(KeypointSetError, match=message):
            KeypointSet.load(tmp_path)

    return check

"""Clips of flat objects that move, turn, scale and bend over a table, with exact tracks: cheap, and any roll can occur."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.training.clip import Clip, every_frame_labelled
from atk_perception.training.photometry import PhotometricStrength, Photometry
from atk_perception.training.textures import random_texture

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class PlanarClass:
    """What kind of clip. Sizes and speeds are for a 320x240 image and grow with it.

    Attributes:
        objects: least and most.
        object_px: least and largest diameter.
        speed_px: typical motion of an object per frame.
        roll_rad: how far objects turn away from where they start.
        scale_log: how far, in log scale, objects grow or shrink.
        perspective: strength of the tilt out of the image plane.
        occluders: least and most things that pass in front.
        plain_fraction: share of objects of almost one colour.
        photometric: light, blur, noise.
        background_motion: whether the camera moves.
        new_scene_fraction: share of clips whose first frame shows the same objects in another arrangement, on another
            background, in another light: the template.
        new_scene_roll_rad, new_scene_scale_log: how far objects are turned and scaled there.
        twin_fraction: share of clips (without a new scene) in which an object has a look-alike.
        bent_fraction: share of objects that bend as cloth does.
        background_point_fraction: share of points that lie on the background, where that is not exchanged.
    """

    objects: tuple[int, int] = (2, 5)
    object_px: tuple[float, float] = (24.0, 110.0)
    speed_px: float = 3.0
    roll_rad: float = 1.0
    scale_log: float = 0.25
    perspective: float = 0.15
    occluders: tuple[int, int] = (0, 2)
    plain_fraction: float = 0.35
    photometric: PhotometricStrength = field(default_factory=PhotometricStrength)
    background_motion: bool = True
    new_scene_fraction: float = 0.35
    new_scene_roll_rad: float = float(np.pi)
    new_scene_scale_log: float = 0.45
    twin_fraction: float = 0.0
    bent_fraction: float = 0.0
    background_point_fraction: float = 0.25


@dataclass(frozen=True, eq=False)
class _Bend:
    """A few waves that run over a layer: the texture's point `q + offset(q)` is shown at layer pixel q.

    Attributes:
        amplitude: (T, K) [px of the layer].
        direction, wave: (K, 2) unit vectors along which points are moved, and wave vectors [rad/px].
        phase: (K,).
    """

    amplitude: Matrix
    direction: Matrix
    wave: Matrix
    phase: Matrix

    def offset(self, t: int, at: Matrix) -> Matrix:
        """(..., 2) of layer pixels (..., 2)."""
        swing = self.amplitude[t] * np.sin(at @ self.wave.T + self.phase)
        return np.asarray(swing @ self.direction)

    def shown_at(self, t: int, on_texture: Matrix) -> Matrix:
        """(N, 2) layer pixels that show (N, 2) points of the texture."""
        at = on_texture
        for _ in range(20):  # slopes are below a half: each round at least halves the error
            at = on_texture - self.offset(t, at)
        return at


@dataclass(frozen=True, eq=False)
class _Layer:
    """A picture with a shape: (S, S, 3) texture, (S, S) alpha, (T, 3, 3) from its pixels to image pixels."""

    texture: NDArray[np.float32]
    alpha: NDArray[np.float32]
    T_image_layer: Matrix
    bend: _Bend | None = None


def planar_clip(
    seed: int, length: int, height: int, width: int, kind: PlanarClass | None = None, points: int = 64
) -> Clip:
    """One clip, a pure function of its arguments. All points are visible in frame 0."""
    kind = kind or PlanarClass()
    rng = np.random.default_rng([20, seed])
    unit = width / 320.0
    new_scene = bool(rng.random() < kind.new_scene_fraction)
    objects = [
        _make_object(rng, kind, length, height, width, new_scene)
        for _ in range(rng.integers(kind.objects[0], kind.objects[1] + 1))
    ]
    if not new_scene and rng.random() < kind.twin_fraction:
        # Which of two look-alikes a point is on, its past tells; across scenes nothing would.
        other = _make_object(rng, kind, length, height, width, new_scene)
        resized = other.T_image_layer @ np.diag(
            [other.texture.shape[0] / objects[0].texture.shape[0]] * 2 + [1.0]
        )
        objects.append(_Layer(objects[0].texture, objects[0].alpha, resized))
    occluders = [
        _make_occluder(rng, length, height, width, new_scene)
        for _ in range(rng.integers(kind.occluders[0], kind.occluders[1] + 1))
    ]
    margin = int(0.25 * width)
    grounds = [random_texture(rng, height + 2 * margin, width + 2 * margin) for _ in range(1 + new_scene)]
    T_ground = _ground_motion(rng, kind, length, height, width, margin)
    light = Photometry(rng, length, height, width, kind.photometric)
    camera = _wave(rng, length, 2, 40.0) * 0.6 * kind.speed_px * unit * kind.photometric.blur

    video = np.empty((length, height, width, 3), np.uint8)
    owner = np.empty((length, height, width), np.uint8)
    for t in range(length):
        ground = grounds[-1] if t == 0 else grounds[0]
        frame = _warped(ground, T_ground[t], (width, height), cv2.BORDER_REFLECT)
        owner[t] = 0
        for number, layer in enumerate([*objects, *([] if t == 0 else occluders)], start=1):
            _paint(frame, owner[t], layer, t, number)
        before = objects[0].T_image_layer[t if t < 2 else t - 1]
        motion = camera[t] + (objects[0].T_image_layer[t] - before)[:2, 2]
        video[t] = light(frame, t, (rng.uniform(0.2, 0.9) * motion).astype(np.float32))

    uv_px, visible = _tracks(
        rng, owner, objects, T_ground, points, 0.0 if new_scene else kind.background_point_fraction
    )
    return every_frame_labelled(video, uv_px, visible)


def _wave(rng: np.random.Generator, length: int, channels: int, period: float) -> Matrix:
    """(T, channels) smooth paths with speeds of about 1 per frame, from a few sines; 0 at frame 1."""
    time = np.arange(length)[:, None, None]
    periods = period * np.exp(rng.uniform(-0.7, 0.7, (1, channels, 3)))
    amplitude = rng.normal(0, 1, (1, channels, 3)) * periods / (2 * np.pi)
    path = (amplitude * np.sin(2 * np.pi * time / periods + rng.uniform(0, 2 * np.pi, (1, channels, 3)))).sum(
        axis=2
    )
    return np.asarray(path - path[min(1, length - 1)])


def _poses(centre_px: Matrix, angle_rad: Matrix, scale: Matrix, tilt: Matrix, size: int) -> Matrix:
    """(T, 3, 3) from layer pixels to image pixels; tilt (T, 2) per layer diameter."""
    half = (size - 1) / 2
    poses = np.zeros((len(centre_px), 3, 3))
    cosine, sine = np.cos(angle_rad) * scale, np.sin(angle_rad) * scale
    poses[:, 0, 0], poses[:, 0, 1], poses[:, 1, 0], poses[:, 1, 1] = cosine, -sine, sine, cosine
    poses[:, 2, 2] = 1.0
    to_centre = np.array([[1, 0, -half], [0, 1, -half], [0, 0, 1.0]])
    lean = np.tile(np.eye(3), (len(centre_px), 1, 1))
    lean[:, 2, :2] = tilt / size
    place = np.tile(np.eye(3), (len(centre_px), 1, 1))
    place[:, :2, 2] = centre_px
    return np.asarray(place @ poses @ lean @ to_centre)


def _make_object(
    rng: np.random.Generator, kind: PlanarClass, length: int, height: int, width: int, new_scene: bool
) -> _Layer:
    unit = width / 320.0
    diameter = float(np.exp(rng.uniform(*np.log(kind.object_px)))) * unit
    size = max(16, int(diameter))
    texture = random_texture(rng, size, size, plain=bool(rng.random() < kind.plain_fraction))
    start = rng.uniform([0.12, 0.12], [0.88, 0.88]) * [width, height]
    speed = kind.speed_px * unit * float(np.exp(rng.normal(0, 0.6)))
    centre = start + speed * _wave(rng, length, 2, 40.0)
    # Paths are reflected at the border, so that objects leave the image by at most a part of themselves.
    side = np.array([width, height], np.float64)
    centre = np.abs((centre + side) % (2 * side) - side)
    angle = _bounded(rng, length, kind.roll_rad)
    scale = np.exp(_bounded(rng, length, kind.scale_log))
    tilt = kind.perspective * np.stack([_bounded(rng, length, 1.0), _bounded(rng, length, 1.0)], axis=1)
    tilt -= tilt[0]
    angle = angle - angle[0] + rng.uniform(0, 2 * np.pi)
    scale = scale / scale[0]
    if new_scene:
        centre[0] = rng.uniform([0.15, 0.15], [0.85, 0.85]) * [width, height]
        angle[0] = angle[1] + kind.new_scene_roll_rad * rng.uniform(-1, 1)
        scale[0] = scale[1] * np.exp(kind.new_scene_scale_log * rng.uniform(-1, 1))
    bend = _make_bend(rng, length, size) if rng.random() < kind.bent_fraction else None
    return _Layer(texture, _shape(rng, size), _poses(centre, angle, scale, tilt, size), bend)


def _make_bend(rng: np.random.Generator, length: int, size: int) -> _Bend:
    """Two or three waves, of about the object's size and half of it."""
    count = int(rng.integers(2, 4))
    amplitude = np.stack([_bounded(rng, length, 1.0) for _ in range(count)], axis=1)
    towards, along = rng.uniform(0, 2 * np.pi, count), rng.uniform(0, 2 * np.pi, count)
    number = 2 * np.pi / (size * rng.uniform(0.6, 1.6, count))
    # Slopes of all waves together stay below a half, so that the picture never folds.
    amplitude *= 0.5 / count / number * rng.uniform(0.3, 1.0, count)
    return _Bend(
        amplitude,
        np.stack([np.cos(towards), np.sin(towards)], axis=1),
        number[:, None] * np.stack([np.cos(along), np.sin(along)], axis=1),
        rng.uniform(0, 2 * np.pi, count),
    )


def _bounded(rng: np.random.Generator, length: int, amplitude: float) -> Matrix:
    """(T,) a slow path within +-amplitude."""
    time = np.arange(length)
    periods = 70.0 * np.exp(rng.uniform(-0.8, 0.8, 2))
    phases = rng.uniform(0, 2 * np.pi, 2)
    return np.asarray(amplitude * 0.5 * (np.sin(2 * np.pi * time[:, None] / periods + phases)).sum(axis=1))


def _shape(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """(S, S) alpha of a disc, a box, a polygon or a blob with a soft edge of one pixel."""
    scale = 4
    mask = np.zeros((size * scale, size * scale), np.uint8)
    big = size * scale
    kind = rng.integers(4)
    middle = big // 2
    if kind == 0:
        axes = (int(big * 0.48), int(big * rng.uniform(0.25, 0.48)))
        cv2.ellipse(mask, (middle, middle), axes, 0, 0, 360, 255, -1)
    elif kind == 1:
        half_v = int(big * rng.uniform(0.2, 0.47))
        half_u = int(big * 0.47)
        cv2.rectangle(mask, (middle - half_u, middle - half_v), (middle + half_u, middle + half_v), 255, -1)
    else:
        corners = int(rng.integers(5, 9)) if kind == 2 else 40
        angle = (
            np.sort(rng.uniform(0, 2 * np.pi, corners))
            if kind == 2
            else np.linspace(0, 2 * np.pi, corners, endpoint=False)
        )
        radius = big * rng.uniform(0.3, 0.48, corners)
        if kind == 3:
            radius = big * (0.38 + 0.1 * np.sin(rng.integers(2, 6) * angle + rng.uniform(0, 6)))
        outline = np.stack([middle + radius * np.cos(angle), middle + radius * np.sin(angle)], axis=1)
        cv2.fillPoly(mask, [outline.astype(np.int32)], 255)
    return np.asarray(cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA), np.float32) / 255.0


def _make_occluder(rng: np.random.Generator, length: int, height: int, width: int, new_scene: bool) -> _Layer:
    """A bar like a robot's arm, or a blob, that sweeps across and waits at times."""
    size = int(rng.uniform(0.2, 0.5) * width)
    texture = random_texture(rng, size, size)
    alpha = _shape(rng, size)
    stretch = 1.0
    if rng.random() < 0.5:
        alpha = np.ones((size, size), np.float32)
        half = int(size * rng.uniform(0.08, 0.25))
        alpha[: size // 2 - half] = 0
        alpha[size // 2 + half :] = 0
        stretch = 2.0
    centre = rng.uniform([0.2, 0.2], [0.8, 0.8]) * [width, height] + 6.0 * width / 320 * _wave(
        rng, length, 2, 50.0
    )
    angle = rng.uniform(0, 2 * np.pi) + _bounded(rng, length, 0.8)
    return _Layer(
        texture, alpha, _poses(centre, angle, np.full(length, stretch), np.zeros((length, 2)), size)
    )


def _ground_motion(
    rng: np.random.Generator, kind: PlanarClass, length: int, height: int, width: int, margin: int
) -> Matrix:
    size = float(max(height, width) + 2 * margin)
    centre = np.tile([(width - 1) / 2, (height - 1) / 2], (length, 1))
    moves = kind.background_motion and rng.random() < 0.5
    amount = 1.0 if moves else 0.0
    centre = centre + np.clip(
        amount * 0.4 * kind.speed_px * width / 320 * _wave(rng, length, 2, 60.0), -0.2 * width, 0.2 * width
    )
    poses = _poses(
        centre,
        _bounded(rng, length, 0.1 * amount),
        np.exp(_bounded(rng, length, 0.06 * amount)),
        np.zeros((length, 2)),
        int(size),
    )
    shift = np.eye(3)
    shift[:2, 2] = (size - 1) / 2 - np.array([(width + 2 * margin - 1) / 2, (height + 2 * margin - 1) / 2])
    return np.asarray(poses @ shift)


def _warped(
    picture: NDArray[np.float32], pose: Matrix, size: tuple[int, int], border: int
) -> NDArray[np.float32]:
    return np.asarray(cv2.warpPerspective(picture, pose, size, borderMode=border), np.float32)


def _paint(frame: NDArray[np.float32], owner: NDArray[np.uint8], layer: _Layer, t: int, number: int) -> None:
    """Blend a layer into `frame` and write its number where it covers, in place, within its bounding box."""
    height, width = owner.shape
    size = layer.alpha.shape[0]
    pose = layer.T_image_layer[t]
    corners = np.array([[0, 0, 1], [size, 0, 1], [size, size, 1], [0, size, 1.0]]) @ pose.T
    corners = corners[:, :2] / corners[:, 2:]
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, [width, height]).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, [width, height]).astype(int)
    if right - left < 2 or bottom - top < 2:
        return
    local = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]]) @ pose
    box = (int(right - left), int(bottom - top))
    if layer.bend is None:
        alpha = _warped(layer.alpha, local, box, cv2.BORDER_CONSTANT)
        texture = _warped(layer.texture, local, box, cv2.BORDER_REPLICATE)
    else:
        shown = np.stack(np.meshgrid(np.arange(box[0]), np.arange(box[1])), axis=-1).astype(np.float64)
        on_layer = _transform(np.linalg.inv(local), shown.reshape(-1, 2))
        at = (on_layer + layer.bend.offset(t, on_layer)).reshape(*shown.shape).astype(np.float32)
        alpha, texture = (
            np.asarray(cv2.remap(picture, at, None, cv2.INTER_LINEAR, borderMode=border), np.float32)
            for picture, border in ((layer.alpha, cv2.BORDER_CONSTANT), (layer.texture, cv2.BORDER_REPLICATE))
        )
    region = frame[top:bottom, left:right]
    region += alpha[:, :, None] * (texture - region)
    owner[top:bottom, left:right][alpha > 0.5] = number


def _transform(T: Matrix, points_px: Matrix) -> Matrix:
    """(N, 2) images of (N, 2) points under the homographies (3, 3) or (T, 3, 3), then (T, N, 2)."""
    moved = np.concatenate([points_px, np.ones((len(points_px), 1))], axis=1) @ np.swapaxes(T, -1, -2)
    return np.asarray(moved[..., :2] / moved[..., 2:])


def _tracks(
    rng: np.random.Generator,
    owner: NDArray[np.uint8],
    objects: list[_Layer],
    T_ground: Matrix,
    points: int,
    background_fraction: float,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    length, height, width = owner.shape
    first = owner[0]
    inner = np.zeros_like(first, np.bool_)
    inner[3 : height - 3, 3 : width - 3] = True
    on_object = np.argwhere(inner & (first > 0) & (first <= len(objects)))
    on_ground = np.argwhere(inner & (first == 0))
    wanted_ground = min(round(points * background_fraction), len(on_ground))
    if len(on_object) == 0:
        wanted_ground = points
    # Small objects get as many points as large ones: that is where a robot's keypoints are.
    number = first[on_object[:, 0], on_object[:, 1]]
    weight = 1.0 / np.maximum(np.bincount(number, minlength=256)[number], 1)
    chosen = []
    if points - wanted_ground > 0:
        chosen.append(on_object[rng.choice(len(on_object), points - wanted_ground, p=weight / weight.sum())])
    if wanted_ground > 0:
        chosen.append(on_ground[rng.choice(len(on_ground), wanted_ground)])
    at = np.concatenate(chosen)
    layer = first[at[:, 0], at[:, 1]].astype(int)
    start = at[:, ::-1] + rng.uniform(-0.5, 0.5, (len(at), 2))
    uv_px = np.empty((len(at), length, 2), np.float32)
    for number_of_layer in np.unique(layer):
        mine = layer == number_of_layer
        poses = T_ground if number_of_layer == 0 else objects[number_of_layer - 1].T_image_layer
        on_layer = _transform(np.linalg.inv(poses[0]), start[mine])
        bend = None if number_of_layer == 0 else objects[number_of_layer - 1].bend
        if bend is None:
            uv_px[mine] = _transform(poses, on_layer).transpose(1, 0, 2)
            continue
        on_texture = on_layer + bend.offset(0, on_layer)
        for t in range(length):
            uv_px[mine, t] = _transform(poses[t], bend.shown_at(t, on_texture))
    nearest = np.rint(uv_px).astype(int)
    inside = (
        (nearest[..., 0] >= 0)
        & (nearest[..., 0] < width)
        & (nearest[..., 1] >= 0)
        & (nearest[..., 1] < height)
    )
    u, v = np.clip(nearest[..., 0], 0, width - 1), np.clip(nearest[..., 1], 0, height - 1)
    time = np.broadcast_to(np.arange(length), u.shape)
    visible = inside & (owner[time, v, u] == layer[:, None])
    visible[:, 0] = True
    return uv_px, visible

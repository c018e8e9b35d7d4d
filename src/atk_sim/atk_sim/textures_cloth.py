"""Procedural textures of woven things, as `textures`: towels that never repeat, tape, shoe canvas."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_sim.textures import Texture, blend, to_texture, value_noise


def _weave(size: int, threads: int) -> NDArray[np.float32]:
    """(size, size) brightness of a plain weave, about 1: warp over weft, weft over warp."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * (threads / size)
    over = (np.floor(x) + np.floor(y)) % 2
    warp, weft = np.abs(np.sin(np.pi * x)), np.abs(np.sin(np.pi * y))
    brightness: NDArray[np.float32] = (0.86 + 0.2 * np.where(over > 0, warp, weft)).astype(np.float32)
    return brightness


@lru_cache
def towel(size: int = 1024, seed: int = 101) -> Texture:
    """A printed kitchen towel: border bands, stripes of uneven width, fruit and leaves scattered unevenly."""
    rng = np.random.default_rng(seed)
    canvas = to_texture(blend(value_noise(rng, size, 6), (228, 222, 204), (242, 238, 226)))
    inks = [(176, 44, 40), (36, 74, 128), (214, 150, 40), (58, 112, 70), (60, 46, 60)]
    for start, width, ink in ((0.02, 0.035, 0), (0.07, 0.012, 1), (0.93, 0.04, 1), (0.90, 0.014, 2)):
        low, high = int(start * size), int((start + width) * size)
        canvas[low:high] = inks[ink]  # bands along the two hems
    for start, width, ink in ((0.03, 0.02, 3), (0.065, 0.008, 0), (0.95, 0.022, 2), (0.925, 0.01, 4)):
        low, high = int(start * size), int((start + width) * size)
        canvas[:, low:high] = inks[ink]
    centres: list[NDArray[np.float64]] = []
    for _ in range(4000):
        centre = rng.uniform(0.13, 0.87, 2)
        if all(np.linalg.norm(centre - other) > 0.105 for other in centres):
            centres.append(centre)
            _motif(canvas, rng, centre * size, size * rng.uniform(0.034, 0.054), inks)
    for _ in range(220):  # dots between
        centre = (rng.uniform(0.1, 0.9, 2) * size).astype(int)
        cv2.circle(
            canvas,
            (int(centre[0]), int(centre[1])),
            int(rng.integers(3, 6)),
            inks[rng.integers(5)],
            -1,
            cv2.LINE_AA,
        )
    woven = canvas.astype(np.float32) * _weave(size, 128)[..., None]
    woven *= (0.93 + 0.14 * value_noise(rng, size, 90, 2))[..., None]
    finished = to_texture(woven)
    finished.setflags(write=False)
    return finished


def _motif(
    canvas: Texture,
    rng: np.random.Generator,
    centre: NDArray[np.float64],
    radius: float,
    inks: list[tuple[int, int, int]],
) -> None:
    at, turn, ink = (int(centre[0]), int(centre[1])), rng.uniform(0, 360), inks[rng.integers(5)]
    kind = rng.integers(4)
    if kind == 0:  # fruit with a leaf
        cv2.circle(canvas, at, int(radius * 0.8), ink, -1, cv2.LINE_AA)
        cv2.circle(
            canvas,
            (at[0] - int(radius * 0.25), at[1] - int(radius * 0.25)),
            max(int(radius * 0.2), 2),
            (240, 226, 200),
            -1,
            cv2.LINE_AA,
        )
        cv2.ellipse(
            canvas,
            (at[0] + int(radius * 0.7), at[1] - int(radius * 0.7)),
            (int(radius * 0.5), int(radius * 0.22)),
            turn,
            0,
            360,
            inks[3],
            -1,
            cv2.LINE_AA,
        )
    elif kind == 1:  # flower
        for angle in np.radians(turn) + np.arange(5) * 2 * np.pi / 5:
            petal = (
                int(centre[0] + 0.6 * radius * np.cos(angle)),
                int(centre[1] + 0.6 * radius * np.sin(angle)),
            )
            cv2.ellipse(
                canvas,
                petal,
                (int(radius * 0.45), int(radius * 0.26)),
                float(np.degrees(angle)),
                0,
                360,
                ink,
                -1,
                cv2.LINE_AA,
            )
        cv2.circle(canvas, at, int(radius * 0.28), inks[2], -1, cv2.LINE_AA)
    elif kind == 2:  # slice of a lemon
        cv2.circle(canvas, at, int(radius * 0.9), inks[2], -1, cv2.LINE_AA)
        cv2.circle(canvas, at, int(radius * 0.72), (246, 234, 190), -1, cv2.LINE_AA)
        for angle in np.radians(turn) + np.arange(7) * 2 * np.pi / 7:
            end = (
                int(centre[0] + 0.72 * radius * np.cos(angle)),
                int(centre[1] + 0.72 * radius * np.sin(angle)),
            )
            cv2.line(canvas, at, end, inks[2], 3, cv2.LINE_AA)
    else:  # twig
        for offset in np.linspace(-0.9, 0.9, 5):
            place = centre + offset * radius * np.array([np.cos(np.radians(turn)), np.sin(np.radians(turn))])
            cv2.ellipse(
                canvas,
                (int(place[0]), int(place[1])),
                (int(radius * 0.45), int(radius * 0.16)),
                turn + 50,
                0,
                360,
                ink,
                -1,
                cv2.LINE_AA,
            )


@lru_cache
def tape(size: int = 128, seed: int = 103) -> Texture:
    """Woven cotton tape: red with pale stitches."""
    rng = np.random.default_rng(seed)
    picture = blend(value_noise(rng, size, 8), (150, 30, 34), (190, 52, 48)) * _weave(size, 24)[..., None]
    for row in range(6, size, 22):
        for column in range(0, size, 16):
            start = column + int(rng.integers(0, 5))
            picture[row : row + 3, start : start + 8] = (236, 222, 196)
    return to_texture(picture)


@lru_cache
def turned_wood(size: int = 1024, seed: int = 107) -> Texture:
    """A turned and painted stand (see `shapes.lathe`): rings of uneven width, each cut into uneven panels."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[0:size, 0:size].astype(np.float32) + 0.5) / size - 0.5
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    picture = blend(value_noise(rng, size, 12), (176, 126, 74), (214, 168, 112))
    paints = np.array(
        [(38, 92, 120), (232, 224, 206), (186, 70, 44), (70, 110, 66), (226, 172, 60)], np.float32
    )
    inner = 0.01
    while inner < 0.7:
        outer = inner + rng.uniform(0.007, 0.02)
        start = rng.uniform(-np.pi, np.pi)
        for width in rng.uniform(0.25, 1.1, 6):
            here = (radius >= inner) & (radius < outer) & ((angle - start) % (2 * np.pi) < width)
            picture[here] = paints[rng.integers(5)]
            start += width + rng.uniform(0.05, 0.4)
        inner = outer + rng.uniform(0.001, 0.008)
    return to_texture(picture * (0.9 + 0.2 * value_noise(rng, size, 60, 2))[..., None])


@lru_cache
def shoe_canvas(size: int = 1024, seed: int = 113) -> Texture:
    """A sneaker unrolled: across from one side of the sole over the top to the other, down from the toe to the heel."""
    rng = np.random.default_rng(seed)
    picture = blend(value_noise(rng, size, 10), (34, 62, 104), (52, 86, 132)) * _weave(size, 220)[..., None]
    canvas = to_texture(picture)
    white, red = (232, 230, 222), (186, 48, 40)
    edge = int(0.235 * size)  # the sole's rim, at both sides
    for side in (slice(0, edge), slice(size - edge, size)):
        canvas[:, side] = white
    for column in (edge - 40, size - edge + 28):
        canvas[:, column : column + 12] = red
    for row in range(0, size, 14):  # stitches along the sole
        for column in (edge + 14, size - edge - 18):
            canvas[row : row + 8, column : column + 4] = white
    canvas[: int(0.2 * size), edge : size - edge] = (226, 222, 210)  # toe cap
    for _ in range(500):  # its grain
        centre = (int(rng.integers(edge, size - edge)), int(rng.integers(0, int(0.19 * size))))
        cv2.circle(canvas, centre, int(rng.integers(2, 5)), (188, 180, 168), -1, cv2.LINE_AA)
    for k in range(5):  # a print of uneven stripes and a star at either flank
        for left in (True, False):
            x = edge + 30 + 16 * k + int(rng.integers(-3, 4))
            x = x if left else size - x
            y = int(0.38 * size) + 46 * k
            colour = (white, red, (222, 172, 60))[int(rng.integers(3))]
            cv2.line(
                canvas,
                (x, y),
                (x + (90 if left else -90), y + int(rng.integers(40, 110))),
                colour,
                9,
                cv2.LINE_AA,
            )
    holes = []
    for k in range(5):  # laces, criss-cross, and their eyelets
        y = int((0.23 + 0.045 * k) * size)
        holes += [
            (int((0.42 + 0.004 * k) * size), y),
            (int((0.58 - 0.004 * k) * size), y + int(rng.integers(-6, 7))),
        ]
    for first, second in ((0, 3), (1, 2), (2, 5), (3, 4), (4, 7), (5, 6), (6, 9), (7, 8)):
        cv2.line(canvas, holes[first], holes[second], (150, 146, 138), 17, cv2.LINE_AA)
        cv2.line(canvas, holes[first], holes[second], white, 13, cv2.LINE_AA)
    for hole in holes:
        cv2.circle(canvas, hole, 13, (206, 168, 84), -1, cv2.LINE_AA)
        cv2.circle(canvas, hole, 6, (20, 18, 20), -1, cv2.LINE_AA)
    for place in ((0.36, 0.30), (0.65, 0.34), (0.35, 0.55), (0.66, 0.60)):
        middle, turn = np.array(place) * size, rng.uniform(0, np.pi)
        spikes = np.arange(10) * np.pi / 5 + turn
        reach = np.where(np.arange(10) % 2, 14, 34)[:, None]
        star = (middle + reach * np.stack([np.cos(spikes), np.sin(spikes)], axis=1)).astype(np.int32)
        cv2.fillPoly(canvas, [star], white, cv2.LINE_AA)
    mouth = (int(0.5 * size), int(0.78 * size))  # where the foot goes in
    cv2.ellipse(canvas, mouth, (int(0.15 * size), int(0.15 * size)), 0, 0, 360, red, -1, cv2.LINE_AA)
    cv2.ellipse(
        canvas, mouth, (int(0.13 * size), int(0.135 * size)), 0, 0, 360, (22, 20, 24), -1, cv2.LINE_AA
    )
    finished = to_texture(canvas * (0.92 + 0.16 * value_noise(rng, size, 80, 2))[..., None])
    finished.setflags(write=False)
    return finished


@lru_cache
def patch(size: int = 512, seed: int = 127) -> Texture:
    """The leather patch around the eyelet (see `shapes.rounded_box`: the centre is the top): tooled, stitched, a hole."""
    rng = np.random.default_rng(seed)
    canvas = to_texture(blend(value_noise(rng, size, 30, 3), (150, 92, 48), (196, 134, 80)))
    middle = size // 2
    for _ in range(70):  # tooling: marks of uneven shape
        distance, angle = rng.uniform(0.09, 0.42) * size, rng.uniform(0, 2 * np.pi)
        at = (int(middle + distance * np.cos(angle)), int(middle + distance * np.sin(angle)))
        axes = (int(rng.integers(5, 13)), int(rng.integers(3, 6)))
        colour = ((92, 48, 22), (230, 190, 130), (70, 96, 84))[int(rng.integers(3))]
        cv2.ellipse(canvas, at, axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
    for angle in np.linspace(0, 2 * np.pi, 60, endpoint=False):  # stitches
        turns = np.array([angle, angle + 0.06])
        ends = (0.45 * size * np.stack([np.cos(turns), np.sin(turns)], axis=1) + middle).astype(np.int32)
        cv2.polylines(canvas, [ends], False, (240, 230, 206), 4, cv2.LINE_AA)
    cv2.circle(canvas, (middle, middle), int(0.05 * size), (12, 10, 10), -1, cv2.LINE_AA)
    canvas.setflags(write=False)
    return canvas

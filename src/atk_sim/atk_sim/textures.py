"""Procedural textures: (H, W, 3) uint8 RGB, each a pure function of its arguments.

The textures of task objects are rich and never repeat, as printed or natural surfaces are: a tracker can tell any place
on them from any other. Those of round objects are drawn about the picture's centre (see `shapes.lathe`).
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Texture = NDArray[np.uint8]
Colour = tuple[float, float, float]  # RGB, 0 to 255


def value_noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 4) -> NDArray[np.float32]:
    """Smooth noise (size, size) in 0..1; `cells` random values across in the first octave, twice as many in the next."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        count = min(cells * 2**octave, size)
        grid = rng.random((count, count), dtype=np.float32)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) / 2**octave
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def blend(amount: NDArray[np.float32], low: Colour, high: Colour) -> NDArray[np.float32]:
    """(H, W, 3) float32 between two colours, by `amount` (H, W) in 0..1."""
    return (
        np.asarray(low, np.float32)
        + amount[..., None] * (np.asarray(high, np.float32) - np.asarray(low, np.float32))
    ).astype(np.float32)


def to_texture(picture: NDArray[np.float32]) -> Texture:
    """Round to uint8."""
    return np.clip(picture, 0, 255).astype(np.uint8)


@lru_cache
def salmon(size: int = 512, seed: int = 7) -> Texture:
    """A slice of salmon: bending fat lines of uneven width, sesame, chives and roe scattered unevenly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    warp = value_noise(rng, size, 3, 3)
    picture = blend(value_noise(rng, size, 5), (226, 92, 46), (248, 132, 74))
    way = (x * 0.9 + 0.38 * np.abs(y - 0.45) + 0.16 * warp) * 11.0
    line = np.abs(way - np.round(way))
    width = 0.07 + 0.13 * value_noise(rng, size, 6, 2)
    fat = np.clip(1.2 - line / width, 0, 1)[..., None]
    picture = picture * (1 - 0.85 * fat) + np.asarray((255, 222, 196), np.float32) * 0.85 * fat
    canvas = to_texture(picture)
    for _ in range(26):  # chives
        centre, angle = rng.uniform(0.1, 0.9, 2) * size, rng.uniform(0, np.pi)
        half = rng.uniform(0.012, 0.035) * size * np.array([np.cos(angle), np.sin(angle)])
        green = rng.uniform(0.7, 1.1) * np.array([52, 120, 44])
        _line(canvas, centre - half, centre + half, green, int(rng.integers(5, 9)))
    for _ in range(60):  # sesame, black and white
        centre, angle = rng.uniform(0.06, 0.94, 2) * size, rng.uniform(0, 180)
        shade = (28, 22, 20) if rng.random() < 0.55 else (250, 240, 214)
        axes = (int(rng.integers(6, 9)), int(rng.integers(3, 6)))
        cv2.ellipse(canvas, _pixel(centre), axes, angle, 0, 360, shade, -1, cv2.LINE_AA)
    for _ in range(9):  # roe
        centre = rng.uniform(0.2, 0.8, 2) * size
        radius = int(rng.integers(9, 14))
        cv2.circle(canvas, _pixel(centre), radius, (214, 38, 20), -1, cv2.LINE_AA)
        cv2.circle(
            canvas, _pixel(centre - radius * 0.3), max(radius // 3, 2), (255, 190, 150), -1, cv2.LINE_AA
        )
    canvas.setflags(write=False)
    return canvas


@lru_cache
def fish(red: bool, size: int = 256, seed: int = 11) -> Texture:
    """Tuna (`red`) or white fish: soft marbling."""
    rng = np.random.default_rng(seed + red)
    low, high = ((150, 24, 36), (196, 58, 62)) if red else ((232, 208, 196), (248, 236, 226))
    picture = blend(value_noise(rng, size, 5), low, high)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    way = (x + 0.5 * y + 0.15 * value_noise(rng, size, 3, 2)) * 8
    vein = np.clip(1 - np.abs(way - np.round(way)) / 0.09, 0, 1)[..., None] * (0.35 if red else 0.5)
    vein_colour = np.asarray((236, 150, 144) if red else (226, 140, 128), np.float32)
    return to_texture(picture * (1 - vein) + vein_colour * vein)


@lru_cache
def omelette(size: int = 256, seed: int = 13) -> Texture:
    """Tamago: layered yellow with browned patches."""
    rng = np.random.default_rng(seed)
    picture = blend(value_noise(rng, size, 4), (238, 184, 52), (252, 214, 98))
    brown = np.clip(value_noise(rng, size, 7) * 2.2 - 1.25, 0, 0.7)[..., None]
    return to_texture(picture * (1 - brown) + np.asarray((176, 108, 36), np.float32) * brown)


@lru_cache
def rice(size: int = 256, seed: int = 17) -> Texture:
    """Packed grains."""
    rng = np.random.default_rng(seed)
    canvas = to_texture(blend(value_noise(rng, size, 8), (196, 190, 178), (222, 218, 206)))
    for _ in range(900):
        shade = rng.uniform(0.9, 1.03) * np.array([244, 241, 232])
        axes = (int(rng.integers(7, 11)), int(rng.integers(3, 5)))
        centre, angle = _pixel(rng.uniform(0, size, 2)), rng.uniform(0, 180)
        cv2.ellipse(canvas, centre, axes, angle, 0, 360, (0.84 * shade).tolist(), -1, cv2.LINE_AA)
        cv2.ellipse(
            canvas, centre, (axes[0] - 2, axes[1] - 1), angle, 0, 360, shade.tolist(), -1, cv2.LINE_AA
        )
    canvas.setflags(write=False)
    return canvas


@lru_cache
def nori(size: int = 256, seed: int = 19) -> Texture:
    """Dried seaweed: dark green fibres."""
    rng = np.random.default_rng(seed)
    return to_texture(blend(value_noise(rng, size, 24, 3), (14, 22, 18), (46, 62, 48)))


@lru_cache
def maki(size: int = 256, seed: int = 23) -> Texture:
    """The cut face of a roll: nori outside, rice, and a filling off its centre. The sides are nori."""
    rng = np.random.default_rng(seed)
    canvas = nori(size).copy()
    centre = size // 2
    face = int(0.205 * size)
    cv2.circle(canvas, (centre, centre), face, (238, 235, 226), -1, cv2.LINE_AA)
    inside = np.zeros(canvas.shape[:2], np.uint8)
    cv2.circle(inside, (centre, centre), face, 255, -1)
    canvas[inside > 0] = cv2.addWeighted(canvas, 0.35, rice(size), 0.65, 0)[inside > 0]
    for colour, offset in (((232, 96, 60), (-8, -5)), ((96, 160, 62), (9, 3)), ((240, 206, 88), (-2, 10))):
        cv2.ellipse(
            canvas,
            (centre + offset[0], centre + offset[1]),
            (12, 9),
            rng.uniform(0, 90),
            0,
            360,
            colour,
            -1,
            cv2.LINE_AA,
        )
    canvas.setflags(write=False)
    return canvas


@lru_cache
def porcelain(size: int = 1024, seed: int = 29) -> Texture:
    """A painted plate: no two places of the rim or the centre look alike, so a tracker can tell them apart."""
    rng = np.random.default_rng(seed)
    canvas = to_texture(blend(value_noise(rng, size, 4), (228, 230, 226), (244, 244, 240)))
    middle, unit = size / 2, size / 2
    blues = [(24, 52, 122), (38, 82, 160), (84, 128, 190), (18, 38, 90)]
    # The profile's upper side ends near 0.56 of the way to the lower pole (see tasks.sushi.PLATE_PROFILE_M).
    outer = 0.56 * unit
    cv2.circle(canvas, _pixel((middle, middle)), int(outer * 0.985), blues[0], 9, cv2.LINE_AA)
    cv2.circle(canvas, _pixel((middle, middle)), int(outer * 0.76), blues[1], 5, cv2.LINE_AA)
    start = 0.0
    while start < 2 * np.pi - 0.08:  # rim: panels of uneven width, each with its own motif
        end = min(start + rng.uniform(0.16, 0.42), 2 * np.pi)
        _rim_panel(canvas, rng, middle, outer, start, end, blues)
        start = end
    _branch(canvas, rng, np.array([middle - 0.40 * outer, middle + 0.52 * outer]), -0.9, 0.42 * outer, 5)
    for distance, angle, radius in (
        (0.32, -0.7, 0.19),
        (0.42, 0.9, 0.14),
        (0.30, 2.6, 0.11),
        (0.55, -1.9, 0.10),
        (0.12, 1.9, 0.09),
        (0.58, 2.0, 0.075),
    ):
        centre = middle + distance * outer * np.array([np.cos(angle), np.sin(angle)])
        _flower(canvas, rng, centre, radius * outer)
    for _ in range(40):
        distance, angle = outer * np.sqrt(rng.uniform(0.0, 0.5)), rng.uniform(0, 2 * np.pi)
        centre = middle + distance * np.array([np.cos(angle), np.sin(angle)])
        colour = blues[rng.integers(4)] if rng.random() < 0.7 else (188, 42, 40)
        cv2.circle(canvas, _pixel(centre), int(rng.integers(3, 9)), colour, -1, cv2.LINE_AA)
    canvas.setflags(write=False)
    return canvas


def _rim_panel(
    canvas: Texture,
    rng: np.random.Generator,
    middle: float,
    outer: float,
    start: float,
    end: float,
    blues: list[tuple[int, int, int]],
) -> None:
    def polar(radius: float, angle: float) -> NDArray[np.float64]:
        return middle + outer * radius * np.array([np.cos(angle), np.sin(angle)])

    kind, colour = rng.integers(5), blues[rng.integers(4)]
    angles = np.linspace(start, end, 12)
    if kind == 0:  # filled panel with light dots
        edge = np.array(
            [_pixel(polar(0.79, a)) for a in angles] + [_pixel(polar(0.95, a)) for a in angles[::-1]],
            np.int32,
        )
        cv2.fillPoly(canvas, [edge], colour, cv2.LINE_AA)
        for _ in range(int(rng.integers(2, 6))):
            cv2.circle(
                canvas,
                _pixel(polar(rng.uniform(0.82, 0.93), rng.uniform(start, end))),
                int(rng.integers(4, 9)),
                (240, 240, 236),
                -1,
                cv2.LINE_AA,
            )
    elif kind == 1:  # hatching
        for angle in np.arange(start + 0.02, end, rng.uniform(0.028, 0.05)):
            _line(
                canvas, polar(0.80, angle), polar(0.94, angle + rng.uniform(-0.05, 0.05)), np.array(colour), 5
            )
    elif kind == 2:  # arcs
        for _ in range(int(rng.integers(2, 5))):
            centre = polar(rng.uniform(0.84, 0.92), rng.uniform(start + 0.03, end - 0.03))
            for radius in range(8, int(rng.integers(18, 34)), 9):
                cv2.circle(canvas, _pixel(centre), radius, colour, 3, cv2.LINE_AA)
    elif kind == 3:  # red panel with a stroke
        edge = np.array(
            [_pixel(polar(0.80, a)) for a in angles] + [_pixel(polar(0.94, a)) for a in angles[::-1]],
            np.int32,
        )
        cv2.fillPoly(canvas, [edge], (178, 44, 38), cv2.LINE_AA)
        _line(canvas, polar(0.82, start + 0.04), polar(0.92, end - 0.04), np.array([236, 196, 96]), 7)
    else:  # leaf
        _line(canvas, polar(0.82, start), polar(0.92, end), np.array(colour), 9)
        for angle in np.linspace(start, end, int(rng.integers(2, 5))):
            cv2.ellipse(
                canvas,
                _pixel(polar(rng.uniform(0.83, 0.92), angle)),
                (22, 9),
                np.degrees(angle) + rng.uniform(20, 90),
                0,
                360,
                colour,
                -1,
                cv2.LINE_AA,
            )


def _flower(canvas: Texture, rng: np.random.Generator, centre: NDArray[np.float64], radius: float) -> None:
    petals, turn = int(rng.integers(4, 8)), rng.uniform(0, 2 * np.pi)
    colour = [(188, 42, 40), (38, 82, 160), (222, 120, 112), (24, 52, 122), (206, 150, 40)][rng.integers(5)]
    for angle in turn + np.arange(petals) * 2 * np.pi / petals:
        petal = centre + 0.55 * radius * np.array([np.cos(angle), np.sin(angle)])
        axes = (max(int(0.46 * radius), 2), max(int(0.3 * radius), 2))
        cv2.ellipse(canvas, _pixel(petal), axes, np.degrees(angle), 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(canvas, _pixel(petal), axes, np.degrees(angle), 0, 360, (30, 30, 50), 2, cv2.LINE_AA)
    cv2.circle(canvas, _pixel(centre), max(int(0.24 * radius), 2), (236, 190, 70), -1, cv2.LINE_AA)


def _branch(
    canvas: Texture,
    rng: np.random.Generator,
    start: NDArray[np.float64],
    angle: float,
    length: float,
    depth: int,
) -> None:
    end = start + length * np.array([np.cos(angle), np.sin(angle)])
    _line(canvas, start, end, np.array([58, 42, 40]), 2 + 3 * depth)
    if depth > 1:
        for turn in rng.uniform([-0.9, 0.1], [-0.2, 0.9]):
            _branch(canvas, rng, end, angle + turn, length * rng.uniform(0.5, 0.8), depth - 2)
    for _ in range(4):
        leaf = start + rng.uniform(0.2, 1.0) * (end - start) + rng.uniform(-14, 14, 2)
        cv2.ellipse(
            canvas, _pixel(leaf), (16, 7), rng.uniform(0, 180), 0, 360, (66, 112, 74), -1, cv2.LINE_AA
        )


def confetti(
    canvas: Texture, rng: np.random.Generator, radius: float, colours: tuple[tuple[int, int, int], ...]
) -> None:
    """Scraps of paper within `radius` of a square canvas's middle: a round print that looks different at every turn."""
    middle = canvas.shape[0] / 2
    for _ in range(70):
        away, angle = radius * np.sqrt(rng.uniform()), rng.uniform(0.0, 2 * np.pi)
        corners = np.sort(rng.uniform(0.0, 2 * np.pi, rng.integers(3, 7)))
        scrap = np.stack([np.cos(corners), np.sin(corners)], axis=1) * radius * rng.uniform(0.055, 0.14)
        scrap += middle + away * np.array([np.cos(angle), np.sin(angle)])
        cv2.fillPoly(canvas, [scrap.astype(np.int32)], colours[rng.integers(len(colours))], cv2.LINE_AA)


@lru_cache
def demo_table(size: int = 1024) -> Texture:
    """The table on which demonstrations are recorded: dark walnut planks."""
    return _planks(np.random.default_rng(31), size, (84, 58, 42), (124, 88, 62), planks=5)


@lru_cache
def demo_backdrop(size: int = 256) -> Texture:
    """The wall behind the robot on which demonstrations are recorded."""
    return to_texture(
        blend(value_noise(np.random.default_rng(37), size, 6), (168, 178, 184), (186, 194, 198))
    )


def _planks(rng: np.random.Generator, size: int, low: Colour, high: Colour, planks: int) -> Texture:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    picture = np.empty((size, size, 3), np.float32)
    edges = np.linspace(0, size, planks + 1).astype(int)
    for top, bottom in pairwise(edges):
        warp = value_noise(rng, size, 3, 3)[top:bottom]
        rings = (
            y[top:bottom] + 0.10 * warp + 0.03 * np.sin(4 * x[top:bottom] + rng.uniform(0, 6))
        ) * rng.uniform(60, 110)
        fibres = cv2.resize(
            rng.random((bottom - top, 24), dtype=np.float32),
            (size, bottom - top),
            interpolation=cv2.INTER_CUBIC,
        )
        grain = (
            0.55 * (0.5 + 0.5 * np.sin(rings)) + 0.25 * fibres + 0.2 * value_noise(rng, size, 6)[top:bottom]
        )
        picture[top:bottom] = blend(np.clip(grain, 0, 1), low, high) * rng.uniform(0.86, 1.1)
        picture[top : top + max(size // 340, 1)] *= 0.45
    return to_texture(picture)


def random_surface(rng: np.random.Generator, size: int = 512) -> Texture:
    """One texture of the pool that tables, walls and distractors are dressed with; none is ever a demonstration's."""
    generator = _SURFACES[rng.integers(len(_SURFACES))]
    hue = rng.uniform(0, 180)
    return generator(
        rng,
        size,
        _hsv(hue, rng.uniform(30, 170), rng.uniform(60, 150)),
        _hsv(hue + rng.normal(0, 35), rng.uniform(15, 150), rng.uniform(120, 225)),
    )


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    pixel = np.array([[[hue % 180, saturation, value]]], np.uint8)
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def _wood(rng: np.random.Generator, size: int, low: Colour, high: Colour) -> Texture:
    return _planks(rng, size, low, high, planks=int(rng.integers(1, 9)))


def _marble(rng: np.random.Generator, size: int, low: Colour, high: Colour) -> Texture:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    vein = np.abs(np.sin(6 * (x * rng.uniform(-1, 1) + y) + 7 * value_noise(rng, size, 3, 5))) ** 0.5
    return to_texture(blend(vein.astype(np.float32), low, high))


def _cloth(rng: np.random.Generator, size: int, low: Colour, high: Colour) -> Texture:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    count = rng.integers(5, 18)
    check = ((np.floor(x * count) % 2) + (np.floor(y * count) % 2)) / 2
    return to_texture(
        blend((check * 0.9).astype(np.float32), low, high)
        + 14 * (rng.random((size, size, 1), dtype=np.float32) - 0.5)
    )


def _stripes(rng: np.random.Generator, size: int, low: Colour, high: Colour) -> Texture:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    angle = rng.uniform(0, np.pi)
    way = (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(5, 22)
    return to_texture(
        blend((np.abs(way - np.round(way)) < rng.uniform(0.12, 0.38)).astype(np.float32), low, high)
    )


def _terrazzo(rng: np.random.Generator, size: int, low: Colour, high: Colour) -> Texture:
    canvas = to_texture(blend(value_noise(rng, size, 6), high, high))
    for _ in range(260):
        corners = rng.uniform(0, size, 2) + rng.normal(0, size / 45, (5, 2))
        shade = np.asarray(low) * rng.uniform(0.5, 1.5)
        cv2.fillConvexPoly(
            canvas, cv2.convexHull(corners.astype(np.int32)), np.clip(shade, 0, 255).tolist(), cv2.LINE_AA
        )
    return canvas


def _tiles(rng: np.random.Generator, size: int, low: Colour, high: Colour) -> Texture:
    count = int(rng.integers(3, 9))
    shades = rng.random((count, count)).astype(np.float32)
    tiles = np.asarray(cv2.resize(shades, (size, size), interpolation=cv2.INTER_NEAREST), np.float32)
    picture = blend(tiles, low, high)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size * count
    joint = (np.minimum(np.abs(x - np.round(x)), np.abs(y - np.round(y))) < 0.03)[..., None]
    return to_texture(
        np.where(
            joint, np.asarray(high, np.float32) * 0.6, picture + 12 * value_noise(rng, size, 20)[..., None]
        )
    )


def _concrete(rng: np.random.Generator, size: int, low: Colour, high: Colour) -> Texture:
    return to_texture(blend(value_noise(rng, size, int(rng.integers(3, 12)), 6), low, high))


def _dots(rng: np.random.Generator, size: int, low: Colour, high: Colour) -> Texture:
    canvas = to_texture(blend(value_noise(rng, size, 5), low, low))
    for _ in range(int(rng.integers(40, 160))):
        cv2.circle(
            canvas,
            _pixel(rng.uniform(0, size, 2)),
            int(rng.integers(size // 60, size // 22)),
            high,
            -1,
            cv2.LINE_AA,
        )
    return canvas


_SURFACES: tuple[Callable[[np.random.Generator, int, Colour, Colour], Texture], ...] = (
    _wood,
    _marble,
    _cloth,
    _stripes,
    _terrazzo,
    _tiles,
    _concrete,
    _dots,
)


def _pixel(point: NDArray[np.float64] | tuple[float, float]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _line(
    canvas: Texture,
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    colour: NDArray[np.float64],
    width: int,
) -> None:
    cv2.line(canvas, _pixel(start), _pixel(end), colour.tolist(), width, cv2.LINE_AA)

"""Procedural textures of the kitchen, as `textures` makes those of the sushi table.

Enamel and stone coatings are speckled, as camping ware is: speckles of one to four millimetres lie nowhere twice alike.
Pictures of flat parts are drawn as they are seen, first row on top (see `shapes_kitchen.sheet`).
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_sim.shapes_kitchen import cells_across
from atk_sim.textures import Colour, Texture, blend, to_texture, value_noise

CREAM: Colour = (238, 228, 204)
TEAL: Colour = (38, 110, 116)
INK: Colour = (44, 40, 46)
CHILLI: Colour = (186, 52, 40)
MUSTARD: Colour = (222, 166, 52)
LEAF: Colour = (74, 124, 66)


def _speckle(
    canvas: Texture,
    rng: np.random.Generator,
    count: int,
    radius_px: tuple[float, float],
    colours: tuple[Colour, ...],
) -> None:
    """Irregular flecks, large ones rare."""
    height, width = canvas.shape[:2]
    for _ in range(count):
        size = radius_px[0] + (radius_px[1] - radius_px[0]) * rng.random() ** 3
        corners = rng.uniform(0, (width, height)) + size * rng.normal(0, 0.8, (6, 2))
        colour = colours[rng.integers(len(colours))]
        cv2.fillConvexPoly(canvas, cv2.convexHull(corners.astype(np.int32)), colour, cv2.LINE_AA)


def _words(canvas: Texture, text: str, corner: tuple[int, int], scale: float, colour: Colour) -> None:
    weight = max(round(2.4 * scale), 1)
    cv2.putText(canvas, text, corner, cv2.FONT_HERSHEY_DUPLEX, scale, colour, weight, cv2.LINE_AA)


@lru_cache
def enamel(width: int = 512, height: int = 512, seed: int = 101) -> Texture:
    """Teal enamel with cream flecks: the oven's shell."""
    rng = np.random.default_rng(seed)
    noise = cv2.resize(value_noise(rng, 256, 4), (width, height))
    canvas = to_texture(blend(noise, (30, 98, 106), (48, 124, 128)))
    flecks = width * height // 1100
    _speckle(canvas, rng, flecks, (1.5, 9.0), (CREAM, (206, 214, 204), (20, 66, 74)))
    canvas.setflags(write=False)
    return canvas


@lru_cache
def oven_door(width: int = 768, height: int = 512, seed: int = 103) -> Texture:
    """The door's frame, cream enamel printed with herbs and fruit (left half), and its dark inner side (right half)."""
    rng = np.random.default_rng(seed)
    face = to_texture(blend(cv2.resize(value_noise(rng, 256, 5), (width, height)), (226, 214, 186), CREAM))
    _speckle(face, rng, 260, (1.0, 4.0), ((176, 150, 110), (120, 100, 80), TEAL))
    cv2.rectangle(face, (8, 8), (width - 9, height - 9), TEAL, 5, cv2.LINE_AA)
    for _ in range(150):
        at = rng.uniform(0, (width, height))
        motif, size, turn = rng.integers(5), rng.uniform(9, 26), rng.uniform(0, 360)
        _motif(face, rng, int(motif), at, size, turn)
    _words(face, "ATK", (width // 2 - 52, 52), 1.5, CHILLI)
    _words(face, "bake 220", (30, height - 26), 0.9, INK)
    _words(face, "No. 7", (width - 130, height - 26), 0.9, TEAL)
    back = to_texture(
        blend(cv2.resize(value_noise(rng, 256, 6), (width, height)), (58, 56, 58), (92, 88, 86))
    )
    _speckle(back, rng, 900, (1.5, 8.0), ((196, 192, 184), (150, 140, 128), (24, 24, 26), (148, 86, 52)))
    picture = np.hstack([face, back])
    picture.setflags(write=False)
    return picture


def _motif(
    canvas: Texture, rng: np.random.Generator, kind: int, at: NDArray[np.float64], size: float, turn: float
) -> None:
    """One printed sign about `at` (2,) [px]: leaf, berry, slice, blossom, sprig."""
    centre = (round(float(at[0])), round(float(at[1])))
    radius = max(round(size / 2), 3)
    if kind == 0:
        cv2.ellipse(
            canvas, centre, (round(size), max(round(size / 3), 2)), turn, 0, 360, LEAF, -1, cv2.LINE_AA
        )
        cv2.ellipse(canvas, centre, (round(size), 1), turn, 0, 360, CREAM, 1, cv2.LINE_AA)
    elif kind == 1:
        cv2.circle(canvas, centre, radius, CHILLI, -1, cv2.LINE_AA)
        cv2.circle(canvas, (centre[0] - radius // 3, centre[1] - radius // 3), max(radius // 4, 1), CREAM, -1)
    elif kind == 2:
        cv2.circle(canvas, centre, radius + 3, MUSTARD, -1, cv2.LINE_AA)
        cv2.circle(canvas, centre, radius, (250, 226, 150), -1, cv2.LINE_AA)
        for spoke in np.radians(turn) + np.arange(6) * np.pi / 3:
            tip = (centre[0] + round(radius * np.cos(spoke)), centre[1] + round(radius * np.sin(spoke)))
            cv2.line(canvas, centre, tip, MUSTARD, 2, cv2.LINE_AA)
    elif kind == 3:
        colour = (TEAL, CHILLI, (70, 84, 150))[rng.integers(3)]
        for petal in np.radians(turn) + np.arange(5) * 2 * np.pi / 5:
            offset = 0.6 * size * np.array([np.cos(petal), np.sin(petal)])
            spot = (round(float(at[0] + offset[0])), round(float(at[1] + offset[1])))
            cv2.circle(canvas, spot, max(round(size * 0.3), 2), colour, -1, cv2.LINE_AA)
        cv2.circle(canvas, centre, max(round(size * 0.25), 2), MUSTARD, -1, cv2.LINE_AA)
    else:
        way = np.array([np.cos(np.radians(turn)), np.sin(np.radians(turn))])
        end = at + size * 1.3 * way
        cv2.line(canvas, centre, (round(float(end[0])), round(float(end[1]))), LEAF, 2, cv2.LINE_AA)
        for along in (0.4, 0.7, 1.0, 1.3):
            for side in (-1, 1):
                leaf = at + along * size * way + side * 0.25 * size * np.array([-way[1], way[0]])
                spot = (round(float(leaf[0])), round(float(leaf[1])))
                cv2.ellipse(
                    canvas,
                    spot,
                    (max(round(size / 5), 2), 2),
                    turn + 40 * side,
                    0,
                    360,
                    LEAF,
                    -1,
                    cv2.LINE_AA,
                )


@lru_cache
def oven_panel(width: int = 768, height: int = 160, seed: int = 107) -> Texture:
    """The strip with the knobs: brushed steel, printed scales and signs."""
    rng = np.random.default_rng(seed)
    brushed = cv2.resize(
        rng.random((height, 12), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    canvas = to_texture(blend(np.clip(brushed, 0, 1), (150, 152, 154), (188, 190, 192)))
    _speckle(canvas, rng, 120, (1.0, 3.0), ((110, 110, 112), (214, 214, 214)))
    for centre, words in ((width // 6, "TIMER"), (width // 2, "HEAT"), (5 * width // 6, "GRILL")):
        for step, angle in enumerate(np.linspace(0.75 * np.pi, 2.25 * np.pi, 11)):
            way = np.array([np.cos(angle), np.sin(angle)])
            inner, outer = (np.array([centre, 78]) + reach * way for reach in (48, 62))
            colour = CHILLI if step > 7 else INK
            cv2.line(
                canvas, (int(inner[0]), int(inner[1])), (int(outer[0]), int(outer[1])), colour, 4, cv2.LINE_AA
            )
        _words(canvas, words, (centre - 46, 150), 0.9, INK)
    picture = np.hstack([canvas, canvas[:, ::-1]])
    picture.setflags(write=False)
    return picture


@lru_cache
def tray(width: int = 512, height: int = 384, seed: int = 109) -> Texture:
    """A baking tray that has seen use: dark steel, stains, a stamped grid."""
    rng = np.random.default_rng(seed)
    canvas = to_texture(
        blend(cv2.resize(value_noise(rng, 256, 5), (width, height)), (66, 62, 60), (112, 106, 100))
    )
    for x in range(24, width, 48):
        cv2.line(canvas, (x, 0), (x, height), (140, 136, 130), 3, cv2.LINE_AA)
    for y in range(24, height, 48):
        cv2.line(canvas, (0, y), (width, y), (46, 44, 42), 3, cv2.LINE_AA)
    _speckle(canvas, rng, 420, (2.0, 12.0), ((36, 30, 28), (150, 104, 62), (186, 178, 166)))
    picture = np.hstack([canvas, canvas])
    picture.setflags(write=False)
    return picture


@lru_cache
def cooktop(width: int, height: int, rings_px: tuple[tuple[int, int, int], ...], seed: int = 113) -> Texture:
    """Black glass with printed cooking zones, each (column, row, radius) [px], flecked as glass ceramic is."""
    rng = np.random.default_rng(seed)
    canvas = to_texture(
        blend(cv2.resize(value_noise(rng, 256, 6), (width, height)), (22, 23, 27), (36, 37, 43))
    )
    _speckle(canvas, rng, width * height // 500, (1.0, 4.5), ((92, 94, 102), (140, 142, 150), (62, 60, 70)))
    cv2.rectangle(canvas, (7, 7), (width - 8, height - 8), (170, 172, 178), 4, cv2.LINE_AA)
    for column, row, radius in rings_px:
        cv2.circle(canvas, (column, row), radius, (214, 212, 206), 6, cv2.LINE_AA)
        cv2.circle(canvas, (column, row), radius - 12, (186, 70, 48), 3, cv2.LINE_AA)
        for angle in np.sort(rng.uniform(0, 2 * np.pi, 26)):
            way, length = np.array([np.cos(angle), np.sin(angle)]), rng.uniform(8, 40)
            inner, outer = (
                np.array([column, row]) + reach * way for reach in (radius - 16, radius - 16 - length)
            )
            colour = ((206, 204, 198), (198, 84, 54), (150, 150, 154))[rng.integers(3)]
            ends = ((int(inner[0]), int(inner[1])), (int(outer[0]), int(outer[1])))
            cv2.line(canvas, *ends, colour, int(rng.integers(2, 6)), cv2.LINE_AA)
        for reach, start in zip(np.linspace(0.15, 0.55, 5), rng.uniform(0, 360, 5), strict=True):
            axes = (int(radius * reach), int(radius * reach))
            arc = float(rng.uniform(70, 240))
            cv2.ellipse(canvas, (column, row), axes, start, 0, arc, (198, 84, 54), 4, cv2.LINE_AA)
    for text, corner in (("ATK", (18, 44)), ("HOT", (width - 92, 44)), ("1 2 3 4 5 6", (18, height - 20))):
        _words(canvas, text, corner, 0.95, (214, 212, 206))
    picture = np.hstack([canvas, canvas])
    picture.setflags(write=False)
    return picture


@lru_cache
def stone_pan(size: int = 768, rim: float = 0.5, seed: int = 127) -> Texture:
    """A stone-coated frying pan about the picture's centre: flecked granite inside, enamel from `rim` outwards."""
    rng = np.random.default_rng(seed)
    canvas = to_texture(blend(value_noise(rng, size, 6), (92, 94, 98), (128, 128, 130)))
    flecks = ((36, 36, 40), (226, 224, 218), (182, 132, 92), (60, 62, 66), (204, 200, 192))
    _speckle(canvas, rng, 2600, (1.5, 8.0), flecks)
    outside = enamel(size, size, seed + 1)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) - size / 2
    beyond = np.hypot(x, y) > rim * size / 2
    canvas[beyond] = outside[beyond]
    cv2.circle(canvas, (size // 2, size // 2), int(rim * size / 2), CHILLI, 9, cv2.LINE_AA)
    for angle in np.sort(rng.uniform(0, 2 * np.pi, 40)):  # wear on the rim
        at = size / 2 * (1 + rim * np.array([np.cos(angle), np.sin(angle)]))
        shade = (CREAM, INK, MUSTARD)[rng.integers(3)]
        cv2.circle(canvas, (int(at[0]), int(at[1])), int(rng.integers(3, 8)), shade, -1, cv2.LINE_AA)
    canvas.setflags(write=False)
    return canvas


@lru_cache
def pan_handle(width: int = 512, height: int = 96, seed: int = 131) -> Texture:
    """Olive wood with a burnt-in name, rivets and a red end."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    warp = cv2.resize(value_noise(rng, 256, 4), (width, height))
    rings = 0.5 + 0.5 * np.sin(y / 5.0 + 26 * warp + x / 70)
    canvas = to_texture(blend(rings.astype(np.float32), (150, 100, 52), (214, 168, 104)))
    _speckle(canvas, rng, 90, (1.5, 6.0), ((96, 58, 30), (232, 196, 138)))
    canvas[:, int(0.9 * width) :] = CHILLI
    cv2.line(canvas, (int(0.88 * width), 0), (int(0.88 * width), height), CREAM, 8)
    for column in (0.07, 0.2):
        cv2.circle(canvas, (int(column * width), height // 2), 15, (206, 206, 208), -1, cv2.LINE_AA)
        cv2.circle(canvas, (int(column * width), height // 2), 15, INK, 3, cv2.LINE_AA)
    _words(canvas, "ATK pan 17", (int(0.3 * width), int(0.68 * height)), 1.45, (70, 38, 20))
    picture = np.hstack([canvas, canvas])
    picture.setflags(write=False)
    return picture


@lru_cache
def grapes(count: int, cell: int = 128, seed: int = 137) -> Texture:
    """Skins of `count` grapes, none like another: ripeness, bloom, freckles, a bruise here and there."""
    rng = np.random.default_rng(seed)
    across = cells_across(count)
    canvas = np.zeros((across * cell, across * cell, 3), np.uint8)
    skins: tuple[tuple[Colour, Colour], ...] = (
        ((88, 22, 58), (138, 44, 84)),
        ((58, 18, 62), (104, 40, 96)),
        ((124, 36, 60), (176, 78, 88)),
        ((126, 140, 56), (186, 196, 104)),
        ((48, 22, 70), (84, 52, 110)),
    )
    for number in range(count):
        skin = skins[rng.integers(len(skins))]
        patch = to_texture(blend(value_noise(rng, cell, 4), *skin))
        bloom = np.clip(2.0 * value_noise(rng, cell, 5) - 1.0, 0, 0.6)[..., None]
        patch = to_texture(patch * (1 - bloom) + np.asarray((196, 192, 212), np.float32) * bloom)
        freckles = ((236, 214, 160), (40, 14, 30), (214, 200, 220))
        _speckle(patch, rng, int(rng.integers(10, 26)), (1.5, 7.0), freckles)
        scar = (int(rng.uniform(0.3, 0.7) * cell), int(rng.uniform(0.3, 0.7) * cell))
        cv2.circle(patch, scar, int(rng.integers(4, 8)), (116, 92, 52), -1, cv2.LINE_AA)
        row, column = divmod(number, across)
        canvas[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = patch
    canvas.setflags(write=False)
    return canvas


@lru_cache
def vine_leaf(size: int = 192, seed: int = 139) -> Texture:
    """A leaf with veins and autumn spots, the same on both sides."""
    rng = np.random.default_rng(seed)
    canvas = to_texture(blend(value_noise(rng, size, 5), (70, 118, 42), (128, 164, 70)))
    base = (size // 2, size - 4)
    for angle in (-2.6, -2.1, -1.57, -1.0, -0.5):
        tip = (int(base[0] + size * np.cos(angle)), int(base[1] + size * np.sin(angle)))
        cv2.line(canvas, base, tip, (206, 214, 140), 5, cv2.LINE_AA)
    _speckle(canvas, rng, 40, (3.0, 14.0), ((166, 92, 36), (204, 158, 60), (46, 84, 30)))
    picture = np.hstack([canvas, canvas])
    picture.setflags(write=False)
    return picture


@lru_cache
def wall_tiles(width: int = 1408, height: int = 448, seed: int = 149) -> Texture:
    """Glazed tiles in pale joints, a motif here and there: calm, so that candidates fall on what the task handles."""
    rng = np.random.default_rng(seed)
    canvas = np.full((height, width, 3), (204, 204, 198), np.uint8)
    edge = 64
    for top in range(0, height, edge):
        for left in range(0, width, edge):
            low, high = (
                ((214, 220, 220), (236, 238, 232))
                if rng.random() < 0.8
                else ((176, 202, 204), (192, 214, 214))
            )
            tile = to_texture(blend(value_noise(rng, edge, 4), low, high))
            if rng.random() < 0.15:
                _motif(
                    tile,
                    rng,
                    int(rng.integers(5)),
                    np.array([edge / 2, edge / 2]),
                    rng.uniform(10, 20),
                    rng.uniform(0, 360),
                )
            canvas[top + 2 : top + edge - 2, left + 2 : left + edge - 2] = tile[2:-2, 2:-2]
    picture = np.hstack([canvas, canvas])
    picture.setflags(write=False)
    return picture

"""The Panda's published shells (Apache-2.0, from the gym-hil wheel), made light enough to render on a CPU."""

import importlib.util
import os
import warnings
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import fast_simplification
import numpy as np
from numpy.typing import NDArray

# The shells come with 127 k faces, which cost a CPU 45 ms a frame and look no better at 640x480.
_KEPT_FACES = 0.16
_MIN_FACES = 120


@dataclass(frozen=True)
class Shell:
    """One colour of one link."""

    link: str  # "link0" ... "link7"
    material: str  # the source file's material name
    vertices_m: NDArray[np.float64]  # (V, 3) in the link's frame
    faces: NDArray[np.int32]  # (F, 3)


@lru_cache(maxsize=1)
def panda_shells() -> tuple[Shell, ...]:
    """The visible shells of link0 to link7, decimated once and then read from the user's cache.

    Raises FileNotFoundError when the gym-hil wheel that carries the meshes is not installed.
    """
    assets = _gym_hil_assets()
    cache = _cache_folder() / f"panda_shells_gym_hil_{version('gym-hil')}_{_KEPT_FACES}.npz"
    if cache.exists():
        return _load(cache)
    shells = _decimate_all(assets)
    try:
        _save(cache, shells)
    except OSError as error:  # a read-only home costs two seconds a start, and is no reason to fail
        warnings.warn(f"decimated Panda meshes were not cached in {cache.parent}: {error}", stacklevel=2)
    return shells


def _gym_hil_assets() -> Path:
    spec = importlib.util.find_spec("gym_hil")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "The Panda's meshes were not found: they come with the gym-hil package, which is not installed. "
            "Install it without its dependencies: pip install --no-deps gym-hil==0.1.14"
        )
    return Path(spec.submodule_search_locations[0]) / "assets"


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "atk_sim"


def _decimate_all(assets: Path) -> tuple[Shell, ...]:
    root = ElementTree.parse(assets / "panda.xml").getroot()
    parts: dict[tuple[str, str], list[tuple[NDArray[np.float64], NDArray[np.int32]]]] = defaultdict(list)
    for body in root.iter("body"):
        for geom in body.findall("geom"):
            if geom.get("class") == "panda/visual":
                mesh, material = str(geom.get("mesh")), str(geom.get("material"))
                path = assets / "franka_emika_panda" / "meshes" / f"{mesh}.obj"
                parts[str(body.get("name")), material].append(_decimate(*_read_obj(path)))
    return tuple(Shell(link, material, *_merge(meshes)) for (link, material), meshes in parts.items())


def _read_obj(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Vertices and triangles of a Wavefront file, normals and texture left out."""
    vertices: list[list[str]] = []
    faces: list[list[str]] = []
    with path.open() as lines:
        for line in lines:
            words = line.split()
            if words[:1] == ["v"]:
                vertices.append(words[1:4])
            elif words[:1] == ["f"]:
                faces.append([word.split("/")[0] for word in words[1:4]])
    return np.array(vertices, dtype=np.float64), np.array(faces, dtype=np.int32) - 1


def _decimate(
    vertices: NDArray[np.float64], faces: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    # The files repeat a vertex for each normal; decimation needs a closed surface.
    welded, index = np.unique(vertices.round(6), axis=0, return_inverse=True)
    triangles = index.reshape(-1)[faces].astype(np.int32)
    triangles = triangles[
        (triangles[:, 0] != triangles[:, 1])
        & (triangles[:, 1] != triangles[:, 2])
        & (triangles[:, 0] != triangles[:, 2])
    ]
    target = max(_MIN_FACES, int(_KEPT_FACES * len(triangles)))
    if len(triangles) <= target:
        return welded, triangles
    points, reduced = fast_simplification.simplify(welded, triangles, target_count=target)
    return np.asarray(points, dtype=np.float64), np.asarray(reduced, dtype=np.int32)


def _merge(
    meshes: list[tuple[NDArray[np.float64], NDArray[np.int32]]],
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    offsets = np.cumsum([0] + [len(vertices) for vertices, _ in meshes[:-1]])
    return (
        np.concatenate([vertices for vertices, _ in meshes]),
        np.concatenate([faces + offset for (_, faces), offset in zip(meshes, offsets, strict=True)]).astype(
            np.int32
        ),
    )


def _save(path: Path, shells: tuple[Shell, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[np.float64] | NDArray[np.int32]] = {}
    for shell in shells:
        arrays[f"{shell.link}/{shell.material}/vertices_m"] = shell.vertices_m
        arrays[f"{shell.link}/{shell.material}/faces"] = shell.faces
    partial = path.with_suffix(f".{os.getpid()}.npz")  # two processes may start at once
    np.savez(partial, **arrays)  # type: ignore[arg-type]  # the stub takes the names for its own options
    partial.replace(path)


def _load(path: Path) -> tuple[Shell, ...]:
    with np.load(path, allow_pickle=False) as arrays:
        names = [name.removesuffix("/vertices_m") for name in arrays.files if name.endswith("/vertices_m")]
        shells = []
        for name in names:
            link, material = name.split("/")
            shells.append(Shell(link, material, arrays[f"{name}/vertices_m"], arrays[f"{name}/faces"]))
        return tuple(shells)

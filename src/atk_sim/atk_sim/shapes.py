"""Procedural meshes with texture coordinates that neither stretch nor repeat."""

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TexturedMesh:
    """A closed triangle mesh with one texture coordinate per vertex."""

    vertices_m: NDArray[np.float64]  # (V, 3)
    faces: NDArray[np.int32]  # (F, 3), counter-clockwise seen from outside
    texture_uv: NDArray[np.float64]  # (V, 2), 0 to 1

    def add_to(self, spec: mujoco.MjSpec, name: str) -> None:
        """Register the mesh in `spec`; visual use only, so its inertia is that of a shell."""
        spec.add_mesh(
            name=name,
            uservert=self.vertices_m.astype(np.float32).reshape(-1),
            userface=self.faces.reshape(-1),
            usertexcoord=self.texture_uv.astype(np.float32).reshape(-1),
            userfacetexcoord=self.faces.reshape(-1),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )


def lathe(
    profile_m: NDArray[np.float64],
    segments: int = 40,
    outline: NDArray[np.float64] | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
) -> TexturedMesh:
    """Turn a profile around z and unwrap its texture from the top pole.

    `profile_m` (R, 2) is (radius, height) from the top pole to the bottom pole; both ends have radius 0.
    `outline` (segments, 2) replaces the unit circle; `scale` stretches it along x and y. A texture pixel's distance from
    the picture's centre is proportional to the way along the profile, so sides are not smeared as by projection.
    """
    if outline is None:
        angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
        outline = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    segments = len(outline)
    stretched = outline * np.asarray(scale)
    radius, height = profile_m[:, 0], profile_m[:, 1]
    way = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(radius), np.diff(height)))])
    way /= way[-1]
    rings = radius[1:-1, None, None] * stretched[None]
    vertices = np.concatenate(
        [
            [[0.0, 0.0, height[0]]],
            np.concatenate(
                [rings, np.broadcast_to(height[1:-1, None, None], (len(radius) - 2, segments, 1))], axis=2
            ).reshape(-1, 3),
            [[0.0, 0.0, height[-1]]],
        ]
    )
    unit = outline / np.linalg.norm(outline, axis=1, keepdims=True)
    uv = np.concatenate(
        [[[0.5, 0.5]], (0.5 + 0.5 * way[1:-1, None, None] * unit[None]).reshape(-1, 2), [[0.5, 0.5]]]
    )
    return TexturedMesh(vertices, _ring_faces(len(radius) - 2, segments), uv)


def rounded_box(
    length_m: float, width_m: float, height_m: float, squareness: float = 4.0, bend_m: float = 0.0
) -> TexturedMesh:
    """A box with rounded edges (a superellipsoid) standing on z = 0.

    `squareness` 2 is an ellipsoid, larger is boxier. `bend_m` lowers both ends along x, as a slice of fish droops.
    """
    latitude = np.linspace(np.pi / 2, -np.pi / 2, 13)
    azimuth = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    radius = np.abs(np.cos(latitude)) ** (2 / squareness)
    radius[[0, -1]] = 0.0
    height = np.sign(np.sin(latitude)) * np.abs(np.sin(latitude)) ** (2 / squareness)
    outline = np.stack(
        [_signed_power(np.cos(azimuth), 2 / squareness), _signed_power(np.sin(azimuth), 2 / squareness)], 1
    )
    profile = np.stack([radius * width_m / 2, (height + 1) * height_m / 2], axis=1)
    mesh = lathe(profile, outline=outline, scale=(length_m / width_m, 1.0))
    vertices = mesh.vertices_m.copy()
    vertices[:, 2] -= bend_m * (2 * vertices[:, 0] / length_m) ** 2
    return TexturedMesh(vertices, mesh.faces, mesh.texture_uv)


def printed_box(length_m: float, width_m: float, height_m: float) -> TexturedMesh:
    """A box on z = 0 whose top shows the picture (its rows along x) and whose sides have the colour of its corner."""
    x, y = length_m / 2, width_m / 2
    corners = np.array([[-x, -y], [x, -y], [x, y], [-x, y]])
    top = np.column_stack([corners, np.full(4, height_m)])
    wall = np.concatenate([top, np.column_stack([corners, np.zeros(4)])])
    faces = [[0, 1, 2], [0, 2, 3]]
    for here, after in ((0, 1), (1, 2), (2, 3), (3, 0)):
        faces += [[4 + here, 8 + here, 8 + after], [4 + here, 8 + after, 4 + after]]
    faces += [[8, 10, 9], [8, 11, 10]]
    uv = np.concatenate([_picture_uv(corners, (length_m, width_m)), np.full((8, 2), 0.004)])
    return TexturedMesh(np.concatenate([top, wall]), np.array(faces, np.int32), uv)


def printed_disc(radius_m: float, bottom_m: float, top_m: float, segments: int = 48) -> TexturedMesh:
    """A disc whose top shows the picture."""
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    rim = radius_m * np.column_stack([np.cos(angle), np.sin(angle)])
    plan = np.concatenate([[[0.0, 0.0]], rim, rim, rim])
    height = np.concatenate([[top_m], np.full(2 * segments, top_m), np.full(segments, bottom_m)])
    here, after = np.arange(segments), (np.arange(segments) + 1) % segments
    faces = [
        np.column_stack([np.zeros(segments, int), 1 + here, 1 + after]),
        np.column_stack([1 + segments + here, 1 + 2 * segments + here, 1 + 2 * segments + after]),
        np.column_stack([1 + segments + here, 1 + 2 * segments + after, 1 + segments + after]),
    ]
    uv = np.concatenate(
        [_picture_uv(plan[: 1 + segments], (2 * radius_m, 2 * radius_m)), np.full((2 * segments, 2), 0.004)]
    )
    return TexturedMesh(np.column_stack([plan, height]), np.concatenate(faces).astype(np.int32), uv)


def _picture_uv(xy_m: NDArray[np.float64], size_m: tuple[float, float]) -> NDArray[np.float64]:
    """Texture coordinates of a picture whose columns go along +y and whose rows go along +x, seen from above."""
    return np.column_stack([0.5 + xy_m[:, 1] / size_m[1], 0.5 + xy_m[:, 0] / size_m[0]])


def ring(
    radius_m: float, width_m: float, bottom_m: float, height_m: float, segments: int = 48
) -> TexturedMesh:
    """A flat ring; its picture is seen from above, and its sides have the colour of the picture there."""
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    outline = np.column_stack([np.cos(angle), np.sin(angle)])
    inner_m, top_m = radius_m - width_m, bottom_m + height_m
    corners = ((inner_m, bottom_m), (inner_m, top_m), (radius_m, top_m), (radius_m, bottom_m))
    plan = np.concatenate([r * outline for r, _ in corners])
    vertices = np.column_stack([plan, np.repeat([z for _, z in corners], segments)])
    here = np.arange(segments)
    after = (here + 1) % segments
    faces = []
    for row in range(4):
        a, b = row * segments, (row + 1) % 4 * segments
        faces += [
            np.column_stack([a + here, b + here, b + after]),
            np.column_stack([a + here, b + after, a + after]),
        ]
    uv = _picture_uv(plan, (2 * radius_m, 2 * radius_m))
    return TexturedMesh(vertices, np.concatenate(faces).astype(np.int32), uv)


def _signed_power(values: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    return np.sign(values) * np.abs(values) ** exponent


def _ring_faces(rings: int, segments: int) -> NDArray[np.int32]:
    """Triangles between a top pole (vertex 0), `rings` rings of `segments` vertices and a bottom pole (the last)."""
    here = np.arange(segments)
    after = (here + 1) % segments
    faces = [np.stack([np.zeros(segments, int), 1 + here, 1 + after], axis=1)]
    for ring in range(rings - 1):
        upper, lower = 1 + ring * segments, 1 + (ring + 1) * segments
        faces.append(np.stack([upper + here, lower + here, lower + after], axis=1))
        faces.append(np.stack([upper + here, lower + after, upper + after], axis=1))
    last, bottom = 1 + (rings - 1) * segments, 1 + rings * segments
    faces.append(np.stack([last + here, np.full(segments, bottom), last + after], axis=1))
    return np.concatenate(faces).astype(np.int32)

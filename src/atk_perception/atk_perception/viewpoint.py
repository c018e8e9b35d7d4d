"""Keypoints of a camera that stands elsewhere, as the training camera would see them (method.md, inference 3).

A pixel of the live camera is lifted to the point that it shows, by a depth image or by a plane that the points are known
to lie in, and that point is projected into the camera that the demonstrations were seen with. What is not known is not
guessed: without depth, behind a camera, or along the plane, a point counts as not visible.

A plane is exact for what lies in it. Something at a height h above it, seen by a camera at height c that moved aside by b,
lands b h / (c - h) beside where it is: what the hand lifts needs depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.image_codec import DepthImage
from atk_perception.points_in_camera import depth_at
from atk_perception.rigid_transforms import FloatArray

BoolArray = NDArray[np.bool_]

# A ray that meets the plane at less than about a degree says nothing: a pixel is decimetres there.
INCIDENCE_MIN = 0.02
# Distortion is undone by iteration. Beyond the field that a model was fitted to it does not end, or at another pixel.
ROUND_TRIP_PX = 0.05
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
# Names of sensor_msgs/distortion_models, and how many coefficients each has.
DISTORTION_MODELS = {"plumb_bob": (4, 5), "rational_polynomial": (8,), "equidistant": (4,)}


@dataclass(frozen=True, eq=False)
class PlacedCamera:
    """A camera: what its pixels mean and where it stands.

    Attributes:
        width, height: of the image [px].
        K: (3, 3) camera matrix [px], pixel centres at integers.
        distortion: coefficients of `distortion_model` (sensor_msgs/CameraInfo); empty for none.
        T_base_camera: (4, 4) pose of the optical frame (REP 103: z forward, x right, y down) in the robot's base frame.
    """

    width: int
    height: int
    K: FloatArray
    T_base_camera: FloatArray
    distortion: FloatArray
    distortion_model: str = "plumb_bob"

    def scaled(self, width: int, height: int) -> PlacedCamera:
        """The same camera where its images are resized, as cv2.resize does it: the corners stay the corners."""
        if (width, height) == (self.width, self.height):
            return self
        scale = np.array([width / self.width, height / self.height, 1.0])
        K = np.diag(scale) @ self.K
        K[:2, 2] += 0.5 * scale[:2] - 0.5
        return replace(self, width=width, height=height, K=K)

    def same_as(self, other: PlacedCamera) -> bool:
        """Whether both see everything alike."""
        return (
            (self.width, self.height, self.distortion_model)
            == (other.width, other.height, other.distortion_model)
            and np.allclose(self.K, other.K, rtol=0, atol=1e-6)
            and np.allclose(self.T_base_camera, other.T_base_camera, rtol=0, atol=1e-9)
            and np.array_equal(self.distortion, other.distortion)
        )

    def rays(self, uv_px: FloatArray) -> FloatArray:
        """(N, 3) points at depth 1 behind (N, 2) pixels, in the optical frame; NaN where the distortion is not known."""
        xy = self._undistorted(uv_px)
        if self.distortion.any() and len(xy):
            with np.errstate(invalid="ignore"):
                back_px = np.linalg.norm(self._distorted(xy) - uv_px, axis=1)
                xy[~(back_px < ROUND_TRIP_PX)] = np.nan
        return np.column_stack([xy, np.ones(len(xy))])

    def project(self, points_base: FloatArray) -> FloatArray:
        """(N, 2) pixels of points (N, 3) [m] in the base frame, inside the image or not; NaN behind the camera."""
        in_camera = (points_base - self.T_base_camera[:3, 3]) @ self.T_base_camera[:3, :3]
        z_m = in_camera[:, 2:]
        with np.errstate(invalid="ignore", divide="ignore"):
            xy = np.where(z_m > 1e-9, in_camera[:, :2] / z_m, np.nan)
            uv_px = self._distorted(xy)
            if self.distortion.any() and len(xy):
                # Far off its axis a distortion model folds back into the image.
                off_px = np.linalg.norm((self._undistorted(uv_px) - xy) * np.diag(self.K)[:2], axis=1)
                uv_px[~(off_px < ROUND_TRIP_PX)] = np.nan
        return uv_px

    def lift(self, uv_px: FloatArray, z_m: FloatArray) -> FloatArray:
        """(N, 3) points [m] in the base frame that (N, 2) pixels show at (N,) depths along the optical axis."""
        in_camera = self.rays(uv_px) * z_m[:, None]
        return np.asarray(in_camera @ self.T_base_camera[:3, :3].T + self.T_base_camera[:3, 3])

    def _undistorted(self, uv_px: FloatArray) -> FloatArray:
        uv_px = np.asarray(uv_px, np.float64)
        if len(uv_px) == 0 or not self.distortion.any():
            return np.asarray((uv_px - self.K[:2, 2]) / np.diag(self.K)[:2])
        known = _finite(uv_px)
        pixels = np.where(known[:, None], uv_px, 0.0)[:, None]
        if self.distortion_model == "equidistant":
            xy = cv2.fisheye.undistortPoints(pixels, self.K, self.distortion, criteria=_CRITERIA)
        else:
            xy = cv2.undistortPointsIter(pixels, self.K, self.distortion, np.eye(3), np.eye(3), _CRITERIA)
        return np.where(known[:, None], np.asarray(xy, np.float64).reshape(-1, 2), np.nan)

    def _distorted(self, xy: FloatArray) -> FloatArray:
        if len(xy) == 0 or not self.distortion.any():
            return np.asarray(xy * np.diag(self.K)[:2] + self.K[:2, 2])
        known = _finite(xy)
        rays = np.where(known[:, None], xy, 0.0)
        if self.distortion_model == "equidistant":
            uv_px = cv2.fisheye.distortPoints(rays[:, None], self.K, self.distortion)
        else:
            points = np.column_stack([rays, np.ones(len(rays))])
            uv_px = cv2.projectPoints(points, np.zeros(3), np.zeros(3), self.K, self.distortion)[0]
        return np.where(known[:, None], np.asarray(uv_px, np.float64).reshape(-1, 2), np.nan)


def _finite(rows: FloatArray) -> BoolArray:
    return np.asarray(np.isfinite(rows).all(axis=1))


@dataclass(frozen=True, eq=False)
class Plane:
    """Where points lie that no depth camera looks at: a point of the plane (3,) [m] and its normal (3,), base frame."""

    point_m: FloatArray
    normal: FloatArray

    @classmethod
    def at_height(cls, z_m: float) -> Plane:
        """A table top at a height above the base frame's origin."""
        return cls(np.array([0.0, 0.0, z_m]), np.array([0.0, 0.0, 1.0]))


Surface = Plane | DepthImage


class Reprojected(NamedTuple):
    """(N, 2) pixels of the training camera, NaN where not known, and (N,) where they are known."""

    uv_px: FloatArray
    known: BoolArray


def reproject(uv_px: FloatArray, live: PlacedCamera, training: PlacedCamera, surface: Surface) -> Reprojected:
    """Pixels of the live camera as pixels of the training camera.

    Args:
        uv_px: (N, 2) in the live camera's image.
        surface: the plane that the points lie in, or the live camera's depth image (H, W) [m], registered to its image
            and of any size, NaN or 0 where there is no reading.
    """
    z_m = depth_of(uv_px, live, surface)
    found_px = training.project(live.lift(uv_px, z_m))
    return Reprojected(found_px, _finite(found_px))


def depth_of(uv_px: FloatArray, live: PlacedCamera, surface: Surface) -> FloatArray:
    """(N,) depth [m] along the optical axis of what the pixels (N, 2) show; NaN where it is not known."""
    if isinstance(surface, Plane):
        directions = live.rays(uv_px) @ live.T_base_camera[:3, :3].T
        unit = surface.normal / np.linalg.norm(surface.normal)
        towards = directions @ unit
        incidence = np.abs(towards) / np.linalg.norm(directions, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            z_m = (surface.point_m - live.T_base_camera[:3, 3]) @ unit / towards
            return np.where((incidence > INCIDENCE_MIN) & (z_m > 0.0), z_m, np.nan)
    scale = np.array(surface.shape[::-1]) / (live.width, live.height)
    return depth_at(surface, (uv_px + 0.5) * scale - 0.5)


# Where keypoints are known to be: in the plane that the robot description gives, or where depth images show them.
VIEWPOINTS = ("none", "plane", "depth")


class View(NamedTuple):
    """What `Viewpoint.see` answers: (N, 2) float32 training pixels, finite; (N,) which are visible; why not all."""

    uv_px: NDArray[np.float32]
    visible: BoolArray
    reason: str


class Viewpoint:
    """Follows keypoints through one stream: what `reproject` says, and a last estimate for what is not seen.

    An occluded point's pixel is the tracker's guess, and the depth there is that of whatever hides it. It is lifted at the
    depth that the point had when it was last seen (else the points' median), as policies are taught with such guesses.

    Args:
        training: in pixels of the template.
        plane: that the points lie in; None where depth images say where they are.
        template_uv_px: (N, 2), for points that were never known.
    """

    def __init__(
        self, training: PlacedCamera, plane: Plane | None, template_uv_px: NDArray[np.float32]
    ) -> None:
        self._training, self._plane = training, plane
        self._template_uv_px = template_uv_px
        self._live: PlacedCamera | None = None
        self._fault = "the pose of the camera is not known yet"
        self.reset()

    @property
    def needs_depth(self) -> bool:
        """Whether `see` must be given depth images."""
        return self._plane is None

    def place(self, live: PlacedCamera) -> None:
        """Where the live camera stands from now on."""
        self._live = live.scaled(self._training.width, self._training.height)
        self._fault = ""

    def lose(self, fault: str) -> None:
        """The live camera's place is not known, because of `fault`: nothing is visible until `place`."""
        self._live, self._fault = None, fault

    def reset(self) -> None:
        """Another scene: forget where points were."""
        self._z_m = np.full(len(self._template_uv_px), np.nan)
        self._uv_px = self._template_uv_px.astype(np.float32)

    def see(self, uv_px: NDArray[np.float32], visible: BoolArray, depth_m: DepthImage | None = None) -> View:
        """Keypoints (N, 2) of the live image, in pixels of the template's size, as the training camera would see them."""
        if self._live is None:
            return View(self._uv_px, np.zeros_like(visible), self._fault)
        if self._live.same_as(self._training):
            self._uv_px = uv_px
            return View(uv_px, visible, "")
        surface = self._plane if self._plane is not None else depth_m
        pixels = uv_px.astype(np.float64)
        z_m = np.full(len(uv_px), np.nan) if surface is None else depth_of(pixels, self._live, surface)
        usable = visible & np.isfinite(z_m)
        if self._plane is None:
            self._z_m = np.where(usable, z_m, self._z_m)
            known = self._z_m[np.isfinite(self._z_m)]
            elsewhere = np.where(
                np.isfinite(self._z_m), self._z_m, np.median(known) if known.size else np.nan
            )
            z_m = np.where(usable, z_m, elsewhere)
        found_px = self._training.project(self._live.lift(pixels, z_m))
        placed = _finite(found_px)
        self._uv_px = np.where(placed[:, None], found_px, self._uv_px).astype(np.float32)
        usable &= placed
        lacking = int(visible.sum() - usable.sum())
        if surface is None:
            return View(self._uv_px, usable, "no depth image of about this time")
        return View(self._uv_px, usable, f"{lacking} keypoints have no known place" if lacking else "")

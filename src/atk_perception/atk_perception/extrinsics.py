"""Where a camera stands, from pictures of a printed board: ChArUco, or a single ArUco marker.

A board's frame has its origin in the board's upper left corner (a marker's: in its middle), x to the right and y down the
print for ChArUco, up for a marker, as OpenCV has them; z follows.

Sources: OpenCV 4.7 and newer, objdetect (CharucoDetector, ArucoDetector); solvePnP with IPPE, Collins and Bartoli,
"Infinitesimal plane-based pose estimation", IJCV 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np

from atk_perception.image_codec import RgbImage
from atk_perception.rigid_transforms import FloatArray, difference, inverse, mean_pose
from atk_perception.viewpoint import PlacedCamera

# Four corners fix a plane's pose and leave nothing to check it by; six leave four equations.
CHARUCO_CORNERS_MIN = 6
# Corners are found to a tenth of a pixel. A pose that misses them by this is that of another board or camera.
REPROJECTION_MAX_PX = 1.0
# Seen from straight ahead and far away, a small plane could as well be tilted the other way.
AMBIGUITY_RATIO = 1.5
AMBIGUITY_TILT_RAD = np.deg2rad(3.0)
# A camera and a board that both stand still give the same pose again.
SPREAD_MAX_M = 0.005
SPREAD_MAX_RAD = np.deg2rad(0.5)
FORMS = "charuco:COLUMNSxROWS:SQUARE_M:MARKER_M:DICTIONARY or aruco:ID:SIZE_M:DICTIONARY"


class BoardError(ValueError):
    """A board that cannot be measured. `cause` is a short name: no_board, wrong_board, too_few_corners, ambiguous,
    disagreement, board."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Board(Protocol):
    """Something printed whose corners are found in a picture."""

    def corners(self, image_rgb: RgbImage) -> tuple[FloatArray, FloatArray]:
        """Points of the board (M, 3) [m] and the pixels (M, 2) that they are seen at.

        Raises:
            BoardError: no_board, wrong_board or too_few_corners.
        """
        ...


@dataclass(frozen=True)
class Charuco:
    """A chessboard with markers in its white squares, as OpenCV's generator prints it.

    Attributes:
        columns, rows: of squares.
        square_m, marker_m: edges [m], measured on the print.
        dictionary: of the markers, as DICT_5X5_100.
    """

    columns: int
    rows: int
    square_m: float
    marker_m: float
    dictionary: str
    _detector: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(self.columns, self.rows) < 3 or not 0 < self.marker_m < self.square_m:
            raise BoardError(
                "board",
                f"a ChArUco board of {self.columns}x{self.rows} squares of {self.square_m} m with markers of "
                f"{self.marker_m} m; expected 3x3 squares or more, and markers smaller than squares",
            )
        board = self.opencv_board()
        object.__setattr__(self, "_detector", _aruco().CharucoDetector(board))

    def opencv_board(self) -> Any:
        """The same for OpenCV, which can also draw it (`generateImage`)."""
        size = (self.columns, self.rows)
        dictionary = _dictionary(self.dictionary)
        needed, known = self.columns * self.rows // 2, len(dictionary.bytesList)
        if needed > known:
            raise BoardError(
                "board",
                f"a board of {self.columns}x{self.rows} squares has {needed} markers, {self.dictionary} only {known}",
            )
        return _aruco().CharucoBoard(size, self.square_m, self.marker_m, dictionary)

    def corners(self, image_rgb: RgbImage) -> tuple[FloatArray, FloatArray]:
        """See `Board`."""
        corners, ids, _, marker_ids = self._detector.detectBoard(_grey(image_rgb))
        count = 0 if ids is None else len(ids)
        if count < CHARUCO_CORNERS_MIN:
            markers = 0 if marker_ids is None else len(marker_ids)
            if markers == 0:
                raise BoardError(
                    "no_board",
                    f"no marker of {self.dictionary} is seen; is the board in the picture, sharp, lit, and of this dictionary?",
                )
            if count == 0 and markers >= CHARUCO_CORNERS_MIN:
                raise BoardError(
                    "wrong_board",
                    f"{markers} markers of {self.dictionary} are seen, but not in the order of a {self.columns}x{self.rows} "
                    "board; give the board as it is printed",
                )
            raise BoardError(
                "too_few_corners",
                f"{count} corners of the board are seen, {CHARUCO_CORNERS_MIN} are needed ({markers} markers seen); bring "
                "more of it into the picture, nearer or better lit",
            )
        points = np.asarray(self._detector.getBoard().getChessboardCorners(), np.float64)
        return points[ids.ravel()], np.asarray(corners, np.float64).reshape(-1, 2)


@dataclass(frozen=True)
class Marker:
    """A single ArUco marker: less exact than a board, quicker to print.

    Attributes:
        number: its id in the dictionary.
        size_m: edge of its black square [m], measured on the print.
        dictionary: as DICT_4X4_50.
    """

    number: int
    size_m: float
    dictionary: str
    _detector: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = len(_dictionary(self.dictionary).bytesList)
        if self.size_m <= 0 or not 0 <= self.number < known:
            raise BoardError(
                "board",
                f"marker {self.number} of {self.dictionary} with {self.size_m} m; expected an id below {known} and a size",
            )
        parameters = _aruco().DetectorParameters()
        # Without, its corners are whole pixels.
        parameters.cornerRefinementMethod = _aruco().CORNER_REFINE_SUBPIX
        detector = _aruco().ArucoDetector(_dictionary(self.dictionary), parameters)
        object.__setattr__(self, "_detector", detector)

    def corners(self, image_rgb: RgbImage) -> tuple[FloatArray, FloatArray]:
        """See `Board`."""
        found, ids, _ = self._detector.detectMarkers(_grey(image_rgb))
        seen = [] if ids is None else ids.ravel().tolist()
        if not seen:
            raise BoardError(
                "no_board",
                f"no marker of {self.dictionary} is seen; is it in the picture, sharp, lit, with a white rim, and of this "
                "dictionary?",
            )
        if seen.count(self.number) != 1:
            raise BoardError(
                "wrong_board",
                f"markers {sorted(seen)} of {self.dictionary} are seen; expected number {self.number} once",
            )
        half = self.size_m / 2
        square = np.array([[-half, half, 0], [half, half, 0], [half, -half, 0], [-half, -half, 0]])
        return square, np.asarray(found[seen.index(self.number)], np.float64).reshape(4, 2)


def parse_board(text: str) -> Board:
    """A board as people write it, see `FORMS`.

    Raises:
        BoardError: it cannot be read, or there is no such board.
    """
    kind, *parts = text.split(":")
    try:
        if kind == "charuco":
            size, square, marker, dictionary = parts
            columns, rows = size.lower().split("x")
            return Charuco(int(columns), int(rows), float(square), float(marker), dictionary)
        if kind == "aruco":
            number, size, dictionary = parts
            return Marker(int(number), float(size), dictionary)
    except BoardError:
        raise
    except ValueError as error:
        raise BoardError("board", f"board '{text}' cannot be read ({error}); expected {FORMS}") from error
    raise BoardError("board", f"board '{text}' is of no known kind; expected {FORMS}")


@dataclass(frozen=True, eq=False)
class BoardPose:
    """Where a board is in one picture: (4, 4) pose in the optical frame, RMS error [px] and number of its corners."""

    T_camera_board: FloatArray
    error_px: float
    corners: int


def board_pose(board: Board, image_rgb: RgbImage, camera: PlacedCamera) -> BoardPose:
    """Find a board in a picture of `camera`, whose own pose is not used.

    Raises:
        BoardError: it is not there, is another one, or its pose cannot be told.
    """
    points_m, uv_px = board.corners(image_rgb)
    # On the picture without distortion and with unit focal length, all distortion models are one.
    rays = camera.rays(uv_px)
    if not np.isfinite(rays).all():
        raise BoardError(
            "wrong_board",
            "the board is seen where the camera's distortion model does not hold; calibrate its intrinsics",
        )
    middle = points_m.mean(axis=0)
    count, turns, places, _ = cv2.solvePnPGeneric(
        points_m - middle, rays[:, None, :2], np.eye(3), np.zeros(5), flags=cv2.SOLVEPNP_IPPE
    )
    if not count:
        raise BoardError(
            "ambiguous", "no pose fits the corners that are seen; show the board from less of an angle"
        )
    candidates = []
    for turn, place in zip(turns, places, strict=True):
        turn, place = cv2.solvePnPRefineLM(
            points_m - middle, rays[:, None, :2], np.eye(3), np.zeros(5), turn.copy(), place.copy()
        )
        T = np.eye(4)
        T[:3, :3] = cv2.Rodrigues(turn)[0]
        T[:3, 3] = place.ravel() - T[:3, :3] @ middle
        candidates.append((_error_px(T, points_m, uv_px, camera), T))
    candidates.sort(key=lambda candidate: candidate[0])
    error_px, T = candidates[0]
    if error_px > REPROJECTION_MAX_PX:
        raise BoardError(
            "wrong_board",
            f"the board's corners are {error_px:.1f} px from where any pose puts them, {REPROJECTION_MAX_PX:g} px at most; is "
            "it flat, printed as given, and is camera_info that of this camera and setting?",
        )
    if len(candidates) > 1:
        other_px, other = candidates[1]
        # Below a twentieth of a pixel both errors are noise.
        ratio = max(other_px, 0.05) / max(error_px, 0.05)
        if ratio < AMBIGUITY_RATIO and difference(T, other)[1] > AMBIGUITY_TILT_RAD:
            raise BoardError(
                "ambiguous",
                f"two poses fit almost alike ({error_px:.2f} and {other_px:.2f} px): seen from straight ahead a flat board "
                "could be tilted either way. Tilt it, bring it nearer, or use a larger one",
            )
    return BoardPose(T, error_px, len(points_m))


def _error_px(
    T_camera_board: FloatArray, points_m: FloatArray, uv_px: FloatArray, camera: PlacedCamera
) -> float:
    in_camera = points_m @ T_camera_board[:3, :3].T + T_camera_board[:3, 3]
    in_base = in_camera @ camera.T_base_camera[:3, :3].T + camera.T_base_camera[:3, 3]
    off_px = camera.project(in_base) - uv_px
    return float(np.sqrt(np.mean(np.sum(off_px**2, axis=1)))) if np.isfinite(off_px).all() else float("inf")


@dataclass(frozen=True, eq=False)
class Extrinsics:
    """Where a camera stands, and how well that is known.

    Attributes:
        T_base_camera: (4, 4) pose of the optical frame.
        frames: pictures behind it.
        error_px: RMS over them.
        spread_m, spread_rad: how far the single poses are from it at most.
    """

    T_base_camera: FloatArray
    frames: int
    error_px: float
    spread_m: float
    spread_rad: float


def extrinsics(poses: Sequence[BoardPose], T_base_board: FloatArray) -> Extrinsics:
    """The mean of several pictures of a board that stands still in a known place.

    Args:
        T_base_board: (4, 4) pose of the board in the base frame; the identity makes the board the base.

    Raises:
        BoardError: they disagree, so something moved or is blurred.
    """
    single = [T_base_board @ inverse(pose.T_camera_board) for pose in poses]
    mean = mean_pose(single)
    apart = [difference(mean, T) for T in single]
    spread_m, spread_rad = max(m for m, _ in apart), max(r for _, r in apart)
    if spread_m > SPREAD_MAX_M or spread_rad > SPREAD_MAX_RAD:
        raise BoardError(
            "disagreement",
            f"{len(poses)} pictures put the camera up to {1e3 * spread_m:.1f} mm and {np.degrees(spread_rad):.2f} degrees from "
            f"their mean; {1e3 * SPREAD_MAX_M:g} mm and {np.degrees(SPREAD_MAX_RAD):g} degrees at most. Does the board or the "
            "camera move, or are the pictures blurred? A larger or nearer board steadies them",
        )
    error_px = float(np.sqrt(np.mean([pose.error_px**2 for pose in poses])))
    return Extrinsics(mean, len(poses), error_px, spread_m, spread_rad)


def _grey(image_rgb: RgbImage) -> Any:
    return cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)


def _aruco() -> Any:
    """OpenCV's module.

    Raises:
        BoardError: this OpenCV has none, or that of before 4.7, whose boards have another frame.
    """
    module = getattr(cv2, "aruco", None)
    if module is None or not hasattr(module, "CharucoDetector"):
        raise BoardError(
            "board",
            f"OpenCV {cv2.__version__} has no cv2.aruco.CharucoDetector; 4.7 or newer has (pip install opencv-python)",
        )
    return module


def _dictionary(name: str) -> Any:
    number = getattr(_aruco(), name, None) if name.startswith("DICT_") else None
    if not isinstance(number, int):
        known = sorted(entry for entry in dir(_aruco()) if entry.startswith("DICT_"))
        raise BoardError("board", f"unknown dictionary '{name}'; known: {', '.join(known)}")
    return _aruco().getPredefinedDictionary(number)

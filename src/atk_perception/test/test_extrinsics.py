"""A printed board in a picture says where the camera stands; another board, no board or a moving one says so."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from placed_cameras import HEIGHT, WIDTH, camera_at, looking_at

from atk_perception.extrinsics import (
    BoardError,
    BoardPose,
    Charuco,
    Marker,
    board_pose,
    extrinsics,
    parse_board,
)
from atk_perception.rigid_transforms import difference, inverse, pose_from_rpy

if not hasattr(getattr(cv2, "aruco", None), "CharucoDetector"):
    pytest.skip("boards need OpenCV 4.7 or newer", allow_module_level=True)

CHARUCO = Charuco(7, 5, 0.04, 0.03, "DICT_5X5_100")
MARKER = Marker(7, 0.12, "DICT_4X4_50")
PRINT_PX_M = 4000.0  # of the print
RIM_M = 0.03
# Of the board in the base frame: on the table, its face up.
T_BASE_BOARD = pose_from_rpy([0.38, 0.09, 0.0], [np.pi, 0.0, 0.0])
T_BASE_MARKER = pose_from_rpy([0.5, 0.0, 0.0], [0.0, 0.0, 0.4])


def printed(board: Charuco | Marker) -> tuple[np.ndarray, np.ndarray]:
    """The print with a white rim, and (3, 3) from metres on the board (x, y) to its pixels."""
    rim = round(RIM_M * PRINT_PX_M)
    if isinstance(board, Charuco):
        size = tuple(round(n * board.square_m * PRINT_PX_M) for n in (board.columns, board.rows))
        picture = board.opencv_board().generateImage(size)
        to_pixels = np.array([[PRINT_PX_M, 0, rim - 0.5], [0, PRINT_PX_M, rim - 0.5], [0, 0, 1.0]])
    else:
        edge = round(board.size_m * PRINT_PX_M)
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, board.dictionary))
        picture = cv2.aruco.generateImageMarker(dictionary, board.number, edge)
        middle = rim + edge / 2 - 0.5
        to_pixels = np.array([[PRINT_PX_M, 0, middle], [0, -PRINT_PX_M, middle], [0, 0, 1.0]])
    return cv2.copyMakeBorder(picture, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=255), to_pixels


def picture_of(
    board: Charuco | Marker,
    camera,
    T_base_board: np.ndarray,
    *,
    noise: float = 3.0,
    blur: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """(480, 640, 3) what a camera shows of a board, by the homography of its plane, distortion and all."""
    flat, to_pixels = printed(board)
    vv, uu = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    rays = camera.rays(np.column_stack([uu.ravel(), vv.ravel()]))
    T_board_camera = inverse(T_base_board) @ camera.T_base_camera
    directions = rays @ T_board_camera[:3, :3].T
    distance = -T_board_camera[2, 3] / directions[:, 2]
    on_board = T_board_camera[:3, 3] + distance[:, None] * directions
    at = np.column_stack([on_board[:, :2], np.ones(len(rays))]) @ to_pixels.T
    at[~(distance > 0)] = -1e4
    # A picture's pixel takes the mean over what it covers of the print.
    coarse = cv2.GaussianBlur(flat, (0, 0), 0.4 * PRINT_PX_M * float(np.nanmedian(distance)) / camera.K[0, 0])
    maps = at[:, :2].reshape(HEIGHT, WIDTH, 2).astype(np.float32)
    seen = cv2.remap(coarse, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR, borderValue=120).astype(np.float32)
    if blur:
        seen = cv2.GaussianBlur(seen, (0, 0), blur)
    seen = 0.75 * seen + 25 + np.random.default_rng(seed).normal(scale=noise, size=seen.shape)
    return np.repeat(np.clip(seen, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("board", "T_base_board", "millimetres", "degrees"),
    [(CHARUCO, T_BASE_BOARD, 2.0, 0.2), (MARKER, T_BASE_MARKER, 6.0, 0.7)],
    ids=["charuco", "marker"],
)
@pytest.mark.parametrize("model", ["", "plumb_bob", "equidistant"])
def test_the_pose_of_a_camera_is_found(board, T_base_board, millimetres, degrees, model):
    camera = camera_at((0.85, 0.12, 0.55), 0.2, model)
    pictures = [picture_of(board, camera, T_base_board, seed=seed) for seed in range(3)]
    poses = [board_pose(board, picture, camera) for picture in pictures]
    found = extrinsics(poses, T_base_board)
    metres, radians = difference(found.T_base_camera, camera.T_base_camera)
    assert 1e3 * metres < millimetres
    assert np.degrees(radians) < degrees
    assert found.frames == 3
    assert found.error_px < 0.5


def test_the_camera_that_looks_need_not_know_where_it_stands():
    camera = camera_at((0.85, 0.12, 0.55))
    picture = picture_of(CHARUCO, camera, T_BASE_BOARD)
    T = board_pose(CHARUCO, picture, camera).T_camera_board
    elsewhere = camera_at((0.3, -0.7, 0.9), 1.0)
    np.testing.assert_allclose(board_pose(CHARUCO, picture, elsewhere).T_camera_board, T, atol=1e-9)


def refusal(board, picture, camera=None) -> BoardError:
    with pytest.raises(BoardError) as caught:
        board_pose(board, picture, camera or camera_at((0.85, 0.12, 0.55)))
    return caught.value


def test_what_is_no_board_is_named():
    camera = camera_at((0.85, 0.12, 0.55))
    nothing = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    assert refusal(CHARUCO, nothing).cause == "no_board"
    assert refusal(MARKER, nothing).cause == "no_board"
    blurred = picture_of(CHARUCO, camera, T_BASE_BOARD, blur=12.0)
    assert refusal(CHARUCO, blurred).cause in ("no_board", "too_few_corners")
    other_dictionary = Charuco(7, 5, 0.04, 0.03, "DICT_6X6_50")
    assert refusal(CHARUCO, picture_of(other_dictionary, camera, T_BASE_BOARD)).cause == "no_board"
    other_number = Marker(3, 0.12, "DICT_4X4_50")
    error = refusal(MARKER, picture_of(other_number, camera, T_BASE_MARKER))
    assert error.cause == "wrong_board"
    assert "[3]" in str(error)
    assert "number 7" in str(error)


def test_a_board_of_another_layout_is_refused():
    """The same markers in other places: what it takes them for does not fit."""
    camera = camera_at((0.85, 0.12, 0.55))
    wider = Charuco(9, 5, 0.032, 0.024, "DICT_5X5_100")
    error = refusal(CHARUCO, picture_of(wider, camera, T_BASE_BOARD))
    assert error.cause in ("wrong_board", "too_few_corners")


def test_a_board_that_is_half_outside_has_too_few_corners():
    aside = camera_at((0.85, 0.12, 0.55))
    aside = type(aside)(
        WIDTH, HEIGHT, aside.K, looking_at((0.85, 0.12, 0.55), (0.42, 0.38, 0.0)), aside.distortion
    )
    picture = picture_of(CHARUCO, aside, T_BASE_BOARD)
    assert refusal(CHARUCO, picture, aside).cause == "too_few_corners"


def test_pictures_that_disagree_are_refused():
    camera = camera_at((0.85, 0.12, 0.55))
    T = inverse(camera.T_base_camera) @ T_BASE_BOARD
    still = [BoardPose(T, 0.1, 24)] * 5
    assert difference(extrinsics(still, T_BASE_BOARD).T_base_camera, camera.T_base_camera)[0] < 1e-9
    for moved in (pose_from_rpy([0.012, 0, 0], [0, 0, 0]), pose_from_rpy([0, 0, 0], [0, 0.02, 0])):
        with pytest.raises(BoardError, match="from their mean") as caught:
            extrinsics([*still, BoardPose(T @ moved, 0.1, 24)], T_BASE_BOARD)
        assert caught.value.cause == "disagreement"


def test_the_mean_of_noisy_pictures_is_nearer_than_one():
    camera = camera_at((0.85, 0.12, 0.55))
    rng = np.random.default_rng(0)
    T = inverse(camera.T_base_camera) @ T_BASE_BOARD
    poses = [
        BoardPose(T @ pose_from_rpy(rng.normal(0, 3e-4, 3), rng.normal(0, 6e-4, 3)), 0.1, 24)
        for _ in range(40)
    ]
    found = extrinsics(poses, T_BASE_BOARD)
    metres, radians = difference(found.T_base_camera, camera.T_base_camera)
    assert metres < 0.5 * found.spread_m
    assert radians < 0.5 * found.spread_rad


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("charuco:7x5:0.04:0.03", "expected charuco:COLUMNSxROWS"),
        ("charuco:7x5:0.03:0.04:DICT_5X5_100", "markers smaller than squares"),
        ("charuco:70x50:0.04:0.03:DICT_5X5_100", "has 1750 markers, DICT_5X5_100 only 100"),
        ("aruco:77:0.1:DICT_4X4_50", "an id below 50"),
        ("aruco:7:0.1:DICT_4X5_50", "unknown dictionary 'DICT_4X5_50'"),
        ("chess:7x5", "of no known kind"),
        ("aruco:seven:0.1:DICT_4X4_50", "cannot be read"),
    ],
)
def test_a_board_that_cannot_be_is_refused(text, message):
    with pytest.raises(BoardError, match=message):
        parse_board(text)


def test_a_board_is_read_as_people_write_it():
    assert parse_board("charuco:7x5:0.04:0.03:DICT_5X5_100") == CHARUCO
    assert parse_board("aruco:7:0.12:DICT_4X4_50") == MARKER

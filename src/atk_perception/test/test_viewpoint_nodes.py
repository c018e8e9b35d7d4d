"""A camera that was moved, over DDS: what the tracker gives the policy, and how the camera's place is found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import rclpy
import yaml
from bag_writing import ROBOT_FILE
from geometry_msgs.msg import PoseStamped
from placed_cameras import calibration_of, camera_at
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from test_camera_calibration import info_of, pose_message
from test_extrinsics import CHARUCO, T_BASE_BOARD, picture_of

from atk_interfaces.msg import KeypointArray
from atk_perception.camera_calibration import CameraCalibration
from atk_perception.image_codec import fill_depth_message, fill_rgb_message
from atk_perception.keypoint_set import KeypointSet
from atk_perception.rigid_transforms import difference
from atk_perception.service_answers import answers_reach
from atk_perception.viewpoint import Plane, reproject

pytestmark = pytest.mark.system

DOMAIN = 12 + os.getpid() % 60
RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
RELIABLE_IMAGES = ["-p", "qos_overrides./camera/image_raw.subscription.reliability:=reliable"]
TRAINING, LIVE = camera_at((0.98, 0.0, 0.6)), camera_at((0.9, 0.08, 0.62), 0.05)
PLANE = Plane.at_height(0.02)


class Peer:
    """A node of this process in the tests' DDS domain."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node("test_peer", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def until(self, ready: Callable[[], object], timeout_s: float = 60.0) -> bool:
        deadline = time.monotonic() + timeout_s
        while not ready() and time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.05)
        return bool(ready())

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    return output


def robot_file(folder, calibration: CameraCalibration | None = None):
    content = yaml.safe_load(ROBOT_FILE.read_text())
    if calibration is not None:
        calibration.save(folder / "live.yaml")
        content["camera"]["calibration"] = "live.yaml"
    (folder / "robot.yaml").write_text(yaml.safe_dump(content))
    return folder / "robot.yaml"


@pytest.mark.parametrize("mode", ["plane by calibration", "depth by topic"])
def test_the_policy_gets_what_the_training_camera_would_see(make_scene, peer, tmp_path, mode):
    viewpoint, _, pose_from = mode.split()
    scene = make_scene(seed=11)
    template = scene.template()
    KeypointSet.create(
        "set",
        template.uv_px,
        template.image_rgb,
        camera_name="camera",
        calibration=calibration_of(TRAINING, "world"),
    ).save(tmp_path / "run")
    robot = robot_file(tmp_path, calibration_of(LIVE, "world") if pose_from == "calibration" else None)
    parameters = {
        "run_folder": tmp_path / "run",
        "robot": robot,
        "viewpoint": viewpoint,
        "pose_from": pose_from,
        "depth_wait_s": 1.0,
    }
    given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    answers: list[KeypointArray] = []
    images = peer.node.create_publisher(Image, "camera/image_raw", RELIABLE)
    depths = peer.node.create_publisher(Image, "camera/depth/image_raw", RELIABLE)
    infos = peer.node.create_publisher(CameraInfo, "camera/camera_info", RELIABLE)
    poses = peer.node.create_publisher(PoseStamped, "camera/pose", LATCHED)
    peer.node.create_subscription(KeypointArray, "keypoints", answers.append, RELIABLE)
    process = start(
        "from atk_perception.tracker_node import main; main()", "--ros-args", *given, *RELIABLE_IMAGES
    )
    depth_m = np.full((480, 640), 0.8, np.float32)
    depth_m[:, 400:] = np.nan

    def show(sec: int) -> KeypointArray:
        message = fill_rgb_message(Image(), scene.render())
        message.header.stamp.sec = sec
        if viewpoint == "depth":
            depth = fill_depth_message(Image(header=message.header), depth_m)
            depths.publish(depth)
        images.publish(message)
        assert peer.until(lambda: any(a.header.stamp.sec == sec for a in answers)), (
            f"no answer to image {sec}"
        )
        return next(a for a in answers if a.header.stamp.sec == sec)

    try:
        assert peer.until(lambda: images.get_subscription_count() and infos.get_subscription_count())
        assert viewpoint != "depth" or peer.until(lambda: depths.get_subscription_count())
        sec = 1
        if pose_from == "topic":
            first = show(sec)
            assert not any(first.visible)  # nobody has said where the camera stands
            assert len(first.training_uv_px) == len(first.uv_px)
            infos.publish(info_of(LIVE))
            poses.publish(pose_message("world", LIVE.T_base_camera))
        # The place comes on topics of its own: until it is there, nothing is visible.
        for sec in range(2, 200):
            seen = show(sec)
            if any(seen.visible):
                break
        uv_px = np.array(seen.uv_px, np.float64).reshape(-1, 2)
        assert np.median(np.linalg.norm(uv_px - template.uv_px, axis=1)) < 1.0  # pictures show the live image
        expected = reproject(uv_px, LIVE, TRAINING, PLANE if viewpoint == "plane" else depth_m)
        visible = np.array(seen.visible)
        assert not visible[~expected.known].any()
        assert visible.sum() >= 6
        assert expected.known.all() == (viewpoint == "plane")  # of the depth image a part is missing
        training_px = np.array(seen.training_uv_px).reshape(-1, 2)
        np.testing.assert_allclose(training_px[visible], expected.uv_px[visible], atol=0.01)
        assert np.isfinite(training_px).all()
    finally:
        output = end(process)
    if pose_from == "calibration":
        assert "from where it was in the demonstrations" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"viewpoint": "plane"}, "does not say where its camera 'camera' stood"),
        ({"viewpoint": "table"}, "unknown viewpoint 'table'; known: none, plane, depth"),
        ({"viewpoint": "plane", "robot": "nowhere.yaml"}, "robot description nowhere.yaml cannot be read"),
    ],
)
def test_a_tracker_that_cannot_reproject_says_what_is_missing(make_scene, tmp_path, arguments, message):
    template = make_scene(seed=11).template()
    KeypointSet.create("set", template.uv_px, template.image_rgb, camera_name="camera").save(tmp_path)
    parameters = {"run_folder": tmp_path, "robot": ROBOT_FILE, **arguments}
    given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    process = start("from atk_perception.tracker_node import main; main()", "--ros-args", *given)
    output, _ = process.communicate(timeout=120)
    assert message in output
    assert process.returncode == 1


# -- calibration -------------------------------------------------------------------------------------


class CameraOfABoard:
    """Publishes pictures of a board, or of nothing, until it is closed."""

    def __init__(self, peer: Peer, camera) -> None:
        self.pictures = [picture_of(CHARUCO, camera, T_BASE_BOARD, seed=seed) for seed in range(4)]
        self._images = peer.node.create_publisher(Image, "camera/image_raw", RELIABLE)
        self._infos = peer.node.create_publisher(CameraInfo, "camera/camera_info", RELIABLE)
        self._info = info_of(camera)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._ending.wait(0.05):
            number += 1
            pictures = self.pictures
            self._infos.publish(self._info)
            self._images.publish(fill_rgb_message(Image(), pictures[number % len(pictures)]))

    def close(self) -> None:
        self._ending.set()
        self._thread.join()


@pytest.fixture
def board_camera(peer):
    camera = CameraOfABoard(peer, camera_at((0.85, 0.12, 0.55), 0.2, "plumb_bob"))
    yield camera
    camera.close()


BOARD = "charuco:7x5:0.04:0.03:DICT_5X5_100"


def test_the_command_writes_where_the_camera_stands_or_nothing(board_camera, tmp_path):
    output = tmp_path / "calibration.yaml"
    command = "from atk_perception.calibrate_node import calibrate_command; calibrate_command()"
    pose = ["0.38", "0.09", "0.0", str(np.pi), "0.0", "0.0"]
    arguments = [str(robot_file(tmp_path)), "--output", str(output), "--frames", "5", "--timeout", "100"]
    board = ["--base-frame", "world", "--board-pose", *pose]
    process = start(command, *arguments, "--board", BOARD, *board)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    figures = json.loads(text.splitlines()[-1])
    assert figures["frames"] == 5
    assert figures["reprojection_error_px"] < 0.5
    found = CameraCalibration.load(output)
    metres, radians = difference(found.T_base_camera, camera_at((0.85, 0.12, 0.55), 0.2).T_base_camera)
    assert metres < 0.003
    assert np.degrees(radians) < 0.3
    assert found.camera.distortion_model == "plumb_bob"
    assert found.camera.distortion.any()
    written = output.read_bytes()
    # Another board: a cause by name, and the file of before stays.
    process = start(command, *arguments, "--board", "aruco:3:0.1:DICT_7X7_50", *board)
    text, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "nothing written: no marker of DICT_7X7_50 is seen" in text
    assert output.read_bytes() == written


def test_the_service_refuses_a_board_that_moves_and_then_measures_one_that_stands(
    board_camera, peer, tmp_path
):
    output = tmp_path / "calibration.yaml"
    still = board_camera.pictures
    board_camera.pictures = [
        still[0],
        cv2.warpAffine(still[0], np.float32([[1, 0, 25], [0, 1, 5]]), (640, 480)),
    ]
    parameters = {
        "robot": robot_file(tmp_path),
        "board": BOARD,
        "output": output,
        "frames": 8,
        "timeout_s": 100.0,
    }
    given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    process = start("from atk_perception.calibrate_node import main; main()", "--ros-args", *given)
    calibrate = peer.node.create_client(Trigger, "calibrator/calibrate")

    def ask() -> Trigger.Response:
        future = calibrate.call_async(Trigger.Request())
        assert peer.until(future.done, 120.0)
        return future.result()

    try:
        assert peer.until(calibrate.service_is_ready)
        assert peer.until(answers_reach(peer.node, "calibrator"))
        refused = ask()
        assert not refused.success
        assert "pictures put the camera up to" in refused.message
        assert not output.exists()
        board_camera.pictures = still
        measured = ask()
        assert measured.success, measured.message
        assert "8 pictures, reprojection error 0." in measured.message
        assert CameraCalibration.load(output).base_frame == "board"
    finally:
        end(process)

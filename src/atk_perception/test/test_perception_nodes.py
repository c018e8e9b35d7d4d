"""Camera and tracker as processes over DDS: one answer per image, errors that name the fix."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from atk_interfaces.msg import KeypointArray
from atk_perception.image_codec import (
    fill_depth_message,
    fill_rgb_message,
    rgb_from_message,
)
from atk_perception.keypoint_set import KeypointSet
from atk_perception.service_answers import answers_reach

pytestmark = pytest.mark.system

DOMAIN = 12 + os.getpid() % 60
RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
RELIABLE_IMAGES = ["-p", "qos_overrides./camera/image_raw.subscription.reliability:=reliable"]


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        f"from atk_perception.{module} import main; main()",
        "--ros-args",
        *arguments,
    ]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


class Peer:
    """A node of this process in the tests' DDS domain."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node("test_peer", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def until(self, ready, timeout_s: float = 30.0) -> bool:
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


def end(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    return output


def test_the_tracker_answers_every_image_exactly_once(make_scene, peer, tmp_path):
    scene = make_scene(seed=11)
    template = scene.template()
    KeypointSet.create("set", template.uv_px, template.image_rgb, camera_name="camera").save(tmp_path)
    process = start("tracker_node", "-p", f"run_folder:={tmp_path}", *RELIABLE_IMAGES)
    answers: list[KeypointArray] = []
    overlays: list[Image] = []
    publisher = peer.node.create_publisher(Image, "camera/image_raw", RELIABLE)
    peer.node.create_subscription(KeypointArray, "keypoints", answers.append, RELIABLE)
    reset = peer.node.create_client(Trigger, "tracker/reset")
    try:
        assert peer.until(lambda: publisher.get_subscription_count() and reset.service_is_ready())
        assert peer.until(answers_reach(peer.node, "tracker"))

        def show(sec: int, image: np.ndarray) -> KeypointArray:
            message = fill_rgb_message(Image(), image)
            message.header.stamp.sec, message.header.frame_id = sec, "camera_optical_frame"
            publisher.publish(message)
            assert peer.until(lambda: any(a.header.stamp.sec == sec for a in answers)), (
                f"no answer to image {sec}"
            )
            return next(a for a in answers if a.header.stamp.sec == sec)

        first = show(1, scene.render())
        assert first.tracker_state == KeypointArray.TRACKING
        assert first.header.frame_id == "camera_optical_frame"
        uv = np.array(first.uv_px).reshape(-1, 2)
        assert np.median(np.linalg.norm(uv - template.uv_px, axis=1)) < 1.0
        refused = show(2, scene.render()[:300])
        assert refused.tracker_state == KeypointArray.TRANSFER_FAILED
        assert not any(refused.visible)
        unknown = Image(height=2, width=2, encoding="16SC7", step=28, data=bytes(56))
        unknown.header.stamp.sec = 20
        publisher.publish(unknown)
        assert peer.until(lambda: answers[-1].header.stamp.sec == 20)
        assert answers.pop().tracker_state == KeypointArray.TRANSFER_FAILED
        peer.node.create_subscription(Image, "keypoints/overlay", overlays.append, RELIABLE)
        for sec in range(3, 9):
            assert show(sec, scene.render()).tracker_state == KeypointArray.TRACKING
        assert peer.until(lambda: len(overlays) >= 1)
        assert rgb_from_message(overlays[-1]).shape == (480, 640, 3)
        future = reset.call_async(Trigger.Request())
        assert peer.until(future.done)
        assert future.result().success
        assert show(9, scene.render()).tracker_state == KeypointArray.TRACKING
        assert sorted(a.header.stamp.sec for a in answers) == list(range(1, 10))
    finally:
        output = end(process)
    assert "another aspect ratio" in output


@pytest.mark.parametrize(
    ("arguments", "topic", "suffix"),
    [
        (["-p", "compressed:=true"], "camera/image_raw/compressed", ".png"),
        (["-r", "camera/image_raw:=left/image/compressed"], "left/image/compressed", ".jpg"),
    ],
    ids=["parameter", "name"],
)
def test_compressed_images_are_tracked_like_raw_ones(make_scene, peer, tmp_path, arguments, topic, suffix):
    """PNG and JPEG; asked for by a parameter, or by a topic's name as image_transport gives it."""
    scene = make_scene(seed=11)
    template = scene.template()
    KeypointSet.create("set", template.uv_px, template.image_rgb, camera_name="camera").save(tmp_path)
    reliable = ["-p", f"qos_overrides./{topic}.subscription.reliability:=reliable"]
    process = start("tracker_node", "-p", f"run_folder:={tmp_path}", *arguments, *reliable)
    answers: list[KeypointArray] = []
    publisher = peer.node.create_publisher(CompressedImage, topic, RELIABLE)
    peer.node.create_subscription(KeypointArray, "keypoints", answers.append, RELIABLE)
    try:
        assert peer.until(publisher.get_subscription_count)
        bgr = cv2.cvtColor(scene.render(), cv2.COLOR_RGB2BGR)
        for sec in range(1, 4):
            message = CompressedImage(format=f"rgb8; {suffix[1:]} compressed bgr8")
            message.header.stamp.sec = sec
            message.data = cv2.imencode(suffix, bgr)[1].tobytes()
            publisher.publish(message)
        cut_short = CompressedImage(format=message.format, data=bytes(message.data)[:100])
        cut_short.header.stamp.sec = 4
        publisher.publish(cut_short)
        assert peer.until(lambda: len(answers) == 4)
    finally:
        output = end(process)
    assert [a.tracker_state for a in answers[:3]] == [KeypointArray.TRACKING] * 3
    for answer in answers[:3]:
        uv = np.array(answer.uv_px).reshape(-1, 2)
        assert np.median(np.linalg.norm(uv - template.uv_px, axis=1)) < 1.0
    assert answers[3].tracker_state == KeypointArray.TRANSFER_FAILED
    assert "it may be cut short" in output


def test_markers_stand_at_the_measured_depth_or_on_a_plane_and_only_while_somebody_looks(
    make_scene, peer, tmp_path
):
    scene = make_scene(seed=11)
    template = scene.template()
    KeypointSet.create("set", template.uv_px, template.image_rgb, camera_name="camera").save(tmp_path)
    process = start(
        "tracker_node",
        *["-p", f"run_folder:={tmp_path}", "-p", "marker_depth_m:=0.9", "-p", "image_rate_hz:=10.0"],
        *RELIABLE_IMAGES,
    )
    markers: list[MarkerArray] = []
    diagnostics: list[DiagnosticArray] = []
    answers: list[KeypointArray] = []
    images = peer.node.create_publisher(Image, "camera/image_raw", RELIABLE)
    depths = peer.node.create_publisher(Image, "camera/depth/image_raw", RELIABLE)
    infos = peer.node.create_publisher(CameraInfo, "camera/camera_info", RELIABLE)
    peer.node.create_subscription(KeypointArray, "keypoints", answers.append, RELIABLE)
    peer.node.create_subscription(DiagnosticArray, "/diagnostics", diagnostics.append, 10)
    depth_m = np.full((480, 640), np.nan, np.float32)
    left = template.uv_px[:, 0] < 250  # what lies there has a depth, the rest has none
    depth_m[:, :260] = 0.5
    picture = scene.render()
    sec = 0

    def show() -> None:
        nonlocal sec
        sec += 1
        image, depth = fill_rgb_message(Image(), picture), fill_depth_message(Image(), depth_m)
        info = CameraInfo(width=640, height=480, k=[500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0])
        for message, publisher in ((info, infos), (depth, depths), (image, images)):
            message.header.stamp.sec, message.header.frame_id = sec, "camera_optical_frame"
            publisher.publish(message)
        count = len(answers)
        assert peer.until(lambda: len(answers) > count)

    def until_shown(ready) -> None:
        deadline = time.monotonic() + 30.0
        while not ready():
            assert time.monotonic() < deadline
            show()

    try:
        assert peer.until(lambda: images.get_subscription_count() and infos.get_subscription_count())
        show()
        assert depths.get_subscription_count() == 0
        looking = peer.node.create_subscription(MarkerArray, "keypoints/markers", markers.append, 10)
        until_shown(lambda: markers and any(abs(p.z - 0.5) < 1e-3 for p in markers[-1].markers[0].points))
        points = np.array([[p.x, p.y, p.z] for p in markers[-1].markers[0].points])
        np.testing.assert_allclose(points[left, 2], 0.5, atol=1e-3)
        np.testing.assert_allclose(points[template.uv_px[:, 0] > 270, 2], 0.9)
        back = points @ np.array([[500.0, 0, 320], [0, 500.0, 240], [0, 0, 1]]).T
        assert np.median(np.linalg.norm(back[:, :2] / back[:, 2:] - template.uv_px, axis=1)) < 1.0
        peer.node.destroy_subscription(looking)
        assert peer.until(lambda: depths.get_subscription_count() == 0)
        named = {status.name: status for array in diagnostics for status in array.status}
        assert {
            "tracker",
            "tracker: /camera/image_raw topic status",
            "tracker: keypoints topic status",
        } <= set(named)
        values = {v.key: v.value for v in named["tracker: /camera/image_raw topic status"].values}
        assert float(values["Target frequency (Hz)"]) == 10.0
        assert int(values["Events since startup"]) >= 1
    finally:
        end(process)


def test_annotations_for_foxglove_where_its_messages_are_installed(make_scene, peer, tmp_path):
    messages = pytest.importorskip("foxglove_msgs.msg", reason="foxglove_msgs is not installed (optional)")
    scene = make_scene(seed=11)
    template = scene.template()
    KeypointSet.create("set", template.uv_px, template.image_rgb, camera_name="camera").save(tmp_path)
    process = start("tracker_node", "-p", f"run_folder:={tmp_path}", *RELIABLE_IMAGES)
    answers: list[KeypointArray] = []
    annotations: list[messages.ImageAnnotations] = []
    publisher = peer.node.create_publisher(Image, "camera/image_raw", RELIABLE)
    peer.node.create_subscription(KeypointArray, "keypoints", answers.append, RELIABLE)
    peer.node.create_subscription(
        messages.ImageAnnotations, "keypoints/annotations", annotations.append, RELIABLE
    )
    try:
        assert peer.until(publisher.get_subscription_count)
        for sec in range(1, 200):
            message = fill_rgb_message(Image(), scene.render())
            message.header.stamp.sec = sec
            publisher.publish(message)
            assert peer.until(lambda sec=sec: any(a.header.stamp.sec == sec for a in answers))
            if annotations:
                break
    finally:
        end(process)
    shown, uv = annotations[-1], np.array(answers[-1].uv_px).reshape(-1, 2)
    assert 1 <= shown.circles[0].timestamp.sec <= sec
    assert len(shown.circles) == len(uv)
    assert len(shown.texts) == len(uv) + 1
    found = np.array([[circle.position.x, circle.position.y] for circle in shown.circles])
    np.testing.assert_allclose(found, uv + 0.5, atol=1.0)
    assert shown.texts[-1].text.startswith("TRACKING")


@pytest.mark.parametrize(
    ("arguments", "tracker", "warned"),
    [
        ((), "lucas_kanade", False),
        (("-p", "tracker:=lucas_kanade"), "lucas_kanade", False),
        (("-p", "tracker:=template_lk"), "template_lk", True),
    ],
    ids=["empty", "the same", "another"],
)
def test_a_set_is_tracked_as_its_policy_was_trained(make_scene, peer, tmp_path, arguments, tracker, warned):
    template = make_scene(seed=11).template()
    points = KeypointSet.create("set", template.uv_px, template.image_rgb, camera_name="left")
    points.save(tmp_path / "cameras" / "left")
    (tmp_path / "policy.yaml").write_text("matcher: sift\ntracker: lucas_kanade\n")
    process = start("tracker_node", "-p", f"run_folder:={tmp_path}/cameras/left", *arguments)
    reset = peer.node.create_client(Trigger, "tracker/reset")
    try:
        assert peer.until(reset.service_is_ready)
    finally:
        output = end(process)
    assert f"matcher sift, tracker {tracker}" in output
    assert ("tracker 'template_lk' instead of 'lucas_kanade'" in output) == warned


def test_a_run_folder_that_does_not_say_its_backends_is_refused(make_scene, tmp_path):
    template = make_scene(seed=11).template()
    KeypointSet.create("set", template.uv_px, template.image_rgb).save(tmp_path)
    (tmp_path / "policy.yaml").write_text("matcher: sift\n")
    output, _ = start("tracker_node", "-p", f"run_folder:={tmp_path}").communicate(timeout=60)
    assert "policy.yaml: 'tracker' is None; expected the name of the tracker" in output


def test_a_tracker_without_a_run_folder_says_so():
    output, _ = start("tracker_node").communicate(timeout=30)
    assert "parameter 'run_folder' is empty" in output


def test_a_camera_node_plays_a_folder_of_images(peer, tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(5)]
    for k, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{k:03d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    calibration = tmp_path / "calibration.yaml"
    write_calibration(calibration, 64, 48)
    seen: list[Image] = []
    infos: list[CameraInfo] = []
    peer.node.create_subscription(Image, "camera/image_raw", seen.append, RELIABLE)
    peer.node.create_subscription(CameraInfo, "camera/camera_info", infos.append, RELIABLE)
    process = start(
        "camera_node",
        "-p",
        f"source:={tmp_path}",
        "-p",
        "rate_hz:=20.0",
        "-p",
        "loop:=true",
        "-p",
        f"calibration:={calibration}",
    )
    try:
        assert peer.until(lambda: len(seen) >= 6 and len(infos) >= 6)
    finally:
        end(process)
    originals = {image.tobytes() for image in images}
    assert all(rgb_from_message(message).tobytes() in originals for message in seen)
    assert infos[0].k[0] == 50.0
    assert {(s.header.stamp.sec, s.header.stamp.nanosec) for s in seen} <= {
        (i.header.stamp.sec, i.header.stamp.nanosec) for i in infos
    }


@pytest.mark.parametrize(("quality", "mean_error"), [(95, 4.0), (0, 0.0)], ids=["jpeg", "png"])
def test_a_camera_node_gives_the_recorder_compressed_images_and_tells_rate_and_latency(
    make_scene, peer, tmp_path, quality, mean_error
):
    """What a robot description calls recorded_topic; the same picture as the raw one of its stamp."""
    picture = make_scene(seed=3).render(noise=0.0)
    cv2.imwrite(str(tmp_path / "0.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    recorded: list[CompressedImage] = []
    diagnostics: list[DiagnosticArray] = []
    peer.node.create_subscription(DiagnosticArray, "/diagnostics", diagnostics.append, 10)
    peer.node.create_subscription(CompressedImage, "left/recorded", recorded.append, RELIABLE)
    process = start(
        "camera_node",
        *[
            "-p",
            f"source:={tmp_path}",
            "-p",
            "rate_hz:=10.0",
            "-p",
            "loop:=true",
            "-p",
            f"jpeg_quality:={quality}",
        ],
        *["-r", "camera/image_raw:=left/image", "-r", "camera/image_raw/compressed:=left/recorded"],
    )

    def statuses() -> dict[str, dict[str, str]]:
        """By name, the newest; with the values of the last report in which messages were counted."""
        return {s.name: {v.key: v.value for v in s.values} for a in diagnostics for s in a.status}

    topic = "camera: /left/image topic status"
    try:
        assert peer.until(lambda: len(recorded) >= 3)
        assert peer.until(lambda: "Mean timestamp delay:" in statuses().get(topic, {}))
        assert peer.until(lambda: "latency_ms" in statuses().get("camera", {}))
        assert peer.node.count_publishers("left/image") == 1
    finally:
        end(process)
    error = np.abs(rgb_from_message(recorded[-1]).astype(int) - picture)
    assert error.mean() <= mean_error
    assert ("jpeg" in recorded[-1].format) == bool(quality)
    assert recorded[-1].header.frame_id == "camera_optical_frame"
    assert float(statuses()[topic]["Target frequency (Hz)"]) == 10.0
    assert 0.0 < float(statuses()[topic]["Mean timestamp delay:"]) < 5.0


def write_calibration(path: Path, width: int, height: int) -> None:
    path.write_text(
        f"image_width: {width}\nimage_height: {height}\ncamera_name: camera\n"
        "camera_matrix: {rows: 3, cols: 3, data: [50, 0, 32, 0, 50, 24, 0, 0, 1]}\n"
        "distortion_model: plumb_bob\ndistortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}\n"
        "rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}\n"
        "projection_matrix: {rows: 3, cols: 4, data: [50, 0, 32, 0, 0, 50, 24, 0, 0, 0, 1, 0]}\n"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [("/nowhere/video.mp4", "is no device, video file or folder"), ("EMPTY", "holds no image")],
)
def test_an_unusable_source_is_named(tmp_path, source, message):
    source = str(tmp_path) if source == "EMPTY" else source
    output, _ = start("camera_node", "-p", f"source:={source}").communicate(timeout=30)
    assert message in output


def test_a_calibration_of_another_size_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((48, 64, 3), np.uint8))
    calibration = tmp_path / "calibration.yaml"
    write_calibration(calibration, 640, 480)
    output, _ = start(
        "camera_node", "-p", f"source:={tmp_path}", "-p", f"calibration:={calibration}"
    ).communicate(timeout=30)
    assert "is for 640x480 images, the source gives 64x48" in output

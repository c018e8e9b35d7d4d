"""ROS node around KeypointTracker: images in, exactly one KeypointArray per image out.

Images are only queued in their callback; a worker thread transfers, tracks and publishes. What people look at
(overlay, markers, annotations) is made only while somebody looks.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from atk_interfaces.msg import KeypointArray
from atk_perception import foxglove_annotations
from atk_perception.backend_choice import choose_backends
from atk_perception.camera_calibration import CameraCalibrationError
from atk_perception.camera_placing import POSE_SOURCES, CameraPlacing, ViewpointError, make_viewpoint
from atk_perception.frames import stamp_ns_of
from atk_perception.image_codec import (
    DepthImage,
    ImageFormatError,
    RgbImage,
    depth_from_message,
    fill_rgb_message,
    rgb_from_message,
)
from atk_perception.input_thread import InputThread
from atk_perception.keypoint_set import KeypointSet, KeypointSetError
from atk_perception.keypoint_tracker import KeypointObservation, KeypointTracker, TrackerState
from atk_perception.managed_node import ERROR, OK, WARN, ManagedNode, run_node
from atk_perception.markers import keypoint_markers
from atk_perception.overlay import Overlay
from atk_perception.points_in_camera import CalibrationError, depth_at, intrinsics, points_in_camera
from atk_perception.record_node import message_class
from atk_perception.registry import DEFAULT_INFERENCE, make_matcher, make_tracker
from atk_perception.robot_description import RobotDescription
from atk_perception.viewpoint import VIEWPOINTS, PlacedCamera

# A third of a second at 30 Hz: a transfer takes about as long.
QUEUE_DEPTH = 10
RELIABLE = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
# A depth image this much older or newer shows the same scene, for somebody who looks at markers.
DEPTH_AGE_NS = 100_000_000
# A simulator in lock-step stands still until an image is answered: its depth image comes, however slow the machine is.
SIMULATED_DEPTH_WAIT_S = 3.0
# Depth images that are kept: their images may wait in the queue.
DEPTH_DEPTH = 2 * QUEUE_DEPTH
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


class TrackerNode(ManagedNode):
    """Tracks the keypoint set of a run folder in the camera's images."""

    def __init__(self) -> None:
        super().__init__("tracker")
        self.declare(
            "run_folder", "", "run folder (or folder with keypoints.yaml and template.png)", read_only=True
        )
        self.declare(
            "matcher",
            "",
            "correspondence backend that finds the set in a new scene; empty: the one that the policy in the run folder was "
            "trained with. Public models need 'get_weights' (README)",
            read_only=True,
        )
        self.declare(
            "tracker",
            "",
            "backend that follows the points; empty: the one that the policy in the run folder was trained with. Public models "
            "need 'get_weights' (README)",
            read_only=True,
        )
        self.declare(
            "inference_backend",
            DEFAULT_INFERENCE,
            "what the tracker's network runs in: default, or for 'atk' onnxruntime, once "
            "'python -m atk_perception.learned.onnx_graphs' has written its graphs",
            read_only=True,
        )
        self.declare(
            "compressed",
            False,
            "subscribe to camera/image_raw/compressed instead of camera/image_raw; not needed where "
            "camera/image_raw is remapped to a topic that ends in /compressed",
            read_only=True,
        )
        self.declare(
            "image_rate_hz",
            0.0,
            "rate that the camera promises, for diagnostics; 0: not judged",
            minimum=0.0,
            maximum=1000.0,
        )
        self.declare(
            "marker_depth_m",
            0.6,
            "distance of the plane that markers without depth are drawn on",
            minimum=0.01,
            maximum=100.0,
        )
        self.declare(
            "depth",
            True,
            "place markers by camera/depth/image_raw, registered to the image, where there is one",
        )
        self.declare(
            "viewpoint",
            "none",
            f"give the policy what the training camera would see, where this one stands elsewhere: {', '.join(VIEWPOINTS)}. "
            "plane: work_plane of the robot description; depth: camera/depth/image_raw, registered to the image",
            read_only=True,
        )
        self.declare("robot", "", "robot description (YAML); needed with 'viewpoint'", read_only=True)
        self.declare(
            "pose_from",
            POSE_SOURCES[0],
            f"with 'viewpoint', who says where the camera stands: {', '.join(POSE_SOURCES)}. calibration: camera.calibration "
            "of the robot description; topic: camera/pose (geometry_msgs/PoseStamped, latched); tf: /tf and /tf_static",
            read_only=True,
        )
        self.declare(
            "depth_wait_s",
            0.1,
            "with viewpoint 'depth', how long an image waits for the depth image of its stamp",
            minimum=0.0,
            maximum=1.0,
        )
        self._lock = threading.Lock()

    # -- lifecycle ---------------------------------------------------------------------------------

    def configure(self) -> None:
        """Load the keypoint set and the backends."""
        folder = self.parameter("run_folder")
        if not folder:
            raise KeypointSetError(
                "parameter 'run_folder' is empty; give a folder written by 'ros2 run atk_policy select'"
            )
        keypoint_set = KeypointSet.load(folder)
        backends, doubt = choose_backends(folder, self.parameter("matcher"), self.parameter("tracker"))
        if doubt:
            self.get_logger().warning(doubt)
        matcher = make_matcher(backends.matcher)
        tracker = make_tracker(backends.tracker, self.parameter("inference_backend"))
        self._placing: CameraPlacing | None = None
        viewpoint = None
        if self.parameter("viewpoint") != "none":
            if not self.parameter("robot"):
                raise ViewpointError(
                    f"viewpoint '{self.parameter('viewpoint')}' needs the parameter 'robot', a robot description (YAML): it says "
                    "where the camera stands or what plane the points lie in"
                )
            robot = RobotDescription.load(self.parameter("robot"))
            viewpoint = make_viewpoint(self.parameter("viewpoint"), keypoint_set, robot)
            self._placing = CameraPlacing(keypoint_set, robot, self.parameter("pose_from"))
            self.get_logger().info(self._placing.describe())
        self._keypoints = KeypointTracker(keypoint_set, matcher, tracker, viewpoint=viewpoint)
        self._overlay = Overlay()
        self._camera_info: CameraInfo | None = None
        self._keypoints_publisher = self.create_publisher(KeypointArray, "keypoints", RELIABLE)
        self._overlay_publisher = self.create_publisher(Image, "keypoints/overlay", RELIABLE)
        self._marker_publisher = self.create_publisher(MarkerArray, "keypoints/markers", 10)
        self._annotation_publisher: Any = None
        if foxglove_annotations.AVAILABLE:
            from foxglove_msgs.msg import ImageAnnotations

            self._annotation_publisher = self.create_publisher(ImageAnnotations, "keypoints/annotations", 10)
        self._reset_service = self.create_service(Trigger, "~/reset", self._on_reset)
        self.get_logger().info(
            f"keypoint set '{keypoint_set.name}': {len(keypoint_set)} points, matcher {backends.matcher}, tracker "
            f"{backends.tracker}"
        )

    def activate(self) -> None:
        """Listen to the camera and work."""
        self._images: queue.Queue[Any] = queue.Queue()
        self._dropped = self._processed = 0
        self._said_state = TrackerState.UNINITIALISED
        self._is_useful = True  # the policy can see something of what is tracked
        self._latency_ms = self._busy_ms = 0.0
        self._worker = threading.Thread(target=self._work, name="tracker")
        self._worker.start()
        self._depth_inputs: InputThread | None = None
        self._depths: deque[Any] = deque(maxlen=DEPTH_DEPTH)
        self._depth_news = threading.Condition()
        topic = "camera/image_raw/compressed" if self.parameter("compressed") else "camera/image_raw"
        # image_transport's convention: what is published compressed is named so.
        self._image_topic = self.resolve_topic_name(topic)
        compressed = self._image_topic.endswith("/compressed")
        self._arrivals = self.watch_topic(self._image_topic, self.parameter("image_rate_hz"))
        self._answers = self.watch_topic("keypoints", self.parameter("image_rate_hz"))
        # Before images: who waits for these to be heard then knows of depth too.
        self._listen_to_depth(self._wants_depth())
        self._inputs = InputThread(self, "images")
        # What an image is judged by is subscribed to before it, and so taken before it when they come together.
        self._inputs.subscribe(
            CameraInfo, "camera/camera_info", self._on_camera_info, qos_profile_sensor_data
        )
        self._subscribe_to_pose()
        self._inputs.subscribe(
            CompressedImage if compressed else Image,
            topic,
            self._on_image,
            QoSProfile(depth=QUEUE_DEPTH, reliability=qos_profile_sensor_data.reliability),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._inputs.start()
        self._report_timer = self.create_timer(0.5, self._report)

    def deactivate(self) -> None:
        """Stop listening, finish the image at hand."""
        self._inputs.close()
        self.destroy_timer(self._report_timer)
        self._listen_to_depth(False)
        self._images.put(None)
        self._worker.join()
        self.unwatch_topics()

    def cleanup(self) -> None:
        """Withdraw the interfaces."""
        self.destroy_service(self._reset_service)
        for publisher in (self._keypoints_publisher, self._overlay_publisher, self._marker_publisher):
            self.destroy_publisher(publisher)
        if self._annotation_publisher is not None:
            self.destroy_publisher(self._annotation_publisher)

    # -- what arrives ------------------------------------------------------------------------------

    def _on_image(self, message: Any) -> None:
        self._arrivals.tick(self.get_clock().now().nanoseconds, stamp_ns_of(message))
        self._images.put((message, None if self._placing is None else self._placing.camera))
        while self._images.qsize() > QUEUE_DEPTH:  # too slow for the camera: the newest images matter most
            try:
                self._images.get_nowait()
            except queue.Empty:
                break
            self._dropped += 1

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message
        if self._placing is not None:
            self._placing.add_camera_info(message)

    def _subscribe_to_pose(self) -> None:
        """Listen to who says where the camera stands.

        Raises:
            CameraCalibrationError: TF is asked for, and its messages are not installed.
        """
        placing = self._placing
        if placing is not None and placing.source == "topic":
            self._inputs.subscribe(PoseStamped, "camera/pose", placing.add_pose, LATCHED)
        elif placing is not None and placing.source == "tf":
            try:
                kind = message_class("tf2_msgs/msg/TFMessage")
            except ImportError as error:
                raise CameraCalibrationError(
                    f"pose_from 'tf' needs the package tf2_msgs ({error}): apt install ros-jazzy-tf2-msgs. Without it, "
                    "camera/pose (pose_from 'topic') or a calibration file says the same"
                ) from error
            # Everybody who publishes static transforms has latched one message.
            latched = QoSProfile(
                depth=100,
                reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL,
            )
            self._inputs.subscribe(kind, "tf_static", placing.add_tf, latched)
            self._inputs.subscribe(kind, "tf", placing.add_tf, QoSProfile(depth=100))

    def _on_depth(self, message: Image) -> None:
        with self._depth_news:
            self._depths.append(message)
            self._depth_news.notify_all()

    def _wants_depth(self) -> bool:
        viewpoint = self._keypoints.viewpoint
        looked_at = self.parameter("depth") and self._marker_publisher.get_subscription_count()
        return bool(looked_at or (viewpoint is not None and viewpoint.needs_depth))

    def _listen_to_depth(self, wanted: bool) -> None:
        """Depth images are large: they are asked for only while they are needed, or somebody looks at markers."""
        if wanted and self._depth_inputs is None:
            self._depth_inputs = InputThread(self, "depth")
            self._depth_inputs.subscribe(
                Image, "camera/depth/image_raw", self._on_depth, qos_profile_sensor_data
            )
            self._depth_inputs.start()
        elif not wanted and self._depth_inputs is not None:
            self._depth_inputs.close()
            self._depth_inputs = None
            self._depths.clear()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            self._keypoints.reset()
            self._overlay.reset()
        response.success, response.message = True, "the next image is transferred into afresh"
        return response

    # -- work --------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (queued := self._images.get()) is not None:
            message, placed = queued
            started = time.perf_counter()
            stamp_ns = stamp_ns_of(message)
            image: RgbImage | None = None
            try:
                image = rgb_from_message(message)
            except ImageFormatError as error:  # answered all the same: someone may be waiting for this stamp
                self.get_logger().error(str(error), throttle_duration_sec=5.0)
                seen = self._keypoints.refuse(stamp_ns, str(error))
            else:
                depth_m = None
                if (viewpoint := self._keypoints.viewpoint) is not None:
                    if isinstance(placed, PlacedCamera):
                        viewpoint.place(placed)
                    else:
                        viewpoint.lose(str(placed))
                    if viewpoint.needs_depth:
                        depth_m = self._depth_near(stamp_ns, self._depth_wait_s())
                with self._lock:
                    seen = self._keypoints.update(stamp_ns, image, depth_m)
            self._publish(message.header, image, seen)
            now_ns = self.get_clock().now().nanoseconds
            self._answers.tick(now_ns, stamp_ns)
            self._busy_ms = 1e3 * (time.perf_counter() - started)
            self._latency_ms = (now_ns - stamp_ns) / 1e6
            self._processed += 1
            self._is_useful = seen.training_uv_px is None or bool(seen.visible.any())
            self._say_change(seen)

    def _say_change(self, seen: KeypointObservation) -> None:
        before, self._said_state = self._said_state, seen.tracker_state
        if seen.tracker_state is before:
            return
        text = f"{before.name} -> {seen.tracker_state.name}: {seen.reason}"
        # Two calls, because rclpy refuses a call site that changes its severity.
        if seen.tracker_state is TrackerState.TRACKING:
            self.get_logger().info(text)
        else:
            self.get_logger().warning(text)

    def _publish(self, header: Any, image: RgbImage | None, seen: KeypointObservation) -> None:
        keypoint_set = self._keypoints.keypoint_set
        message = KeypointArray(
            header=header,
            set_name=keypoint_set.name,
            tracker_state=int(seen.tracker_state),
            image_width=keypoint_set.image_width,
            image_height=keypoint_set.image_height,
            ids=seen.ids.tolist(),
            uv_px=seen.uv_px.ravel().tolist(),
            visible=seen.visible.tolist(),
            repeats=seen.repeats,
            confidence=seen.confidence.tolist(),
            training_uv_px=[] if seen.training_uv_px is None else seen.training_uv_px.ravel().tolist(),
        )
        self._keypoints_publisher.publish(message)
        if image is None:
            return
        scale = (image.shape[1] / keypoint_set.image_width, image.shape[0] / keypoint_set.image_height)
        if self._overlay_publisher.get_subscription_count():
            picture = fill_rgb_message(Image(header=header), self._overlay.draw(image, seen, scale))
            self._overlay_publisher.publish(picture)
        if self._marker_publisher.get_subscription_count():
            self._publish_markers(header, seen)
        if self._annotation_publisher is not None and self._annotation_publisher.get_subscription_count():
            self._annotation_publisher.publish(foxglove_annotations.image_annotations(header, seen, scale))

    def _publish_markers(self, header: Any, seen: KeypointObservation) -> None:
        """Keypoints in the optical frame: at their depth where it is measured, else on a plane of constant Z."""
        info = self._camera_info
        try:
            if info is None:
                raise CalibrationError("camera/camera_info is missing; publish it beside the images")
            K = intrinsics(info)
        except CalibrationError as error:
            self.get_logger().warning(f"no markers: {error}", throttle_duration_sec=10.0)
            return
        keypoint_set = self._keypoints.keypoint_set
        size = np.array([info.width, info.height], np.float64)
        uv_px = seen.uv_px * size / (keypoint_set.image_width, keypoint_set.image_height)
        plane_m = self.parameter("marker_depth_m")
        z_m = np.full(len(uv_px), plane_m)
        depth_m = self._depth_near(seen.stamp_ns)
        if depth_m is not None:
            measured_m = depth_at(depth_m, uv_px * np.array(depth_m.shape[::-1]) / size)
            z_m = np.where(np.isfinite(measured_m), measured_m, z_m)
        points_m = points_in_camera(uv_px, K, z_m)
        self._marker_publisher.publish(keypoint_markers(header, seen, points_m, plane_m))

    def _depth_wait_s(self) -> float:
        wait_s = float(self.parameter("depth_wait_s"))
        return max(wait_s, SIMULATED_DEPTH_WAIT_S) if self.parameter("use_sim_time") else wait_s

    def _depth_near(self, stamp_ns: int, wait_s: float = 0.0) -> DepthImage | None:
        """The depth image nearest to this time, if it is of about it; one of this stamp or later may be waited for."""
        with self._depth_news:
            if wait_s:
                self._depth_news.wait_for(
                    lambda: any(stamp_ns_of(depth) >= stamp_ns for depth in self._depths), wait_s
                )
            message = min(self._depths, key=lambda depth: abs(stamp_ns_of(depth) - stamp_ns), default=None)
        if message is None or abs(stamp_ns_of(message) - stamp_ns) > DEPTH_AGE_NS:
            return None
        try:
            return depth_from_message(message)
        except ImageFormatError as error:
            self.get_logger().warning(f"no depth: {error}", throttle_duration_sec=10.0)
            return None

    def _report(self) -> None:
        if not self._worker.is_alive():
            self.set_diagnostic(ERROR, "the tracking thread ended by an error; the log says which")
            return
        if self._processed == 0:
            self.set_diagnostic(WARN, f"no image yet on {self._image_topic}")
            return
        self._listen_to_depth(self._wants_depth())
        state = self._keypoints.state
        level = OK if state is TrackerState.TRACKING and self._is_useful else WARN
        self.set_diagnostic(
            level,
            f"{state.name}: {self._keypoints.reason}",
            images=self._processed,
            dropped=self._dropped,
            busy_ms=f"{self._busy_ms:.1f}",
            latency_ms=f"{self._latency_ms:.1f}",
        )


def main() -> None:
    """Console entry."""
    run_node(TrackerNode)

"""ROS node around KeypointTracker: images in, exactly one KeypointArray per image out.

Images are only queued in their callback; a worker thread transfers, tracks and publishes. What people look at
(overlay, markers, annotations) is made only while somebody looks.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from atk_interfaces.msg import KeypointArray
from atk_perception import foxglove_annotations
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
from atk_perception.registry import DEFAULT_MATCHER, DEFAULT_TRACKER, make_matcher, make_tracker

# A third of a second at 30 Hz: a transfer takes about as long.
QUEUE_DEPTH = 10
RELIABLE = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
# A depth image this much older or newer shows the same scene, for somebody who looks at markers.
DEPTH_AGE_NS = 100_000_000


class TrackerNode(ManagedNode):
    """Tracks the keypoint set of a run folder in the camera's images."""

    def __init__(self) -> None:
        super().__init__("tracker")
        self.declare(
            "run_folder", "", "run folder (or folder with keypoints.yaml and template.png)", read_only=True
        )
        self.declare(
            "matcher",
            DEFAULT_MATCHER,
            "correspondence backend that finds the set in a new scene; public models need 'get_weights' (README)",
            read_only=True,
        )
        self.declare(
            "tracker",
            DEFAULT_TRACKER,
            "backend that follows the points; public models need 'get_weights' (README)",
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
        matcher, tracker = make_matcher(self.parameter("matcher")), make_tracker(self.parameter("tracker"))
        self._keypoints = KeypointTracker(keypoint_set, matcher, tracker)
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
        self.get_logger().info(f"keypoint set '{keypoint_set.name}': {len(keypoint_set)} points")

    def activate(self) -> None:
        """Listen to the camera and work."""
        self._images: queue.Queue[Any] = queue.Queue()
        self._dropped = self._processed = 0
        self._said_state = TrackerState.UNINITIALISED
        self._latency_ms = self._busy_ms = 0.0
        self._worker = threading.Thread(target=self._work, name="tracker")
        self._worker.start()
        self._depth_inputs: InputThread | None = None
        self._depth: Any = None
        topic = "camera/image_raw/compressed" if self.parameter("compressed") else "camera/image_raw"
        # image_transport's convention: what is published compressed is named so.
        self._image_topic = self.resolve_topic_name(topic)
        compressed = self._image_topic.endswith("/compressed")
        self._arrivals = self.watch_topic(self._image_topic, self.parameter("image_rate_hz"))
        self._answers = self.watch_topic("keypoints", self.parameter("image_rate_hz"))
        self._inputs = InputThread(self, "images")
        self._inputs.subscribe(
            CompressedImage if compressed else Image,
            topic,
            self._on_image,
            QoSProfile(depth=QUEUE_DEPTH, reliability=qos_profile_sensor_data.reliability),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._inputs.subscribe(
            CameraInfo, "camera/camera_info", self._on_camera_info, qos_profile_sensor_data
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
        self._images.put(message)
        while self._images.qsize() > QUEUE_DEPTH:  # too slow for the camera: the newest images matter most
            try:
                self._images.get_nowait()
            except queue.Empty:
                break
            self._dropped += 1

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _on_depth(self, message: Image) -> None:
        self._depth = message

    def _listen_to_depth(self, wanted: bool) -> None:
        """Depth images are large: they are asked for only while somebody looks at markers."""
        if wanted and self._depth_inputs is None:
            self._depth_inputs = InputThread(self, "depth")
            self._depth_inputs.subscribe(
                Image, "camera/depth/image_raw", self._on_depth, qos_profile_sensor_data
            )
            self._depth_inputs.start()
        elif not wanted and self._depth_inputs is not None:
            self._depth_inputs.close()
            self._depth_inputs, self._depth = None, None

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            self._keypoints.reset()
            self._overlay.reset()
        response.success, response.message = True, "the next image is transferred into afresh"
        return response

    # -- work --------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (message := self._images.get()) is not None:
            started = time.perf_counter()
            stamp_ns = stamp_ns_of(message)
            image: RgbImage | None = None
            try:
                image = rgb_from_message(message)
            except ImageFormatError as error:  # answered all the same: someone may be waiting for this stamp
                self.get_logger().error(str(error), throttle_duration_sec=5.0)
                seen = self._keypoints.refuse(stamp_ns, str(error))
            else:
                with self._lock:
                    seen = self._keypoints.update(stamp_ns, image)
            self._publish(message.header, image, seen)
            now_ns = self.get_clock().now().nanoseconds
            self._answers.tick(now_ns, stamp_ns)
            self._busy_ms = 1e3 * (time.perf_counter() - started)
            self._latency_ms = (now_ns - stamp_ns) / 1e6
            self._processed += 1
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

    def _depth_near(self, stamp_ns: int) -> DepthImage | None:
        """The newest depth image, if it is of about this time."""
        message = self._depth
        if message is None or abs(stamp_ns_of(message) - stamp_ns) > DEPTH_AGE_NS:
            return None
        try:
            return depth_from_message(message)
        except ImageFormatError as error:
            self.get_logger().warning(f"no depth for markers: {error}", throttle_duration_sec=10.0)
            return None

    def _report(self) -> None:
        if not self._worker.is_alive():
            self.set_diagnostic(ERROR, "the tracking thread ended by an error; the log says which")
            return
        if self._processed == 0:
            self.set_diagnostic(WARN, f"no image yet on {self._image_topic}")
            return
        self._listen_to_depth(
            bool(self.parameter("depth") and self._marker_publisher.get_subscription_count())
        )
        state = self._keypoints.state
        level = OK if state is TrackerState.TRACKING else WARN
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

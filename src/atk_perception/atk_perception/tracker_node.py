"""ROS node around KeypointTracker: images in, exactly one KeypointArray per image out.

Images are only queued in their callback; a worker thread transfers, tracks and publishes.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import ColorRGBA
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from atk_interfaces.msg import KeypointArray
from atk_perception.frames import stamp_ns_of
from atk_perception.image_codec import ImageFormatError, RgbImage, fill_rgb_message, rgb_from_message
from atk_perception.input_thread import InputThread
from atk_perception.keypoint_set import KeypointSet, KeypointSetError
from atk_perception.keypoint_tracker import KeypointObservation, KeypointTracker, TrackerState
from atk_perception.managed_node import ERROR, OK, WARN, ManagedNode, run_node
from atk_perception.overlay import Overlay
from atk_perception.registry import DEFAULT_MATCHER, DEFAULT_TRACKER, make_matcher, make_tracker

# A third of a second at 30 Hz: a transfer takes about as long.
QUEUE_DEPTH = 10
RELIABLE = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)


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
            "correspondence backend that finds the set in a new scene",
            read_only=True,
        )
        self.declare("tracker", DEFAULT_TRACKER, "backend that follows the points", read_only=True)
        self.declare(
            "compressed",
            False,
            "subscribe to camera/image_raw/compressed instead of camera/image_raw",
            read_only=True,
        )
        self.declare(
            "marker_depth_m",
            0.6,
            "distance of the plane that markers without depth are drawn on",
            minimum=0.01,
            maximum=100.0,
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
        compressed = self.parameter("compressed")
        self._inputs = InputThread(self, "images")
        self._inputs.subscribe(
            CompressedImage if compressed else Image,
            "camera/image_raw/compressed" if compressed else "camera/image_raw",
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
        self._images.put(None)
        self._worker.join()

    def cleanup(self) -> None:
        """Withdraw the interfaces."""
        self.destroy_service(self._reset_service)
        for publisher in (self._keypoints_publisher, self._overlay_publisher, self._marker_publisher):
            self.destroy_publisher(publisher)

    # -- what arrives ------------------------------------------------------------------------------

    def _on_image(self, message: Any) -> None:
        self._images.put(message)
        while self._images.qsize() > QUEUE_DEPTH:  # too slow for the camera: the newest images matter most
            try:
                self._images.get_nowait()
            except queue.Empty:
                break
            self._dropped += 1

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

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
            self._busy_ms = 1e3 * (time.perf_counter() - started)
            self._latency_ms = (self.get_clock().now().nanoseconds - seen.stamp_ns) / 1e6
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
        if image is not None and self._overlay_publisher.get_subscription_count():
            scale = (image.shape[1] / keypoint_set.image_width, image.shape[0] / keypoint_set.image_height)
            picture = fill_rgb_message(Image(header=header), self._overlay.draw(image, seen, scale))
            self._overlay_publisher.publish(picture)
        if self._marker_publisher.get_subscription_count():
            self._publish_markers(header, seen)

    def _publish_markers(self, header: Any, seen: KeypointObservation) -> None:
        """Visible keypoints as points on a plane of constant Z in the optical frame (REP 103)."""
        info = self._camera_info
        if info is None or info.k[0] == 0.0:
            self.get_logger().warning(
                "no markers: camera/camera_info is missing or uncalibrated (k[0] is 0); calibrate the camera",
                throttle_duration_sec=10.0,
            )
            return
        depth_m = self.parameter("marker_depth_m")
        K = np.array(info.k).reshape(3, 3)
        scale = np.array([info.width, info.height]) / (
            self._keypoints.keypoint_set.image_width,
            self._keypoints.keypoint_set.image_height,
        )
        marker = Marker(header=header, ns="keypoints", type=Marker.SPHERE_LIST, action=Marker.ADD)
        marker.pose.orientation.w = 1.0
        marker.scale.x = marker.scale.y = marker.scale.z = 0.012
        marker.color = ColorRGBA(r=0.0, g=0.8, b=0.55, a=1.0)
        marker.lifetime = Duration(seconds=0.5).to_msg()
        for u, v in seen.uv_px[seen.visible] * scale:
            marker.points.append(
                Point(x=depth_m * (u - K[0, 2]) / K[0, 0], y=depth_m * (v - K[1, 2]) / K[1, 1], z=depth_m)
            )
        self._marker_publisher.publish(MarkerArray(markers=[marker]))

    def _report(self) -> None:
        if not self._worker.is_alive():
            self.set_diagnostic(ERROR, "the tracking thread ended by an error; the log says which")
            return
        if self._processed == 0:
            self.set_diagnostic(WARN, "no image yet on camera/image_raw")
            return
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

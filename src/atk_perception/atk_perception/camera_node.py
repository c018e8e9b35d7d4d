"""A camera, a video file or a folder of images as ROS topics, through OpenCV.

camera/image_raw and camera/camera_info are what the tracker takes; camera/image_raw/compressed is what the recorder
writes. Images are encoded only while somebody listens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from atk_perception.frames import stamp_ns_of
from atk_perception.image_codec import RgbImage, fill_jpeg_message, fill_png_message, fill_rgb_message
from atk_perception.managed_node import ERROR, OK, ManagedNode, run_node

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


class CameraError(RuntimeError):
    """The camera or its calibration cannot be used; the message says what to do."""


def load_calibration(path: Path, width: int, height: int) -> CameraInfo:
    """Read a calibration in the format of ROS's camera_calibration (camera_info YAML).

    Raises:
        CameraError: missing or malformed file, an uncalibrated matrix, or another image size.
    """
    try:
        content = yaml.safe_load(path.read_text())
        size = (int(content["image_width"]), int(content["image_height"]))
        info = CameraInfo(
            width=size[0],
            height=size[1],
            distortion_model=content["distortion_model"],
            d=[float(x) for x in content["distortion_coefficients"]["data"]],
            k=[float(x) for x in content["camera_matrix"]["data"]],
            r=[float(x) for x in content["rectification_matrix"]["data"]],
            p=[float(x) for x in content["projection_matrix"]["data"]],
        )
    except OSError as error:
        raise CameraError(f"calibration {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AssertionError) as error:
        raise CameraError(
            f"calibration {path} is no camera_info YAML ({error}); write one with camera_calibration"
        ) from error
    if info.k[0] == 0.0:
        raise CameraError(
            f"calibration {path} is uncalibrated (camera_matrix starts with 0); calibrate the camera"
        )
    if size != (width, height):
        raise CameraError(
            f"calibration {path} is for {size[0]}x{size[1]} images, the source gives {width}x{height}"
        )
    return info


class ImageSource:
    """Frames of a V4L2 device ('/dev/video0' or '0'), a video file or a folder of images, in order.

    Raises:
        CameraError: the source does not exist, cannot be opened, or holds no image.
    """

    def __init__(self, source: str) -> None:
        self._files: list[Path] = []
        self._capture: Any = None
        self.is_live = source.isdecimal() or source.startswith("/dev/")
        path = Path(source).expanduser()
        if path.is_dir():
            self._files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not self._files:
                raise CameraError(f"folder {path} holds no image ({', '.join(IMAGE_SUFFIXES)})")
            return
        if not self.is_live and not path.is_file():
            raise CameraError(f"source '{source}' is no device, video file or folder of images")
        self._capture = cv2.VideoCapture(int(source) if source.isdecimal() else str(path))
        if not self._capture.isOpened():
            raise CameraError(
                f"source '{source}' cannot be opened; is it in use, or may this user not read it (group video)?"
            )

    def configure(self, width: int, height: int, rate_hz: float) -> None:
        """Ask a live device for this format; it may give another."""
        if self.is_live:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
            self._capture.set(cv2.CAP_PROP_FPS, rate_hz)

    def frames(self, loop: bool) -> Iterator[RgbImage]:
        """(H, W, 3) uint8 RGB until the end, or for ever with `loop`.

        Raises:
            CameraError: an image file that cannot be decoded, or a device that stopped delivering.
        """
        while True:
            yield from self._once()
            if not loop or self.is_live:
                return
            if self._capture is not None:
                self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)

    def _once(self) -> Iterator[RgbImage]:
        for path in self._files:
            bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if bgr is None:
                raise CameraError(f"image {path} cannot be decoded; it may be cut short")
            yield np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        while self._capture is not None:
            read, bgr = self._capture.read()
            if not read:
                if self.is_live:
                    raise CameraError("the device stopped delivering images; is it still plugged in?")
                return
            yield np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)

    def close(self) -> None:
        """Release the device."""
        if self._capture is not None:
            self._capture.release()


class CameraNode(ManagedNode):
    """Publishes one image source."""

    def __init__(self) -> None:
        super().__init__("camera")
        self.declare(
            "source", "0", "device number, /dev/videoN, video file or folder of images", read_only=True
        )
        self.declare("rate_hz", 30.0, "images per second", minimum=0.1, maximum=240.0)
        self.declare("width", 640, "asked of a live device", minimum=1, maximum=10000)
        self.declare("height", 480, "asked of a live device", minimum=1, maximum=10000)
        self.declare("loop", False, "begin again at the end of a file or folder")
        self.declare(
            "calibration", "", "camera_info YAML; empty: camera_info says uncalibrated", read_only=True
        )
        self.declare(
            "frame_id", "camera_optical_frame", "optical frame (REP 103) of the images", read_only=True
        )
        self.declare(
            "jpeg_quality",
            95,
            "of the compressed images; 0: PNG, which is exact, five times as large and takes 20 ms an image",
            minimum=0,
            maximum=100,
        )

    def configure(self) -> None:
        """Open the source, take its first image, check the calibration against it."""
        self._source = ImageSource(self.parameter("source"))
        self._source.configure(self.parameter("width"), self.parameter("height"), self.parameter("rate_hz"))
        self._frames = self._source.frames(self.parameter("loop"))
        self._next: RgbImage | None = next(self._frames, None)
        if self._next is None:
            raise CameraError(f"source '{self.parameter('source')}' holds no image")
        height, width = self._next.shape[:2]
        calibration = self.parameter("calibration")
        self._info = CameraInfo(width=width, height=height)
        if calibration:
            self._info = load_calibration(Path(calibration), width, height)
        else:
            self.get_logger().warning(
                "no calibration: camera_info says uncalibrated, markers and 3D need one"
            )
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._image_publisher = self.create_publisher(Image, "camera/image_raw", reliable)
        compressed = "camera/image_raw/compressed"
        self._compressed_publisher: Any = None
        # Who records raw images has given both the same name.
        if self.resolve_topic_name(compressed) != self.resolve_topic_name("camera/image_raw"):
            self._compressed_publisher = self.create_publisher(CompressedImage, compressed, reliable)
        self._info_publisher = self.create_publisher(CameraInfo, "camera/camera_info", reliable)

    def activate(self) -> None:
        """Publish, in a thread that keeps the pace."""
        self._stop = threading.Event()
        self._count = 0
        # How late a message is when it has been sent is what encoding and sending took.
        self._sent = self.watch_topic(
            self.resolve_topic_name("camera/image_raw"),
            self.parameter("rate_hz"),
            1.0 / self.parameter("rate_hz"),
        )
        self._thread = threading.Thread(target=self._publish_all, name="camera")
        self._thread.start()

    def deactivate(self) -> None:
        """Stop publishing."""
        self._stop.set()
        self._thread.join()
        self.unwatch_topics()

    def cleanup(self) -> None:
        """Release the source."""
        self._source.close()
        self.destroy_publisher(self._image_publisher)
        self.destroy_publisher(self._info_publisher)
        if self._compressed_publisher is not None:
            self.destroy_publisher(self._compressed_publisher)

    def _publish_all(self) -> None:
        due = time.monotonic()
        try:
            while self._next is not None and not self._stop.is_set():
                self._publish(self._next)
                self._next = next(self._frames, None)
                if self._source.is_live:
                    continue  # the device keeps the pace
                due += 1.0 / self.parameter("rate_hz")
                self._stop.wait(max(0.0, due - time.monotonic()))
        except CameraError as error:
            self.get_logger().error(str(error))
            self.set_diagnostic(ERROR, str(error))
            return
        if not self._stop.is_set():
            self.get_logger().info(f"end of {self.parameter('source')} after {self._count} images")
            self.set_diagnostic(OK, "end of source", images=self._count)

    def _publish(self, image: RgbImage) -> None:
        stamp = self.get_clock().now().to_msg()
        self._info.header.stamp, self._info.header.frame_id = stamp, self.parameter("frame_id")
        self._info_publisher.publish(self._info)
        if self._image_publisher.get_subscription_count():
            message = Image(header=self._info.header)
            self._image_publisher.publish(fill_rgb_message(message, image))
        if self._compressed_publisher is not None and self._compressed_publisher.get_subscription_count():
            packed, quality = CompressedImage(header=self._info.header), self.parameter("jpeg_quality")
            packed = fill_jpeg_message(packed, image, quality) if quality else fill_png_message(packed, image)
            self._compressed_publisher.publish(packed)
        self._count += 1
        now_ns, stamp_ns = self.get_clock().now().nanoseconds, stamp_ns_of(self._info)
        self._sent.tick(now_ns, stamp_ns)
        self.set_diagnostic(
            OK, "publishing", images=self._count, latency_ms=f"{(now_ns - stamp_ns) / 1e6:.1f}"
        )


def main() -> None:
    """Console entry."""
    run_node(CameraNode)

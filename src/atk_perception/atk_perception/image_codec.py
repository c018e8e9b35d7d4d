"""ROS images to RGB arrays and back: the one place where pixels change their form.

Works on rclpy messages and on the message objects that `rosbags` reads from a bag, so that the
live graph and a recorded bag give the same pixels. Where ROS 2's cv_bridge is installed it decodes
rclpy images, and with that every encoding it knows; elsewhere the common ones are decoded here.
"""

from __future__ import annotations

import array
import importlib.util
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

RgbImage = npt.NDArray[np.uint8]
DepthImage = npt.NDArray[np.float32]

# encoding -> (channels, OpenCV conversion to RGB)
_TO_RGB: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
}


class ImageFormatError(ValueError):
    """An image message cannot be decoded; the message says what it holds and what is read."""


def require_rgb(image_rgb: npt.NDArray[Any]) -> None:
    """Raises ValueError for anything but an (H, W, 3) uint8 array."""
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise ValueError(f"expected an (H, W, 3) uint8 RGB image, got {image_rgb.shape} {image_rgb.dtype}")


def _cv_bridge() -> Any | None:
    """ROS 2's CvBridge, or None. The ROS 1 package of the same name on PyPI does not count."""
    if importlib.util.find_spec("cv_bridge") is None or importlib.util.find_spec("cv_bridge.boost") is None:
        return None
    from cv_bridge import CvBridge

    return CvBridge()


_BRIDGE = _cv_bridge()


def rgb_from_message(message: Any) -> RgbImage:
    """Decode a sensor_msgs Image or CompressedImage.

    Returns:
        (H, W, 3) uint8 RGB, contiguous, owned by the caller.

    Raises:
        ImageFormatError: unknown encoding, or data that does not fit the stated size.
    """
    if hasattr(message, "format"):
        return _rgb_from_compressed(message)
    if _BRIDGE is not None and hasattr(message, "get_fields_and_field_types"):
        try:
            return np.ascontiguousarray(_BRIDGE.imgmsg_to_cv2(message, "rgb8"))
        except Exception as error:  # cv_bridge raises its own type, and bare ones from its C++ part
            raise ImageFormatError(
                f"image with encoding {message.encoding!r} cannot be decoded: {error}"
            ) from error
    if message.encoding not in _TO_RGB:
        raise ImageFormatError(
            f"image encoding {message.encoding!r} is not read; expected one of {sorted(_TO_RGB)}. "
            "Set the camera driver to rgb8 or bgr8, or install ROS 2's cv_bridge."
        )
    channels, conversion = _TO_RGB[message.encoding]
    pixels = _rows(message, np.dtype(np.uint8), channels)
    return pixels.copy() if conversion is None else np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)


def depth_from_message(message: Any) -> DepthImage:
    """Decode a depth image (REP 118: 32FC1 in metres, or 16UC1 in millimetres).

    Returns:
        (H, W) float32 [m]; NaN where there is no reading.

    Raises:
        ImageFormatError: another encoding, or data that does not fit the stated size.
    """
    if message.encoding == "32FC1":
        depth_m = _rows(message, np.dtype(np.float32), 1).astype(np.float32, copy=True)
    elif message.encoding in ("16UC1", "mono16"):
        depth_m = _rows(message, np.dtype(np.uint16), 1).astype(np.float32) / np.float32(1000.0)
    else:
        raise ImageFormatError(
            f"depth encoding {message.encoding!r} is not read; expected 32FC1 [m] or 16UC1 [mm]"
        )
    depth_m[~(depth_m > 0.0)] = np.nan
    return depth_m


def fill_rgb_message(message: Any, image_rgb: RgbImage) -> Any:
    """Put (H, W, 3) uint8 RGB pixels into an rclpy Image (the header is the caller's)."""
    message.height, message.width = image_rgb.shape[:2]
    message.encoding = "rgb8"
    message.is_bigendian = 0
    message.step = 3 * image_rgb.shape[1]
    message.data = _bytes_of(image_rgb)
    return message


def fill_depth_message(message: Any, depth_m: DepthImage) -> Any:
    """Put (H, W) float32 depth [m] into an rclpy Image as 32FC1 (REP 118)."""
    message.height, message.width = depth_m.shape
    message.encoding = "32FC1"
    message.is_bigendian = 0
    message.step = 4 * depth_m.shape[1]
    message.data = _bytes_of(depth_m.astype(np.float32, copy=False))
    return message


def _bytes_of(image: npt.NDArray[Any]) -> array.array[int]:
    """Copied once. rclpy checks every element of a list or bytes; an array.array is taken whole."""
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(image).data.cast("B"))
    return data


def fill_png_message(message: Any, image_rgb: RgbImage) -> Any:
    """Put RGB pixels into an rclpy CompressedImage, lossless, as image_transport's PNG."""
    # Level 1: three times faster than the default for a few percent of size.
    done, encoded = cv2.imencode(
        ".png", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    if not done:
        raise ImageFormatError(f"an image of shape {image_rgb.shape} cannot be encoded as PNG")
    message.format = "rgb8; png compressed bgr8"
    message.data = _bytes_of(encoded)
    return message


def fill_jpeg_message(message: Any, image_rgb: RgbImage, quality: int) -> Any:
    """Put RGB pixels into an rclpy CompressedImage, as image_transport's JPEG of a quality from 1 to 100."""
    done, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise ImageFormatError(f"an image of shape {image_rgb.shape} cannot be encoded as JPEG")
    message.format = "rgb8; jpeg compressed bgr8"
    message.data = _bytes_of(encoded)
    return message


def _rgb_from_compressed(message: Any) -> RgbImage:
    data = np.frombuffer(message.data, dtype=np.uint8)
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if bgr is None:
        raise ImageFormatError(
            f"compressed image ({message.format!r}, {data.size} bytes) cannot be decoded; it may be cut short"
        )
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _rows(message: Any, dtype: np.dtype[Any], channels: int) -> npt.NDArray[Any]:
    """View of the pixels as (H, W, channels), or (H, W) for one channel, without row padding."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.frombuffer(message.data, dtype=np.uint8)
    used = width * channels * dtype.itemsize
    if height == 0 or width == 0 or step < used or data.size < step * height:
        raise ImageFormatError(
            f"image says {width}x{height}, {message.encoding}, {step} bytes a row, but holds {data.size} bytes; "
            f"expected at least {used} bytes a row and {max(step, used) * height} in all"
        )
    rows = np.ascontiguousarray(data[: step * height].reshape(height, step)[:, :used]).view(dtype)
    if message.is_bigendian and dtype.itemsize > 1:
        rows = rows.byteswap()
    return rows.reshape(height, width, channels) if channels > 1 else rows.reshape(height, width)

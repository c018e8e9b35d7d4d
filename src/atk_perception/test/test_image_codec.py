"""Pixels survive the way into messages and back."""

from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from atk_perception.image_codec import (
    ImageFormatError,
    depth_from_message,
    fill_depth_message,
    fill_png_message,
    fill_rgb_message,
    rgb_from_message,
)


@pytest.fixture
def image_rgb():
    return np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def test_raw_and_png_messages_are_lossless(image_rgb):
    np.testing.assert_array_equal(rgb_from_message(fill_rgb_message(Image(), image_rgb)), image_rgb)
    np.testing.assert_array_equal(rgb_from_message(fill_png_message(CompressedImage(), image_rgb)), image_rgb)


def test_bgr_with_padded_rows_is_read(image_rgb):
    message = Image(height=48, width=64, encoding="bgr8", step=64 * 3 + 10)
    padded = np.zeros((48, message.step), dtype=np.uint8)
    padded[:, : 64 * 3] = image_rgb[..., ::-1].reshape(48, -1)
    message.data = padded.tobytes()
    np.testing.assert_array_equal(rgb_from_message(message), image_rgb)


def test_depth_keeps_metres_and_says_where_nothing_was_measured():
    depth_m = np.array([[0.5, 1.25], [0.0, 2.0]], dtype=np.float32)
    read = depth_from_message(fill_depth_message(Image(), depth_m))
    np.testing.assert_array_equal(read[0], [0.5, 1.25])
    assert np.isnan(read[1, 0])
    millimetres = Image(
        height=1, width=2, encoding="16UC1", step=4, data=np.array([1500, 0], np.uint16).tobytes()
    )
    assert depth_from_message(millimetres)[0, 0] == pytest.approx(1.5)


def test_unusable_images_are_refused_with_what_they_hold(image_rgb):
    message = fill_rgb_message(Image(), image_rgb)
    message.data = message.data[:100]
    with pytest.raises(ImageFormatError, match="holds 100 bytes"):
        rgb_from_message(message)
    with pytest.raises(ImageFormatError, match="yuv422"):
        rgb_from_message(Image(height=2, width=2, encoding="yuv422", step=4, data=bytes(8)))
    with pytest.raises(ImageFormatError, match="cut short"):
        rgb_from_message(CompressedImage(format="png", data=b"no image"))

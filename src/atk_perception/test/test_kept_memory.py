"""Image after image comes out of the same memory."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource
import numpy as np
from sensor_msgs.msg import Image
from atk_perception.image_codec import fill_rgb_message
from atk_perception.kept_memory import keep_memory
keep_memory()
image = np.zeros((480, 640, 3), np.uint8)
for _ in range(10):
    fill_rgb_message(Image(), image)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    fill_rgb_message(Image(), image)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 100)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="this C library is not glibc"
)
def test_a_message_is_filled_without_new_pages():
    """An image is 225 pages of 4 KiB; without `keep_memory` every message costs twice as many page faults."""
    done = subprocess.run([sys.executable, "-c", PAGE_FAULTS], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 10.0

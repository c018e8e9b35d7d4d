"""Memory for images that come and go many times a second."""

from __future__ import annotations

import ctypes

# Names of glibc's mallopt (malloc.h), and what it is told [bytes]: the largest that it takes, and more than nodes free at a time.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BLOCK, KEPT_TOP = 32 << 20, 256 << 20


def keep_memory() -> None:
    """Have the C library keep memory that is freed, for the next image.

    It gives blocks of an image's size back to the system at once, and the next ones then come page by page, zeroed: as much
    as a millisecond for each copy of an image. Does nothing where the C library has no such setting (musl, macOS).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in ((M_MMAP_THRESHOLD, KEPT_BLOCK), (M_TRIM_THRESHOLD, KEPT_TOP)):
            mallopt(name, value)

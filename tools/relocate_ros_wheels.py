"""Point the CMake files inside the ROS 2 wheels at this environment.

The wheels' exported CMake targets name the include folders of the machine that built them. CMake
refuses include folders that do not exist, so both are rewritten once, after installation.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import numpy

BUILD_PYTHON_INCLUDE = re.compile(r"/opt/python/cp3\d+-cp3\d+/include/python3\.\d+")
BUILD_NUMPY_INCLUDE = re.compile(
    r"/opt/python/cp3\d+-cp3\d+/lib/python3\.\d+/site-packages/numpy/_?core/include"
)


def main() -> None:
    python_include = sysconfig.get_path("include")
    rewritten = 0
    for path in Path(sys.prefix, "share").rglob("*.cmake"):
        text = path.read_text()
        new = BUILD_NUMPY_INCLUDE.sub(numpy.get_include(), text)
        new = BUILD_PYTHON_INCLUDE.sub(python_include, new)
        if new != text:
            path.write_text(new)
            rewritten += 1
    if not rewritten and not list(Path(sys.prefix, "share").rglob("*.cmake")):
        raise SystemExit("no CMake files found under .venv/share: are the ROS 2 wheels installed?")


if __name__ == "__main__":
    main()

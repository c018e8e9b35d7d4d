"""What the tests of bringup share."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from untrained_run import write_untrained_run

# One DDS domain per graph, apart from those of the other packages' tests.
_DOMAINS = itertools.count(os.getpid() % 40)


@pytest.fixture
def domain_id() -> int:
    return 60 + next(_DOMAINS) % 40


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_run(tmp_path_factory.mktemp("bringup") / "run")


@pytest.fixture(scope="session")
def two_cameras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose policy sees through two cameras."""
    return write_untrained_run(tmp_path_factory.mktemp("bringup") / "two", "sim_panda_two_cameras")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "launch.log"

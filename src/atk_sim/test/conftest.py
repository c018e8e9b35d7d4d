"""What the simulator's tests share: the robot, one rendering simulation, node graphs in domains of their own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from atk_perception.robot_description import RobotDescription
from atk_sim.graph import NodeGraph, robot_file
from atk_sim.simulation import Simulation

# Every graph gets a DDS domain of its own; 101 is the highest whose ports are safe on Linux.
_DOMAINS = itertools.count(os.getpid() % 45)


@pytest.fixture(scope="session")
def robot() -> RobotDescription:
    return RobotDescription.load(robot_file("sim_panda"))


@pytest.fixture
def simulation(robot: RobotDescription) -> Iterator[Simulation]:
    rendering = Simulation(robot)
    yield rendering
    rendering.close()


@pytest.fixture
def domain_id() -> int:
    return 56 + next(_DOMAINS) % 45


@pytest.fixture
def graph(tmp_path: Path, domain_id: int) -> Iterator[NodeGraph]:
    with NodeGraph(tmp_path / "logs", domain_id) as nodes:
        yield nodes

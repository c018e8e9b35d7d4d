"""Whole-stack tests: separate node processes, real DDS, rendered pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stack_arguments import demo_arguments, next_domain

from atk_perception.robot_description import RobotDescription
from atk_sim import demo
from atk_sim.graph import NodeGraph, robot_file


@pytest.fixture(scope="session")
def robot() -> RobotDescription:
    return RobotDescription.load(robot_file("sim_panda"))


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[NodeGraph]:
    with NodeGraph(tmp_path / "logs", next_domain()) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four expert demonstrations, recorded through the graph as `make demo` does."""
    folder = tmp_path_factory.mktemp("stack")
    return demo.record(
        demo_arguments(demonstrations=4), robot_file("sim_panda"), folder / "demonstrations", next_domain()
    )


@pytest.fixture(scope="session")
def run_folder(recorded: list[Path]) -> Path:
    """A run folder selected from them: not a good policy, but a whole one."""
    run = recorded[0].parents[1] / "run"
    settings = run.with_name("selection.yaml")
    # Many points: four demonstrations do not tell which are of use, and a set that is lost would test nothing.
    settings.write_text(
        "choice: {keypoints_min: 12, measure: {steps: 30, folds: 2}}\n"
        "select: {steps: 200, batch: 128, members: 2, folds: 2}\nrefit: {steps: 300, batch: 128}\n"
    )
    demo.select(demo_arguments(selection=settings), robot_file("sim_panda"), recorded[0].parent, run)
    return run

"""Exact tracks of points on cloth, judged by the picture itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from atk_perception.robot_description import RobotDescription
from atk_sim import ground_truth
from atk_sim.simulation import Simulation
from atk_sim.world import CameraRenderer, World


def paint_coordinates(world: World, texture: str) -> None:
    """Give the cloth a texture whose red and green are its coordinates, and light that leaves colours as they are."""
    model = world.model
    entry = model.tex(texture)
    height, width = int(entry.height[0]), int(entry.width[0])
    row, column = np.mgrid[0:height, 0:width]
    picture = np.stack([255 * column / width, 255 * row / height, np.full_like(row, 128)], axis=2)
    start = int(entry.adr[0])
    model.tex_data[start : start + picture.size] = np.rint(picture).astype(np.uint8).reshape(-1)
    model.light_diffuse[:], model.light_specular[:], model.light_ambient[:] = 0, 0, 0
    model.vis.headlight.ambient[:] = 1
    model.mat(texture).specular[:] = 0


@pytest.fixture
def painted(robot: RobotDescription) -> Iterator[tuple[Simulation, CameraRenderer]]:
    simulation = Simulation(robot, render=False)
    simulation.reset("towel_folding", "RP", 2)
    paint_coordinates(simulation.world, "towel")
    with CameraRenderer(robot.camera.width, robot.camera.height) as renderer:
        renderer.show(simulation.world)
        yield simulation, renderer


def attach_some(
    simulation: Simulation, renderer: CameraRenderer
) -> tuple[ground_truth.AttachedPoints, np.ndarray]:
    """300 points of the cloth in the present picture, and their colours (300, 2)."""
    _, flexes = renderer.surfaces()
    row, column = np.nonzero(flexes >= 0)
    pick = np.random.default_rng(0).choice(len(row), 300, replace=False)
    uv_px = np.column_stack([column[pick], row[pick]]).astype(float)
    points = ground_truth.attach(simulation.world, renderer, uv_px)
    assert (points.body_ids == -1).all()
    located_px, visible = ground_truth.locate(simulation.world, renderer, points)
    # All but those on the rim, between the two faces.
    assert np.quantile(np.abs(located_px - uv_px).max(axis=1), 0.96) < 0.2
    assert visible.mean() > 0.96
    return points, renderer.rgb()[row[pick], column[pick], :2].astype(float)


def test_tracks_on_cloth_stay_on_their_thread(painted):
    """What colour a tracked pixel has says which place of the cloth it shows: no geometry in common."""
    simulation, renderer = painted
    flat, flat_colour = attach_some(simulation, renderer)
    lifted, lifted_colour = None, None
    wrong, seen, hidden, moved_px = [], 0, 0, 0.0
    while not simulation.done:
        simulation.step(simulation.expert_command())
        if lifted is None and simulation.world.data.body("hem").xpos[2] > 0.06:
            lifted, lifted_colour = attach_some(simulation, renderer)
            lifted_px, _ = ground_truth.locate(simulation.world, renderer, lifted)
        if simulation.steps % 12:
            continue
        image = renderer.rgb()
        for points, colour in ((flat, flat_colour), (lifted, lifted_colour)):
            if points is None:
                continue
            located_px, visible = ground_truth.locate(simulation.world, renderer, points)
            at = np.rint(located_px[visible]).astype(int)
            # A step of colour is a millimetre of cloth, about a pixel.
            wrong.append(np.abs(image[at[:, 1], at[:, 0], :2] - colour[visible]).max(axis=1))
            seen, hidden = seen + int(visible.sum()), hidden + int((~visible).sum())
            if points is lifted:
                moved_px = max(moved_px, float(np.linalg.norm(located_px - lifted_px, axis=1)[visible].max()))
    assert simulation.succeeded
    assert moved_px > 40, "the cloth was hardly moved: the check is worth nothing"
    assert hidden > 0.1 * seen, "folded cloth hides half of its face"
    error = np.concatenate(wrong)
    assert np.percentile(error, 95) < 4, np.percentile(error, [50, 90, 95, 99, 100])

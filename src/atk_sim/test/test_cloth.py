"""Exact tracks of points on cloth, judged by the picture itself."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    # A step of colour is 0.8 mm of the one cloth, 0.6 mm of the other, which is farther off: a pixel, a third of one.
    ("task", "moved_at_least_px", "hidden_at_least", "wrong_below"),
    [("towel_folding", 15, 0.3, 4), ("towel_hanging", 120, 0.0, 5)],
)
def test_tracks_on_cloth_stay_on_their_thread(
    robot: RobotDescription, task, moved_at_least_px, hidden_at_least, wrong_below
):
    """What colour a tracked pixel has says which place of the cloth it shows: no geometry in common."""
    simulation = Simulation(robot, render=False)
    simulation.reset(task, "RP", 2)
    paint_coordinates(simulation.world, "towel")
    with CameraRenderer(robot.camera.width, robot.camera.height) as renderer:
        renderer.show(simulation.world)
        _, flexes = renderer.surfaces()
        row, column = np.nonzero(flexes >= 0)
        pick = np.random.default_rng(0).choice(len(row), 300, replace=False)
        row, column = row[pick], column[pick]
        uv_px = np.column_stack([column, row]).astype(float)
        colour = renderer.rgb()[row, column, :2].astype(float)
        points = ground_truth.attach(simulation.world, renderer, uv_px)
        assert (points.body_ids == -1).all()
        located_px, visible = ground_truth.locate(simulation.world, renderer, points)
        # All but those on the rim, between the two faces.
        assert np.quantile(np.abs(located_px - uv_px).max(axis=1), 0.96) < 0.2
        assert visible.mean() > 0.96

        wrong, moved_px = [], np.zeros(len(uv_px))
        while not simulation.done:
            simulation.step(simulation.expert_command())
            if simulation.steps % 8:
                continue
            located_px, visible = ground_truth.locate(simulation.world, renderer, points)
            at = np.rint(located_px[visible]).astype(int)
            wrong.append(np.abs(renderer.rgb()[at[:, 1], at[:, 0], :2] - colour[visible]).max(axis=1))
            moved_px[visible] = np.linalg.norm(located_px - uv_px, axis=1)[visible]
    assert simulation.succeeded
    assert moved_px.max() > moved_at_least_px, "the cloth was hardly moved: the check is worth nothing"
    assert (~visible).mean() >= hidden_at_least, (
        "the folded half hides what it lies on, and shows its other face"
    )
    error = np.concatenate(wrong)
    assert np.percentile(error, 95) < wrong_below, np.percentile(error, [50, 90, 95, 99, 100])

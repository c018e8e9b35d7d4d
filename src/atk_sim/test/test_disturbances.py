"""RP, RB, RO, Light: each adds to the one before, and each is a pure function of its seed."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from atk_sim.disturbances import DISTURBANCES, luminance
from atk_sim.simulation import Simulation
from atk_sim.tasks import make_task
from atk_sim.world import World

TASK_OBJECTS = {"piece", "plate", "tuna", "omelette", "maki"}


def bodies(world: World) -> dict[str, tuple[float, ...]]:
    model = world.model
    return {
        model.body(k).name: (*model.body(k).pos, *model.body(k).quat)
        for k in range(1, model.nbody)
        if not model.body(k).name.startswith("panda_")
    }


def texture(model: mujoco.MjModel, name: str) -> np.ndarray:
    entry = model.tex(name)
    size = int(entry.height[0]) * int(entry.width[0]) * int(entry.nchannel[0])
    return model.tex_data[entry.adr[0] : entry.adr[0] + size].copy()


def lights(model: mujoco.MjModel) -> tuple[bytes, ...]:
    return (
        model.light_dir.tobytes(),
        model.light_diffuse.tobytes(),
        model.light_specular.tobytes(),
        np.array(model.vis.headlight.ambient).tobytes(),
    )


@pytest.fixture(scope="module")
def worlds(robot):
    return {
        (level, seed): World(robot, make_task("sushi"), level, seed)
        for level in DISTURBANCES
        for seed in (0, 1, 2)
    }


def test_every_disturbance_is_a_pure_function_of_its_seed(robot, worlds):
    for (level, seed), world in worlds.items():
        again = World(robot, make_task("sushi"), level, seed)
        assert bodies(again) == bodies(world)
        np.testing.assert_array_equal(again.model.tex_data, world.model.tex_data)
        assert lights(again.model) == lights(world.model)
        np.testing.assert_array_equal(again.data.qpos, world.data.qpos)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_disturbance_keeps_what_the_one_before_drew(worlds, seed):
    pose, background, distractors, light = (worlds[level, seed] for level in DISTURBANCES)
    # The task's objects and the arm start alike under all four.
    for world in (background, distractors, light):
        for name in TASK_OBJECTS & bodies(pose).keys():
            assert bodies(world)[name] == bodies(pose)[name]
        np.testing.assert_array_equal(world.measured(), pose.measured())
    # RB changes table and wall, and RO and Light keep the new ones.
    for surface in ("table", "wall"):
        assert not np.array_equal(texture(background.model, surface), texture(pose.model, surface))
        for world in (distractors, light):
            np.testing.assert_array_equal(texture(world.model, surface), texture(background.model, surface))
    # RO adds distractors, and Light keeps them.
    assert not [name for name in bodies(background) if name.startswith("distractor")]
    assert any(name.startswith("distractor") for name in bodies(distractors))
    assert bodies(light) == bodies(distractors)
    # Light alone changes the light.
    assert lights(pose.model) == lights(background.model) == lights(distractors.model)
    assert lights(light.model) != lights(distractors.model)


def test_demonstrations_are_all_recorded_on_the_same_table(worlds):
    first, second = worlds["RP", 0], worlds["RP", 1]
    np.testing.assert_array_equal(texture(first.model, "table"), texture(second.model, "table"))
    assert lights(first.model) == lights(second.model)
    held_out = [texture(worlds["RB", seed].model, "table") for seed in (0, 1, 2)]
    assert not any(np.array_equal(texture(first.model, "table"), other) for other in held_out)


def test_object_poses_vary_within_the_published_ranges():
    layouts = [make_task("sushi").layout(seed) for seed in range(200)]
    piece = np.array([layout["piece"].xy_m for layout in layouts])
    plate = np.array([layout["plate"].xy_m for layout in layouts])
    yaw_rad = np.array([layout["piece"].yaw_rad for layout in layouts])
    assert (np.ptp(piece, axis=0) > 0.10).all()
    assert (np.ptp(piece, axis=0) <= 0.16).all()
    assert (np.ptp(plate, axis=0) <= 0.081).all()
    assert np.abs(yaw_rad).max() <= np.pi / 4
    assert np.ptp(yaw_rad) > 1.0


def test_nothing_starts_inside_anything_else(worlds):
    for world in worlds.values():
        deepest_m = min((float(c.dist) for c in world.data.contact), default=0.0)
        assert deepest_m > -0.002, f"{world.layout.keys()} overlap by {-deepest_m} m"


@pytest.mark.parametrize("seed", range(8))
def test_changed_light_leaves_the_picture_neither_black_nor_washed_out(simulation: Simulation, seed):
    simulation.reset("sushi", "Light", seed)
    image = simulation.rgb()
    assert 25 < luminance(image) < 225
    assert (image.min(axis=2) == 255).mean() < 0.10


def test_unknown_names_are_answered_with_the_known_ones(simulation: Simulation):
    with pytest.raises(ValueError, match="RP, RB, RO, Light"):
        simulation.reset("sushi", "fog", 0)
    with pytest.raises(ValueError, match="sushi"):
        simulation.reset("tea", "RP", 0)

"""What holds for every task: resets, views, experts, and that physics decides."""

from __future__ import annotations

import numpy as np
import pytest

from atk_sim.camera import project
from atk_sim.simulation import Simulation
from atk_sim.tasks import TASKS, make_task
from atk_sim.tasks.clock_scene import BUTTON, DISC, clockwise_to_go_rad
from atk_sim.tasks.protocol import Furnished
from atk_sim.world import World

NAMES = sorted(TASKS)


@pytest.fixture(scope="module")
def blind(robot):
    simulation = Simulation(robot, render=False)
    yield simulation
    simulation.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_reset_is_a_pure_function_of_its_seed(robot, name):
    one, again, other = (World(robot, make_task(name), "RP", seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.model.body_pos, again.model.body_pos)
    np.testing.assert_array_equal(one.data.qpos, again.data.qpos)
    assert one.layout == again.layout
    assert one.layout != other.layout


@pytest.mark.parametrize("name", NAMES)
def test_what_starts_is_seen_and_is_not_done(robot, name):
    for seed in range(4):
        world = World(robot, make_task(name), "RP", seed)
        assert not world.success()
        if isinstance(
            world.task, Furnished
        ):  # parts of a kitchen may reach out of the picture, see test_kitchen_tasks.py
            continue
        places = np.array([placement.position_m for placement in world.layout.values()])
        uv_px, distance_m = project(
            places,
            world.camera.T_world_camera,
            world.camera.intrinsics(robot.camera.width, robot.camera.height),
        )
        assert (distance_m > 0.2).all()
        assert (uv_px > 0).all()
        assert (uv_px < (robot.camera.width, robot.camera.height)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_does_it_and_an_arm_at_rest_does_not(blind, name):
    for seed in (0, 1):
        blind.reset(name, "RP", seed)
        while not blind.done:
            blind.step(blind.expert_command())
        assert blind.succeeded, seed
        assert blind.steps < blind.max_steps
    blind.reset(name, "RP", 0)
    rest = blind.measured()
    for _ in range(40):
        blind.step(rest)
    assert not blind.world.success()


# -- the clock and the pot -------------------------------------------------------------------------------


def test_the_clock_tasks_share_their_scene_and_their_resets():
    button, hand = make_task("clock_button"), make_task("clock_hand")
    for seed in range(20):
        assert button.layout(seed) == hand.layout(seed)
    assert button.camera == hand.camera


def test_only_what_is_pressed_or_turned_counts(robot):
    pressing, turning = (World(robot, make_task(name), "RP", 3) for name in ("clock_button", "clock_hand"))
    for world in (pressing, turning):
        world.data.joint(BUTTON).qpos[0] = -0.006
    assert pressing.success()
    assert not turning.success()
    for world in (pressing, turning):
        to_go_rad = clockwise_to_go_rad(world.data)
        assert np.deg2rad(55) < to_go_rad < np.deg2rad(170)  # from 6:30 to 10 o'clock
        world.data.joint(BUTTON).qpos[0] = 0.0
        world.data.joint(DISC).qpos[0] = -to_go_rad
        world.step(0.002)
    assert turning.success()
    assert not pressing.success()


def test_the_button_comes_up_again_and_the_hand_stays_where_it_is(robot):
    world = World(robot, make_task("clock_button"), "RP", 3)
    before_rad = clockwise_to_go_rad(world.data)
    world.data.joint(BUTTON).qpos[0] = -0.007
    world.step(1.0)
    assert float(world.data.joint(BUTTON).qpos[0]) > -0.001
    assert clockwise_to_go_rad(world.data) == pytest.approx(before_rad, abs=1e-3)


def test_the_lid_rests_on_the_pot_and_falls_back_when_it_is_let_go(robot):
    world = World(robot, make_task("pot"), "RP", 2)
    world.step(0.5)
    seat_m = float(world.data.body("lid").xpos[2])
    assert seat_m == pytest.approx(0.075, abs=0.002)
    world.data.joint("lid").qpos[2] += 0.08
    world.step(0.002)
    world.step(1.0)
    assert not world.success()
    assert float(world.data.body("lid").xpos[2]) == pytest.approx(seat_m, abs=0.003)

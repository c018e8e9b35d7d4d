"""Towel folding, towel hanging and shoe lacing: the expert earns success, and nothing else does."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from atk_perception.robot_description import RobotDescription
from atk_sim.disturbances import DISTURBANCES
from atk_sim.simulation import Simulation
from atk_sim.tasks import make_task
from atk_sim.tasks.kitchen_scene import HOOK_HEIGHT_M, footprints
from atk_sim.tasks.shoe_lacing import AGLET_LENGTH_M, THROUGH_M
from atk_sim.world import World

TASK_NAMES = ("shoe_lacing", "towel_folding", "towel_hanging")
# What has to be seen before the hand moves: bodies, and whether there is cloth.
SEEN = {
    "shoe_lacing": ({"shoe", "block", "aglet"}, False),
    "towel_folding": ({"hem"}, True),
    "towel_hanging": ({"toggle", "loop", "hook"}, True),
}


def begun(robot: RobotDescription, task: str, seed: int, servo_noise: float = 0.0) -> Simulation:
    simulation = Simulation(robot, servo_noise, render=False)
    simulation.reset(task, "RP", seed)
    return simulation


def set_open(simulation: Simulation, opening_m: float, steps: int) -> None:
    """Stay where the arm is, with that opening."""
    command = np.append(simulation.measured()[:-1], opening_m)
    for _ in range(steps):
        simulation.step(command)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_expert_succeeds_while_pushed_at_the_servos(robot, task):
    for seed in (1000, 1001):
        simulation = begun(robot, task, seed, servo_noise=1.0)
        assert not simulation.world.success(), "nothing is done yet"
        while not simulation.done:
            simulation.step(simulation.expert_command())
        assert simulation.succeeded, f"seed {seed}"
        assert simulation.steps / robot.camera.rate_hz > 2.0


@pytest.mark.parametrize("task", TASK_NAMES)
def test_same_seed_is_the_same_episode_to_the_last_bit(robot, task):
    states = []
    for _ in range(2):
        simulation = begun(robot, task, 7, servo_noise=1.0)
        for _ in range(60):  # until the hand has hold of something
            simulation.step(simulation.expert_command())
        states.append(simulation.world.data.qpos.copy())
    np.testing.assert_array_equal(states[0], states[1])
    assert not np.array_equal(begun(robot, task, 8).world.data.qpos, begun(robot, task, 7).world.data.qpos)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_an_idle_robot_moves_nothing_and_succeeds_at_nothing(robot, task):
    simulation = begun(robot, task, 3)
    before = simulation.world.data.qpos.copy()
    set_open(simulation, 0.08, 20)
    assert np.abs(simulation.world.data.qpos - before).max() < 0.1, "all lies or stands still"
    assert not simulation.world.success()


@pytest.mark.parametrize("task", TASK_NAMES)
def test_layouts_vary_and_keep_what_there_is_apart(task):
    furniture = {cover.name for cover in footprints()}
    layouts = [
        {name: piece for name, piece in make_task(task).layout(seed).items() if name not in furniture}
        for seed in range(200)
    ]
    for name in layouts[0]:
        xy_m = np.array([layout[name].xy_m for layout in layouts])
        assert (np.ptp(xy_m, axis=0) > 0.035).all(), name
        assert np.ptp([layout[name].yaw_rad for layout in layouts]) > np.deg2rad(20)
    for layout in layouts:
        placements = list(layout.values())
        assert all(first.clear_of(other, 0.0) for first in placements[1:] for other in placements[:1])


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_nothing_starts_inside_anything_else(robot, task, disturbance):
    for seed in (0, 1):
        world = World(robot, make_task(task), disturbance, seed)
        deepest_m = min((float(contact.dist) for contact in world.data.contact), default=0.0)
        assert deepest_m > -0.002


@pytest.mark.parametrize("task", TASK_NAMES)
def test_camera_sees_what_matters_from_the_start(simulation: Simulation, task):
    bodies, cloth = SEEN[task]
    for seed in range(2):
        simulation.reset(task, "Light", seed)
        model = simulation.world.model
        geoms, flexes = simulation.renderer.surfaces()
        seen, pixels = np.unique(model.geom_bodyid[geoms[geoms >= 0]], return_counts=True)
        enough = {model.body(int(body)).name for body, count in zip(seen, pixels, strict=True) if count > 60}
        assert bodies <= enough
        assert ((flexes >= 0).sum() > 8000) == cloth


def test_folded_towel_that_is_still_held_is_no_success(robot):
    simulation = begun(robot, "towel_folding", 2)
    command = simulation.expert_command()
    carried = False
    while not simulation.done:
        carried = carried or simulation.world.data.body("hem").xpos[2] > 0.05
        if carried and command[-1] > 0.0:
            break  # the rod lies on the far edge, and now the expert would let go
        simulation.step(command)
        command = simulation.expert_command()
    assert carried
    assert not simulation.done
    set_open(simulation, 0.0, 20)
    assert not simulation.world.success()
    set_open(simulation, 0.06, 20)
    assert simulation.world.success()


def test_towel_let_go_before_the_hook_is_no_success(robot):
    simulation = begun(robot, "towel_hanging", 2)
    toggle = simulation.world.data.body("toggle")
    while not simulation.done and toggle.xpos[2] < HOOK_HEIGHT_M - 0.03:
        simulation.step(simulation.expert_command())
    assert not simulation.done
    set_open(simulation, 0.06, 20)
    assert toggle.xpos[2] < 0.1, "it fell"
    assert not simulation.world.success()


def test_lace_counts_only_through_the_ring(robot):
    simulation = begun(robot, "shoe_lacing", 2)
    world = simulation.world
    eyelet, upright = world.data.site("eyelet").xpos.copy(), [1.0, 0.0, 0.0, 0.0]
    for aside_m, below_m, counts in (
        (0.0, THROUGH_M + 0.002, True),
        (0.0, THROUGH_M - 0.002, False),
        (0.004, THROUGH_M + 0.002, False),
        (0.0, AGLET_LENGTH_M + 0.01, False),  # fallen right through
    ):
        world.data.joint("aglet").qpos[:] = [*(eyelet + (aside_m, 0.0, -below_m)), *upright]
        mujoco.mj_forward(world.model, world.data)
        assert world.success() is counts, (aside_m, below_m)

"""The kitchen set: what counts as done at each stage, and that only physics brings it about."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from atk_sim.experts import Expert, ExpertGoal, pointing_down
from atk_sim.robots.panda import TCP_SITE, kinematic_model
from atk_sim.shapes import TexturedMesh
from atk_sim.shapes_kitchen import balls, cells_across, rectangle, sheet
from atk_sim.simulation import Simulation
from atk_sim.tasks.grape_oven import DOOR_SHUT_RAD, PLACE_M, in_oven
from atk_sim.tasks.kitchen_objects import held
from atk_sim.tasks.kitchen_scene import (
    DOOR_LENGTH_M,
    HOOK,
    OVEN_DOOR,
    OVEN_FLOOR_M,
    STOVE_HEIGHT_M,
    door_angle,
    footprints,
    kitchen_layout,
    to_world,
)
from atk_sim.tasks.pan_filling import FOOD_PLACES_M, burner_position, in_pan, on_burner
from atk_sim.world import World

KITCHEN_TASKS = ("grape_oven", "pan_filling", "towel_folding", "towel_hanging")


@pytest.fixture
def kitchen(robot):
    """Makes an episode without pictures."""

    def begin(task: str, seed: int, disturbance: str = "RP", servo_noise: float = 0.0) -> Simulation:
        simulation = Simulation(robot, servo_noise, render=False)
        simulation.reset(task, disturbance, seed)
        return simulation

    return begin


def put(world: World, name: str, position_m: np.ndarray) -> None:
    """Teleport a free body, at rest, as it was turned."""
    joint = world.data.joint(name)
    joint.qpos[:3] = position_m
    joint.qvel[:] = 0.0
    mujoco.mj_forward(world.model, world.data)


def settle(simulation: Simulation, seconds: float = 0.6) -> None:
    """Physics under a hand that stays where it is."""
    simulation.command(simulation.measured())
    simulation.advance(seconds)


@pytest.mark.parametrize("task", KITCHEN_TASKS)
def test_reset_is_a_pure_function_of_the_seed(kitchen, task):
    first, again, other = (kitchen(task, seed, "Light").world for seed in (6, 6, 7))
    for one, two in ((first.model, again.model), (first.data, again.data)):
        fields = ("body_pos", "body_quat", "light_dir", "tex_data") if one is first.model else ("qpos",)
        for field in fields:
            np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
    for name in free_bodies(first):
        assert np.linalg.norm(first.data.body(name).xpos - other.data.body(name).xpos) > 1e-3
    np.testing.assert_array_equal(first.data.body("oven").xpos, other.data.body("oven").xpos)


@pytest.mark.parametrize("task", KITCHEN_TASKS)
def test_camera_sees_all_that_matters_at_the_start(simulation: Simulation, task):
    wanted_px = {
        "grape_oven": {"grapes": 600, "oven": 8000, OVEN_DOOR: 5000},
        "pan_filling": {"grapes": 600, "sushi": 800, "pan": 6000, "stove": 10000},
        "towel_folding": {"hem": 600, "stove": 10000, "oven": 2000},
        "towel_hanging": {"toggle": 150, "loop": 100, HOOK: 150, "stove": 10000},
    }
    for seed in range(3):
        simulation.reset(task, "RO", seed)
        geoms, model = simulation.renderer.segmentation(), simulation.world.model
        owner = np.where(geoms >= 0, model.geom_bodyid[geoms], -1)
        for name, least_px in wanted_px[task].items():
            seen = owner == model.body(name).id
            assert seen.sum() > least_px, f"seed {seed}: {name} shows {seen.sum()} px"
        for name in free_bodies(simulation.world):
            row, column = np.nonzero(owner == model.body(name).id)
            assert row.min() > 5
            assert row.max() < geoms.shape[0] - 5
            assert column.min() > 5
            assert column.max() < geoms.shape[1] - 5


@pytest.mark.parametrize("disturbance", ["RP", "RO"])
@pytest.mark.parametrize("task", KITCHEN_TASKS)
def test_expert_succeeds_and_only_at_the_end(kitchen, task, disturbance):
    for seed, servo_noise in ((1000, 0.0), (1001, 1.0)):
        simulation = kitchen(task, seed, disturbance, servo_noise)
        assert not simulation.world.success()
        while not simulation.done:
            simulation.step(simulation.expert_command())
        assert simulation.succeeded, f"seed {seed}"
        assert simulation.steps < 0.8 * simulation.max_steps


@pytest.mark.parametrize("task", KITCHEN_TASKS)
def test_idle_robot_fails_and_nothing_moves_by_itself(kitchen, task):
    simulation = kitchen(task, 3)
    before = {name: np.array(simulation.world.data.body(name).xpos) for name in free_bodies(simulation.world)}
    door_rad = door_angle(simulation.world.data)
    settle(simulation, 6.0)
    assert not simulation.world.success()
    for name, position_m in before.items():
        np.testing.assert_allclose(simulation.world.data.body(name).xpos, position_m, atol=2e-3)
    assert abs(door_angle(simulation.world.data) - door_rad) < 0.05, "the door must stay where it is left"


def free_bodies(world: World) -> list[str]:
    joints = [world.model.joint(k) for k in range(world.model.njnt)]
    return [joint.name for joint in joints if joint.type[0] == mujoco.mjtJoint.mjJNT_FREE]


@pytest.mark.parametrize("task", KITCHEN_TASKS)
def test_pieces_start_clear_of_each_other_and_of_the_furniture(kitchen, task):
    for seed in range(8):
        world = kitchen(task, seed, "RO").world
        # What stands still cannot touch what stands still, and a towel meets the handle that it is sewn to.
        bodies = [world.model.body(k).name for k in range(world.model.nbody)]
        towel = {name for name in bodies if name.startswith("towel_")} | {"hem", "toggle", "loop"}
        loose = {*free_bodies(world), *towel}
        for contact in world.data.contact:
            touching = {bodies[world.model.geom_bodyid[geom]] for geom in contact.geom if geom >= 0}
            if touching & loose:
                alone = len(touching - {"table"}) == 1
                assert alone or touching <= towel, f"seed {seed}: {touching} touch"


@pytest.mark.parametrize("task", KITCHEN_TASKS)
def test_distractors_find_room_and_keep_off_the_furniture(kitchen, task):
    counts = []
    for seed in range(6):
        model = kitchen(task, seed, "RO").world.model
        standing = [model.body(k) for k in range(model.nbody)]
        distractors = [body for body in standing if body.name.startswith("distractor")]
        counts.append(len(distractors))
        for body in distractors:
            for cover in footprints():
                assert np.linalg.norm(body.pos[:2] - cover.xy_m) > cover.radius_m
    assert min(counts) >= 1
    assert np.mean(counts) > 2.5


def test_bunch_in_the_oven_with_its_door_open_is_no_success(kitchen):
    simulation = kitchen("grape_oven", 2)
    world = simulation.world
    while not simulation.done and not (
        in_oven(world.data, world.data.body("grapes").xpos) and not held(world.model, world.data, "grapes")
    ):
        simulation.step(simulation.expert_command())
    settle(simulation)
    assert in_oven(world.data, world.data.body("grapes").xpos)
    assert door_angle(world.data) > 2.0
    assert not world.success()


def test_shut_oven_without_the_bunch_is_no_success(kitchen):
    simulation = kitchen("grape_oven", 2)
    world = simulation.world
    world.data.joint(OVEN_DOOR).qpos[0] = 0.0
    settle(simulation)
    assert door_angle(world.data) < DOOR_SHUT_RAD
    assert not world.success()
    # The same with the bunch on the tray: nothing else was missing.
    put(
        world, "grapes", to_world(kitchen_layout()["oven"], np.array([PLACE_M[0], 0.0, OVEN_FLOOR_M + 0.001]))
    )
    settle(simulation)
    assert world.success()
    # On the oven's roof it is not in the oven.
    put(world, "grapes", world.data.body("oven").xpos + np.array([0.0, 0.18, 0.20]))
    settle(simulation)
    assert not world.success()


def test_oven_door_moves_only_when_the_hand_pushes_it(kitchen):
    simulation = kitchen("grape_oven", 4)
    world = simulation.world
    start_rad = door_angle(world.data)
    while not simulation.done and abs(door_angle(world.data) - start_rad) < 0.04:
        simulation.step(simulation.expert_command())
    assert in_oven(world.data, world.data.body("grapes").xpos), "the bunch comes first"
    door = world.data.body(OVEN_DOOR)
    tip_m = door.xpos + door.xmat.reshape(3, 3) @ np.array([DOOR_LENGTH_M, 0.0, 0.0])
    assert np.linalg.norm(world.hand_position_m - tip_m) < 0.10
    while not simulation.done:
        simulation.step(simulation.expert_command())
    assert simulation.succeeded


def filled(world: World) -> None:
    """Pan on the burner, both foods in it."""
    burner = burner_position()
    put(world, "pan", burner + np.array([0.0, 0.0, 0.001]))
    turn = world.data.body("pan").xmat.reshape(3, 3)
    for name, aside_m in FOOD_PLACES_M.items():
        put(world, name, burner + turn @ np.array([0.0, aside_m, 0.006]))


def test_each_stage_of_pan_filling_is_needed(kitchen):
    simulation = kitchen("pan_filling", 2)
    world = simulation.world
    start = {name: np.array(world.data.body(name).xpos) for name in ("pan", "sushi", "grapes")}
    filled(world)
    settle(simulation)
    assert on_burner(world.data, 0.03)
    assert all(in_pan(world.data, name) for name in FOOD_PLACES_M)
    assert world.success()
    for name in FOOD_PLACES_M:  # one of them back on the table
        filled(world)
        put(world, name, start[name])
        settle(simulation)
        assert not world.success(), name
    filled(world)  # everything right, but beside the burner
    for name in start:
        put(world, name, world.data.body(name).xpos + np.array([0.05, 0.0, 0.001]))
    settle(simulation)
    assert all(in_pan(world.data, name) for name in FOOD_PLACES_M)
    assert not world.success()


def test_pan_is_carried_level_by_its_handle(kitchen):
    simulation = kitchen("pan_filling", 5, servo_noise=1.0)
    world, highest_m = simulation.world, 0.0
    while not simulation.done and not on_burner(world.data, 0.022):
        simulation.step(simulation.expert_command())
        pan = world.data.body("pan")
        highest_m = max(highest_m, float(pan.xpos[2]))
        assert pan.xmat[8] > np.cos(np.deg2rad(12.0)), "the pan tips in the hand"
    assert highest_m > STOVE_HEIGHT_M + 0.01, "lifted, not pushed"


def volume_m3(mesh: TexturedMesh) -> float:
    """Of a closed mesh whose faces look outwards; another winding or a hole gives another figure."""
    a, b, c = (mesh.vertices_m[mesh.faces[:, k]] for k in range(3))
    return float(np.einsum("ni,ni->", a, np.cross(b, c)) / 6)


def test_sheet_is_closed_and_shows_its_picture_upright():
    outlines = [rectangle(0.0, 0.0, 0.2, 0.1), rectangle(0.0, 0.1, 0.1, 0.3)]
    mesh = sheet(outlines, 0.01, right=(0, 1, 0), up=(0, 0, 1))
    assert np.isclose(volume_m3(mesh), 0.01 * (0.2 * 0.1 + 0.1 * 0.2))
    face = np.flatnonzero(np.isclose(mesh.vertices_m[:, 0], 0.0) & (mesh.texture_uv[:, 0] <= 0.5))
    top, bottom = mesh.texture_uv[face][mesh.vertices_m[face, 2].argsort()[[-1, 0]], 1]
    assert (top, bottom) == (0.0, 1.0), "a picture's first row belongs on top"


def test_every_ball_has_its_own_part_of_the_texture():
    centres = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.2, 0.0, 0.0]])
    mesh = balls(centres, np.full(3, 0.02), stretch=1.0)
    assert np.isclose(volume_m3(mesh), 3 * 4 / 3 * np.pi * 0.02**3, rtol=0.08)
    cells = (mesh.texture_uv * cells_across(3) - 1e-9).astype(int).reshape(3, -1, 2)
    owners = [{tuple(cell) for cell in ball} for ball in cells]
    assert all(len(owner) == 1 for owner in owners)
    assert len(set.union(*owners)) == 3


@pytest.mark.parametrize("yaw_deg", [-100.0, 100.0])
def test_rotation_goal_is_met_the_way_round_that_was_asked_for(robot, yaw_deg):
    """A yaw of 100 degrees would be answered by its half turn, -80; a rotation is not."""
    expert, model = Expert(robot), kinematic_model()
    data = mujoco.MjData(model)
    q = np.array(robot.home_rad)
    rotation = pointing_down(np.deg2rad(yaw_deg))
    for _ in range(80):
        goal = ExpertGoal(np.array([0.45, 0.0, 0.3]), None, 0.08, rotation=rotation)
        q += 0.4 * (expert.command(q, 0.08, goal)[:-1] - q)
    data.qpos[:7] = q
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.site(TCP_SITE).xmat.reshape(3, 3), rotation, atol=0.02)

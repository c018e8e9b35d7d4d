"""RP, RB, RO, Light: each adds to the one before; camera, occlusion, freeze; each a pure function of its seed."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from atk_sim.camera import CameraPlacement, back_project, project
from atk_sim.disturbances import DISTURBANCES, OCCLUDER, STRESSES, Disturbance, Stall, luminance, moved_camera
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


# ------------------------------------------------------------------------------------------- severity


@pytest.mark.parametrize("text", ["Light:", "Light:much", "Light:-1", "Light:nan", "camera:3"])
def test_a_severity_that_is_no_number_from_0_to_2_is_named(text):
    with pytest.raises(ValueError, match=r"expected a number from 0 to 2"):
        Disturbance.parse(text)


def test_no_severity_is_the_demonstrations_and_one_is_the_paper(robot, worlds):
    for name in (*DISTURBANCES, *STRESSES):
        none = World(robot, make_task("sushi"), f"{name}:0", 1)
        assert bodies(none) == bodies(worlds["RP", 1])
        np.testing.assert_array_equal(none.model.tex_data, worlds["RP", 1].model.tex_data)
        assert lights(none.model) == lights(worlds["RP", 1].model)
    full = World(robot, make_task("sushi"), "Light:1", 1)
    assert lights(full.model) == lights(worlds["Light", 1].model)
    np.testing.assert_array_equal(full.model.tex_data, worlds["Light", 1].model.tex_data)


def test_the_picture_differs_the_more_the_higher_the_severity(simulation: Simulation):
    for name in ("RB", "Light", "camera"):
        pictures = []
        for severity in (0.0, 0.3, 1.0):
            simulation.reset("sushi", f"{name}:{severity}", 3)
            pictures.append(simulation.rgb().astype(np.float32))
        change = [float(np.abs(picture - pictures[0]).mean()) for picture in pictures[1:]]
        assert 0.5 < change[0] < change[1], (name, change)


@pytest.mark.parametrize("seed", range(5))
def test_a_moved_camera_is_turned_and_shifted_by_its_severity_and_still_sees_the_scene(robot, seed):
    camera = make_task("sushi").camera
    for severity in (0.5, 1.0):
        moved = moved_camera(camera, Disturbance("camera", severity), seed)
        shift_m = np.linalg.norm(np.subtract(moved.position_m, camera.position_m))
        turn = camera.T_world_camera[:3, :3].T @ moved.T_world_camera[:3, :3]
        assert shift_m == pytest.approx(0.1 * severity)
        assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(15 * severity, abs=0.01)
        K = moved.intrinsics(robot.camera.width, robot.camera.height)
        target = np.array([camera.target_m])
        uv_px, _ = project(target, moved.T_world_camera, K)
        np.testing.assert_allclose(uv_px[0], K[:2, 2], atol=1e-6)


def test_a_rolled_camera_has_a_proper_pose_and_projects_what_it_back_projects():
    camera = CameraPlacement((1.0, 0.1, 0.6), (0.5, 0.0, 0.0), 0.6, roll_rad=0.3)
    rotation = camera.T_world_camera[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    K, uv_px = camera.intrinsics(640, 480), np.array([[12.0, 400.0], [600.0, 30.0]])
    points = back_project(uv_px, np.array([0.5, 0.9]), camera.T_world_camera, K)
    np.testing.assert_allclose(project(points, camera.T_world_camera, K)[0], uv_px, atol=1e-9)


def test_something_passes_before_the_camera_and_is_gone_again(simulation: Simulation):
    simulation.reset("sushi", "occlusion", 2)
    world = simulation.world
    occluder = world.model.body(OCCLUDER).id
    geom = world.model.body(OCCLUDER).geomadr[0]
    hidden = []
    while simulation.steps < 140:
        if simulation.steps % 4 == 0:  # a picture of who is where takes half a second
            hidden.append(float((simulation.renderer.segmentation() == geom).mean()))
        simulation.step(simulation.expert_command())
    assert occluder > 0
    assert hidden[0] == hidden[-1] == 0.0
    assert 0.2 < max(hidden) < 0.4  # 0.3 of the width at full view
    assert simulation.succeeded, "it touches nothing"


@pytest.mark.parametrize("seed", range(6))
def test_a_stalled_camera_repeats_its_image_or_gives_none(simulation: Simulation, seed):
    simulation.reset("sushi", "freeze", seed)
    stall = Stall.of(Disturbance.parse("freeze"), seed)
    lost, repeated, last = 0, 0, None
    while simulation.steps < 100:
        if simulation.image_lost:
            lost += 1
        else:
            image = simulation.rgb()
            repeated += last is not None and np.array_equal(image, last)
            last = image.copy()
        simulation.step(simulation.expert_command())
    assert (lost, repeated) == ((0, 10) if stall.repeats else (10, 0))  # 0.5 s at 20 Hz

"""Pictures, camera_info's numbers and the exact tracks agree, judged by MuJoCo's own rays and camera."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from atk_perception.robot_description import RobotDescription
from atk_sim import ground_truth
from atk_sim.camera import back_project, project
from atk_sim.graph import robot_file
from atk_sim.simulation import Simulation
from atk_sim.world import CAMERA, World

VISIBLE_GROUPS = np.array([1, 1, 1, 0, 0, 0], np.uint8)  # what MuJoCo draws by default


def mujoco_camera(world: World, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position (3,), axes (3, 3) right-up-back and matrix K of the compiled camera, without atk_sim.camera."""
    camera = world.data.camera(CAMERA)
    focal_px = height / 2 / np.tan(np.radians(world.model.camera(CAMERA).fovy[0]) / 2)
    K = np.array([[focal_px, 0, width / 2 - 0.5], [0, focal_px, height / 2 - 0.5], [0, 0, 1]])
    return np.array(camera.xpos), camera.xmat.reshape(3, 3), K


def ray_through(world: World, uv_px: np.ndarray, width: int, height: int) -> tuple[np.ndarray, int]:
    """World point (3,) and body that a ray through a pixel meets first; the body is -1 for nothing."""
    origin, axes, K = mujoco_camera(world, width, height)
    right, down = (uv_px - K[:2, 2]) / K[0, 0]
    direction = axes @ np.array([right, -down, -1.0])
    geom = np.array([-1], np.int32)
    way = mujoco.mj_ray(world.model, world.data, origin, direction, VISIBLE_GROUPS, True, -1, geom)
    return origin + way * direction, int(world.model.geom_bodyid[geom[0]]) if geom[0] >= 0 else -1


def pixel_of(world: World, point_m: np.ndarray, width: int, height: int) -> np.ndarray:
    """(2,) pixel of a world point through MuJoCo's camera."""
    origin, axes, K = mujoco_camera(world, width, height)
    x, y, z = axes.T @ (point_m - origin)
    return np.array([K[0, 0] * x / -z + K[0, 2], K[1, 1] * -y / -z + K[1, 2]])


@pytest.mark.parametrize("seed", [0, 7])
def test_known_point_lands_on_its_rendered_pixel(simulation: Simulation, seed):
    """A small ball is drawn alone into the real renderer; its centroid must be where K and T_world_camera say."""
    simulation.reset("sushi", "RP", seed)
    world, camera = simulation.world, simulation.robot.camera
    placement = world.task.camera
    points_m = np.array([[0.50, -0.10, 0.02], [0.42, 0.20, 0.05], [0.60, 0.05, 0.0], [0.45, -0.15, 0.10]])
    expected_px, _ = project(
        points_m, placement.T_world_camera, placement.intrinsics(camera.width, camera.height)
    )
    with mujoco.Renderer(world.model, camera.height, camera.width) as renderer:
        for point_m, uv_px in zip(points_m, expected_px, strict=True):
            renderer.update_scene(world.data, CAMERA)
            renderer.scene.ngeom = 1
            mujoco.mjv_initGeom(
                renderer.scene.geoms[0],
                mujoco.mjtGeom.mjGEOM_SPHERE,
                np.full(3, 0.006),
                point_m,
                np.eye(3).ravel(),
                np.array([1, 1, 1, 1], np.float32),
            )
            renderer.scene.geoms[0].emission = 1.0
            row, column = np.nonzero(renderer.render().max(axis=2) > 40)
            assert len(row) > 20
            np.testing.assert_allclose([column.mean(), row.mean()], uv_px, atol=0.5)


def test_depth_and_segmentation_agree_with_rays(simulation: Simulation):
    simulation.reset("sushi", "RO", 3)
    world, (height, width) = simulation.world, simulation.depth().shape
    depth_m, geoms = simulation.depth(), simulation.renderer.segmentation()
    rng = np.random.default_rng(0)
    uv_px = np.column_stack([rng.integers(5, width - 5, 150), rng.integers(5, height - 5, 150)])
    placement = world.task.camera
    seen_m = back_project(
        uv_px.astype(float),
        depth_m[uv_px[:, 1], uv_px[:, 0]].astype(float),
        placement.T_world_camera,
        placement.intrinsics(width, height),
    )
    agree = 0
    for uv, point_m in zip(uv_px, seen_m, strict=True):
        hit_m, body = ray_through(world, uv.astype(float), width, height)
        same_body = body == world.model.geom_bodyid[geoms[uv[1], uv[0]]]
        agree += bool(same_body and np.linalg.norm(hit_m - point_m) < 0.002)
    assert agree >= 0.97 * len(uv_px), f"{agree} of {len(uv_px)}; a few pixels lie on edges"


def test_exact_tracks_are_exact_on_the_moving_piece_and_the_arm(simulation: Simulation):
    """Reference points are found by rays, moved by MuJoCo's bodies, seen by MuJoCo's camera: no code in common."""
    simulation.reset("sushi", "RP", 6)
    world = simulation.world
    for _ in range(22):  # until the hand is in the picture
        simulation.step(simulation.expert_command())
    geoms = simulation.renderer.segmentation()
    height, width = geoms.shape
    owner = np.where(geoms >= 0, world.model.geom_bodyid[geoms], -1)
    rng = np.random.default_rng(1)
    chosen = []
    for name in ("piece", "plate", "panda_hand", "tuna"):
        row, column = np.nonzero(owner == world.model.body(name).id)
        assert len(row) > 50, f"{name} is not in the picture"
        pick = rng.choice(len(row), 30, replace=False)
        chosen.append(np.column_stack([column[pick], row[pick]]))
    uv_px = np.concatenate(chosen).astype(float)
    points = ground_truth.attach(world, simulation.renderer, uv_px)
    by_ray = [ray_through(world, uv, width, height) for uv in uv_px]
    same = np.array([body == point for (_, body), point in zip(by_ray, points.body_ids, strict=True)])
    assert same.mean() > 0.95
    local_m = np.array(
        [world.data.xmat[body].reshape(3, 3).T @ (hit_m - world.data.xpos[body]) for hit_m, body in by_ray]
    )
    error_px, visible_agree, moved_px = [], [], 0.0
    while not simulation.done:
        simulation.step(simulation.expert_command())
        if simulation.steps % 8:
            continue
        located_px, visible = ground_truth.locate(world, simulation.renderer, points)
        for k in np.flatnonzero(same):
            body = by_ray[k][1]
            point_m = world.data.xpos[body] + world.data.xmat[body].reshape(3, 3) @ local_m[k]
            truth_px = pixel_of(world, point_m, width, height)
            error_px.append(np.linalg.norm(located_px[k] - truth_px))
            moved_px = max(moved_px, float(np.linalg.norm(truth_px - uv_px[k])))
            if (truth_px > 1).all() and (truth_px < (width - 2, height - 2)).all():
                hit_m, _ = ray_through(world, truth_px, width, height)
                free = np.linalg.norm(hit_m - world.data.cam_xpos[0]) > (
                    np.linalg.norm(point_m - world.data.cam_xpos[0]) - 0.004
                )
                visible_agree.append(free == visible[k])
    assert simulation.succeeded
    assert moved_px > 100, "nothing moved: the check is worth nothing"
    assert np.percentile(error_px, 99) < 0.5, np.percentile(error_px, [50, 90, 99, 100])
    assert np.mean(visible_agree) > 0.95


def test_occluded_and_outside_points_are_said_to_be_invisible(simulation: Simulation):
    simulation.reset("sushi", "RP", 6)
    world = simulation.world
    geoms = simulation.renderer.segmentation()
    owner = np.where(geoms >= 0, world.model.geom_bodyid[geoms], -1)
    row, column = np.nonzero(owner == world.model.body("piece").id)
    points = ground_truth.attach(world, simulation.renderer, np.column_stack([column, row]).astype(float))
    _, visible = ground_truth.locate(world, simulation.renderer, points)
    assert visible.mean() > 0.99
    least = 1.0
    while not simulation.done:
        simulation.step(simulation.expert_command())
        if simulation.steps % 4 == 0:
            least = min(least, float(ground_truth.locate(world, simulation.renderer, points)[1].mean()))
    assert least < 0.6, "fingers and hand cover part of the piece while it is carried"


def test_points_that_cannot_be_attached_are_refused_with_the_reason(simulation: Simulation):
    simulation.reset("sushi", "RP", 0)
    with pytest.raises(ValueError, match="640x480"):
        ground_truth.attach(simulation.world, simulation.renderer, np.array([[640.0, 10.0]]))


def test_robot_hides_neither_piece_nor_plate_at_the_start(simulation: Simulation):
    for seed in range(3):
        simulation.reset("sushi", "RP", seed)
        world = simulation.world
        geoms = simulation.renderer.segmentation()
        names = {world.model.body(int(world.model.geom_bodyid[g])).name for g in np.unique(geoms[geoms >= 0])}
        assert {"piece", "plate"} <= names
        for name in ("piece", "plate"):
            centre_m = world.data.body(name).xpos + np.array([0, 0, 0.01])
            uv_px = pixel_of(world, centre_m, geoms.shape[1], geoms.shape[0])
            assert (uv_px > 20).all()
            _, body = ray_through(world, uv_px, geoms.shape[1], geoms.shape[0])
            assert world.model.body(body).name == name


def test_further_cameras_stand_at_the_sides_and_see_what_the_first_one_looks_at():
    robot = RobotDescription.load(robot_file("sim_panda_two_cameras"))
    simulation = Simulation(robot)
    try:
        simulation.reset("sushi", "RP", 3)
        world = simulation.world
        front, left = world.placements
        assert left.target_m == front.target_m
        assert left.position_m[1] - left.target_m[1] > 0.3, "the robot's left is +y"
        assert left.position_m[2] == pytest.approx(front.position_m[2])
        size = (robot.camera.width, robot.camera.height)
        for placement, renderer in zip(world.placements, simulation.renderers, strict=True):
            shown = world.model.geom_bodyid[renderer.segmentation()]
            for name in ("piece", "plate"):
                body = next(i for i in range(world.model.nbody) if world.model.body(i).name == name)
                where = world.data.xpos[body][None] + [0.0, 0.0, 0.005]
                (uv_px,), _ = project(where, placement.T_world_camera, placement.intrinsics(*size))
                column, row = np.rint(uv_px).astype(int)
                assert shown[row, column] == body, (name, uv_px)
        first, second = (renderer.rgb() for renderer in simulation.renderers)
        assert np.abs(first.astype(int) - second).mean() > 5
    finally:
        simulation.close()

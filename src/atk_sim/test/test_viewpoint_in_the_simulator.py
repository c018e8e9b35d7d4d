"""A camera that was moved: what depth and a known plane make of exact points, and that the simulator says where it stands."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from test_sim_robot_node import simulator, until

from atk_perception.rigid_transforms import pose_of_message
from atk_perception.viewpoint import reproject
from atk_sim.camera import project
from atk_sim.disturbances import Disturbance, moved_camera
from atk_sim.ground_truth import attach, locate, world_positions
from atk_sim.simulation import Simulation
from atk_sim.tasks import make_task

pytestmark = pytest.mark.system

LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
# On the piece and on the plate of the first image of seed 0.
BODIES = ("piece", "plate")


def points_on(simulation: Simulation) -> np.ndarray:
    """(N, 2) pixels on the task's objects, away from their rims."""
    world = simulation.world
    geoms = simulation.renderer.segmentation()
    bodies = np.where(geoms >= 0, world.model.geom_bodyid[geoms], -1)
    found = []
    for name in BODIES:
        rows, columns = np.nonzero(bodies == world.model.body(name).id)
        inside = [
            (u, v)
            for u, v in zip(columns, rows, strict=True)
            if (bodies[v - 5 : v + 6, u - 5 : u + 6] == bodies[v, u]).all()
        ]
        found += inside[:: max(1, len(inside) // 6)]
    return np.array(found, np.float64)


@pytest.mark.parametrize("lift_m", [0.0, 0.12])
def test_depth_is_right_for_what_is_lifted_and_the_plane_for_what_lies(robot, lift_m):
    simulation = Simulation(robot)
    camera = robot.camera
    try:
        simulation.reset("sushi", "camera:1", 2003)
        live = simulation.world.camera.calibration(camera.width, camera.height).camera
        training = make_task("sushi").camera.calibration(camera.width, camera.height).camera
        points = attach(simulation.world, simulation.renderer, points_on(simulation))
        if lift_m:
            world = simulation.world
            joint = world.model.body("piece").jntadr[0]
            world.data.qpos[world.model.jnt_qposadr[joint] + 2] += lift_m
            mujoco.mj_forward(world.model, world.data)
        uv_px, visible = locate(simulation.world, simulation.renderer, points)
        assert visible.sum() >= 8
        depth_m = simulation.depth()
    finally:
        simulation.close()
    by_depth = reproject(uv_px, live, training, depth_m)
    by_plane = reproject(uv_px, live, training, robot.work_plane.plane)
    assert by_depth.known[visible].all()
    truth = training.project(live.lift(uv_px, exact_z(simulation, points, live)))
    off_px = {
        name: np.linalg.norm(seen.uv_px - truth, axis=1)[visible]
        for name, seen in (("depth", by_depth), ("plane", by_plane))
    }
    # Points are at subpixels, depth at pixels; a steep rim makes some of it.
    assert np.median(off_px["depth"]) < 0.3
    assert off_px["depth"].max() < 2.0
    if lift_m:
        assert off_px["plane"].max() > 8.0
    else:
        assert off_px["plane"].max() < 5.0
    uncorrected = np.linalg.norm(uv_px - truth, axis=1)[visible]
    assert np.median(uncorrected) > 15.0


def exact_z(simulation: Simulation, points, live) -> np.ndarray:
    """(N,) depth of attached points in the live camera."""
    return (world_positions(simulation.world, points) - live.T_base_camera[:3, 3]) @ live.T_base_camera[:3, 2]


def test_a_calibration_is_the_camera_that_renders(robot):
    placement = moved_camera(make_task("sushi").camera, Disturbance("camera"), 3)
    camera = placement.calibration(640, 480).camera
    points = np.array([[0.5, 0.0, 0.0], [0.45, 0.1, 0.1]])
    expected, _ = project(points, placement.T_world_camera, placement.intrinsics(640, 480))
    np.testing.assert_allclose(camera.project(points), expected, atol=1e-6)


def test_every_episode_says_where_its_camera_stands(graph, robot):
    with simulator(graph, robot) as listener:
        heard: list[PoseStamped] = []
        listener.node.create_subscription(PoseStamped, robot.camera.pose_topic, heard.append, LATCHED)
        for disturbance in ("RP", "camera:1"):
            heard.clear()
            assert listener.reset(task="sushi", disturbance=disturbance, seed=5, driver="topics").success
            placement = moved_camera(make_task("sushi").camera, Disturbance.parse(disturbance), 5)
            until(
                lambda placement=placement: (
                    bool(heard)
                    and np.allclose(pose_of_message(heard[-1].pose), placement.T_world_camera, atol=1e-9)
                )
            )
            assert heard[-1].header.frame_id == "world"

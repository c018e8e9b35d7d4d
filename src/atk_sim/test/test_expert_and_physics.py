"""Success is decided by physics: the expert earns it, an idle robot does not."""

from __future__ import annotations

import numpy as np
import pytest

from atk_perception.robot_description import RobotDescription
from atk_sim.simulation import EXPERT_SHARE_OF_LIMITS, Simulation


def run_expert(robot: RobotDescription, seed: int, servo_noise: float = 0.0) -> tuple[Simulation, np.ndarray]:
    """The finished simulation and its commands (T, J + 1)."""
    simulation = Simulation(robot, servo_noise, render=False)
    simulation.reset("sushi", "RP", seed)
    commands = []
    while not simulation.done:
        commands.append(simulation.expert_command())
        simulation.step(commands[-1])
    return simulation, np.array(commands)


@pytest.mark.parametrize("servo_noise", [0.0, 1.0])
def test_expert_succeeds_undisturbed_and_when_pushed_at_the_servos(robot, servo_noise):
    for seed in range(1000, 1006):
        simulation, _ = run_expert(robot, seed, servo_noise)
        assert simulation.succeeded, f"seed {seed}"


def test_expert_needs_a_few_seconds_and_grasps_and_lets_go(robot):
    simulation, commands = run_expert(robot, 1)
    assert 2.5 < simulation.steps / robot.camera.rate_hz < 7.0
    opening_m = commands[:, -1]
    assert opening_m.min() < 0.03
    assert opening_m[-1] > 0.06


def test_expert_commands_stay_within_the_robots_position_limits(robot):
    _, commands = run_expert(robot, 2, servo_noise=1.0)
    assert (commands >= robot.action_min - 1e-9).all()
    assert (commands <= robot.action_max + 1e-9).all()


def test_expert_commands_use_at_most_their_share_of_velocity_and_acceleration(robot):
    velocity_max = EXPERT_SHARE_OF_LIMITS * np.array(robot.joints.velocity_max_rad_s)
    acceleration_max = EXPERT_SHARE_OF_LIMITS * np.array(robot.joints.acceleration_max_rad_s2)
    for seed in (2, 3):
        _, commands = run_expert(robot, seed, servo_noise=1.0)
        velocity_rad_s = np.diff(commands[:, :-1], axis=0) * robot.control_rate_hz
        assert (np.abs(velocity_rad_s) <= velocity_max + 1e-6).all()
        acceleration_rad_s2 = np.diff(velocity_rad_s, axis=0) * robot.control_rate_hz
        assert (np.abs(acceleration_rad_s2) <= acceleration_max + 1e-6).all()


def test_arm_comes_to_rest_within_its_joint_ranges_whatever_is_commanded(robot):
    simulation = Simulation(robot, render=False)
    simulation.reset("sushi", "RP", 0)
    highest_rad, lowest_rad = np.array(robot.joints.position_max_rad), np.array(robot.joints.position_min_rad)
    for beyond_rad in (highest_rad + 1.0, lowest_rad - 1.0):
        for _ in range(60):
            simulation.step(np.append(beyond_rad, 0.5))
        arm_rad, opening_m = simulation.measured()[:-1], simulation.measured()[-1]
        assert (arm_rad <= highest_rad + 0.005).all()
        assert (arm_rad >= lowest_rad - 0.005).all()
        assert opening_m <= robot.gripper.max_m + 0.002


def test_idle_robot_fails_when_the_time_is_over(robot):
    simulation = Simulation(robot, render=False)
    simulation.reset("sushi", "RP", 0)
    hold = simulation.measured()
    while not simulation.done:
        simulation.step(hold)
    assert simulation.steps == simulation.max_steps
    assert not simulation.succeeded
    # Gravity is compensated: holding means holding.
    np.testing.assert_allclose(simulation.measured()[:-1], hold[:-1], atol=2e-3)


def test_piece_on_the_plate_but_still_in_the_hand_is_no_success(robot):
    simulation = Simulation(robot, render=False)
    simulation.reset("sushi", "RP", 4)
    world, shut_m = simulation.world, 0.0
    # The expert's way until the piece is over the plate's floor, then the hand never opens.
    while not simulation.done:
        command = simulation.expert_command()
        piece, plate = (np.array(world.data.body(name).xpos) for name in ("piece", "plate"))
        if np.hypot(*(piece - plate)[:2]) < 0.05 and piece[2] < 0.04:
            break
        simulation.step(command)
    assert not simulation.done, "the piece never came to the plate"
    held = simulation.expert_command()
    held[-1] = shut_m
    for _ in range(30):
        simulation.step(held)
    assert np.hypot(*(world.data.body("piece").xpos - world.data.body("plate").xpos)[:2]) < 0.055
    assert not simulation.succeeded


def test_servo_noise_moves_the_arm_but_not_the_recorded_command(robot):
    quiet, loud = Simulation(robot, render=False), Simulation(robot, 1.0, render=False)
    hold = None
    for simulation in (quiet, loud):
        simulation.reset("sushi", "RP", 5)
        hold = simulation.measured() if hold is None else hold
        np.testing.assert_array_equal(simulation.measured(), hold)
        for _ in range(20):
            simulation.step(hold)
    apart_rad = np.abs(quiet.measured()[:-1] - loud.measured()[:-1])
    assert 5e-4 < apart_rad.max() < 0.05


def test_asking_before_the_first_reset_says_what_to_do(robot):
    with pytest.raises(RuntimeError, match="reset"):
        Simulation(robot, render=False).measured()
    simulation = Simulation(robot, render=False)
    simulation.reset("sushi", "RP", 0)
    with pytest.raises(RuntimeError, match="render=False"):
        simulation.rgb()

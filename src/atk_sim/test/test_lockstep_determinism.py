"""Time passes only in `step`: the same commands give the same pictures, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from atk_sim.simulation import Simulation


def film(robot, seed: int, commands: np.ndarray, servo_noise: float) -> list[bytes]:
    simulation = Simulation(robot, servo_noise)
    try:
        simulation.reset("sushi", "Light", seed)
        pictures = [simulation.rgb().tobytes()]
        for command in commands:
            simulation.step(command)
            pictures.append(simulation.rgb().tobytes() + simulation.measured().tobytes())
        return pictures
    finally:
        simulation.close()


@pytest.mark.parametrize("servo_noise", [0.0, 1.0])
def test_same_seed_and_commands_give_bit_identical_pictures(robot, servo_noise):
    home = np.append(robot.home_rad, 0.08)
    way = np.array([0.2, 0.5, 0.0, 0.1, 0.0, 0.1, 0.0, -0.05])
    commands = home + np.linspace(0, 1, 12)[:, None] * way
    assert film(robot, 3, commands, servo_noise) == film(robot, 3, commands, servo_noise)
    assert film(robot, 3, commands, servo_noise)[0] != film(robot, 4, commands, servo_noise)[0]


def test_an_episode_leaves_nothing_behind_for_the_next(simulation: Simulation):
    simulation.reset("sushi", "RO", 8)
    first, start = simulation.rgb(), simulation.measured()
    for _ in range(15):
        simulation.step(simulation.expert_command())
    simulation.reset("sushi", "RP", 9)
    simulation.reset("sushi", "RO", 8)
    np.testing.assert_array_equal(simulation.rgb(), first)
    np.testing.assert_array_equal(simulation.measured(), start)
    assert simulation.steps == 0
    assert not simulation.succeeded

"""One picture of every task, for the documentation: at reset, and half-way through what the expert does."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from atk_perception.image_codec import RgbImage
from atk_perception.robot_description import RobotDescription
from atk_sim.graph import robot_file
from atk_sim.simulation import Simulation
from atk_sim.tasks import TASKS

TILE_PX = (320, 240)
TASKS_PER_ROW = 3
JPEG_QUALITY = 82


def tile(simulation: Simulation, task: str, disturbance: str, seed: int) -> RgbImage:
    """(240, 640, 3) the reset beside the moment at two thirds of the expert's way."""
    simulation.reset(task, disturbance, seed)
    while not simulation.done:
        simulation.step(simulation.expert_command())
    moment = 2 * simulation.steps // 3
    simulation.reset(task, disturbance, seed)
    pictures = [simulation.rgb()]
    for _ in range(moment):
        simulation.step(simulation.expert_command())
    pictures.append(simulation.rgb())
    shown = np.hstack([cv2.resize(picture, TILE_PX, interpolation=cv2.INTER_AREA) for picture in pictures])
    label = task if disturbance == "RP" else f"{task}, {disturbance}"
    for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(shown, label, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, thickness, cv2.LINE_AA)
    return np.asarray(shown, np.uint8)


def main() -> None:
    """Console entry."""
    parser = argparse.ArgumentParser(prog="task_pictures", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("docs/images/tasks.jpg"), help="default: %(default)s"
    )
    parser.add_argument("--disturbance", default="RP", help="NAME[:SEVERITY] (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=3, help="default: %(default)s")
    args = parser.parse_args()
    simulation = Simulation(RobotDescription.load(robot_file("sim_panda")))
    try:
        tiles = [tile(simulation, task, args.disturbance, args.seed) for task in TASKS]
    finally:
        simulation.close()
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % TASKS_PER_ROW)
    rows = [np.hstack(tiles[k : k + TASKS_PER_ROW]) for k in range(0, len(tiles), TASKS_PER_ROW)]
    sheet = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(args.output), sheet, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    print(args.output)


if __name__ == "__main__":
    main()

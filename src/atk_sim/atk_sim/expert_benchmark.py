"""How often the scripted expert succeeds, by physics, over many seeds. No rendering, no ROS."""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tqdm import tqdm

from atk_perception.robot_description import RobotDescription
from atk_sim.disturbances import DISTURBANCES
from atk_sim.graph import robot_file
from atk_sim.simulation import Simulation
from atk_sim.tasks import TASKS


def run_expert(seed: int, task: str, disturbance: str, servo_noise: float) -> tuple[bool, int]:
    """One episode; returns success and steps."""
    simulation = Simulation(RobotDescription.load(robot_file("sim_panda")), servo_noise, render=False)
    simulation.reset(task, disturbance, seed)
    while not simulation.done:
        simulation.step(simulation.expert_command())
    return simulation.succeeded, simulation.steps


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="expert",
        description=__doc__,
        epilog="example: expert --task sushi --episodes 200 --servo-noise 1",
    )
    parser.add_argument(
        "--task", choices=sorted(TASKS), action="append", help="task (default: all; may be repeated)"
    )
    parser.add_argument("--episodes", type=int, default=200, help="seeds 0 to N-1 (default: %(default)s)")
    parser.add_argument("--disturbance", choices=DISTURBANCES, default="RP", help="default: %(default)s")
    parser.add_argument(
        "--servo-noise", type=float, default=0.0, help="as while recording demonstrations (default: none)"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)"
    )
    args = parser.parse_args()
    result = {}
    with ProcessPoolExecutor(args.workers) as pool:
        for task in args.task or sorted(TASKS):
            work = partial(run_expert, task=task, disturbance=args.disturbance, servo_noise=args.servo_noise)
            runs = pool.map(work, range(args.episodes), chunksize=4)
            outcomes = list(tqdm(runs, total=args.episodes, desc=task, unit="episode", file=sys.stderr))
            failed = [seed for seed, (success, _) in enumerate(outcomes) if not success]
            steps = sorted(count for success, count in outcomes if success)
            print(
                f"{task}: {len(steps)} of {args.episodes}, median {steps[len(steps) // 2] if steps else 0} steps, failed seeds {failed}"
            )
            result[task] = {"successes": len(steps), "episodes": args.episodes}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

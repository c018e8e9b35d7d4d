"""How often the scripted expert succeeds, by physics, over many seeds; and how fast episodes are simulated. No ROS.

The second figure is a real-time factor: simulated seconds per second of one core, for everything that simulating takes, which is
the reset, physics and an image every camera period, and not who drives. It is counted in CPU time, so that other work beside it
does not change it much; above 1 an episode is no slower than real time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tqdm import tqdm

from atk_perception.robot_description import RobotDescription
from atk_sim.disturbances import DISTURBANCES
from atk_sim.graph import robot_file
from atk_sim.simulation import Simulation
from atk_sim.tasks import TASKS

TIMED_COLUMNS = ("RP", "Light")  # the lightest and the heaviest scene
TIMED_SEED = 0


def run_expert(seed: int, task: str, disturbance: str, servo_noise: float) -> tuple[bool, int]:
    """One episode; returns success and steps."""
    simulation = Simulation(RobotDescription.load(robot_file("sim_panda")), servo_noise, render=False)
    simulation.reset(task, disturbance, seed)
    while not simulation.done:
        simulation.step(simulation.expert_command())
    return simulation.succeeded, simulation.steps


def real_time_factor(task: str, disturbance: str, seed: int = TIMED_SEED) -> float:
    """Simulated seconds per CPU second of reset, physics and rendering, over an episode that the expert drives."""
    simulation = Simulation(RobotDescription.load(robot_file("sim_panda")))
    spent_s = 0.0

    def timed(work: Callable[[], object]) -> None:
        nonlocal spent_s
        started = time.process_time()
        work()
        spent_s += time.process_time() - started

    try:
        timed(lambda: simulation.reset(task, disturbance, seed))
        while not simulation.done:
            timed(simulation.rgb)
            command = simulation.expert_command()
            timed(partial(simulation.step, command))
        return simulation.steps / simulation.robot.camera.rate_hz / spent_s
    finally:
        simulation.close()


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="expert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
            factors = {column: pool.submit(real_time_factor, task, column) for column in TIMED_COLUMNS}
            rounded = {column: round(factor.result(), 2) for column, factor in factors.items()}
            print(
                f"{task}: {len(steps)} of {args.episodes}, median {steps[len(steps) // 2] if steps else 0} steps, "
                f"failed seeds {failed}; simulated "
                + ", ".join(f"{factor:.1f} ({column})" for column, factor in rounded.items())
                + " times as fast as real time on one core"
            )
            result[task] = {
                "successes": len(steps),
                "episodes": args.episodes,
                "real_time_factor": rounded,
            }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

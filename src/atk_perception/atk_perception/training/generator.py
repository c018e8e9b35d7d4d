"""Write training clips to disk, several processes at a time; clips that are already there are kept.

nice -n 19 python -m atk_perception.training.generator FOLDER --planar 1600 --robot 1600 --workers 2
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from atk_perception.training.clip import Clip, save_clip
from atk_perception.training.planar import PlanarClass, planar_clip
from atk_perception.training.robot_scenes import RobotClass, robot_clip

# The network's input size: clips are rendered at it, so that training reads and computes nothing it does not need.
WIDTH, HEIGHT = 320, 240
# Between template and scene objects turn by no more than this: the template is described at eight rolls and three scales (see
# learned/template_bank.py), and the network need not see through what that takes off.
TRAINING_ROLL_RAD = 0.7
PLANAR = PlanarClass(
    object_px=(14.0, 110.0),
    new_scene_roll_rad=TRAINING_ROLL_RAD,
    new_scene_scale_log=0.3,
    twin_fraction=0.15,
    bent_fraction=0.15,
)
ROBOT = RobotClass(
    object_m=(0.012, 0.07), new_scene_yaw_rad=TRAINING_ROLL_RAD, twin_fraction=0.15, transparent_fraction=0.1
)
# Training draws seeds below this one, `held_out.py` at and above it.
FIRST_HELD_OUT_SEED = 1_000_000


def training_clip(kind: str, seed: int, length: int) -> Clip:
    """The training clip of that kind ("planar" or "robot") and seed.

    Raises:
        ValueError: another kind, or a seed that is kept for measuring.
    """
    if seed >= FIRST_HELD_OUT_SEED:
        raise ValueError(f"seed {seed} is held out; train with seeds below {FIRST_HELD_OUT_SEED}")
    if kind == "planar":
        return planar_clip(seed, length, HEIGHT, WIDTH, PLANAR)
    if kind == "robot":
        return robot_clip(seed, length, HEIGHT, WIDTH, ROBOT)
    raise ValueError(f"unknown kind of clip '{kind}'; known: planar, robot")


def write_clip(folder: Path, length: int, job: tuple[str, int]) -> None:
    """Make and save one clip."""
    kind, seed = job
    save_clip(folder / f"{kind}_{seed:06d}.npz", training_clip(kind, seed, length))


def generate(folder: Path, planar: int, robot: int, length: int, workers: int) -> int:
    """Fill `folder` with clips of seeds 0, 1, ...; returns how many were made now."""
    folder.mkdir(parents=True, exist_ok=True)
    # In turns, so that a folder that is still being filled is already a mixture.
    both = min(planar, robot)
    jobs = [(kind, seed) for seed in range(both) for kind in ("planar", "robot")]
    jobs += [("planar", seed) for seed in range(both, planar)] + [
        ("robot", seed) for seed in range(both, robot)
    ]
    jobs = [(kind, seed) for kind, seed in jobs if not (folder / f"{kind}_{seed:06d}.npz").exists()]
    with ProcessPoolExecutor(workers) as pool:
        made = pool.map(partial(write_clip, folder, length), jobs, chunksize=4)
        for _ in tqdm(made, total=len(jobs), desc="clips", unit="clip", dynamic_ncols=True):
            pass
    return len(jobs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, help="where clips go; about 4 MB each, outside of the repository"
    )
    parser.add_argument("--planar", type=int, default=1600, help="clips of flat objects")
    parser.add_argument("--robot", type=int, default=1600, help="clips of MuJoCo scenes")
    parser.add_argument("--length", type=int, default=16, help="frames per clip")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args(arguments)
    made = generate(options.folder, options.planar, options.robot, options.length, options.workers)
    print(f"{made} clips written to {options.folder}")


if __name__ == "__main__":
    main()

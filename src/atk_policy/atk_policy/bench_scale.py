"""How much memory and time does a selection over very many demonstrations take?

    python -m atk_policy.bench_scale --output runs/bench_scale
    python -m atk_policy.bench_scale --output runs/bench_scale --demonstrations 50 --candidates 256

Writes track caches of made-up demonstrations (a hand carries an object to a target; most candidates lie on a table) as tracking
bags would leave them, and chooses from them as `select` does, with few steps of training: memory does not depend on their
number. The seconds per step are those of the gates' training alone. The last line of standard output is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atk_perception.keypoint_set import KeypointSet
from atk_policy.demonstrations import Demonstration, TrackedDemonstrations, trackability
from atk_policy.distillation import StageConfig, TrainingData, distill
from atk_policy.keypoint_choice import ChoiceConfig
from atk_policy.memory_meter import MemoryMeter
from atk_policy.selection import (
    SelectionConfig,
    SelectionError,
    Stopwatch,
    choose,
    trackable_candidates,
)

WIDTH, HEIGHT = 640, 480
JOINTS = 7


def template(candidates: int) -> np.ndarray:
    """(C, 2): every eighth candidate on the object, every eighth on the target, the others on the table."""
    rng = np.random.default_rng(0)
    uv_px = rng.uniform([20, 20], [WIDTH - 20, HEIGHT - 20], (candidates, 2))
    uv_px[0::8] = [200, 250] + rng.uniform(-25, 25, (len(uv_px[0::8]), 2))
    uv_px[1::8] = [420, 300] + rng.uniform(-25, 25, (len(uv_px[1::8]), 2))
    return uv_px.astype(np.float32)


def made_up(number: int, frames: int, template_uv_px: np.ndarray) -> Demonstration:
    """The demonstration `number`: the object is reached and carried to the target, both elsewhere in each."""
    rng = np.random.default_rng((1, number))
    moved, target = rng.uniform(-60, 60, 2), rng.uniform(-40, 40, 2)
    way = np.linspace(0.0, 2.0, frames + 1)[:, None]
    reach, carry = way.clip(0.0, 1.0), (way - 1.0).clip(0.0, 1.0)
    at_object, at_target = np.array([200, 250]) + moved, np.array([420, 300]) + target
    hand_px = (1 - reach) * [320, 100] + reach * ((1 - carry) * at_object + carry * at_target)
    to_joints = np.random.default_rng(2).normal(0.0, 0.5, (2, JOINTS))
    robot = np.column_stack([(hand_px - [320, 240]) / 160 @ to_joints, 0.08 * (way < 1.0)])
    uv_px = np.repeat(template_uv_px[None], frames, axis=0)
    uv_px[:, 0::8] += (moved + carry[:-1] * (at_target - at_object))[:, None].astype(np.float32)
    uv_px[:, 1::8] += target.astype(np.float32)
    uv_px += rng.normal(0.0, 0.5, uv_px.shape).astype(np.float32)
    visible = rng.random(uv_px.shape[:2]) < 0.95
    return Demonstration(
        f"made_up_{number:04d}",
        np.arange(frames, dtype=np.int64) * 50_000_000,
        uv_px,
        visible,
        np.where(visible, np.float32(0.9), np.float32(0.1)),
        robot[:-1] + rng.normal(0.0, 0.001, (frames, JOINTS + 1)),
        robot[1:],
    )


def tracked(folder: Path, count: int, frames: int, candidates: int) -> TrackedDemonstrations:
    """Made-up demonstrations as a track cache; those that are there are kept."""
    uv_px = template(candidates)
    files = [folder / f"{frames}_{candidates}_{number:05d}.npz" for number in range(count)]
    for number, file in enumerate(files):
        if not file.is_file():
            made_up(number, frames, uv_px).save(file)
    return TrackedDemonstrations(files, [file.stem for file in files])


def few_steps(steps: int) -> SelectionConfig:
    """The defaults with so many steps in every stage."""
    config = SelectionConfig()

    def short(stage: StageConfig) -> StageConfig:
        return stage.model_copy(update={"steps": steps})

    choice: ChoiceConfig = config.choice.model_copy(update={"measure": short(config.choice.measure)})
    changes = {"select": short(config.select), "refit": short(config.refit), "choice": choice}
    return config.model_copy(update=changes)


def benchmark(
    output: Path, count: int, frames: int, candidates: int, steps: int, workers: int
) -> dict[str, Any]:
    """The figures, as in the last line of output.

    Raises:
        SelectionError: no candidate is trackable.
    """
    demonstrations = tracked(output / "tracks", count, frames, candidates)
    config, uv_px = few_steps(steps), template(candidates)
    points = KeypointSet.create("made_up", uv_px, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    work = output / "work"
    shutil.rmtree(work, ignore_errors=True)
    clock = Stopwatch(lambda stage, fraction, detail: None)
    begin = time.monotonic()
    with MemoryMeter() as memory:
        before_mb = memory.peak_mb
        chosen = choose(demonstrations, points, config, work, workers=workers, clock=clock)
    seconds = time.monotonic() - begin

    able = trackable_candidates(trackability(demonstrations), config.candidates)
    data = TrainingData.of(demonstrations, able, work / "rows")
    begin = time.monotonic()
    distill(
        data,
        None,
        uv_px[able],
        config.selector,
        config.augmentation,
        config.select,
        masked=True,
        seed=0,
        records=1,
    )
    per_step = (time.monotonic() - begin) / steps
    shutil.rmtree(work, ignore_errors=True)
    return {
        "demonstrations": count,
        "frames": chosen.selection.trackability.frames,
        "candidates": candidates,
        "kept": int(chosen.selection.keep.sum()),
        "steps": steps,
        "seconds": round(seconds, 1),
        "seconds_by_stage": clock.seconds,
        "select_seconds_per_step": round(per_step, 3),
        "memory_before_mb": round(before_mb),
        "peak_memory_mb": round(memory.peak_mb),
    }


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="bench_scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the made-up tracks")
    for name, default, what in (
        ("demonstrations", 1000, "how many"),
        ("frames", 200, "of each"),
        ("candidates", 512, "keypoints to choose from"),
        ("steps", 40, "of training in every stage"),
        ("workers", 1, "processes that measure sets, where there are steps enough"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        figures = benchmark(
            args.output, args.demonstrations, args.frames, args.candidates, args.steps, args.workers
        )
    except SelectionError as error:
        raise SystemExit(f"bench_scale: {error}") from error
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""Every policy class with every encoder, side by side: what a decision costs, what training costs, and how good it gets.

    ros2 run atk_policy bench_policy --output runs/bench_policy [--demonstrations BAGS --run-folder RUN] [--steps 1500]

Inference is timed on one thread for 8 and 12 keypoints with 1 and 4 frames of history, in torch and, where it is installed, in
onnxruntime (the exported graph). Training is on demonstrations made up here (a smooth map from two moving objects to joints), or
on the bags of --demonstrations as the tracker sees them with the keypoints of --run-folder; a tenth of them is held out.
Writes table.md and metrics.json. The last line on standard output is JSON: {"inference_p95_ms": {CLASS: worst over encoders,
keypoints and history, in torch}, "onnxruntime_p95_ms": {...}, "joint_error_mrad": {CLASS: {ENCODER: held out}}, ...}.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from atk_perception.frames import BagError, JointStateError
from atk_perception.image_codec import ImageFormatError
from atk_perception.public_models import BackendError
from atk_perception.robot_description import RobotDescriptionError
from atk_policy.augmentation import AugmentationConfig
from atk_policy.demonstrations import (
    Demonstration,
    DemonstrationError,
    Tracking,
    find_bags,
    split,
    track_demonstrations,
)
from atk_policy.distillation import PolicyConfig, TrainingData, distill
from atk_policy.export_onnx import ExportError, export_policy
from atk_policy.inference import Inference, OnnxRuntimeError, onnx_session, torch_session
from atk_policy.policies import POLICIES, make_policy
from atk_policy.policies.encoders import ENCODERS
from atk_policy.run_folder import RunFolder, RunFolderError
from atk_policy.selection import SelectionConfig, joint_error_by_horizon

USER_ERRORS = (
    BackendError,
    BagError,
    DemonstrationError,
    ImageFormatError,
    JointStateError,
    RobotDescriptionError,
    RunFolderError,
)

JOINTS = 7
HORIZON = SelectionConfig().policy.horizon
KEYPOINTS = (8, 12)
HISTORIES = (1, 4)
EXPORTED = ((8, 1), (12, 4))  # what is exported and shown in the table: the smallest and the largest
# In rounds, of which the quietest counts: what else the machine does in between is not the policy's.
WARM_UP, CALLS, ROUNDS = 20, 200, 5


@dataclass(frozen=True)
class Timing:
    """One class and encoder on some input size [ms].

    Attributes:
        p50_ms, p95_ms: as a clock sees it, in the quietest round.
        processor_p50_ms, processor_p95_ms: time of the one core, over all rounds; what the clock sees where that core is free.
    """

    policy: str
    encoder: str
    backend: str
    keypoints: int
    history: int
    p50_ms: float
    p95_ms: float
    processor_p50_ms: float
    processor_p95_ms: float


@dataclass(frozen=True)
class Trained:
    """One class and encoder after a training on one thread.

    Attributes:
        joint_error_mrad: held out, mean over chunk and joints; first_mrad: of the chunk's first action.
    """

    policy: str
    encoder: str
    parameters: int
    seconds_per_1000_steps: float
    joint_error_mrad: float
    first_mrad: float


# ------------------------------------------------------------------------------------------- inference


def timed(infer: Inference, keypoints: int, history: int) -> tuple[float, float, float, float]:
    """The four figures of `Timing`."""
    rng = np.random.default_rng(0)
    arrays = (
        (rng.random((history, keypoints, 2)) * 400).astype(np.float32),
        np.ones((history, keypoints), np.float32),
        rng.random((history, JOINTS + 1)).astype(np.float32),
    )
    quietest = (np.inf, np.inf)
    processor: list[float] = []
    for _ in range(ROUNDS):
        milliseconds = []
        for _ in range(WARM_UP + CALLS):
            started, began = time.perf_counter(), time.thread_time()
            infer(*arrays)
            processor.append(1e3 * (time.thread_time() - began))
            milliseconds.append(1e3 * (time.perf_counter() - started))
        p50, p95 = np.percentile(milliseconds[WARM_UP:], [50, 95])
        quietest = min(quietest, (float(p95), float(p50)))
    busy = np.percentile(processor, [50, 95])
    p50, p95, busy_p50, busy_p95 = (round(float(x), 3) for x in (quietest[1], quietest[0], *busy))
    return p50, p95, busy_p50, busy_p95


def time_inference(name: str, encoder: str, *, onnx: bool) -> list[Timing]:
    """All input sizes and backends of one class and encoder; weights do not matter."""
    timings = []
    for keypoints, history in product(KEYPOINTS, HISTORIES):
        policy = make_policy(
            name, keypoints=keypoints, joints=JOINTS, horizon=HORIZON, history=history, encoder=encoder
        ).eval()
        sessions = {"torch": torch_session(policy)}
        if onnx and (keypoints, history) in EXPORTED:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "policy.onnx"
                export_policy(policy, path)
                sessions["onnxruntime"] = onnx_session(path)
        timings += [
            Timing(name, encoder, backend, keypoints, history, *timed(infer, keypoints, history))
            for backend, infer in sessions.items()
        ]
    return timings


# -------------------------------------------------------------------------------------------- training


def made_up_demonstrations(count: int, keypoints: int, *, frames: int = 80) -> list[Demonstration]:
    """Reach one object, carry it to another, as points on both of them and joints see it.

    The joints are a fixed smooth map of where the hand is; object and target lie elsewhere in each demonstration.
    """
    rng = np.random.default_rng(0)
    to_joints = rng.normal(size=(JOINTS, 3)) * [0.5, 0.5, 0.2]
    around = rng.uniform(-25, 25, (keypoints, 2))
    on_target = np.arange(keypoints) % 2 == 1
    demonstrations = []
    for number in range(count):
        start, end = rng.uniform([120, 150], [280, 350]), rng.uniform([360, 200], [480, 400])
        stops = np.array(
            [[320, 100, 1.0], [*start, 0.5], [*start, 0.0], [*start, 0.0], [*end, 0.5], [*end, 0.0]]
        )
        opening = np.array([0.08, 0.08, 0.08, 0.0, 0.0, 0.0])
        at = np.linspace(0, len(stops) - 1, frames + 1)
        hand = np.stack([np.interp(at, np.arange(len(stops)), column) for column in stops.T], axis=1)
        joints = ((hand - [320, 240, 0]) / [160, 160, 1]) @ to_joints.T
        robot = np.column_stack([joints, np.interp(at, np.arange(len(stops)), opening)])
        carried = np.clip((at[:-1] - 3.0) / 2.0, 0.0, 1.0)[:, None]
        centre = np.where(on_target[:, None], end, (start + carried * (end - start))[:, None, :])  # (T, N, 2)
        uv_px = centre + around + rng.normal(0, 0.5, (frames, keypoints, 2))
        visible = rng.random((frames, keypoints)) < 0.95
        demonstrations.append(
            Demonstration(
                f"made_up_{number:04d}",
                np.arange(frames, dtype=np.int64) * 50_000_000,
                uv_px.astype(np.float32),
                visible,
                visible.astype(np.float32),
                robot[:-1] + rng.normal(0, 0.001, (frames, JOINTS + 1)),
                robot[1:],
            )
        )
    return demonstrations


def train(
    name: str,
    encoder: str,
    demonstrations: Sequence[Demonstration],
    template_uv_px: npt.NDArray[np.float32],
    steps: int,
    seed: int,
) -> Trained:
    """The refit of a selection with this class and encoder, measured."""
    config = PolicyConfig(name=name, encoder=encoder, horizon=HORIZON)
    training, held_out = split(len(demonstrations), SelectionConfig().held_out, seed)
    data = TrainingData.of([demonstrations[k] for k in training])
    test = TrainingData.of([demonstrations[k] for k in held_out])
    stage = SelectionConfig().refit.model_copy(update={"steps": steps})
    started = time.process_time()  # of one thread: seconds of a core that nobody else uses
    outcome = distill(
        data, None, template_uv_px, config, AugmentationConfig(), stage, masked=False, seed=seed
    )
    seconds = time.process_time() - started
    error_mrad = 1e3 * joint_error_by_horizon(outcome, test, config)
    return Trained(
        name,
        encoder,
        sum(p.numel() for p in outcome.policies[0].parameters()),
        round(1000.0 * seconds / steps, 1),
        round(float(error_mrad.mean()), 2),
        round(float(error_mrad[0]), 2),
    )


# ---------------------------------------------------------------------------------------------- report


def table(timings: Sequence[Timing], trained: Sequence[Trained]) -> str:
    """Markdown: one row per class and encoder."""
    columns = [(b, *size) for b in dict.fromkeys(t.backend for t in timings) for size in EXPORTED]
    heads = [
        "policy",
        "encoder",
        "parameters",
        *(f"{backend}, {n} points, {k} frames: p50 / p95 [ms of a core]" for backend, n, k in columns),
        "training [s per 1000 steps]",
        "held-out joint error [mrad]",
        "of the next action [mrad]",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    times = {(t.policy, t.encoder, t.backend, t.keypoints, t.history): t for t in timings}
    for row in trained:
        found = [times[row.policy, row.encoder, *column] for column in columns]
        cells = [
            f"`{row.policy}`",
            f"`{row.encoder}`",
            f"{row.parameters:,}",
            *(f"{t.processor_p50_ms:.2f} / {t.processor_p95_ms:.2f}" for t in found),
            f"{row.seconds_per_1000_steps}",
            f"{row.joint_error_mrad}",
            f"{row.first_mrad}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def worst(timings: Sequence[Timing], backend: str, field: str) -> dict[str, float]:
    """Per class, over encoders and input sizes [ms]."""
    return {
        name: max(getattr(t, field) for t in timings if (t.policy, t.backend) == (name, backend))
        for name in dict.fromkeys(t.policy for t in timings if t.backend == backend)
    }


def by_class(trained: Sequence[Trained], field: str) -> dict[str, dict[str, Any]]:
    """{class: {encoder: value}}."""
    found: dict[str, dict[str, Any]] = {}
    for row in trained:
        found.setdefault(row.policy, {})[row.encoder] = getattr(row, field)
    return found


def can_export() -> bool:
    """Whether there is an onnxruntime to compare with; if not, why, on standard error."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "policy.onnx"
            export_policy(make_policy("mlp", keypoints=1, joints=1, horizon=2, history=1).eval(), path)
            onnx_session(path)
    except (ExportError, OnnxRuntimeError) as error:
        print(f"bench_policy: torch alone: {error}", file=sys.stderr)
        return False
    return True


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="bench_policy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/bench_policy"), help="(default: %(default)s)"
    )
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--encoders", nargs="+", choices=list(ENCODERS), default=list(ENCODERS))
    parser.add_argument("--steps", type=int, default=1500, help="of each training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--demonstrations", nargs="+", type=Path, help="bags to train on; needs --run-folder")
    parser.add_argument("--run-folder", type=Path, help="whose keypoints are tracked in the bags")
    args = parser.parse_args()
    if (args.demonstrations is None) != (args.run_folder is None):
        parser.error(
            "--demonstrations and --run-folder belong together: the keypoints are those of the run folder"
        )
    if args.steps < 1:
        parser.error(f"--steps is {args.steps}; at least 1")
    torch.set_num_threads(1)
    try:
        demonstrations, template = gathered(args)
    except USER_ERRORS as error:
        raise SystemExit(f"bench_policy: {error}") from error
    onnx = can_export()
    pairs = list(product(args.policies, args.encoders))
    timings: list[Timing] = []
    trained: list[Trained] = []
    for name, encoder in tqdm(pairs, unit="policy"):
        timings += time_inference(name, encoder, onnx=onnx)
        trained.append(train(name, encoder, demonstrations, template, args.steps, args.seed))
    args.output.mkdir(parents=True, exist_ok=True)
    text = table(timings, trained)
    (args.output / "table.md").write_text(text)
    figures = {
        "inference_p95_ms": worst(timings, "torch", "p95_ms"),
        "inference_processor_p95_ms": worst(timings, "torch", "processor_p95_ms"),
        "onnxruntime_p95_ms": worst(timings, "onnxruntime", "p95_ms"),
        "onnxruntime_processor_p95_ms": worst(timings, "onnxruntime", "processor_p95_ms"),
        "joint_error_mrad": by_class(trained, "joint_error_mrad"),
        "seconds_per_1000_steps": by_class(trained, "seconds_per_1000_steps"),
        "parameters": by_class(trained, "parameters"),
        "demonstrations": len(demonstrations),
        "keypoints": len(template),
        "steps": args.steps,
    }
    every = {"timings": [vars(t) for t in timings], "trained": [vars(t) for t in trained]}
    (args.output / "metrics.json").write_text(json.dumps({**figures, **every}, indent=2) + "\n")
    print(text)
    print(json.dumps(figures))


def gathered(args: argparse.Namespace) -> tuple[Sequence[Demonstration], npt.NDArray[np.float32]]:
    """The demonstrations to train on, and their keypoints on the template, (N, 2).

    Raises:
        DemonstrationError: fewer than 5, of which none could be held out; RunFolderError and those of `read_frames`.
    """
    if args.demonstrations is None:
        made = made_up_demonstrations(40, KEYPOINTS[0])
        return made, made[0].uv_px[0]
    run = RunFolder.load(args.run_folder)
    bags = find_bags(args.demonstrations)
    if len(bags) < 5:
        raise DemonstrationError(f"{len(bags)} demonstrations are too few to hold one out; give at least 5")
    with tqdm(total=1.0, desc="tracking", bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}") as bar:
        tracked = track_demonstrations(
            bags,
            list(run.keypoint_sets.values()),
            run.robot,
            Tracking(run.file.matcher, run.file.tracker),
            args.output / "tracks",
            report=lambda fraction, _: bar.update(fraction - bar.n),
        )
    return tracked, run.keypoint_set.uv_px


if __name__ == "__main__":
    main()

"""Replay bags through tracker and policy and compare with what was commanded (no robot, no ROS graph).

The same KeypointTracker and PolicyRunner as on the robot. The robot's state comes from the bag, so
errors do not build up: this says how well the policy agrees with the expert, not how well it closes
the loop. On a robot, `ros2 bag play BAG --clock` with the live nodes shows the same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from tqdm import tqdm

from atk_perception.frames import BagError, JointStateError, read_frames
from atk_perception.image_codec import ImageFormatError, RgbImage
from atk_perception.keypoint_tracker import KeypointObservation, TrackerState
from atk_perception.robot_description import RobotDescription, RobotDescriptionError
from atk_policy.demonstrations import DemonstrationError, Tracking, find_bags
from atk_policy.policy_runner import PolicyRunner, RunState
from atk_policy.report import keypoint_colours
from atk_policy.run_folder import RunFolder, RunFolderError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Replay:
    """One bag through tracker and policy; T frames, N keypoints, J joints, H the chunk's horizon.

    Attributes:
        name: of the bag.
        time_s: (T,) from the first frame.
        uv_px: (T, N, 2), visible: (T, N): the tracks.
        tracking: (T,) bool, tracker state TRACKING.
        recorded, commanded: (T, J + 1) actions [rad, m]; NaN in `commanded` where the runner held.
        chunk: (T, H, J + 1) what the policy predicted, NaN where it held.
        tracker_ms, inference_ms: (T,).
        holds: how often each cause held.
    """

    name: str
    time_s: FloatArray
    uv_px: npt.NDArray[np.float32]
    visible: npt.NDArray[np.bool_]
    tracking: npt.NDArray[np.bool_]
    recorded: FloatArray
    commanded: FloatArray
    chunk: FloatArray
    tracker_ms: FloatArray
    inference_ms: FloatArray
    holds: dict[str, int]

    def joint_error_rad(self) -> FloatArray:
        """(J,) mean absolute error of the command against the recorded action."""
        return np.asarray(np.nanmean(np.abs(self.commanded - self.recorded), axis=0)[:-1])

    def gripper_error_m(self) -> float:
        """Mean absolute error of the gripper opening."""
        return float(np.nanmean(np.abs(self.commanded - self.recorded)[:, -1]))

    def error_by_horizon_rad(self) -> FloatArray:
        """(H,) mean absolute joint error of the chunk's k-th action against the action recorded k later."""
        steps, horizon = self.chunk.shape[:2]
        errors = np.full(horizon, np.nan)
        for k in range(min(horizon, steps)):
            errors[k] = np.nanmean(np.abs(self.chunk[: steps - k, k] - self.recorded[k:])[:, :-1])
        return errors


def replay(bag: Path, run: RunFolder, robot: RobotDescription) -> Replay:
    """Stream one bag through tracker and runner.

    Raises:
        BagError, JointStateError, ImageFormatError: see `read_frames`.
        RunFolderError: the run folder does not fit the robot.
    """
    tracker = Tracking(run.file.matcher, run.file.tracker).keypoint_tracker(run.keypoint_set)
    runner = PolicyRunner(run, robot)
    tracker_ms: dict[int, float] = {}

    def observe(stamp_ns: int, image_rgb: RgbImage) -> KeypointObservation:
        started = time.perf_counter()
        seen = tracker.update(stamp_ns, image_rgb)
        tracker_ms[stamp_ns] = 1e3 * (time.perf_counter() - started)
        return seen

    runner.start()
    rows: list[tuple[Any, ...]] = []
    holds: dict[str, int] = {}
    unknown = np.full(robot.action_size, np.nan)
    unknown_chunk = np.full((run.file.horizon, robot.action_size), np.nan)
    for frame in read_frames(bag, robot, observe=observe):
        step = runner.step(frame)
        running = step.state is RunState.RUNNING
        if not running:
            holds[step.cause] = holds.get(step.cause, 0) + 1
        seen = frame.payload
        rows.append(
            (
                frame.stamp_ns,
                seen.uv_px,
                seen.visible,
                seen.tracker_state is TrackerState.TRACKING,
                frame.action,
                step.command if running else unknown,
                runner.last_chunk if running else unknown_chunk,
                tracker_ms[frame.stamp_ns],
                step.inference_ms,
            )
        )
        if frame.action is not None:  # the recorded command is what the robot went on from
            runner.follow(frame.action)
    if not rows:
        raise BagError(f"bag {bag} has no frame in which image, joint state and command overlap in time")
    stamps, uv, visible, tracking, recorded, commanded, chunk, tracker_time, inference = map(
        np.array, zip(*rows, strict=True)
    )
    return Replay(
        bag.name,
        (stamps - stamps[0]) / 1e9,
        uv,
        visible,
        tracking,
        recorded,
        commanded,
        chunk,
        tracker_time,
        inference,
        holds,
    )


def summary(replays: list[Replay], robot: RobotDescription) -> dict[str, Any]:
    """Figures over all bags; what metrics.json and the last line of standard output hold."""

    def percentiles(values: list[FloatArray]) -> dict[str, float]:
        joined = np.concatenate(values)
        return {f"p{q}": round(float(np.percentile(joined, q)), 3) for q in (50, 95, 99)}

    frames = np.array([len(r.time_s) for r in replays], np.float64)

    def mean(of: Callable[[Replay], Any]) -> FloatArray:
        return np.asarray(np.average(np.array([of(r) for r in replays]), axis=0, weights=frames))

    joint_error = mean(Replay.joint_error_rad)
    return {
        "bags": len(replays),
        "frames": int(frames.sum()),
        "joint_error_rad": _figure(joint_error.mean()),
        "joint_error_rad_by_joint": {
            n: _figure(e) for n, e in zip(robot.joints.names, joint_error, strict=True)
        },
        "gripper_error_m": _figure(float(mean(Replay.gripper_error_m))),
        "error_by_horizon_rad": [_figure(e) for e in mean(Replay.error_by_horizon_rad)],
        "visible": _figure(float(mean(lambda r: r.visible.mean()))),
        "tracking": _figure(float(mean(lambda r: r.tracking.mean()))),
        "holds": {r.name: r.holds for r in replays if r.holds},
        "tracker_ms": percentiles([r.tracker_ms for r in replays]),
        "inference_ms": percentiles([r.inference_ms for r in replays]),
    }


def _figure(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def write_plots(replays: list[Replay], run: RunFolder, robot: RobotDescription, folder: Path) -> None:
    """One picture per bag (commands and tracks over time) and one over all bags (error by horizon)."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in replays:
        _plot_replay(item, run, robot).savefig(folder / f"{item.name}.png", dpi=100)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for item in replays:
        axes.plot(1e3 * item.error_by_horizon_rad(), color="#9a9a9a", lw=0.8)
    axes.plot(
        1e3 * np.mean([r.error_by_horizon_rad() for r in replays], axis=0),
        "o-",
        color="#d62728",
        label="mean of the bags",
    )
    axes.set(xlabel="control periods ahead", ylabel="joint error [mrad]", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(folder / "error_by_horizon.png", dpi=100)


def _plot_replay(item: Replay, run: RunFolder, robot: RobotDescription) -> Figure:
    names = [*robot.joints.names, "gripper opening"]
    columns = 4
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 2.4 * (rows + 1)), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns)
    for k, name in enumerate(names):
        axes = figure.add_subplot(grid[k // columns, k % columns])
        axes.plot(item.time_s, item.recorded[:, k], color="black", lw=1, label="recorded")
        axes.plot(item.time_s, item.commanded[:, k], color="#d62728", lw=1.2, label="policy")
        axes.set_title(f"{name} [{'rad' if k < robot.joint_count else 'm'}]", fontsize=9)
        axes.grid(alpha=0.3)
        if k == 0:
            axes.legend(fontsize=8)
    width = max(1, columns // 2)
    for coordinate, label in enumerate(("u", "v")):
        axes = figure.add_subplot(grid[rows, coordinate * width : (coordinate + 1) * width])
        for colour, number, k in zip(
            keypoint_colours(len(run.keypoint_set)),
            run.keypoint_set.ids,
            range(len(run.keypoint_set)),
            strict=True,
        ):
            value = item.uv_px[:, k, coordinate]
            axes.plot(item.time_s, value, color=colour, lw=0.5, alpha=0.5)
            axes.plot(
                item.time_s,
                np.where(item.visible[:, k], value, np.nan),
                color=colour,
                lw=1.8,
                label=str(number),
            )
        axes.set_title(f"keypoint {label} [px], thin where not visible", fontsize=9)
        axes.set_xlabel("s")
        axes.grid(alpha=0.3)
    axes.legend(fontsize=7, title="id", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="evaluate_offline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: evaluate_offline runs/sushi demonstrations/ --output runs/sushi/offline",
    )
    parser.add_argument("run_folder", type=Path, help="written by 'select'")
    parser.add_argument("bags", nargs="+", type=Path, help="rosbag2 folders, or folders of them")
    parser.add_argument("--output", type=Path, required=True, help="folder for plots and metrics.json")
    parser.add_argument("--robot", type=Path, help="robot description (default: the run folder's)")
    args = parser.parse_args()
    try:
        run = RunFolder.load(args.run_folder)
        robot = RobotDescription.load(args.robot) if args.robot else run.robot
        replays = [replay(bag, run, robot) for bag in tqdm(find_bags(args.bags), unit="bag")]
    except (
        BagError,
        DemonstrationError,
        ImageFormatError,
        JointStateError,
        RobotDescriptionError,
        RunFolderError,
    ) as error:
        raise SystemExit(f"evaluate_offline: {error}") from error
    write_plots(replays, run, robot, args.output)
    figures = summary(replays, robot)
    (args.output / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(f"plots: {args.output}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

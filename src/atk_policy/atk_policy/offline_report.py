"""The report of an offline evaluation: pictures per bag and over all, for one run folder or two side by side."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from atk_perception.robot_description import RobotDescription
from atk_policy.replay import Agreement, FloatArray, Replay
from atk_policy.report import keypoint_colours
from atk_policy.run_folder import RunFolder

matplotlib.use("Agg")

# Told apart also with red-green colour blindness; the first is the run folder, the second the one it is compared with.
COLOURS = ("#d55e00", "#0072b2")
GREY = "#9a9a9a"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A run folder over some bags.

    Attributes:
        label: what it is called in pictures.
        folder: of its pictures and videos, inside the report's.
        replays: one per bag, in one order for all evaluations of a report.
        agreements: by bag, where the bag is of a live run.
    """

    label: str
    folder: str
    run: RunFolder
    replays: Sequence[Replay]
    agreements: dict[str, Agreement]
    videos: Sequence[str]


def summary(evaluation: Evaluation, robot: RobotDescription) -> dict[str, Any]:
    """Figures over all bags; what metrics.json and the last line of standard output hold."""
    replays = evaluation.replays
    frames = np.array([len(r.time_s) for r in replays], np.float64)

    def mean(of: Callable[[Replay], Any]) -> FloatArray:
        values = np.array([of(r) for r in replays], np.float64)
        weights = frames.reshape(-1, *[1] * (values.ndim - 1)) * np.isfinite(values)
        return np.asarray(np.nansum(values * weights, axis=0) / np.maximum(weights.sum(axis=0), 1e-9))

    joint_error = mean(Replay.joint_error_rad)
    live = evaluation.agreements
    return {
        "run_folder": evaluation.label,
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
        "tracker_ms": _percentiles([r.tracker_ms for r in replays]),
        "inference_ms": _percentiles([r.inference_ms for r in replays]),
        "live": {
            name: {
                "frames": a.frames,
                "command_max_rad": _exact(a.command_rad),
                "gripper_max_m": _exact(a.gripper_m),
                "tracks_max_px": _exact(a.tracks_px),
                "command_max_rad_with_recorded_tracks": _exact(a.same_tracks_rad),
                "held_here": dict(a.held_here),
                "missing_frames": a.missing,
                "latency_ms": _percentiles([a.latency_ms]),
            }
            for name, a in live.items()
        },
    }


def _percentiles(values: Sequence[FloatArray]) -> dict[str, float]:
    joined = np.concatenate(values) if values else np.zeros(0)
    return {f"p{q}": round(float(np.percentile(joined, q)), 3) for q in (50, 95, 99)} if joined.size else {}


def _figure(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def _exact(value: float | None) -> float | None:
    """Differences are told as they are: 1e-9 and 0 are not the same."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.3g}")


def write_report(evaluations: Sequence[Evaluation], robot: RobotDescription, folder: Path) -> None:
    """Write index.html and its pictures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _error_by_horizon(evaluations).savefig(folder / "error_by_horizon.png", dpi=100)
    _error_over_time(evaluations, robot).savefig(folder / "error_over_time.png", dpi=100)
    for evaluation in evaluations:
        pictures = folder / evaluation.folder
        pictures.mkdir(parents=True, exist_ok=True)
        for item in evaluation.replays:
            _plot_replay(item, evaluation.run, robot).savefig(pictures / f"{item.name}.png", dpi=100)
    (folder / "index.html").write_text(_page(evaluations, robot))


def _error_by_horizon(evaluations: Sequence[Evaluation]) -> Figure:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for colour, evaluation in zip(COLOURS, evaluations, strict=False):
        curves = np.array([r.error_by_horizon_rad() for r in evaluation.replays])
        for curve in curves:
            axes.plot(1e3 * curve, color=colour if len(evaluations) > 1 else GREY, lw=0.6, alpha=0.35)
        axes.plot(1e3 * _mean(curves), "o-", color=colour, label=f"{evaluation.label}, mean of the bags")
    axes.set(xlabel="control periods ahead", ylabel="joint error [mrad]", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _error_over_time(evaluations: Sequence[Evaluation], robot: RobotDescription) -> Figure:
    """Per joint, how far the command was from the recorded one; thin lines are bags, the thick one their mean."""
    names = [*robot.joints.names, "gripper opening"]
    columns = 4
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    for k, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, k + 1)
        unit, factor = ("mrad", 1e3) if k < robot.joint_count else ("mm", 1e3)
        for colour, evaluation in zip(COLOURS, evaluations, strict=False):
            longest = max(len(r.time_s) for r in evaluation.replays)
            errors = np.full((len(evaluation.replays), longest), np.nan)
            for row, item in zip(errors, evaluation.replays, strict=True):
                row[: len(item.time_s)] = factor * item.error()[:, k]
            time_s = max((r.time_s for r in evaluation.replays), key=len)
            axes.plot(time_s, errors.T, color=colour if len(evaluations) > 1 else GREY, lw=0.6, alpha=0.55)
            axes.plot(time_s, _mean(errors), color=colour, lw=1.8, label=evaluation.label)
        axes.set_title(f"{name} [{unit}]", fontsize=9)
        axes.set_ylim(0, None)
        axes.grid(alpha=0.3)
        if k == 0:
            axes.legend(fontsize=8)
    figure.supxlabel("s", fontsize=9)
    return figure


def _mean(values: FloatArray) -> FloatArray:
    count = np.isfinite(values).sum(axis=0)
    return np.where(count, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def _plot_replay(item: Replay, run: RunFolder, robot: RobotDescription) -> Figure:
    """Commands beside the recorded ones, and the tracks, over time."""
    names = [*robot.joints.names, "gripper opening"]
    columns = 4
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 2.4 * (rows + 1)), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns)
    for k, name in enumerate(names):
        axes = figure.add_subplot(grid[k // columns, k % columns])
        axes.plot(item.time_s, item.recorded[:, k], color="black", lw=1, label="recorded")
        axes.plot(item.time_s, item.commanded[:, k], color=COLOURS[0], lw=1.2, label="policy")
        axes.set_title(f"{name} [{'rad' if k < robot.joint_count else 'm'}]", fontsize=9)
        axes.grid(alpha=0.3)
        if k == 0:
            axes.legend(fontsize=8)
    width = max(1, columns // 2)
    for coordinate, label in enumerate(("u", "v")):
        axes = figure.add_subplot(grid[rows, coordinate * width : (coordinate + 1) * width])
        ids = run.keypoint_ids
        for k, (colour, number) in enumerate(zip(keypoint_colours(len(ids)), ids, strict=True)):
            value = item.uv_px[:, k, coordinate]
            axes.plot(item.time_s, value, color=colour, lw=0.5, alpha=0.5)
            shown = np.where(item.visible[:, k], value, np.nan)
            axes.plot(item.time_s, shown, color=colour, lw=1.8, label=str(number))
        axes.set_title(f"keypoint {label} [px], thin where not visible", fontsize=9)
        axes.set_xlabel("s")
        axes.grid(alpha=0.3)
    axes.legend(fontsize=7, title="id", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


# -------------------------------------------------------------------------------------------- page


def _page(evaluations: Sequence[Evaluation], robot: RobotDescription) -> str:
    figures = [summary(evaluation, robot) for evaluation in evaluations]
    rows = [
        ("run folder", [html.escape(f["run_folder"]) for f in figures]),
        ("keypoints", [str(len(e.run.keypoint_ids)) for e in evaluations]),
        ("bags, frames", [f"{f['bags']}, {f['frames']}" for f in figures]),
        ("joint error [mrad]", [_milli(f["joint_error_rad"]) for f in figures]),
        *(
            (
                f"&nbsp;&nbsp;{html.escape(name)}",
                [_milli(f["joint_error_rad_by_joint"][name]) for f in figures],
            )
            for name in robot.joints.names
        ),
        ("gripper error [mm]", [_milli(f["gripper_error_m"]) for f in figures]),
        ("keypoints visible", [_share(f["visible"]) for f in figures]),
        ("frames tracked", [_share(f["tracking"]) for f in figures]),
        ("frames held", [str(sum(sum(h.values()) for h in f["holds"].values())) for f in figures]),
        ("tracker, p50 / p95 [ms]", [_pair(f["tracker_ms"]) for f in figures]),
        ("policy, p50 / p95 [ms]", [_pair(f["inference_ms"]) for f in figures]),
    ]
    table = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{value}</td>' for value in values)}</tr>" for name, values in rows
    )
    heads = "".join(f"<h3>{html.escape(e.label)}</h3>" for e in evaluations)
    bags = "".join(
        f"<h2>{html.escape(item.name)}</h2><div class='side'>{heads if len(evaluations) > 1 else ''}"
        + "".join(_bag(evaluation, number) for evaluation in evaluations)
        + "</div>"
        for number, item in enumerate(evaluations[0].replays)
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Offline evaluation</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: {1150 * len(evaluations)}px; padding: 0 1rem; color: #222 }}
img, video {{ max-width: 100% }} table {{ border-collapse: collapse }}
td, th {{ padding: .15rem .9rem; text-align: right; border-bottom: 1px solid #ddd }} th {{ text-align: left; font-weight: 500 }}
.side {{ display: grid; grid-template-columns: repeat({len(evaluations)}, minmax(0, 1fr)); gap: 0 1.5rem }} h3 {{ margin: 0 }}
</style></head><body><h1>Offline evaluation</h1>
<p>The recorded images and joint states through tracker and policy; after each frame the robot goes on from the recorded
command. This says how near the policy comes to what was commanded, not how well it closes the loop.</p>
<table>{table}</table>{_live(evaluations)}
<h2>Error by horizon</h2><img src="error_by_horizon.png" alt="error by horizon">
<h2>Error over time</h2><img src="error_over_time.png" alt="error over time">
{bags}<p>All figures: <a href="metrics.json">metrics.json</a></p></body></html>
"""


def _bag(evaluation: Evaluation, number: int) -> str:
    name = html.escape(evaluation.replays[number].name)
    where = f"{evaluation.folder}/{name}" if evaluation.folder else name
    video = ""
    if evaluation.replays[number].name in evaluation.videos:
        video = f'<video src="{where}.mp4" controls muted loop preload="metadata"></video>'
    return f'<div>{video}<img src="{where}.png" alt="{name}" loading="lazy"></div>'


def _live(evaluations: Sequence[Evaluation]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(e.label)}</td><td>{a.frames}</td><td>{a.command_rad:.2g}</td>"
        f"<td>{'' if a.tracks_px is None else f'{a.tracks_px:.2g}'}</td>"
        f"<td>{'' if a.same_tracks_rad is None else f'{a.same_tracks_rad:.2g}'}</td>"
        f"<td>{sum(a.held_here.values())}</td><td>{a.missing}</td><td>{_pair(_percentiles([a.latency_ms]))}</td></tr>"
        for e in evaluations
        for name, a in e.agreements.items()
    )
    if not rows:
        return ""
    return f"""<h2>Agreement with the live run</h2>
<p>These bags hold what the policy commanded live. The largest differences to the same computed from the bag:</p>
<table><tr><th>bag</th><th>run folder</th><th>frames</th><th>command [rad]</th><th>tracks [px]</th>
<th>command from recorded tracks [rad]</th><th>held here</th><th>not in the bag</th><th>live latency, p50 / p95 [ms]</th></tr>{rows}</table>"""


def _milli(value: float | None) -> str:
    return "" if value is None else f"{1e3 * value:.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _pair(values: dict[str, float]) -> str:
    return f"{values['p50']:.1f} / {values['p95']:.1f}" if values else ""

"""The report of a selection: pictures that people look at, and metrics.json."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from atk_perception.keypoint_set import KeypointSet

if TYPE_CHECKING:
    from atk_policy.distillation import DistillationHistory
    from atk_policy.selection import SelectionResult

matplotlib.use("Agg")

OUTLINE = [withStroke(linewidth=3, foreground="black")]
GREY, RED = "#9a9a9a", "#d62728"
NOT_NEEDED = ", of which no point was kept: it needs no tracker"


def keypoint_colours(count: int) -> list[Any]:
    """One colour per keypoint, the same in every picture."""
    return [matplotlib.colormaps["hsv"](k / max(1, count)) for k in range(count)]


def write_report(result: SelectionResult, folder: Path) -> None:
    """Write index.html, its pictures and metrics.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    views = _views(result)
    pictures = {
        **{
            f"template{suffix}.png": (
                f"Chosen keypoints on the canonical template{of}",
                _template(result, view),
            )
            for suffix, of, view in views
        },
        **(
            {
                "path.png": ("How many points are needed", _path(result)),
                "retention.png": ("Retention: which candidates the gates kept", _retention(result)),
            }
            if result.choice.history.step  # else nothing was chosen
            else {}
        ),
        "loss.png": ("Loss", _losses(result)),
        **{
            f"tracks{suffix}.png": (
                f"Tracks of the chosen keypoints in the demonstrations{of}",
                _tracks(result, view),
            )
            for suffix, of, view in views
            if result.keep[view.mine].any()
        },
        "trackability.png": ("How well the candidates were tracked", _trackability(result)),
        "timing.png": ("Time", _timing(result)),
    }
    for name, (_, figure) in pictures.items():
        figure.savefig(folder / name, dpi=110)
    summary = metrics(result)
    (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
    (folder / "index.html").write_text(_page({name: title for name, (title, _) in pictures.items()}, summary))


class _View(NamedTuple):
    """What one camera sees of a selection."""

    points: KeypointSet
    mine: npt.NDArray[np.bool_]  # (C,) which of all candidates are this camera's


def _views(result: SelectionResult) -> list[tuple[str, str, _View]]:
    """(suffix of file names, of titles, view) of every camera."""
    cameras = result.cameras or (result.candidates,)
    views = [_View(points, np.isin(result.candidates.ids, points.ids)) for points in cameras]
    names = [points.camera_name for points in cameras]
    if len(views) == 1:
        return [("", "", views[0])]
    return [
        (f"_{name}", f": camera '{name}'" + ("" if result.keep[view.mine].any() else NOT_NEEDED), view)
        for name, view in zip(names, views, strict=True)
    ]


def metrics(result: SelectionResult) -> dict[str, Any]:
    """What metrics.json holds."""
    choice = result.choice
    views = [view for _, _, view in _views(result)]
    among_trackable = dict(zip(np.flatnonzero(result.keep).tolist(), result.kept.tolist(), strict=True))
    kept_number = {index: number for number, index in enumerate(np.flatnonzero(result.keep).tolist())}
    alone = np.concatenate([d.visible for d in result.retracked]).mean(axis=0)
    train, held_out, held_out_error = result.refit_history.kept_record()
    return {
        "policy": result.config.policy.name,
        "encoder": result.config.policy.encoder,
        "keypoints_kept": int(result.keep.sum()),
        "keypoints_candidates": len(result.keep),
        "keypoints_trackable": int(result.trackable.sum()),
        "objective": result.config.choice.objective,
        # Of this run's own rounds of folds; independent runs are compared by bench_selection.
        "agreement_of_rounds": _finite(choice.agreement),
        "held_out_error": _finite(float(choice.error.mean())),
        "held_out_error_full": _finite(float(choice.full_errors.mean())),
        "held_out_error_limit": _finite(choice.limit),
        "path": [
            {
                "parts": sorted({int(choice.parts[i]) for i in points}),
                "points": result.candidates.ids[result.trackable][points].tolist(),
                "held_out_error": _finite(float(errors.mean())),
                "folds": [_finite(float(e)) for e in errors],
            }
            for points, errors in zip(choice.path, choice.path_errors, strict=True)
        ],
        "parts": {
            part: {
                "candidates": int((choice.parts == part).sum()),
                "kept": int((choice.parts[choice.keep] == part).sum()),
                "retention": round(float(choice.part_retention[choice.parts == part][0]), 4),
                "error_without": _finite(rise),
            }
            for part, rise in choice.part_removal.items()
        },
        "demonstrations": len(result.demonstrations),
        "demonstrations_held_out": len(result.held_out),
        "demonstrations_found_alone": sum(len(d) > 0 for d in result.retracked),
        "frames": result.trackability.frames,
        "loss_train": _finite(train),
        "loss_held_out": _finite(held_out),
        "action_error_held_out": _finite(held_out_error),
        "joint_error_rad": [round(float(e), 5) for e in result.held_out_joint_error_rad],
        "cameras_without_keypoints": [v.points.camera_name for v in views if not result.keep[v.mine].any()],
        "keypoints": [
            {
                "id": int(i),
                "camera": view.points.camera_name,
                "uv_px": [round(float(x), 1) for x in uv_px],
                "part": int(choice.parts[among_trackable[index]]),
                "retention": round(float(choice.retention[among_trackable[index]]), 4),
                "part_retention": round(float(choice.part_retention[among_trackable[index]]), 4),
                "error_without": _finite(choice.point_removal[among_trackable[index]]),
                "visible": round(float(result.trackability.visible[index]), 3),
                "visible_alone": round(float(alone[kept_number[index]]), 3),
                "transferred": round(float(result.trackability.transferred[index]), 3),
                "confidence": round(float(result.trackability.confidence[index]), 3),
            }
            for view in views
            for i, uv_px, index in zip(
                view.points.ids, view.points.uv_px, np.flatnonzero(view.mine).tolist(), strict=True
            )
            if result.keep[index]
        ],
        "seconds": result.seconds,
        "peak_rss_mb": round(result.peak_rss_mb),
        "curves": {"select": _curves(choice.history), "refit": _curves(result.refit_history)},
    }


def _curves(history: DistillationHistory) -> dict[str, Any]:
    """Everything of a stage by step but the retention of every candidate."""
    curves: dict[str, Any] = {"step": history.step, "best_step": history.best_step}
    for name in ("train", "held_out", "held_out_error", "kept"):
        curves[name] = [_finite(value) for value in getattr(history, name)]
    return curves


def _finite(value: float) -> float | None:
    return round(value, 5) if np.isfinite(value) else None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.1%}"


def label_points(axes: Axes, uv_px: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], size: float) -> None:
    """Large coloured rings with their ids beside them, legible on any background."""
    for colour, (u, v), number in zip(keypoint_colours(len(ids)), uv_px, ids, strict=True):
        axes.plot(u, v, "o", ms=size, mfc="none", mec="black", mew=4)
        axes.plot(u, v, "o", ms=size, mfc="none", mec=colour, mew=2)
        axes.annotate(
            str(number),
            (u, v),
            (size * 0.8, size * 0.5),
            textcoords="offset points",
            color="white",
            fontsize=10,
            fontweight="bold",
            path_effects=OUTLINE,
        )


def _template(result: SelectionResult, view: _View) -> Figure:
    candidates, keep, trackable = view.points, result.keep[view.mine], result.trackable[view.mine]
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(candidates.template_rgb)
    for mask, colour, label in (
        (~trackable, "#000000", "not trackable"),
        (trackable & ~keep, "#ffffff", "dropped"),
    ):
        uv = candidates.uv_px[mask]
        axes.plot(
            uv[:, 0],
            uv[:, 1],
            "o",
            ms=3.5,
            mfc=colour,
            mec="#444444",
            mew=0.6,
            ls="none",
            label=f"{mask.sum()} {label}",
        )
    label_points(axes, candidates.uv_px[keep], candidates.ids[keep], 11)
    axes.plot([], [], "o", ms=9, mfc="none", mec=RED, mew=2, ls="none", label=f"{keep.sum()} kept")
    axes.legend(loc="lower right", framealpha=0.85)
    axes.set_axis_off()
    return figure


def _path(result: SelectionResult) -> Figure:
    """Number of parts and points against held-out error, the tolerance line, and the knee; what each is worth."""
    choice = result.choice
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    path, removal = figure.subplots(1, 2)
    x = np.arange(1, len(choice.path) + 1)
    mean = choice.path_errors.mean(1)
    path.plot(x, choice.path_errors, color=GREY, lw=0.7)
    path.plot([], [], color=GREY, lw=0.7, label="each fold")
    path.plot(x, mean, "o-", color="black", ms=4, label="mean")
    everything = f"all {len(choice.keep)} trackable candidates"
    path.axhline(choice.full_errors.mean(), color="#1f77b4", lw=1, label=everything)
    tolerance = result.config.choice.tolerance
    path.axhline(choice.limit, color=RED, lw=1, ls=":", label=f"tolerance: {tolerance:.0%} above the best")
    at = choice.knee
    in_sight = int(choice.keep.sum()) - len(choice.path[at])
    path.plot(
        x[at],
        mean[at],
        "o",
        ms=13,
        mfc="none",
        mec=RED,
        mew=2,
        label=f"chosen: {len(choice.path[at])} points"
        + (f", and {in_sight} that stay in sight" if in_sight else ""),
    )
    path.set_xticks(x, [f"{k}\n({len(points)})" for k, points in zip(x, choice.path, strict=True)])
    path.set(xlabel="rigid parts (points)", ylabel="held-out action error under failures")
    path.grid(alpha=0.3)
    path.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))  # lines fill the axes
    ids = result.candidates.ids[result.keep]
    colours = keypoint_colours(len(ids))
    worth = [(f"part {part}", rise, "#444444") for part, rise in choice.part_removal.items()]
    worth += [
        (f"point {i}", choice.point_removal[int(k)], c)
        for i, k, c in zip(ids, result.kept, colours, strict=True)
    ]
    worth = [entry for entry in worth if np.isfinite(entry[1])]  # of very many points none was measured
    bars = removal.barh(
        [name for name, _, _ in worth], [100.0 * rise for _, rise, _ in worth], color=[c for _, _, c in worth]
    )
    removal.bar_label(bars, fmt="%+.1f", padding=3)
    removal.axvline(0.0, color="black", lw=0.8)
    removal.margins(x=0.15)
    removal.invert_yaxis()
    removal.set(xlabel="rise of the held-out error without it, policy trained anew [%]")
    return figure


def _retention(result: SelectionResult) -> Figure:
    """Mean over members, against the price of a point where that rises, else against the step."""
    history = result.choice.history
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    curves, count = figure.subplots(1, 2)
    retention = np.array(history.retention).mean(axis=1)
    kept = result.choice.keep
    priced = len(set(history.price)) > 1
    x = history.price if priced else history.step
    curves.plot(x, retention[:, ~kept], color=GREY, lw=0.6, alpha=0.5)
    ids = result.candidates.ids[result.keep]
    for colour, number, curve in zip(keypoint_colours(len(ids)), ids, retention[:, kept].T, strict=True):
        curves.plot(x, curve, color=colour, lw=2, label=str(number))
    label, scale = ("price of a point", "log") if priced else ("step", "linear")
    curves.set(xlabel=label, xscale=scale, ylabel="share of members that keep it", ylim=(-0.02, 1.02))
    curves.legend(title="kept", fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    count.plot(x, history.kept, color="black")
    count.set(xlabel=label, xscale=scale, ylabel="expected number of points", yscale="log")
    count.grid(alpha=0.3, which="both")
    return figure


def _losses(result: SelectionResult) -> Figure:
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    select, refit, horizon = figure.subplots(1, 3)
    for axes, history, title in (
        (select, result.choice.history, "gates and policy together"),
        (refit, result.refit_history, "policy on the kept points"),
    ):
        axes.plot(history.step, history.train, color=GREY, label="train (with augmentation)")
        axes.plot(history.step, history.held_out, color=RED, label="held out")
        axes.set(xlabel="step", ylabel="-log pi (normalised)", title=title, yscale="log")
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    error = 1e3 * result.held_out_joint_error_rad
    horizon.plot(np.arange(len(error)), error, "o-", color=RED)
    horizon.set(
        xlabel="control periods ahead",
        ylabel="joint error [mrad]",
        title="held-out error in the chunk",
        ylim=(0, None),
    )
    horizon.grid(alpha=0.3)
    return figure


def _tracks(result: SelectionResult, view: _View) -> Figure:
    """A grid of demonstrations: start as a ring, the visible track as a line, ids at the start."""
    shown = result.retracked[:12]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows), layout="constrained")
    height, width = view.points.template_rgb.shape[:2]
    keep = view.mine[result.keep]
    ids = result.candidates.ids[result.keep][keep]
    for number, demonstration in enumerate(shown):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_facecolor("#202020")
        visible = demonstration.visible[:, keep]
        uv = np.where(visible[..., None], demonstration.uv_px[:, keep], np.nan)
        for k, colour in enumerate(keypoint_colours(len(ids))):
            axes.plot(uv[:, k, 0], uv[:, k, 1], "-", color=colour, lw=1.2)
            seen = np.flatnonzero(visible[:, k])
            if len(seen):
                start = uv[seen[0], k]
                axes.plot(*start, "o", ms=5, mfc="none", mec=colour)
                axes.annotate(
                    str(ids[k]), start, (3, 3), textcoords="offset points", color=colour, fontsize=6
                )
        held_out = " (held out)" if number in result.held_out else ""
        axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xticks=[], yticks=[])
        visible_share = f"{visible.mean():.0%} visible" if len(visible) else "not found"
        axes.set_title(f"{demonstration.name}{held_out}: {visible_share}", fontsize=8)
    return figure


def _trackability(result: SelectionResult) -> Figure:
    quality = result.trackability
    config = result.config.candidates
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, values, minimum, label in zip(
        figure.subplots(1, 3),
        (quality.transferred, quality.visible, quality.confidence),
        (config.transferred_min, config.visible_min, config.confidence_min),
        (
            "share of demonstrations found at the start",
            "share of frames visible",
            "mean confidence where visible",
        ),
        strict=True,
    ):
        axes.hist(
            [values[~result.keep], values[result.keep]],
            bins=20,
            range=(0, 1),
            stacked=True,
            color=[GREY, RED],
            label=["dropped", "kept"],
        )
        axes.axvline(minimum, color="black", ls=":", label="needed")
        axes.set(xlabel=label, ylabel="candidates")
        axes.legend()
    return figure


def _timing(result: SelectionResult) -> Figure:
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    axes = figure.add_subplot()
    taken = {stage: seconds for stage, seconds in result.seconds.items() if stage != "report"}  # still in it
    bars = axes.barh(list(taken), list(taken.values()), color=GREY)
    axes.bar_label(bars, fmt="%.1f s", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="seconds")
    return figure


def _page(pictures: dict[str, str], summary: dict[str, Any]) -> str:
    facts = (
        f"{summary['keypoints_kept']} of {summary['keypoints_candidates']} candidates kept, "
        f"held-out error {summary['held_out_error']:.3f} (all candidates: {summary['held_out_error_full']:.3f}), "
        f"policy {summary['policy']} ({summary['encoder']}), "
        f"{summary['demonstrations']} demonstrations with {summary['frames']} frames, "
        f"{sum(summary['seconds'].values()):.0f} s, peak memory {summary['peak_rss_mb']} MiB"
    )
    agreement = summary["agreement_of_rounds"]
    stable = (
        ""
        if agreement is None
        else f"<p>Agreement of the rounds of folds: {agreement:.2f}. Each round of this run split the demonstrations anew and would "
        "have chosen a set alone; this is the share of their points that have a partner on the same rigid part within 3% of the "
        "image's diagonal (1: the same set). Independent runs, with other candidates, are compared by bench_selection.</p>"
    )
    rows = "".join(
        f"<tr><td>{p['id']}</td><td>{html.escape(p['camera'])}</td><td>{p['uv_px'][0]:.0f}, {p['uv_px'][1]:.0f}</td><td>{p['part']}</td>"
        f"<td>{p['retention']:.2f}</td><td>{p['part_retention']:.2f}</td><td>{_percent(p['error_without'])}</td>"
        f"<td>{p['transferred']:.0%}</td><td>{p['visible']:.0%}</td><td>{p['visible_alone']:.0%}</td><td>{p['confidence']:.2f}</td></tr>"
        for p in summary["keypoints"]
    )
    figures = "".join(
        f'<figure><figcaption>{html.escape(title)}</figcaption><img src="{name}" alt="{html.escape(title)}"></figure>'
        for name, title in pictures.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Keypoint selection</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1250px; padding: 0 1rem; color: #222 }}
img {{ max-width: 100% }} figure {{ margin: 2rem 0 }} figcaption {{ font-weight: 600; margin-bottom: .4rem }}
table {{ border-collapse: collapse }} td, th {{ padding: .15rem .9rem; text-align: right; border-bottom: 1px solid #ddd }}
</style></head><body><h1>Keypoint selection</h1><p>{html.escape(facts)}</p>
<table><tr><th>id</th><th>camera</th><th>u, v [px]</th><th>rigid part</th><th>retention</th><th>of its part</th><th>error without it</th><th>found at start</th><th>visible among all</th><th>visible alone</th><th>confidence</th></tr>{rows}</table>
{stable}<p>Retention: share of the penalty's path that the point, or a near-duplicate, survives, mean over members; of its part: that any of
its points does. Error without it: rise of the held-out error when the policy is trained anew without the point. Visible: share of all
frames, where the point was tracked among all candidates, and where the kept points were tracked alone, as on the robot.</p>
{figures}<p>All figures: <a href="metrics.json">metrics.json</a></p></body></html>
"""

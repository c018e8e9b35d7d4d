"""Pictures of a benchmark's report."""

from __future__ import annotations

from collections import Counter, defaultdict

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from atk_sim.benchmark_keypoints import ChosenPoints
from atk_sim.benchmark_rows import Row, by_cell, rate_of
from atk_sim.disturbances import DISTURBANCES, Disturbance
from atk_sim.paper_results import paper_rate

matplotlib.use("Agg")

CAUSES = ("transfer", "lost track", "policy", "physics")
CAUSE_COLOURS = dict(zip(CAUSES, ("#d62728", "#ff7f0e", "#1f77b4", "#7f7f7f"), strict=True))
UNDISTURBED = "RP"  # what every curve over severity begins at


def success_figure(rows: list[Row]) -> Figure:
    """Success of every method in the paper's columns, a panel per task; a line across a bar is what the paper published."""
    cells = by_cell(rows)
    tasks, methods = (list(dict.fromkeys(key[k] for key in cells)) for k in range(2))
    shape = (-(-len(tasks) // 2), min(2, len(tasks)))
    figure = Figure(figsize=(5.2 * shape[1], 2.8 * shape[0]), layout="constrained")
    panels = np.atleast_1d(figure.subplots(*shape, sharey=True)).ravel()
    tab20 = matplotlib.colormaps["tab20"]
    colours = {method: tab20(number % tab20.N) for number, method in enumerate(methods)}
    for panel, task in zip(panels, tasks, strict=False):
        driven = [method for method in methods if any(key[:2] == (task, method) for key in cells)]
        width = 0.85 / len(driven)
        for number, method in enumerate(driven):
            for place, column in enumerate(DISTURBANCES):
                if (task, method, column) not in cells:
                    continue
                _, _, rate, low, high = rate_of(cells[task, method, column])
                x = place + (number - (len(driven) - 1) / 2) * width
                panel.bar(
                    x,
                    rate,
                    width,
                    color=colours[method],
                    label=method if place == 0 else None,
                    yerr=[[rate - low], [high - rate]],
                    error_kw={"lw": 0.8},
                )
                published = paper_rate(task, method, column)
                if published is not None:
                    panel.plot([x - width / 2, x + width / 2], [published] * 2, color="black", lw=1.6)
        panel.set(title=task, ylim=(0, 1.05), xticks=range(len(DISTURBANCES)), xticklabels=DISTURBANCES)
        panel.legend(fontsize=6, ncols=2, loc="lower left")
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    return figure


def severity_curves(rows: list[Row]) -> dict[str, dict[tuple[str, str], dict[float, list[Row]]]]:
    """Episodes by disturbance, (task, method) and severity, of those that have more than one; 0 is RP."""
    curves: dict[str, dict[tuple[str, str], dict[float, list[Row]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    cells = by_cell(rows)
    for (task, method, column), episodes in cells.items():
        disturbance = Disturbance.parse(column)
        if disturbance.name != UNDISTURBED:
            curves[disturbance.name][task, method][disturbance.severity] += episodes
    told = {}
    for name, lines in curves.items():
        for (task, method), points in lines.items():
            if (task, method, UNDISTURBED) in cells:
                points.setdefault(0.0, cells[task, method, UNDISTURBED])
        # The paper's columns at 1 alone are in the first table.
        severities = {
            line: set(points) - {0.0, 1.0 if name in DISTURBANCES else 0.0} for line, points in lines.items()
        }
        more = {line: dict(sorted(points.items())) for line, points in lines.items() if severities[line]}
        if more:
            told[name] = more
    return told


def severity_figure(rows: list[Row]) -> Figure | None:
    """Success over severity, a panel per disturbance; None without any."""
    curves = severity_curves(rows)
    if not curves:
        return None
    figure = Figure(figsize=(4.2 * len(curves), 3.2), layout="constrained")
    for panel, (name, lines) in zip(
        np.atleast_1d(figure.subplots(1, len(curves), sharey=True)), curves.items(), strict=True
    ):
        for (task, method), points in lines.items():
            rates = [rate_of(episodes) for episodes in points.values()]
            low, high = ([r[k] for r in rates] for k in (3, 4))
            panel.plot(list(points), [r[2] for r in rates], "o-", label=f"{task} {method}")
            panel.fill_between(list(points), low, high, alpha=0.15)
        panel.set(title=name, xlabel="severity", ylim=(0, 1.05))
        panel.legend(fontsize=6)
    return figure


def causes_figure(rows: list[Row]) -> Figure:
    """Failures of each method, stacked by cause, as a share of its episodes: a panel per task."""
    cells: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for (task, method, _), episodes in by_cell(rows).items():
        cells[task][method] += episodes
    across = min(3, len(cells))
    down = -(-len(cells) // across)
    most = max(len(methods) for methods in cells.values())
    figure = Figure(figsize=(3.6 * across, down * (0.9 + 0.2 * most)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(down, across, sharex=True)).ravel()
    for panel, (task, methods) in zip(panels, cells.items(), strict=False):
        names = list(methods)[::-1]
        left = np.zeros(len(names))
        for cause in CAUSES:
            share = [Counter(r.cause for r in methods[name])[cause] / len(methods[name]) for name in names]
            panel.barh(names, share, left=left, color=CAUSE_COLOURS[cause], label=cause)
            left += share
        panel.set(title=task, xlim=(0, 1))
        panel.tick_params(labelsize=7)
    panels[0].legend(fontsize=6, loc="lower right")
    for panel in panels[len(cells) :]:
        panel.set_axis_off()
    return figure


def keypoints_figure(task: str, chosen: ChosenPoints) -> Figure:
    """The keypoints of every training seed on the template; the larger, the more seeds chose one there."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    panel = figure.subplots()
    panel.imshow(chosen.template_rgb)
    seeds = len(chosen.uv_px)
    for seed, uv_px in chosen.uv_px.items():
        colour = matplotlib.colormaps["tab10"](seed % 10)
        times = chosen.times_chosen(seed)
        size = 40 + 160 * times / seeds  # points squared
        u, v = uv_px.T
        panel.scatter(u, v, size, facecolors="none", edgecolors="black", linewidths=3.5)
        label = f"training seed {seed}: {len(uv_px)} points"
        panel.scatter(u, v, size, facecolors="none", edgecolors=[colour], linewidths=1.8, label=label)
    often = Counter(int(t) for seed in chosen.uv_px for t in chosen.times_chosen(seed))
    told = ", ".join(f"{count} by {times} of {seeds}" for times, count in sorted(often.items(), reverse=True))
    panel.set_title(f"{task}: points that were chosen {told} training seeds", fontsize=9)
    panel.legend(fontsize=8)
    panel.set_axis_off()
    return figure

"""What the benchmark leaves behind for people: a table, curves, a reliability diagram, contact sheets of tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches
from atk_perception.evaluation.tap_vid import THRESHOLDS_PX, TrackingScore, TransferScore
from atk_perception.training.clip import Clip


@dataclass
class TrackerResult:
    """One tracker: scores per class and sequence, ms per frame by number of points, growth of memory [MiB], claims.

    A claim is a point said to be visible: its confidence, and whether it was within 8 px of 640x480 (tap_vid.claims).
    """

    licence: str
    scores: dict[str, list[TrackingScore]] = field(default_factory=dict)
    ms: dict[int, float] = field(default_factory=dict)
    ms_p95_32: float = float("nan")
    memory_mib: float = 0.0
    claims: list[tuple[NDArray[np.float32], NDArray[np.bool_]]] = field(default_factory=list)

    def mean(self, name: str) -> dict[str, float]:
        """The class's figures, each the mean over its sequences."""
        scores = self.scores[name]
        return {
            "delta_avg": float(np.mean([s.delta_avg for s in scores])),
            "oa": float(np.mean([s.oa for s in scores])),
            "aj": float(np.mean([s.aj for s in scores])),
        }

    def refound(self) -> float:
        """Share of returns from an occlusion after which the point was found again, over everything."""
        scores = [s for per_class in self.scores.values() for s in per_class]
        return sum(s.refound for s in scores) / max(sum(s.returns for s in scores), 1)


@dataclass
class MatcherResult:
    """One matcher: its score, ms for 256 points, and (N,) confidences with whether each was right."""

    licence: str
    score: TransferScore
    ms_256: float
    confidence: NDArray[np.float32]
    right: NDArray[np.bool_]


def summary(
    trackers: Mapping[str, TrackerResult], matchers: Mapping[str, MatcherResult]
) -> dict[str, object]:
    """The benchmark's machine-readable result."""
    return {
        "tracking": {name: {c: _rounded(r.mean(c)) for c in r.scores} for name, r in trackers.items()},
        "transfer": {
            name: _rounded(
                {"pck8": r.score.pck8, "confident_wrong": r.score.confident_wrong, "ms_256": r.ms_256}
            )
            for name, r in matchers.items()
        },
        "ms_p95_32": _rounded({name: r.ms_p95_32 for name, r in trackers.items()}),
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in values.items()}


def table(
    trackers: Mapping[str, TrackerResult],
    matchers: Mapping[str, MatcherResult],
    no_trackers: Mapping[str, str],
    no_matchers: Mapping[str, str],
) -> str:
    """Markdown: tracking by class (mean delta / OA / AJ), then cost, then transfer, then what is not installed and why."""
    classes = list(next(iter(trackers.values())).scores) if trackers else []
    lines = ["| tracker | " + " | ".join(classes) + " |", "|---" * (len(classes) + 1) + "|"]
    for name, result in trackers.items():
        cells = [result.mean(c) for c in classes]
        lines.append(
            f"| {name} | "
            + " | ".join(f"{c['delta_avg']:.2f} / {c['oa']:.2f} / {c['aj']:.2f}" for c in cells)
            + " |"
        )
    lines += [
        "",
        "| tracker | re-found | ms at 10 / 32 / 100 points | p95 at 32 | memory, MiB | licence |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in trackers.items():
        ms = " / ".join(f"{value:.1f}" for value in result.ms.values())
        lines.append(
            f"| {name} | {result.refound():.2f} | {ms} | {result.ms_p95_32:.1f} | {result.memory_mib:.0f} | {result.licence} |"
        )
    lines += [
        "",
        "| matcher | PCK at 8 px | confident | confident and wrong | ms for 256 points | licence |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {r.score.pck8:.3f} | {r.score.confident:.3f} | {r.score.confident_wrong:.4f} | {r.ms_256:.0f} | {r.licence} |"
        for name, r in matchers.items()
    ]
    lines += ["", *(f"- not measured: tracker {name}: {why}" for name, why in no_trackers.items())]
    lines += [f"- not measured: matcher {name}: {why}" for name, why in no_matchers.items()]
    return "\n".join(lines).rstrip() + "\n"


def plot_delta(path: Path, trackers: Mapping[str, TrackerResult]) -> None:
    """Share of points within 1 to 16 px, one panel a class."""
    classes = list(next(iter(trackers.values())).scores)
    columns = min(3, len(classes))
    figure = Figure(figsize=(4 * columns, 2.8 * -(-len(classes) // columns)), layout="constrained")
    for number, name in enumerate(classes, start=1):
        axes = figure.add_subplot(-(-len(classes) // columns), columns, number)
        for tracker, result in trackers.items():
            axes.plot(
                THRESHOLDS_PX,
                np.mean([s.delta for s in result.scores[name]], axis=0),
                marker="o",
                label=tracker,
            )
        axes.set(
            title=name,
            xscale="log",
            xticks=THRESHOLDS_PX,
            xticklabels=[f"{t:g}" for t in THRESHOLDS_PX],
            ylim=(0, 1),
        )
        axes.set(xlabel="within, px of 256x256", ylabel="share of visible points")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def plot_reliability(
    path: Path, trackers: Mapping[str, TrackerResult], matchers: Mapping[str, MatcherResult]
) -> None:
    """How often what is said with a given confidence is right; on the diagonal it means what it says."""
    matched = {name: (result.confidence, result.right) for name, result in matchers.items()}
    tracked = {
        name: (np.concatenate([c for c, _ in result.claims]), np.concatenate([r for _, r in result.claims]))
        for name, result in trackers.items()
        if result.claims
    }
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    edges = np.linspace(0, 1, 11)
    for number, (title, claimed) in enumerate(
        (("Transfer", matched), ("Points said to be visible", tracked)), 1
    ):
        axes = figure.add_subplot(1, 2, number)
        axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
        for name, (confidence, right) in claimed.items():
            bins = np.clip(np.digitize(confidence, edges) - 1, 0, 9)
            filled = [b for b in range(10) if (bins == b).sum() >= 5]
            axes.plot(
                [confidence[bins == b].mean() for b in filled],
                [right[bins == b].mean() for b in filled],
                marker="o",
                label=name,
            )
        axes.set(xlabel="confidence", ylabel="share within 8 px", xlim=(0, 1), ylim=(0, 1), title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def contact_sheet(
    path: Path,
    clip: Clip,
    tracks: Mapping[str, tuple[NDArray[np.float32], NDArray[np.bool_]]],
    frames: Sequence[int],
) -> None:
    """One row a tracker: its points at several times; hollow: said to be hidden; a red line leads to the truth."""
    rows = []
    for name, (uv_px, visible) in tracks.items():
        cells = []
        for t in frames:
            picture = np.ascontiguousarray(clip.video_rgb[t][:, :, ::-1])
            for n in range(len(uv_px)):
                _draw_point(
                    picture,
                    n,
                    len(uv_px),
                    uv_px[n, t],
                    clip.uv_px[n, t] if clip.visible[n, t] else None,
                    bool(visible[n, t]),
                )
            cv2.putText(
                picture,
                f"{name} {t}",
                (8, 20),
                cv2.FONT_HERSHEY_SIMPLEX,
                0.6,
                (255, 255, 255),
                2,
                cv2.LINE_AA,
            )
            cells.append(cv2.resize(picture, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA))
        rows.append(np.hstack(cells))
    cv2.imwrite(str(path), np.vstack(rows))


def transfer_sheet(path: Path, pairs: Sequence[Clip], matches: Mapping[str, Sequence[Matches]]) -> None:
    """One row a pair: the template, then each matcher's points in the scene."""
    rows = []
    for k, pair in enumerate(pairs):
        template = np.ascontiguousarray(pair.video_rgb[0][:, :, ::-1])
        for n, uv in enumerate(pair.uv_px[:, 0]):
            _draw_point(template, n, len(pair.uv_px), uv, None, True)
        cells = [template]
        for name, found in matches.items():
            picture = np.ascontiguousarray(pair.video_rgb[1][:, :, ::-1])
            for n in range(len(pair.uv_px)):
                truth = pair.uv_px[n, 1] if pair.visible[n, 1] else None
                _draw_point(
                    picture, n, len(pair.uv_px), found[k].uv_px[n], truth, bool(found[k].confidence[n] >= 0.5)
                )
            cv2.putText(
                picture, name, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2, cv2.LINE_AA
            )
            cells.append(picture)
        rows.append(
            np.hstack([cv2.resize(c, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA) for c in cells])
        )
    cv2.imwrite(str(path), np.vstack(rows))


def _draw_point(
    picture: NDArray[np.uint8],
    n: int,
    count: int,
    uv: NDArray[np.float32],
    truth: NDArray[np.float32] | None,
    filled: bool,
) -> None:
    red, green, blue, _ = matplotlib.colormaps["hsv"](n / max(1, count))
    colour = (255 * blue, 255 * green, 255 * red)
    at = (round(float(uv[0])), round(float(uv[1])))
    if truth is not None and filled and np.hypot(*(truth - uv)) > 4:
        cv2.line(picture, at, (round(float(truth[0])), round(float(truth[1]))), (0, 0, 255), 1, cv2.LINE_AA)
    cv2.circle(picture, at, 4, colour, -1 if filled else 1, cv2.LINE_AA)

"""Every installed tracker and matcher, side by side, on held-out sequences or on your own labelled video.

    ros2 run atk_perception bench_perception --output runs/bench_perception [--data FOLDER] [--quick]

TRACKER+refinding is the tracker as nodes and selection run it, with points looked for where it does not (tracking/refinding.py).

What is not installed here is named on standard error and in the table, with the command that gets it: most need weights (`ros2
run atk_perception get_weights`, folder ATK_WEIGHTS), some a package (requirements/backends.txt). Without a GPU leave the slow
ones out: `--trackers template_lk atk --matchers sift atk`.

`--endurance 30` tracks a still scene for so many minutes of video instead, and reports drift and growth of memory.

Writes table.md, metrics.json, curves and contact sheets to the output folder. The last line on standard output is a
JSON object: {"tracking": {BACKEND: {CLASS: {"delta_avg", "oa", "aj"}}}, "transfer": {BACKEND: {"pck8", "confident_wrong",
"ms_256"}}, "ms_p95_32": {BACKEND: ms}}. Metrics: `evaluation.tap_vid`; sequences: `evaluation.held_out`; labels of real
video: `evaluation.labelled_video`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from atk_perception.correspondence.protocol import Matches
from atk_perception.evaluation import held_out
from atk_perception.evaluation.endurance import endurance
from atk_perception.evaluation.labelled_video import read_folder
from atk_perception.evaluation.report import (
    MatcherResult,
    TrackerResult,
    contact_sheet,
    plot_delta,
    plot_reliability,
    summary,
    table,
    transfer_sheet,
)
from atk_perception.evaluation.run import (
    BENCHED,
    REFINDING,
    track_clip,
    tracking_ms,
    transfer_errors,
    transfer_ms,
)
from atk_perception.evaluation.tap_vid import claims, tracking_score, transfer_score
from atk_perception.public_models import BackendError
from atk_perception.registry import DEFAULT_TRACKER, MATCHERS, TRACKERS, Backend
from atk_perception.tracking.protocol import Tracker
from atk_perception.training.clip import Clip

POINT_COUNTS = (10, 32, 100)

Made = TypeVar("Made")


def memory_mib() -> float:
    """Resident memory of this process (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmRSS: the benchmark measures memory on Linux only")


def installed(
    backends: Mapping[str, Backend[Made]], names: Sequence[str], left_out: dict[str, str]
) -> dict[str, Made]:
    """The backends of these names that can be made here; the others go to `left_out` with the reason."""
    made = {}
    for name in names:
        try:
            made[name] = backends[name].make()
        except BackendError as error:
            left_out[name] = str(error)
            print(f"{name} is left out: {error}", file=sys.stderr)
    return made


def sequences(data: Path | None, per_class: int, length: int) -> Iterator[tuple[str, str, Clip]]:
    """(class, name, clip), generated or from a folder, one at a time: videos are large."""
    if data is not None:
        for name, clip in read_folder(data).items():
            yield "data", name, clip
        return
    for kind in held_out.CLASSES:
        for number in range(per_class):
            yield kind, f"{kind}_{number}", held_out.tracking_clip(kind, number, length)


def bench_tracking(
    names: Sequence[str],
    data: Path | None,
    per_class: int,
    length: int,
    timed_frames: int,
    output: Path,
    left_out: dict[str, str],
) -> dict[str, TrackerResult]:
    """Run every installed tracker over every sequence; one contact sheet a sequence."""
    trackers: dict[str, Tracker[Any]] = {}
    results: dict[str, TrackerResult] = {}
    for name in names:
        before_mib = memory_mib()
        trackers |= installed(BENCHED, [name], left_out)
        if name in trackers:
            results[name] = TrackerResult(BENCHED[name].licence, memory_mib=memory_mib() - before_mib)
    if not trackers:
        return {}
    clip: Clip | None = None
    total = None if data is not None else per_class * len(held_out.CLASSES)
    progress = tqdm(
        sequences(data, per_class, length), total=total, desc="tracking", unit="video", file=sys.stderr
    )
    for kind, label, clip in progress:
        tracks = {}
        for name, tracker in trackers.items():
            before_mib = memory_mib()
            found = track_clip(tracker, clip)
            results[name].memory_mib += max(0.0, memory_mib() - before_mib)
            results[name].scores.setdefault(kind, []).append(tracking_score(clip, found))
            results[name].claims.append(claims(clip, found))
            tracks[name] = (found.uv_px, found.visible)
        contact_sheet(
            output / f"tracks_{label}.png",
            clip,
            tracks,
            np.linspace(1, len(clip) - 1, 4).astype(int).tolist(),
        )
    if clip is None:
        raise ValueError("no sequences to measure on")
    for name, tracker in trackers.items():
        results[name].ms = {
            n: float(np.median(tracking_ms(tracker, clip, n, timed_frames))) for n in POINT_COUNTS
        }
        results[name].ms_p95_32 = float(np.percentile(tracking_ms(tracker, clip, 32, 2 * timed_frames), 95))
    return results


def bench_transfer(
    names: Sequence[str], pairs: int, output: Path, left_out: dict[str, str]
) -> dict[str, MatcherResult]:
    """Run every installed matcher over held-out pairs of scenes."""
    matchers = installed(MATCHERS, names, left_out)
    if not matchers:
        return {}
    clips = [
        held_out.transfer_pair(number)
        for number in tqdm(range(pairs), desc="scenes", unit="pair", file=sys.stderr)
    ]
    results: dict[str, MatcherResult] = {}
    found: dict[str, list[Matches]] = {}
    for name, matcher in matchers.items():
        outcomes = [
            transfer_errors(matcher, clip)
            for clip in tqdm(clips, desc=f"transfer {name}", unit="pair", file=sys.stderr)
        ]
        error_px = np.concatenate([o[0] for o in outcomes])
        confidence = np.concatenate([o[1] for o in outcomes])
        visible = np.concatenate([o[2] for o in outcomes])
        found[name] = [o[3] for o in outcomes]
        results[name] = MatcherResult(
            MATCHERS[name].licence,
            transfer_score(error_px, confidence, visible),
            transfer_ms(matcher, clips[0]),
            confidence,
            (error_px <= 8.0) & visible,
        )
    shown = min(6, len(clips))
    transfer_sheet(output / "transfer.png", clips[:shown], {name: m[:shown] for name, m in found.items()})
    return results


def bench_endurance(names: Sequence[str], minutes: float, output: Path) -> dict[str, dict[str, float]]:
    """Drift and growth of memory of every installed tracker on a still scene."""
    results = {}
    for name, tracker in installed(BENCHED, names, {}).items():
        with tqdm(total=100, desc=f"{name}, {minutes:g} min", unit="%", file=sys.stderr) as bar:

            def report(share: float, bar: Any = bar) -> None:
                bar.update(round(100 * share) - bar.n)

            found = endurance(tracker, minutes, memory_mib, report)
        results[name] = {key: round(value, 3) for key, value in asdict(found).items()}
    (output / "endurance.json").write_text(json.dumps({"format_version": 1, **results}, indent=2) + "\n")
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/bench_perception"), help="folder for table, curves, sheets"
    )
    parser.add_argument(
        "--data", type=Path, help="folder of labelled video to track, instead of generated sequences"
    )
    parser.add_argument(
        "--trackers",
        nargs="+",
        default=[*TRACKERS, DEFAULT_TRACKER + REFINDING],
        choices=list(BENCHED),
        metavar="TRACKER",
        help=f"of {', '.join(TRACKERS)}, each also as TRACKER{REFINDING}",
    )
    parser.add_argument("--matchers", nargs="+", default=list(MATCHERS), choices=list(MATCHERS))
    parser.add_argument("--sequences", type=int, default=3, help="per class")
    parser.add_argument("--frames", type=int, default=150, help="per sequence")
    parser.add_argument("--pairs", type=int, default=60, help="scenes for transfer")
    parser.add_argument(
        "--quick", action="store_true", help="a look: one sequence of 40 frames a class, 10 scenes"
    )
    parser.add_argument(
        "--endurance",
        type=float,
        metavar="MINUTES",
        help="of video of a still scene: drift and growth of memory",
    )
    options = parser.parse_args(arguments)
    per_class, length, pairs = (
        (1, 40, min(10, options.pairs))
        if options.quick
        else (options.sequences, options.frames, options.pairs)
    )
    options.output.mkdir(parents=True, exist_ok=True)
    if options.endurance:
        print(json.dumps(bench_endurance(options.trackers, options.endurance, options.output)), flush=True)
        return
    timed_frames = 30 if options.quick else 100
    no_trackers: dict[str, str] = {}
    no_matchers: dict[str, str] = {}
    trackers = bench_tracking(
        options.trackers, options.data, per_class, length, timed_frames, options.output, no_trackers
    )
    matchers = bench_transfer(options.matchers, pairs, options.output, no_matchers)
    if trackers:
        plot_delta(options.output / "delta.png", trackers)
    plot_reliability(options.output / "reliability.png", trackers, matchers)
    text, result = table(trackers, matchers, no_trackers, no_matchers), summary(trackers, matchers)
    (options.output / "table.md").write_text(text)
    (options.output / "metrics.json").write_text(json.dumps({"format_version": 1, **result}, indent=2) + "\n")
    print(text)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

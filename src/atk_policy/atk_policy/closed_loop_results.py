"""What `ros2 run atk_sim benchmark` left: success in closed loop, read from its files.

    FOLDER/TASK/demonstrations/recorded.json        the task is recorded
    FOLDER/TASK/METHOD/seed_K/episodes.jsonl        an episode a line: disturbance, seed, success
    FOLDER/TASK/METHOD/seed_K/report/metrics.json   of the selection

Methods are `atk`, the automatic choice, and `published_ALPHA`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from atk_policy.json_lines import read_json_lines

AUTOMATIC, PUBLISHED = "atk", "published_"
FIRST_REPORT_SEED = 10_000  # below, things may have been tried out
Episode = tuple[str, int]  # (disturbance, seed)


def wilson_interval(successes: int, episodes: int) -> tuple[float, float]:
    """95% interval of a success rate (Wilson, 1927), honest also at 0 and at all successes."""
    if episodes == 0:
        return 0.0, 1.0
    interval = binomtest(successes, episodes).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Driven:
    """One method on one task, over its training seeds.

    Attributes:
        outcomes: success by training seed and episode.
        metrics: of each selection, as far as they are there.
    """

    method: str
    outcomes: dict[tuple[str, Episode], bool]
    metrics: list[dict[str, Any]]

    @classmethod
    def load(cls, folder: Path) -> Driven:
        """From FOLDER/TASK/METHOD; a line that a kill cut short does not count."""
        outcomes, metrics = {}, []
        for seed in sorted(folder.glob("seed_*")):
            with contextlib.suppress(FileNotFoundError):
                metrics.append(json.loads((seed / "report" / "metrics.json").read_text()))
            for row in read_json_lines(seed / "episodes.jsonl"):
                if row["seed"] >= FIRST_REPORT_SEED:
                    episode = (str(row["disturbance"]), int(row["seed"]))
                    outcomes[seed.name, episode] = bool(row["success"])
        return cls(folder.name, outcomes, metrics)

    @property
    def episodes(self) -> set[Episode]:
        """Those that were driven, by any training seed."""
        return {episode for _, episode in self.outcomes}

    def success(self, episodes: set[Episode]) -> dict[str, Any]:
        """Over those episodes and all training seeds, with its 95% interval (Wilson); and the points of each selection."""
        counted = [success for (_, episode), success in self.outcomes.items() if episode in episodes]
        low, high = wilson_interval(sum(counted), len(counted))
        return {
            "method": self.method,
            "success": round(sum(counted) / len(counted), 4),
            "successes": sum(counted),
            "episodes": len(counted),
            "interval": [round(low, 3), round(high, 3)],
            "points": [int(metrics["keypoints_kept"]) for metrics in self.metrics],
        }


def recorded_tasks(benchmark: Path) -> list[Path]:
    """The demonstrations of every task that was recorded to the end."""
    return sorted(marker.parent for marker in benchmark.glob("*/demonstrations/recorded.json"))


def closed_loop(benchmark: Path, task: str) -> dict[str, Any]:
    """Success of the automatic choice and of the best alpha, and what the whole `select` of the automatic one took.

    Episodes that not all of these methods have driven do not count. The best alpha is the one with most successes in
    these very episodes: what tuning would bring at best. None where nothing was driven.
    """
    automatic = Driven.load(benchmark / task / AUTOMATIC)
    tuned = [Driven.load(folder) for folder in sorted((benchmark / task).glob(f"{PUBLISHED}*"))]
    tuned = [driven for driven in tuned if driven.outcomes]
    compared = [driven for driven in (automatic, *tuned) if driven.outcomes]
    episodes = set.intersection(*(driven.episodes for driven in compared)) if compared else set()
    seconds = [sum(metrics["seconds"].values()) for metrics in automatic.metrics]
    found: dict[str, Any] = {
        "auto": automatic.success(episodes) if episodes and automatic.outcomes else None,
        "tuned": _best(driven.success(episodes) for driven in tuned) if episodes else None,
    }
    return {
        "success": found,
        "columns": sorted({disturbance for disturbance, _ in episodes}),
        "select_seconds": [round(s) for s in seconds],
        "select_peak_memory_mb": [int(metrics["peak_rss_mb"]) for metrics in automatic.metrics],
    }


def _best(found: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Of most successes; of equal ones that with fewest points."""
    return max(found, key=lambda one: (one["success"], -sum(one["points"])), default=None)

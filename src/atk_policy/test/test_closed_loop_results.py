"""Success in closed loop, out of the files of the benchmark: like is compared with like, and on report seeds alone."""

from __future__ import annotations

import json
from pathlib import Path

from atk_policy.closed_loop_results import closed_loop, recorded_tasks


def drive(folder: Path, successes: dict[tuple[str, int], bool], points: int, seconds: float = 60.0) -> None:
    """A training seed of a method, as `benchmark` leaves it."""
    (folder / "report").mkdir(parents=True)
    metrics = {"keypoints_kept": points, "seconds": {"track": seconds, "refit": 20.0}, "peak_rss_mb": 900}
    (folder / "report" / "metrics.json").write_text(json.dumps(metrics))
    lines = [
        json.dumps({"method": folder.parent.name, "disturbance": column, "seed": seed, "success": success})
        for (column, seed), success in successes.items()
    ]
    (folder / "episodes.jsonl").write_text("\n".join(lines) + '\n{"disturbance": "RP", "se')


def outcomes(failed: set[int], count: int = 10, columns=("RP", "RB")) -> dict[tuple[str, int], bool]:
    return {(c, 10_000 + k): k not in failed for c in columns for k in range(count)}


def test_the_automatic_choice_stands_beside_the_best_alpha(tmp_path):
    task = tmp_path / "sushi"
    drive(task / "atk" / "seed_0", outcomes({3}), 8)
    drive(task / "atk" / "seed_1", outcomes(set()), 7, seconds=300.0)
    drive(task / "published_0.001" / "seed_0", outcomes({0, 1, 2}), 40)
    drive(task / "published_0.005" / "seed_0", outcomes({0}), 9)
    drive(task / "random" / "seed_0", outcomes(set()), 8)
    found = closed_loop(tmp_path, "sushi")
    auto, tuned = found["success"]["auto"], found["success"]["tuned"]
    assert (auto["successes"], auto["episodes"], auto["success"]) == (38, 40, 0.95)
    assert auto["interval"] == [0.835, 0.986]  # Wilson, as a table gives it
    assert auto["points"] == [8, 7]
    assert (tuned["method"], tuned["successes"], tuned["episodes"]) == ("published_0.005", 18, 20)
    assert tuned["points"] == [9]
    assert found["columns"] == ["RB", "RP"]
    assert found["select_seconds"] == [80, 320]


def test_only_episodes_that_all_have_driven_count_and_none_of_those_for_trying_out(tmp_path):
    task = tmp_path / "pot"
    tried_out = {("RP", 2000 + k): False for k in range(5)}
    drive(task / "atk" / "seed_0", {**outcomes({0}), **tried_out}, 4)
    drive(task / "published_0.002" / "seed_0", outcomes({1}, count=3, columns=("RP",)), 4)
    found = closed_loop(tmp_path, "pot")["success"]
    assert (found["auto"]["successes"], found["auto"]["episodes"]) == (2, 3)
    assert (found["tuned"]["successes"], found["tuned"]["episodes"]) == (2, 3)


def test_of_equal_success_that_with_fewer_points_is_the_better_tuned(tmp_path):
    task = tmp_path / "pot"
    drive(task / "published_0.001" / "seed_0", outcomes({0}), 40)
    drive(task / "published_0.002" / "seed_0", outcomes({1}), 20)
    found = closed_loop(tmp_path, "pot")["success"]
    assert found["auto"] is None
    assert found["tuned"]["points"] == [20]


def test_what_was_not_driven_is_no_success_and_no_failure(tmp_path):
    assert closed_loop(tmp_path, "clock")["success"] == {"auto": None, "tuned": None}
    for task in ("sushi", "pot"):
        (tmp_path / task / "demonstrations").mkdir(parents=True)
    (tmp_path / "sushi" / "demonstrations" / "recorded.json").write_text("{}")
    assert recorded_tasks(tmp_path) == [tmp_path / "sushi" / "demonstrations"]

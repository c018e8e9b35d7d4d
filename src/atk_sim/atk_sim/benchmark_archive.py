"""What of a benchmark's output folder is kept with its report: enough to draw it again and to add to it elsewhere.

A day's benchmark is driven in parts, and not always on one machine; bags and policies are too large to pass on. Of every cell that
has episodes on report seeds there stays, laid out as in the output folder:

    ARCHIVE/TASK/METHOD/seed_K/learnt.json        from what it was learnt
    ARCHIVE/TASK/METHOD/seed_K/episodes*.jsonl    its episodes on report seeds
    ARCHIVE/TASK/METHOD/seed_K/points.json        for keypoint methods: where on the template they were chosen
    ARCHIVE/TASK/METHOD/seed_K/videos*/           of one training seed of a method: those that the report shows
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from atk_perception.keypoint_set import KeypointSet, KeypointSetError
from atk_policy.json_lines import append_json_line, read_json_lines
from atk_sim.benchmark_cell import EPISODES, LEARNT
from atk_sim.demo import FIRST_REPORT_SEED

POINTS = "points.json"
EPISODES_STEM = Path(EPISODES).stem
ALL_VIDEOS_OF = "atk"  # of every other method one failure is shown


def archive_cells(output: Path, archive: Path) -> None:
    """Keep every cell of `output`; one that is in `archive` already is replaced, all others in it stay."""
    for folder in sorted(path.parent for path in output.glob(f"*/*/seed_*/{LEARNT}")):
        place = folder.relative_to(output)
        partial = archive / place.with_name(f"{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        if _keep_episodes(folder, partial):
            _keep_points(folder, partial)
            shutil.copyfile(folder / LEARNT, partial / LEARNT)
            shutil.rmtree(archive / place, ignore_errors=True)
            partial.rename(archive / place)
    for method in {path.parent for path in output.glob("*/*/seed_*")}:
        _keep_videos(method, archive / method.relative_to(output))


def _keep_episodes(folder: Path, to: Path) -> bool:
    kept = False
    for file in folder.glob(f"{EPISODES_STEM}*.jsonl"):
        for row in read_json_lines(file):
            if row["seed"] >= FIRST_REPORT_SEED:
                to.mkdir(parents=True, exist_ok=True)
                append_json_line(to / file.name, row)
                kept = True
    return kept


def _keep_points(folder: Path, to: Path) -> None:
    with contextlib.suppress(KeypointSetError):
        uv_px = KeypointSet.load(folder).uv_px.astype(float).round(2).tolist()
        (to / POINTS).write_text(json.dumps({"uv_px": uv_px}) + "\n")


def _keep_videos(method: Path, to: Path) -> None:
    """Of one method on one task, of the first training seed that has a video of that column and outcome."""
    everything = method.name == ALL_VIDEOS_OF
    found: dict[Path, Path] = {}
    for file in sorted(method.glob("seed_*/videos*/*.mp4")):
        of_failure = file.stem.endswith("_failure")
        if everything or (of_failure and not found):
            found.setdefault(Path(file.parent.name, file.name), file)
    kept = {to / file.relative_to(method): file for file in found.values()}
    kept = {place: file for place, file in kept.items() if (place.parents[1] / LEARNT).is_file()}
    for old in set(to.glob("seed_*/videos*/*.mp4")) - set(kept) if kept else ():
        old.unlink()
    for place, file in kept.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)

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
from atk_policy.json_lines import read_json_lines
from atk_sim.benchmark_cell import EPISODES, LEARNT
from atk_sim.benchmark_rows import VIEWPOINT, Row, by_cell
from atk_sim.demo import FIRST_REPORT_SEED
from atk_sim.film import video_file

POINTS = "points.json"


def archive_cells(output: Path, rows: list[Row], archive: Path) -> None:
    """Keep every cell of `output`, whose episodes are `rows`; one that is in `archive` already is replaced, all others in it stay."""
    for folder in sorted(path.parent for path in output.glob(f"*/*/seed_*/{LEARNT}")):
        place = archive / folder.relative_to(output)
        episodes = _report_episodes(folder)
        if not episodes:
            continue
        partial = place.with_name(f"{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, lines in episodes.items():
            (partial / name).write_text(lines)
        _keep_points(folder, partial)
        shutil.copyfile(folder / LEARNT, partial / LEARNT)
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    _keep_videos(output, rows, archive)


def videos_named(root: Path, task: str, method: str, name: str) -> list[Path]:
    """The videos of that name of a row's method, by training seed; `root` is an output folder or an archive."""
    plain, _, viewpoint = method.partition(VIEWPOINT)
    videos = f"videos_{viewpoint}" if viewpoint else "videos"
    return sorted((root / task / plain).glob(f"seed_*/{videos}/{name}"))


def _report_episodes(folder: Path) -> dict[str, str]:
    """JSON lines of the episodes on report seeds, by the name of their file; no file without any."""
    found = {}
    for file in folder.glob(f"{Path(EPISODES).stem}*.jsonl"):
        rows = [row for row in read_json_lines(file) if row["seed"] >= FIRST_REPORT_SEED]
        if rows:
            found[file.name] = "".join(json.dumps(row) + "\n" for row in rows)
    return found


def _keep_points(folder: Path, to: Path) -> None:
    with contextlib.suppress(KeypointSetError):
        uv_px = KeypointSet.load(folder).uv_px.astype(float).round(2).tolist()
        (to / POINTS).write_text(json.dumps({"uv_px": uv_px}) + "\n")


def _keep_videos(output: Path, rows: list[Row], archive: Path) -> None:
    """All of ATK's, a failure of every other method's, of the first training seed that has one; none that the archive has of another."""
    for task, method, column in by_cell(rows):
        everything = method == "atk"
        for success in (True, False) if everything else (False,):
            name = video_file(Path(), column, success).name
            found = videos_named(output, task, method, name)
            if found and not videos_named(archive, task, method, name if everything else "*"):
                place = archive / found[0].relative_to(output)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found[0], place)

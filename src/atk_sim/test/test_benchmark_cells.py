"""A cell of the benchmark is learnt and driven once, whatever happens in between, and from one thing only.

With the method `pose`, which learns in seconds: what is pinned here is no matter of the method.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from atk_policy.json_lines import read_json_lines
from atk_policy.selection import SelectionConfig
from atk_sim import benchmark
from atk_sim.benchmark import next_cells, record_missing, run_cells
from atk_sim.benchmark_cell import (
    LEARNT,
    RECORDED,
    RECORDING,
    Cell,
    learn,
    recorded_bags,
    run_cell,
)
from atk_sim.provenance import Learnt, LearntError

QUICK = "refit: {steps: 20, batch: 32}\n"


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    """Two demonstrations are recorded, for `pose` to see again: their bags' contents are no matter to it."""
    file = tmp_path / "quick.yaml"
    file.write_text(QUICK)
    cell = Cell(tmp_path, "clock_button", "pose", 0, ("RP",), (10_000, 10_001), 2)
    for seed in range(2):
        write_bag(cell.recordings, seed)
    return replace(cell, settings=SelectionConfig.load(file))


def write_bag(folder: Path, seed: int) -> None:
    bag = folder / f"episode_{seed:04d}"
    bag.mkdir(parents=True)
    (bag / "metadata.yaml").write_text("")
    (bag / "0.mcap").write_bytes(bytes([seed]))


def driven(cell: Cell) -> list[tuple[str, int]]:
    return [(row["disturbance"], row["seed"]) for row in read_json_lines(cell.episodes)]


@pytest.mark.timeout(900)
def test_a_cell_learns_once_drives_what_is_missing_and_films_the_first_of_each_outcome(cell):
    run_cell(cell)
    learnt = Learnt.load(cell.folder / LEARNT)
    assert learnt.seconds is not None
    assert learnt.source.bags == ("episode_0000", "episode_0001")
    assert set(learnt.source.settings) == {"refit"}
    assert learnt.source.settings["refit"]["steps"] == 20
    weights = (cell.folder / "policy.safetensors").read_bytes()
    rows = read_json_lines(cell.episodes)
    assert [row["seed"] for row in rows] == [10_000, 10_001]
    assert rows[0].items() >= {"method": "pose", "training_seed": 0, "path": "process"}.items()
    videos = {path.name: path.stat().st_mtime_ns for path in cell.videos.iterdir()}
    assert set(videos) == {f"RP_{'success' if row['success'] else 'failure'}.mp4" for row in rows}
    reader = cv2.VideoCapture(str(next(cell.videos.iterdir())))
    assert reader.read()[1].shape == (240, 320, 3)

    run_cell(replace(cell, seeds=(10_000, 10_001, 10_002), disturbances=("RP", "RB")))
    assert driven(cell)[2:] == [("RB", 10_000), ("RB", 10_001), ("RP", 10_002), ("RB", 10_002)]
    assert (cell.folder / "policy.safetensors").read_bytes() == weights
    assert videos.items() <= {path.name: path.stat().st_mtime_ns for path in cell.videos.iterdir()}.items()


@pytest.mark.timeout(900)
def test_nothing_is_added_to_what_was_learnt_from_something_else(cell):
    run_cell(replace(cell, seeds=(10_000,)))
    other = replace(
        cell, settings=SelectionConfig(refit=cell.settings.refit.model_copy(update={"steps": 21}))
    )
    with pytest.raises(LearntError, match=r"clock_button pose seed 0 was learnt .*: settings changed"):
        run_cell(other)
    (cell.recordings / "episode_0001" / "0.mcap").write_bytes(b"recorded again")
    with pytest.raises(LearntError, match="demonstrations changed"):
        run_cell(cell)
    assert driven(cell) == [("RP", 10_000)]
    run_cell(replace(cell, relearn=True, seeds=(10_001,)))
    assert driven(cell) == [("RP", 10_001)], "episodes of what was learnt before are gone"
    run_cell(replace(cell, relearn=True))
    assert driven(cell) == [("RP", 10_001), ("RP", 10_000)], "what is up to date is not learnt anew"


def test_a_training_that_was_interrupted_goes_on_from_the_same_thing_only(cell):
    learn(cell)
    file = cell.folder / LEARNT
    learnt = Learnt.load(file)
    learnt.model_copy(update={"seconds": None}).save(file)  # as a kill leaves it
    with pytest.raises(LearntError, match="settings"):
        learn(replace(cell, settings=SelectionConfig()))
    learn(cell)
    assert Learnt.load(file).seconds is not None
    file.unlink()
    with pytest.raises(LearntError, match="does not say what was learnt from"):
        learn(cell)


def test_as_many_demonstrations_are_learnt_from_as_are_asked_for(cell):
    assert [bag.name for bag in replace(cell, demonstrations=1).lesson().bags] == ["episode_0000"]
    assert cell.lesson().seeds == [0, 1]
    with pytest.raises(
        LearntError, match="holds 2 demonstrations with servo noise 1; 3 with 1 are asked for"
    ):
        replace(cell, demonstrations=3).lesson()
    (cell.recordings / RECORDING).write_text('{"servo_noise": 0.5}')
    with pytest.raises(LearntError, match=r"servo noise 0\.5"):
        cell.lesson()


@pytest.mark.timeout(900)
def test_after_a_kill_the_same_cells_are_finished_and_nothing_is_driven_twice(cell):
    """The command is killed, its worker lives on for a while: whoever comes next waits for it."""
    file = cell.output / "quick.yaml"
    command = [sys.executable, "-m", "atk_sim.benchmark", "--output", str(cell.output), "--task", cell.task]
    command += ["--method", "pose", "--training-seeds", "1", "--episodes", "4", "--demonstrations", "2"]
    command += ["--column", "RP", "--workers", "1", "--selection", str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 600
        while not driven(cell) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    seeds = tuple(range(10_000, 10_004))
    assert 0 < len(driven(cell)) < 4, "it was not killed in the middle"
    assert run_cells([replace(cell, seeds=seeds)], 1) == []
    assert sorted(driven(cell)) == [("RP", seed) for seed in seeds]


@pytest.mark.timeout(900)
def test_a_cell_that_fails_is_told_and_the_others_are_finished_and_reported(cell, monkeypatch, capsys):
    """`manual` fails here: the bags hold no image."""
    arguments = ["--task", cell.task, "--method", "manual", "--method", "pose", "--column", "RP"]
    arguments += ["--training-seeds", "1", "--episodes", "1", "--demonstrations", "2", "--workers", "2"]
    arguments += ["--output", str(cell.output), "--selection", str(cell.output / "quick.yaml")]
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    (failed,) = last["failed"]
    assert failed.startswith("clock_button manual seed 0: ")
    assert driven(cell) == [("RP", 10_000)]
    assert "| clock_button | pose | 2 | 1 |" in (Path(last["report"]) / "README.md").read_text()


def test_cells_that_would_wait_for_each_other_are_not_begun_together(tmp_path):
    atk = Cell(tmp_path, "sushi", "atk", 0, ("RP",), (10_000,))
    stress, random = replace(atk, disturbances=("camera",)), replace(atk, method="random")
    full, later = replace(atk, method="fullset"), replace(atk, training_seed=1)
    cells = [atk, stress, random, full, later]
    assert next_cells(cells, [], 2) == [atk, full]
    assert next_cells(cells, [], 9) == [atk, full, later]
    assert next_cells([stress, random, later], [full], 2) == [stress]
    assert next_cells([random], [], 2) == [random]


# -- recording -----------------------------------------------------------------------------------------


def test_a_folder_that_has_enough_demonstrations_is_left_alone(tmp_path):
    """One that was recorded before servo noise was written down, too."""
    cell = Cell(tmp_path, "sushi", "atk", 0, ("RP",), (10_000,))
    for seed in range(80):
        write_bag(cell.recordings, seed)
    (cell.recordings / RECORDED).write_text('{"demonstrations": 80, "kept": 80}')
    before = sorted(path.stat().st_mtime_ns for path in cell.recordings.rglob("*"))
    record_missing([cell, replace(cell, method="fullset")], 1, 0)
    assert sorted(path.stat().st_mtime_ns for path in cell.recordings.rglob("*")) == before
    assert len(cell.lesson().bags) == 80
    shutil.rmtree(cell.recordings / "episode_0079")
    with pytest.raises(LearntError, match=r"79 of 80 .* servo noise 1; .* would have 2"):
        record_missing([replace(cell, servo_noise=2.0)], 1, 0)


@pytest.mark.system
@pytest.mark.timeout(600)
def test_demonstrations_that_are_missing_are_recorded_and_no_others(tmp_path, domain_id):
    cell = Cell(tmp_path, "clock_button", "atk", 0, ("RP",), (10_000,), 1, servo_noise=0.5)
    record_missing([cell], 1, domain_id)
    assert [bag.name for bag in recorded_bags(cell.recordings)] == ["episode_0000"]
    assert json.loads((cell.recordings / RECORDING).read_text()) == {"servo_noise": 0.5}
    assert json.loads((cell.recordings / RECORDED).read_text()) == {"demonstrations": 1}
    first = next(cell.recordings.glob("episode_0000/*.mcap")).stat().st_mtime_ns
    record_missing([replace(cell, demonstrations=2)], 1, domain_id)
    assert [bag.name for bag in recorded_bags(cell.recordings)] == ["episode_0000", "episode_0001"]
    assert next(cell.recordings.glob("episode_0000/*.mcap")).stat().st_mtime_ns == first
    assert replace(cell, demonstrations=2).lesson().servo_noise == 0.5
    assert json.loads((cell.recordings / RECORDED).read_text()) == {"demonstrations": 2}

"""The benchmark's book-keeping: what is missing, what was cut short, why episodes failed, tables, the check."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from atk_perception.keypoint_set import KeypointSet
from atk_policy.json_lines import read_json_lines
from atk_sim import benchmark, benchmark_check, benchmark_report
from atk_sim.benchmark_cell import LEARNT, Cell
from atk_sim.benchmark_check import Comparison, differing
from atk_sim.benchmark_keypoints import chosen_points
from atk_sim.benchmark_plan import IMITATION, SIM_TO_REAL
from atk_sim.benchmark_rows import NoEpisodesError, load_rows
from atk_sim.disturbances import DISTURBANCES, Disturbance
from atk_sim.film import Film
from atk_sim.methods import METHODS, make_method
from atk_sim.paper_results import paper_rate
from atk_sim.provenance import Learnt, Source
from atk_sim.rollout import AgentStep, failure_cause, run_episode
from atk_sim.simulation import Simulation
from atk_sim.statistics import difference_p


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(tmp_path, "sushi", "atk", 0, ("RP", "Light"), (10_000, 10_001))


class Expert:
    """An agent that knows everything, up to a step from which on it is frozen or blind."""

    def __init__(self, until: int = 10_000, state: str = "", wrong: float | None = None) -> None:
        self.until, self.state, self.wrong = until, state, wrong

    def begin(self, simulation: Simulation) -> None:
        pass

    def act(self, simulation: Simulation, stamp_ns: int) -> AgentStep:
        command = simulation.expert_command() if simulation.steps < self.until else None
        return AgentStep(command, self.state, self.wrong)


@pytest.fixture(scope="module")
def blind(robot):
    simulation = Simulation(robot, render=False)
    yield simulation
    simulation.close()


def test_an_agent_that_does_what_the_expert_does_succeeds(blind):
    outcome = run_episode(blind, Expert(), "sushi", "RP", 3)
    assert outcome.success
    assert outcome.cause == ""
    assert 30 < outcome.steps < blind.max_steps


@pytest.mark.parametrize(
    ("agent", "cause"),
    [
        (Expert(0), "policy"),
        (Expert(0, "TRANSFER_FAILED"), "transfer"),
        (Expert(0, "LOST"), "transfer"),
        (Expert(0, "TRACKING", 0.5), "transfer"),
        (Expert(0, "TRACKING", 0.1), "policy"),
    ],
)
def test_a_failure_has_a_cause(blind, agent, cause):
    outcome = run_episode(blind, agent, "sushi", "RP", 3)
    assert not outcome.success
    assert outcome.cause == cause
    assert outcome.steps == blind.max_steps


def test_a_track_that_slides_is_a_lost_track_and_what_the_expert_cannot_do_is_physics(blind, monkeypatch):
    blind.reset("sushi", "RP", 3)
    sliding = [AgentStep(None, "TRACKING", 0.0)] * 40 + [AgentStep(None, "TRACKING", 0.9)] * 60
    assert failure_cause(blind, sliding) == "lost track"
    held = [AgentStep(None, "TRACKING", 0.0)] * 40 + [AgentStep(None, "LOST")] * 60
    assert failure_cause(blind, held) == "lost track"
    monkeypatch.setattr(blind, "expert_command", blind.measured)
    assert failure_cause(blind, [AgentStep(None, "TRACKING", 0.0)] * 100) == "physics"


def test_what_is_missing_is_driven_and_nothing_twice(cell):
    assert cell.missing() == [("RP", 10_000), ("Light", 10_000), ("RP", 10_001), ("Light", 10_001)]
    cell.folder.mkdir(parents=True)
    cell.append({"task": "sushi", "disturbance": "Light", "seed": 10_000, "success": True})
    assert cell.missing() == [("RP", 10_000), ("RP", 10_001), ("Light", 10_001)]


def test_a_line_that_a_kill_cut_short_is_driven_again(cell):
    cell.folder.mkdir(parents=True)
    path = cell.folder / "episodes.jsonl"
    whole = {"task": "sushi", "disturbance": "RP", "seed": 10_000, "success": False}
    cell.append(whole)
    path.write_text(path.read_text() + '{"task": "sushi", "disturbance": "RP", "se')
    assert ("RP", 10_001) in cell.missing()
    cell.append({**whole, "seed": 10_001})
    assert [row["seed"] for row in read_json_lines(path)] == [10_000, 10_001]


def test_tuning_seeds_and_report_seeds_never_meet(tmp_path):
    arguments = ["--output", str(tmp_path), "--episodes", "1000", "--task", "sushi"]
    report, tuning = (
        benchmark.cells_of(benchmark.parse_arguments(arguments + extra))[0].seeds
        for extra in ([], ["--tuning"])
    )
    assert not set(report) & set(tuning)
    assert min(report) == benchmark.FIRST_REPORT_SEED


def test_a_plan_holds_what_the_bars_ask_for_the_most_telling_first(tmp_path):
    """The four sim-to-real tasks: ATK 3 x 30 episodes in 4 columns, every other method 1 x 20; the others with four methods."""
    args = benchmark.parse_arguments(["--plan", "bars", "--output", str(tmp_path)])
    cells = benchmark.cells_of(args)
    driven = {
        (cell.task, cell.method, cell.training_seed, column): len(cell.seeds)
        for cell in cells
        for column in cell.disturbances
    }
    usable = set(METHODS) - set(benchmark.left_out())
    for column in DISTURBANCES:
        for task in SIM_TO_REAL:
            assert [driven[task, "atk", seed, column] for seed in range(3)] == [30, 30, 30]
            assert all(driven[task, method, 0, column] == 20 for method in usable - {"atk"})
        for task in IMITATION:
            few = {"atk", "fullset", "random", "rgb"} & usable
            assert all(driven[task, method, 0, column] == 20 for method in few)
            assert {key[1] for key in driven if key[0] == task} == few
    severities = {Disturbance.parse(key[3]) for key in driven if key[:3] == ("pot", "atk", 0)}
    for name in ("camera", "occlusion", "freeze"):
        assert {d.severity for d in severities if d.name == name} == {0.25, 0.5, 1.0}
    assert len({d.severity for d in severities if d.name == "Light"}) > 3
    assert {(cell.method, cell.training_seed) for cell in cells[: len(SIM_TO_REAL)]} == {("atk", 0)}
    assert len({(cell.folder, cell.disturbances) for cell in cells}) == len(cells)


def test_a_plan_is_narrowed_by_names_and_not_by_numbers(tmp_path, capsys):
    arguments = ["--plan", "bars", "--output", str(tmp_path), "--task", "pot", "--column", "camera:0.5"]
    (cell,) = benchmark.cells_of(benchmark.parse_arguments([*arguments, "--method", "atk"]))
    assert (cell.task, cell.method, cell.disturbances) == ("pot", "atk", ("camera:0.5",))
    with pytest.raises(SystemExit):
        benchmark.parse_arguments([*arguments, "--episodes", "3"])
    assert "leave --training-seeds and --episodes out" in capsys.readouterr().err


def test_every_task_has_the_same_number_of_demonstrations(tmp_path):
    cells = benchmark.cells_of(benchmark.parse_arguments(["--output", str(tmp_path)]))
    assert {cell.demonstrations for cell in cells} == {80}


def test_unknown_names_are_answered_with_the_known_ones(capsys):
    with pytest.raises(ValueError, match="atk"):
        make_method("magic")
    with pytest.raises(SystemExit):
        benchmark.parse_arguments(["--column", "fog"])
    assert "RP, RB, RO, Light, camera" in capsys.readouterr().err


# -- the report ----------------------------------------------------------------------------------------


def write_rows(cell: Cell, successes: dict[str, int], episodes: int, **changes: object) -> Source:
    """As if the cell had learnt, and driven so many episodes in each column."""
    source = Source(
        task=cell.task,
        method=cell.method,
        training_seed=cell.training_seed,
        bags=tuple(f"episode_{k:04d}" for k in range(3, 83)),
        demonstrations="d",
        servo_noise=1.0,
        settings={},
        robot="r",
        perception="p1",
        policy="q1",
        simulator=f"{cell.task} {cell.method}",
        libraries={"torch": "2", "mujoco": "4"},
    ).model_copy(update=changes)
    cell.folder.mkdir(parents=True, exist_ok=True)
    Learnt(digest=source.digest, source=source, seconds=300.0).save(cell.folder / LEARNT)
    for column, count in successes.items():
        for k in range(episodes):
            success = k < count
            row = {"task": cell.task, "disturbance": column, "seed": 10_000 + k, "success": success}
            cell.append({**row, "cause": "" if success else "policy"})
    return source


def test_the_report_counts_what_was_driven_and_stands_beside_the_paper(cell, tmp_path):
    source = write_rows(cell, {"RP": 19, "Light": 15, "camera:0.5": 4, "camera": 1}, 20)
    write_rows(replace(cell, training_seed=1), {"RP": 20, "Light": 16}, 20)
    # A tuning seed never gets into a report.
    cell.append({"task": "sushi", "disturbance": "RP", "seed": 2000, "success": True, "cause": ""})
    folder = tmp_path / "report"
    entries = benchmark_report.write_benchmark_report(tmp_path, folder, "make benchmark")
    assert json.loads((folder / "results.json").read_text()) == entries
    assert entries[0] == {
        "task": "sushi",
        "method": "atk",
        "column": "RP",
        "successes": 19,
        "episodes": 20,
        "training_seed": 0,
        "viewpoint": "none",
        "demonstrations": 80,
        "servo_noise": 1.0,
        "settings": {},
        "digest": source.digest,
        "seeds": list(range(10_000, 10_020)),
        "over_ros": 0,
    }
    text = (folder / "README.md").read_text()
    assert "| sushi | atk | 80 | 2 | 39/40 **0.97** (0.87 to 1.00) [0.89] |" in text
    # A curve begins undisturbed.
    assert "| camera | sushi | atk | 0: 39/40 **0.97** (0.87 to 1.00); 0.5: 4/20 **0.20**" in text
    assert "All cells were learnt with perception p1, policy q1" in text
    for name in ("success", "severity", "causes"):
        assert (folder / f"{name}.png").stat().st_size > 2000
    assert sum(file.stat().st_size for file in folder.iterdir()) < 300_000
    linked = {part.split(")")[0] for part in text.split("](")[1:]}
    assert linked == {"success.png", "severity.png", "causes.png"}, "only what was made"


def test_a_report_of_several_versions_says_so(cell, tmp_path):
    write_rows(cell, {"RP": 19}, 20)
    write_rows(replace(cell, training_seed=1), {"RP": 20}, 20, perception="p2")
    benchmark_report.write_benchmark_report(tmp_path, tmp_path / "report", "make benchmark")
    text = (tmp_path / "report" / "README.md").read_text()
    assert "**These cells were not all learnt with the same perception:**" in text
    assert "- perception: p1; p2" in text


def test_results_with_a_corrected_viewpoint_stand_beside_those_without(cell, tmp_path):
    write_rows(cell, {"RP": 19, "camera": 4}, 20)
    write_rows(replace(cell, viewpoint="depth"), {"RP": 18, "camera": 17}, 20)
    entries = benchmark_report.write_benchmark_report(tmp_path, tmp_path / "report", "make benchmark")
    assert {(e["method"], e["viewpoint"], e["column"], e["successes"]) for e in entries} >= {
        ("atk", "none", "camera", 4),
        ("atk", "depth", "camera", 17),
    }
    text = (tmp_path / "report" / "README.md").read_text()
    assert "| camera | sushi | atk_viewpoint_depth | 0: 18/20" in text


def test_episodes_over_ros_are_told_apart(cell, tmp_path):
    write_rows(cell, {"RP": 19}, 20)
    ros = {"task": "sushi", "disturbance": "RB", "seed": 10_000, "success": True, "cause": "", "path": "ros"}
    cell.append(ros)
    assert [row.column for row in load_rows(tmp_path) if row.path == "ros"] == ["RB"]
    entries = benchmark_report.write_benchmark_report(tmp_path, tmp_path / "report", "make benchmark")
    assert {(entry["column"], entry["over_ros"]) for entry in entries} == {("RP", 0), ("RB", 1)}
    assert "21 episodes, 1 of them over ROS" in (tmp_path / "report" / "README.md").read_text()


def test_the_report_tells_how_often_each_point_was_chosen_and_how_far_seeds_agree(cell, tmp_path, robot):
    """Points that lie next to each other, but on two bodies, are not the same point."""
    simulation = Simulation(robot)
    simulation.reset("sushi", "RP", 3)
    template, geoms = simulation.rgb(), simulation.renderer.surfaces()[0]
    bodies = simulation.world.model.geom_bodyid[np.maximum(geoms, 0)]
    names = [simulation.world.model.body(int(body)).name for body in range(simulation.world.model.nbody)]
    simulation.close()
    v, u = np.argwhere(bodies == names.index("piece")).T
    middle = np.array([np.median(u), np.median(v)])
    beside = np.array([u.max() + 4.0, v[u.argmax()]])
    for seed, points in ((0, [middle]), (2, [middle + 3.0]), (3, [middle, beside])):
        trained = replace(cell, training_seed=seed)
        write_rows(trained, {"RP": 1}, 1)
        KeypointSet.create("sushi", np.array(points, np.float32), template).save(trained.folder)
    folder = tmp_path / "report"
    benchmark_report.write_benchmark_report(tmp_path, folder, "make benchmark")
    chosen = chosen_points(folder / "cells", "sushi")
    assert np.abs(chosen.template_rgb.astype(int) - template).max() == 0
    assert list(chosen.uv_px) == [0, 2, 3]
    assert [chosen.times_chosen(seed).tolist() for seed in chosen.uv_px] == [[3], [3], [3, 1]]
    # Of one point and two of which one fits: 2 x 1 / 3, twice, and 1.
    assert chosen.agreement == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert chosen_points(folder / "cells", "pot") is None
    text = (folder / "README.md").read_text()
    assert "| sushi | 1 (seed 0), 1 (seed 2), 2 (seed 3) | 0.78 |" in text
    assert "(keypoints_sushi.png)" in text
    assert (folder / "keypoints_sushi.png").stat().st_size > 10_000


def test_the_report_brings_all_videos_of_atk_and_a_failure_of_every_other_method(cell, tmp_path):
    film = Film()
    for level in range(0, 200, 20):
        film.add(np.full((480, 640, 3), level, np.uint8), AgentStep(None))
    others = [replace(cell, method="rgb"), replace(cell, training_seed=1)]
    for each in (cell, *others):
        write_rows(each, {"RP": 19, "Light": 10}, 20)
        for column in ("RP", "Light"):
            film.keep_first(each.videos, column, True)
            film.keep_first(each.videos, column, False)
    folder = tmp_path / "report"
    benchmark_report.write_benchmark_report(tmp_path, folder, "make benchmark")
    stale = folder / "cells" / "sushi" / "atk" / "seed_9" / "videos" / "of_an_older_report.mp4"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")
    benchmark_report.write_benchmark_report(tmp_path, folder, "make benchmark")
    outcomes = {
        f"atk/seed_0/videos/{column}_{o}.mp4" for column in ("RP", "Light") for o in ("success", "failure")
    }
    shown = {str(path.relative_to(folder / "cells" / "sushi")) for path in folder.rglob("*.mp4")}
    assert shown == outcomes | {"rgb/seed_0/videos/RP_failure.mp4"}
    text = (folder / "README.md").read_text()
    assert "[RP failure](cells/sushi/rgb/seed_0/videos/RP_failure.mp4)" in text
    assert "[RP failure](cells/sushi/atk/seed_0/videos/RP_failure.mp4)" in text
    linked = {part.split(")")[0] for part in text.split("](")[1:]}
    assert all((folder / link).is_file() for link in linked)


def test_a_report_that_is_kept_grows_by_what_was_driven_elsewhere(cell, tmp_path):
    """Two machines, one after the other: what only the first has stays, what both have is the second's."""
    folder = tmp_path / "docs"
    here, there = (replace(cell, output=tmp_path / name) for name in ("here", "there"))
    write_rows(here, {"RP": 19, "RB": 18}, 20)
    write_rows(replace(here, training_seed=1), {"RP": 17}, 20)
    benchmark_report.write_benchmark_report(here.output, folder, "make benchmark")
    first = (folder / "results.json").read_bytes()
    write_rows(there, {"RP": 12}, 20)
    write_rows(replace(there, task="pot"), {"RP": 11}, 20)
    entries = benchmark_report.write_benchmark_report(there.output, folder, "make benchmark", keep=True)
    assert {(e["task"], e["training_seed"], e["column"], e["successes"]) for e in entries} == {
        ("sushi", 0, "RP", 12),
        ("sushi", 1, "RP", 17),
        ("pot", 0, "RP", 11),
    }
    # Without, the report is of what was driven, to the byte.
    benchmark_report.write_benchmark_report(here.output, folder, "make benchmark")
    assert (folder / "results.json").read_bytes() == first
    for keep in (False, True):
        with pytest.raises(NoEpisodesError):
            benchmark_report.write_benchmark_report(tmp_path / "nothing", folder, "make benchmark", keep=keep)
    assert load_rows(folder / "cells"), "nothing is lost"


def test_no_episodes_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(NoEpisodesError, match="without --tuning"):
        load_rows(tmp_path)


def test_the_papers_rates_are_those_of_its_tables():
    assert paper_rate("sushi", "atk", "Light") == 0.893
    assert paper_rate("clock_button", "vlm", "RP") == 0.913
    assert paper_rate("pan_filling", "atk", "Light") == 0.25
    assert paper_rate("pan_filling", "rgb", "RP") is None
    assert paper_rate("sushi", "atk", "camera") is None


# -- the check -----------------------------------------------------------------------------------------


def test_the_exact_test_is_that_of_the_tables():
    """Fisher's tea tasting: 3 of 4 and 1 of 4 give 34 / 70; and what happens in every cell adds up."""
    assert difference_p([((3, 4), (1, 4))]) == pytest.approx(34 / 70)
    assert difference_p([((30, 30), (10, 10))]) == 1.0
    assert difference_p([((28, 30), (7, 10))]) > 0.05
    assert difference_p([((28, 30), (7, 10))] * 10) < 1e-6
    # Rates that differ between kinds of episodes are no difference between the series.
    assert difference_p([((30, 30), (10, 10)), ((0, 20), (0, 10))]) == 1.0


def test_a_result_that_does_not_come_again_is_named_and_chance_is_not():
    fine = Comparison("sushi atk seed 2 RB", (28, 30), (9, 10))
    gone = Comparison("sushi atk seed 2 RP", (28, 30), (2, 10))
    assert differing([fine] * 8) == []
    (line,) = differing([*[fine] * 8, gone])[:1]
    assert "sushi atk seed 2 RP: committed 28/30, now 2/10" in line
    # Intervals meet in every cell, and yet: it fell everywhere.
    slightly = Comparison("pot atk seed 0 RP", (28, 30), (7, 10))
    assert ["all 10 cells together" in said for said in differing([slightly] * 10)] == [True]
    assert differing([]) == []


def test_a_check_where_nothing_changed_rarely_fails():
    rng = np.random.default_rng(0)

    def check() -> bool:
        rates = rng.uniform(0.0, 1.0, 12)
        pairs = [((int(rng.binomial(30, r)), 30), (int(rng.binomial(10, r)), 10)) for r in rates]
        return bool(differing([Comparison("", *pair) for pair in pairs]))

    assert np.mean([check() for _ in range(300)]) < 0.05


def test_a_tenth_is_drawn_one_at_least_and_by_its_seed():
    entries = [{"number": k} for k in range(48)]
    assert len(benchmark_check.draw(entries, 0.1, 0)) == 5
    assert len(benchmark_check.draw(entries[:3], 0.1, 0)) == 1
    assert benchmark_check.draw(entries, 0.1, 7) == benchmark_check.draw(entries, 0.1, 7)
    assert benchmark_check.draw(entries, 0.1, 7) != benchmark_check.draw(entries, 0.1, 8)


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    """results.json of a report on `pose`: all of 20 episodes in RP, half of them in Light."""
    cell = Cell(tmp_path / "then", "sushi", "pose", 0, ("RP", "Light"), ())
    write_rows(cell, {"RP": 20, "Light": 10}, 20, bags=("episode_0000", "episode_0001"))
    benchmark_report.write_benchmark_report(tmp_path / "then", tmp_path / "report", "make benchmark")
    return tmp_path / "report" / "results.json"


def check_again(committed: Path, monkeypatch, successes: dict[str, int]) -> Path:
    """`benchmark_check` on an output folder in which everything has been driven: what it does last, without what takes hours."""
    output = committed.parents[1] / "now"
    seeds = tuple(range(10_020, 10_030))
    cell = Cell(output, "sushi", "pose", 0, ("RP", "Light"), seeds, 2)
    for seed in range(2):
        bag = cell.recordings / f"episode_{seed:04d}"
        bag.mkdir(parents=True)
        (bag / "metadata.yaml").write_text("")
    source = Source.of(cell.lesson(), "pose", 0)
    cell.folder.mkdir(parents=True)
    Learnt(digest=source.digest, source=source, seconds=1.0).save(cell.folder / LEARNT)
    for column, count in successes.items():
        for k, seed in enumerate(seeds):
            cell.append({"task": "sushi", "disturbance": column, "seed": seed, "success": k < count})
    arguments = [str(committed), "--share", "1", "--output", str(output), "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmark_check", *arguments])
    return output


def test_the_check_passes_where_results_come_again(committed, monkeypatch, capsys):
    check_again(committed, monkeypatch, {"RP": 9, "Light": 7})
    benchmark_check.main()
    *_, learnt, last = capsys.readouterr().out.splitlines()
    assert json.loads(last).items() >= {"cells": 2, "differing": 0, "failed": 0}.items()
    assert learnt == "0 of 2 cells were learnt from exactly what the committed ones were"


def test_the_check_fails_where_a_result_does_not_come_again(committed, monkeypatch, capsys):
    check_again(committed, monkeypatch, {"RP": 2, "Light": 5})
    with pytest.raises(SystemExit) as ended:
        benchmark_check.main()
    assert ended.value.code == 1
    text = capsys.readouterr().out
    assert "sushi pose seed 0 RP: committed 20/20, now 2/10" in text
    assert "Light: committed" not in text


def test_the_check_says_what_it_needs(committed, monkeypatch):
    entries = json.loads(committed.read_text())
    with pytest.raises(SystemExit, match="does not exist; a report with it is written by"):
        benchmark_check.committed_entries(committed.with_name("none.json"))
    committed.write_text(json.dumps([{k: v for k, v in e.items() if k != "digest"} for e in entries]))
    with pytest.raises(SystemExit, match="older version"):
        benchmark_check.committed_entries(committed)
    monkeypatch.setitem(sys.modules, "transformers", None)
    committed.write_text(json.dumps([{**entry, "method": "rgb"} for entry in entries]))
    with pytest.raises(SystemExit, match="no cell of a method that can be used here"):
        benchmark_check.committed_entries(committed)


def test_an_outcome_is_one_json_line(blind):
    row = json.loads(json.dumps(asdict(run_episode(blind, Expert(0), "sushi", "RP", 4))))
    assert row["holds"] == {}
    assert np.isfinite(row["wall_s"])

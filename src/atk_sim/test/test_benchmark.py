"""The benchmark's book-keeping: what is missing, what was cut short, why episodes failed, tables, the check."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from atk_perception.keypoint_set import KeypointSet
from atk_sim import benchmark, benchmark_check, benchmark_report, demo
from atk_sim.benchmark import Cell, read_episodes
from atk_sim.methods import make_method
from atk_sim.paper_results import paper_rate
from atk_sim.rollout import AgentStep, failure_cause, run_episode
from atk_sim.simulation import Simulation


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(tmp_path, "sushi", "atk", 0, ("RP", "Light"), (10_000, 10_001), 1.0)


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
    benchmark._append(cell, {"task": "sushi", "disturbance": "Light", "seed": 10_000, "success": True})
    assert cell.missing() == [("RP", 10_000), ("RP", 10_001), ("Light", 10_001)]


def test_a_line_that_a_kill_cut_short_is_driven_again(cell):
    cell.folder.mkdir(parents=True)
    path = cell.folder / "episodes.jsonl"
    whole = {"task": "sushi", "disturbance": "RP", "seed": 10_000, "success": False}
    benchmark._append(cell, whole)
    path.write_text(path.read_text() + '{"task": "sushi", "disturbance": "RP", "se')
    assert ("RP", 10_001) in cell.missing()
    benchmark._append(cell, {**whole, "seed": 10_001})
    assert [row["seed"] for row in read_episodes(path)] == [10_000, 10_001]


def test_tuning_seeds_and_report_seeds_never_meet(tmp_path):
    arguments = ["--output", str(tmp_path), "--episodes", "1000", "--task", "sushi"]
    report, tuning = (
        benchmark.cells_of(benchmark.parse_arguments(arguments + extra))[0].seeds
        for extra in ([], ["--tuning"])
    )
    assert not set(report) & set(tuning)
    assert min(report) == benchmark.FIRST_REPORT_SEED


def test_unknown_names_are_answered_with_the_known_ones(capsys):
    with pytest.raises(ValueError, match="atk"):
        make_method("magic")
    with pytest.raises(SystemExit):
        benchmark.parse_arguments(["--column", "fog"])
    assert "RP, RB, RO, Light, camera" in capsys.readouterr().err


# -- the report ----------------------------------------------------------------------------------------


def write_rows(cell: Cell, successes: dict[str, int], episodes: int) -> None:
    cell.folder.mkdir(parents=True, exist_ok=True)
    (cell.folder / benchmark.LEARNT).write_text(json.dumps({"demonstrations": 80, "seconds": 300.0}))
    for column, count in successes.items():
        for k in range(episodes):
            success = k < count
            row = {"task": cell.task, "disturbance": column, "seed": 10_000 + k, "success": success}
            benchmark._append(cell, {**row, "cause": "" if success else "policy"})


def test_the_report_counts_what_was_driven_and_stands_beside_the_paper(cell, tmp_path):
    write_rows(cell, {"RP": 19, "Light": 15, "camera:0.5": 4, "camera": 1}, 20)
    write_rows(replace(cell, training_seed=1), {"RP": 20, "Light": 16}, 20)
    # A tuning seed never gets into a report.
    benchmark._append(
        cell, {"task": "sushi", "disturbance": "RP", "seed": 2000, "success": True, "cause": ""}
    )
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
    }
    text = (folder / "README.md").read_text()
    assert "| sushi | atk | 80 | 2 | 39/40 **0.97** (0.87 to 1.00) [0.89] |" in text
    assert "| sushi | atk | camera:0.5 | 4/20 **0.20**" in text
    for name in ("success", "severity", "causes"):
        assert (folder / f"{name}.png").stat().st_size > 2000
    assert sum(file.stat().st_size for file in folder.iterdir()) < 300_000


def test_the_report_tells_how_far_the_training_seeds_agree(cell, tmp_path):
    """Points that lie next to each other, but on two bodies, are not the same point."""
    (cell.demonstrations / "episode_0003").mkdir(parents=True)
    (cell.demonstrations / "episode_0003" / "metadata.yaml").write_text("")
    simulation = Simulation(cell.lesson().robot)
    simulation.reset("sushi", "RP", 3)
    template, geoms = simulation.rgb(), simulation.renderer.surfaces()[0]
    bodies = simulation.world.model.geom_bodyid[np.maximum(geoms, 0)]
    names = [simulation.world.model.body(int(body)).name for body in range(simulation.world.model.nbody)]
    simulation.close()
    v, u = np.argwhere(bodies == names.index("piece")).T
    middle = np.array([np.median(u), np.median(v)])
    beside = np.array([u.max() + 4.0, v[u.argmax()]])
    for seed, points in enumerate(([middle], [middle + 3.0], [middle, beside])):
        folder = tmp_path / "sushi" / "atk" / f"seed_{seed}"
        KeypointSet.create("sushi", np.array(points, np.float32), template).save(folder)
    sets = benchmark_report.keypoint_sets(tmp_path, "sushi")
    assert benchmark_report.agreement_of(tmp_path, "sushi", sets[:1]) is None
    assert benchmark_report.agreement_of(tmp_path, "sushi", sets[:2]) == 1.0
    # Of one point and two of which one fits: 2 x 1 / 3, twice, and 1.
    assert benchmark_report.agreement_of(tmp_path, "sushi", sets) == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert benchmark_report.keypoint_table(tmp_path, ["sushi", "pot"])[2:] == ["| sushi | 1, 1, 2 | 0.78 |"]


def test_the_report_brings_small_copies_of_the_videos(cell, tmp_path):
    write_rows(cell, {"RP": 19}, 20)
    (cell.folder / "videos").mkdir()
    video = demo.RolloutVideo()
    for level in range(0, 200, 20):
        video.add(np.full((480, 640, 3), level, np.uint8))
    video.save(cell.folder / "videos" / "RP_failure")
    folder = tmp_path / "report"
    benchmark_report.write_benchmark_report(tmp_path, folder, "make benchmark")
    copy = folder / "videos" / "sushi_RP_failure.mp4"
    assert "(videos/sushi_RP_failure.mp4)" in (folder / "README.md").read_text()
    reader = cv2.VideoCapture(str(copy))
    sizes = [image.shape for _ in range(10) if (image := reader.read()[1]) is not None]
    assert sizes == [(240, 320, 3)] * 10


def test_no_episodes_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match="without --tuning"):
        benchmark_report.load_episodes(tmp_path)


def test_the_papers_rates_are_those_of_its_tables():
    assert paper_rate("sushi", "atk", "Light") == 0.893
    assert paper_rate("clock_button", "vlm", "RP") == 0.913
    assert paper_rate("pan_filling", "atk", "Light") == 0.25
    assert paper_rate("pan_filling", "rgb", "RP") is None
    assert paper_rate("sushi", "atk", "camera") is None


# -- the check -----------------------------------------------------------------------------------------


def test_a_result_that_does_not_come_again_is_named():
    entry = {
        "task": "sushi",
        "method": "atk",
        "column": "RB",
        "successes": 28,
        "episodes": 30,
        "training_seed": 2,
    }
    assert benchmark_check.disagreement(entry, {**entry, "successes": 8, "episodes": 10}) == ""
    said = benchmark_check.disagreement(entry, {**entry, "successes": 2, "episodes": 10})
    assert "sushi atk RB training seed 2" in said
    assert "28/30" in said
    assert "2/10" in said


def test_a_tenth_is_drawn_one_at_least_and_by_its_seed():
    entries = [{"number": k} for k in range(48)]
    assert len(benchmark_check.draw(entries, 0.1, 0)) == 5
    assert len(benchmark_check.draw(entries[:3], 0.1, 0)) == 1
    assert benchmark_check.draw(entries, 0.1, 7) == benchmark_check.draw(entries, 0.1, 7)
    assert benchmark_check.draw(entries, 0.1, 7) != benchmark_check.draw(entries, 0.1, 8)


def test_an_outcome_is_one_json_line(blind):
    row = json.loads(json.dumps(asdict(run_episode(blind, Expert(0), "sushi", "RP", 4))))
    assert row["holds"] == {}
    assert np.isfinite(row["wall_s"])

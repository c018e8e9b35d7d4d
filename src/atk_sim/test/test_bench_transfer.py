"""The tasks' things are found and followed in new scenes, and what is claimed of them is judged by exact truth."""

from __future__ import annotations

import json

import numpy as np

from atk_sim.bench_transfer import Tally, main, task_points, truth
from atk_sim.simulation import Simulation


def test_points_lie_on_things_and_truth_follows_them(robot):
    simulation = Simulation(robot)
    points = task_points(simulation, "sushi")
    assert {"plate", "piece"} <= set(points.names)
    assert not {"table", "wall"} & set(points.names)
    uv_px, visible, there = truth(simulation, points)
    assert there.all()
    assert visible.mean() > 0.9
    np.testing.assert_allclose(uv_px, points.template.uv_px, atol=0.6)
    simulation.reset("sushi", "RP", 7)
    moved_px = np.linalg.norm(truth(simulation, points)[0] - points.template.uv_px, axis=1)
    assert np.median(moved_px) > 20.0
    simulation.close()


def test_a_tally_counts_hidden_points_as_wrong_when_they_are_claimed():
    tally = Tally()
    tally.add(
        np.array([1.0, 20.0, 1.0, 30.0]),
        np.array([True, True, True, False]),
        np.array([True, True, False, False]),
    )
    assert (tally.visible, tally.hidden, tally.close) == (2, 2, 1)
    assert (tally.sure_right, tally.sure_wrong, tally.said_rightly) == (1, 2, 3)


def test_the_command_writes_tables_and_pictures_and_ends_with_json(tmp_path, capsys, monkeypatch):
    arguments = ["bench_transfer", "--task", "clock_button", "--seeds", "1", "--tuning", "--follow"]
    arguments += [
        "--matchers",
        "sift",
        "--trackers",
        "lucas_kanade",
        "lucas_kanade+refinding",
        "--output",
        str(tmp_path),
    ]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures["transfer"]["sift"]) == {"clock_button", "RP", "RB", "RO", "Light", "all"}
    assert figures["transfer"]["sift"]["RP"]["pck8"] > 0.6
    assert figures["transfer"]["sift"]["all"]["confident_wrong"] < 0.2
    alone, refinding = (figures["tracking"][f"lucas_kanade{name}"]["all"] for name in ("", "+refinding"))
    assert 0.3 < alone["pck8"] <= 1.0
    assert refinding["oa"] > alone["oa"]  # what the arm hid, the baseline never says again that it sees
    assert (tmp_path / "clock_button_sift.jpg").stat().st_size > 10_000
    assert "| sift | RP |" in (tmp_path / "table.md").read_text()

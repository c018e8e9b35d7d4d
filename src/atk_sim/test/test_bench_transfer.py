"""The tasks' things are found and followed in new scenes, and what is claimed of them is judged by exact truth."""

from __future__ import annotations

import json

import numpy as np

from atk_perception.keypoint_set import KeypointSet
from atk_perception.part_placement import RigidParts
from atk_sim.bench_transfer import Tally, main, task_points, truth
from atk_sim.benchmark_cell import LEARNT
from atk_sim.provenance import Learnt, Source
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


def test_chosen_sets_are_placed_as_on_the_robot_and_alone(robot, tmp_path, capsys, monkeypatch):
    """The clock's disc has turned on its dial: what is on the rim is taken for the one or the other, unless parts are known."""
    simulation = Simulation(robot)
    points = task_points(simulation, "clock_hand")
    simulation.close()
    numbers = np.array([{"clock": 0, "disc": 1}.get(name, -1) for name in points.names])
    mine, companions = (np.flatnonzero(numbers >= 0)[k::2] for k in (0, 1))
    uv_px = points.template.uv_px
    rigid = RigidParts(numbers[mine], uv_px[companions], numbers[companions])
    folder = tmp_path / "sets" / "clock_hand" / "atk" / "seed_0"
    KeypointSet.create("clock_hand", uv_px[mine], points.template.image_rgb, rigid=rigid).save(folder)
    names = ("demonstrations", "robot", "perception", "policy", "simulator")
    source = Source(
        task="clock_hand",
        method="atk",
        training_seed=0,
        bags=("episode_0000",),
        servo_noise=1.0,
        settings={},
        libraries={},
        **dict.fromkeys(names, "0"),
    )
    Learnt.beginning(source).save(folder / LEARNT)
    arguments = [
        "bench_transfer",
        "--task",
        "clock_hand",
        "--seeds",
        "3",
        "--tuning",
        "--output",
        str(tmp_path),
    ]
    monkeypatch.setattr("sys.argv", [*arguments, "--sets", str(tmp_path / "sets")])
    main()
    transfer = json.loads(capsys.readouterr().out.splitlines()[-1])["transfer"]
    whole, alone = transfer["sift"]["all"], transfer["sift, alone"]["all"]
    assert whole["points"] == alone["points"] > 500
    assert whole["pck8"] > 0.97 > alone["pck8"]
    assert whole["confident_wrong"] < min(
        0.03, 0.5 * alone["confident_wrong"]
    )  # the peg stands on some elsewhere

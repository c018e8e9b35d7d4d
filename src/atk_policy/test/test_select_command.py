"""`select` end to end on real bags: cut short by kill -9 it goes on, and the run folder drives the evaluation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from ament_index_python.packages import get_package_prefix
from rosbags.typesys import Stores, get_typestore
from run_folders import ROBOT, TWO_CAMERAS, write_run_folder

from atk_perception.frames import BagError, check_bag
from atk_perception.public_models import BackendError
from atk_perception.recording import DemonstrationWriter
from atk_perception.registry import DEFAULT_MATCHER, DEFAULT_TRACKER
from atk_perception.robot_description import RobotDescription
from atk_policy.demonstrations import (
    Tracking,
    find_bags,
    once_found,
    track_demonstration,
    track_demonstrations,
)
from atk_policy.replay import replay
from atk_policy.run_folder import RunFolder
from atk_policy.select_command import USER_ERRORS
from atk_policy.selection import (
    CandidateConfig,
    SelectionConfig,
    SelectionError,
    _merged,
    focused_candidates,
    propose_candidates,
    select_keypoints,
)

TYPES = get_typestore(Stores.ROS2_JAZZY)
STEPS = 16
SMALL = {
    "candidates": {"count": 40, "transferred_min": 0.5},
    "choice": {"measure": {"steps": 20, "batch": 16, "folds": 2}},
    "select": {"steps": 60, "batch": 32, "members": 2, "folds": 2},
    "refit": {"steps": 60, "batch": 32},
    "policy": {"horizon": 4, "sizes": {"width": 16, "blocks": 1}},
}


FEW = SelectionConfig(candidates=CandidateConfig(count=8))


def texture(seed: int, size: int) -> np.ndarray:
    """Blobs with corners at several scales: what classical features find."""
    rng = np.random.default_rng(seed)
    fine = cv2.resize(rng.integers(0, 255, (size // 4, size // 4, 3), dtype=np.uint8), (size, size))
    coarse = cv2.resize(rng.integers(0, 255, (size // 16, size // 16, 3), dtype=np.uint8), (size, size))
    return cv2.addWeighted(fine, 0.6, coarse, 0.4, 0)


def write_bag(path: Path, seed: int, robot: RobotDescription = ROBOT, silent: range = range(0)) -> Path:
    """The arm follows a card over a table: a textured square that slides on a textured ground.

    Further cameras see it in a mirror; without the steps in `silent`.
    """
    rng = np.random.default_rng(seed)
    ground = cv2.resize(texture(1, 640), (ROBOT.camera.width, ROBOT.camera.height))
    card = texture(2, 160)
    image_type, state_type, array_type = (
        "sensor_msgs/msg/CompressedImage",
        "sensor_msgs/msg/JointState",
        "std_msgs/msg/Float64MultiArray",
    )
    topics = {
        **{camera.recorded_topic: image_type for camera in robot.cameras},
        ROBOT.topics.joint_states: state_type,
        ROBOT.topics.command: array_type,
        ROBOT.topics.gripper_command: array_type,
    }
    writer = DemonstrationWriter(path, topics, robot)

    def put(topic: str, stamp_ns: int, **fields) -> None:
        if topics[topic] in (image_type, state_type):
            stamp = TYPES.types["builtin_interfaces/msg/Time"](
                sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
            )
            fields["header"] = TYPES.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
        message = TYPES.types[topics[topic]](**fields)
        writer.write(topic, stamp_ns, TYPES.serialize_cdr(message, topics[topic]))

    layout = TYPES.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    start_px, speed_px = rng.uniform([120, 100], [360, 260]), rng.uniform(-3, 3, 2)
    q = np.array(ROBOT.home_rad)
    for k in range(STEPS):
        stamp_ns = 10**9 + k * ROBOT.control_period_ns
        u, v = np.rint(start_px + k * speed_px).astype(int)
        image = ground.copy()
        image[v : v + 160, u : u + 160] = card
        action = np.append(ROBOT.home_rad, 0.04)
        action[:2] += [(u - 240) / 300, (v - 180) / 300]
        put(
            ROBOT.topics.joint_states,
            stamp_ns,
            name=[*ROBOT.joints.names, ROBOT.gripper.joint],
            position=np.append(q, 0.02),
            velocity=np.zeros(0),
            effort=np.zeros(0),
        )
        for camera, view in zip(robot.cameras, (image, image[:, ::-1]), strict=False):
            png = cv2.imencode(".png", cv2.cvtColor(view, cv2.COLOR_RGB2BGR))[1]
            if camera is robot.camera or k not in silent:
                put(camera.recorded_topic, stamp_ns, format="rgb8; png compressed bgr8", data=png.ravel())
        put(ROBOT.topics.command, stamp_ns + 1_000_000, layout=layout, data=action[:-1])
        put(ROBOT.topics.gripper_command, stamp_ns + 1_000_000, layout=layout, data=action[-1:])
        q = q + 0.3 * (action[:-1] - q)
    assert writer.keep().ok or silent
    return path


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demonstrations")
    for seed in range(3):
        write_bag(folder / f"episode_{seed:04d}", seed)
    return folder


def command(name: str, *arguments: object) -> list[str]:
    return [str(Path(get_package_prefix("atk_policy")) / "lib" / "atk_policy" / name), *map(str, arguments)]


def last_json(output: str) -> dict:
    return json.loads(output.strip().splitlines()[-1])


def test_select_survives_a_kill_and_its_run_folder_is_evaluated(bags, tmp_path):
    config = tmp_path / "settings.yaml"
    two_rounds = {**SMALL["select"], "members": 4}
    config.write_text(
        yaml.safe_dump({**SMALL, "select": two_rounds, "refit": {**SMALL["refit"], "steps": 400}})
    )
    output = tmp_path / "run"
    arguments = command("select", bags, "--output", output, "--config", config, "--name", "cards")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(output.glob(".select/training-*/refit.safetensors")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (output / "policy.yaml").exists()
    tracks = {file: file.stat().st_mtime_ns for file in output.glob(".select/tracks/*.npz")}
    assert len(tracks) == 2 * 3  # of all candidates, and of the kept ones alone

    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    figures = last_json(done.stdout)
    assert figures["keypoints_candidates"] == 40
    assert 1 <= figures["keypoints_kept"] <= 12
    assert "3 of 3 from the cache" in done.stderr
    assert all(file.stat().st_mtime_ns == time_ns for file, time_ns in tracks.items())

    run = RunFolder.load(output)
    assert run.keypoint_set.name == "cards"
    metrics = json.loads((output / "report" / "metrics.json").read_text())
    assert metrics["keypoints_kept"] == len(run.keypoint_set)
    assert metrics["demonstrations_found_alone"] == 3
    # What the policy was trained on are the kept points as a robot tracks them: alone.
    alone = track_demonstrations(
        find_bags([bags]),
        [run.keypoint_set],
        run.robot,
        Tracking(DEFAULT_MATCHER, DEFAULT_TRACKER),
        tmp_path / "alone",
    )
    visible = np.concatenate([once_found(d).visible for d in alone]).mean(axis=0)
    np.testing.assert_allclose([k["visible_alone"] for k in metrics["keypoints"]], visible, atol=1e-3)
    page = (output / "report" / "index.html").read_text()
    assert f"Agreement of the rounds of folds: {metrics['agreement_of_rounds']:.2f}" in page
    assert all(f"<td>{k['visible_alone']:.0%}</td>" in page for k in metrics["keypoints"])
    for picture in output.glob("report/*.png"):
        assert picture.name in page
        assert cv2.imread(str(picture)) is not None

    arguments = command("evaluate_offline", output, bags, "--output", tmp_path / "offline")
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    figures = last_json(done.stdout)
    assert figures["bags"] == 3
    assert figures["frames"] == 3 * STEPS
    assert 0.0 < figures["joint_error_rad"] < 0.5
    assert len(figures["error_by_horizon_rad"]) == 4
    assert len(list((tmp_path / "offline").glob("*.png"))) == 5


def test_another_policy_class_goes_all_the_way_to_the_robot(bags, tmp_path):
    """Named in the settings, trained, reported, loaded and run."""
    file = tmp_path / "settings.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                **SMALL,
                "policy": {**SMALL["policy"], "name": "flow", "encoder": "attention", "history": 2},
                "execution_horizon": 2,
                "held_out": 0.0,
            }
        )
    )
    run = select_keypoints([bags], tmp_path / "run", ROBOT, SelectionConfig.load(file), workers=1)
    metrics = json.loads((run.path / "report" / "metrics.json").read_text())
    assert (metrics["policy"], metrics["encoder"]) == ("flow", "attention")
    curves = metrics["curves"]["refit"]
    assert curves["step"][-1] == 60
    assert len(curves["step"]) == len(curves["train"]) == len(curves["held_out_error"])
    assert curves["train"][-1] < curves["train"][0]
    assert curves["held_out_error"] == [None] * len(curves["step"]), "of 3 demonstrations none is held out"
    loaded = RunFolder.load(run.path)
    assert loaded.file.execution_horizon == 2
    assert loaded.policy.encoder_name == "attention"
    replayed = replay(find_bags([bags])[0], loaded, ROBOT)
    inferred = np.isfinite(replayed.chunk).all(axis=(1, 2))
    assert 2 <= inferred.sum() <= STEPS / 2 + 1, "every second frame"
    assert np.isfinite(replayed.commanded[np.flatnonzero(inferred)[0] :]).all()


def test_the_benchmark_compares_the_automatic_selection_with_the_published_one_and_survives_a_kill(
    bags, tmp_path
):
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump({**SMALL, "select": {**SMALL["select"], "steps": 20}}))
    for method, successes in (("atk", 3), ("published_0.002", 2)):
        folder = tmp_path / "benchmark" / bags.name / method / "seed_0"
        folder.mkdir(parents=True)
        lines = [
            json.dumps({"disturbance": "RP", "seed": 10_000 + k, "success": k < successes}) for k in range(3)
        ]
        (folder / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    arguments = [bags, "--output", tmp_path, "--config", config, "--seeds", "2", "--alphas", "0.002"]
    arguments += ["--benchmark", tmp_path / "benchmark", "--workers", "1"]
    command_line = [sys.executable, "-m", "atk_policy.bench_selection", *map(str, arguments)]
    results = tmp_path / "results.jsonl"
    process = subprocess.Popen(command_line, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not results.is_file():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    known = results.read_text()

    done = subprocess.run(command_line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert results.read_text().startswith(known)
    assert f"{known.count(chr(10))} of 4 are known from {results}" in done.stdout
    (figures,) = last_json(done.stdout).values()
    assert len(figures["kept"]) == 2
    assert 0.0 <= figures["agreement"] <= 1.0
    assert figures["held_out_error"] > 0.0
    assert figures["peak_memory_mb"] > 100
    assert set(figures["published"]) == {"alpha 0.002"}
    assert figures["success"]["auto"]["successes"] == 3
    assert figures["success"]["tuned"]["method"] == "published_0.002"
    assert len(list((tmp_path / "tracks").glob("*.npz"))) == 2 * 3, "other candidates for each seed"
    assert len((tmp_path / "selection.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize(("alpha", "fewest", "most"), [(1.0, 1, 1), (0.0, 13, 40)])
def test_published_sets_of_one_point_and_of_very_many_go_all_the_way_to_the_robot(
    bags, tmp_path, alpha, fewest, most
):
    small = _merged(SMALL, {"select": {"members": 1, "steps": 80, "gate_learning_rate": 0.1}})
    config = SelectionConfig.model_validate(_merged(SelectionConfig.published(alpha).model_dump(), small))
    run = select_keypoints([bags], tmp_path / "run", ROBOT, config, workers=1)
    metrics = json.loads((run.path / "report" / "metrics.json").read_text())
    assert fewest <= metrics["keypoints_kept"] <= most
    assert all(point["error_without"] is None for point in metrics["keypoints"]), "alone, or too many to try"
    loaded = RunFolder.load(run.path)
    assert len(loaded.keypoint_ids) == metrics["keypoints_kept"]
    replayed = replay(find_bags([bags])[0], loaded, ROBOT)
    # A single point is out of sight in many frames, in which the robot holds.
    assert np.isfinite(replayed.chunk).all(axis=(1, 2)).any()


def test_what_is_cancelled_in_the_progress_ends_and_its_tracks_are_kept(bags, tmp_path):
    class Cancelled(Exception):
        pass

    def progress(stage: str, fraction: float, _: str) -> None:
        if stage == "select" and fraction > 0:
            raise Cancelled

    config = SelectionConfig.model_validate(
        {**SelectionConfig().model_dump(), "candidates": SMALL["candidates"], "name": "cards"}
    )
    with pytest.raises(Cancelled):
        select_keypoints([bags], tmp_path / "run", ROBOT, config, progress=progress)
    assert len(list((tmp_path / "run" / ".select" / "tracks").glob("*.npz"))) == 3


def test_tracks_are_the_same_from_the_cache_and_another_tracker_set_is_tracked_anew(bags, tmp_path):
    config = SelectionConfig(candidates=CandidateConfig(count=12))
    found = find_bags([bags])[:1]
    candidates = propose_candidates(find_bags([bags]), ROBOT, config)
    tracking = Tracking(config.matcher, config.tracker)
    first = track_demonstrations(found, [candidates], ROBOT, tracking, tmp_path, workers=1)
    again = track_demonstrations(found, [candidates], ROBOT, tracking, tmp_path, workers=1)
    assert np.array_equal(first[0].uv_px, again[0].uv_px)
    track_demonstrations(found, [candidates.subset([0, 1, 2])], ROBOT, tracking, tmp_path, workers=1)
    assert len(list(tmp_path.glob("*.npz"))) == 2


@pytest.fixture(scope="module")
def two_camera_bags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_cameras")
    for seed in range(3):
        write_bag(folder / f"episode_{seed:04d}", seed, TWO_CAMERAS)
    return folder


def test_two_cameras_are_chosen_from_together_and_replayed_together(two_camera_bags, tmp_path):
    config = SelectionConfig.model_validate(_merged(SelectionConfig(name="cards").model_dump(), SMALL))
    run = select_keypoints([two_camera_bags], tmp_path / "run", TWO_CAMERAS, config, workers=1)
    metrics = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert metrics["keypoints_candidates"] == 80
    kept = {
        name: [p["id"] for p in metrics["keypoints"] if p["camera"] == name] for name in ("camera", "left")
    }
    assert {name: points.ids.tolist() for name, points in run.keypoint_sets.items()} == {
        name: ids for name, ids in kept.items() if ids
    }
    assert metrics["cameras_without_keypoints"] == [name for name, ids in kept.items() if not ids]
    for name in ("camera", "left"):
        assert cv2.imread(str(tmp_path / "run" / "report" / f"template_{name}.png")) is not None

    loaded = RunFolder.load(tmp_path / "run")
    assert loaded.robot == TWO_CAMERAS.seen_by(*run.keypoint_sets)
    for name, points in run.keypoint_sets.items():
        rigid, read = points.rigid, loaded.keypoint_sets[name].rigid
        assert rigid is not None
        assert read is not None
        np.testing.assert_array_equal(read.numbers, rigid.numbers)
        np.testing.assert_array_equal(read.companions_px, rigid.companions_px)
    again = replay(two_camera_bags / "episode_0001", loaded, TWO_CAMERAS)
    assert again.uv_px.shape == (STEPS, len(run.keypoint_ids), 2)
    # What was tracked for training is what replay tracks; the tracks of candidates differ from those of the kept alone.
    (tracked,) = track_demonstrations(
        find_bags([two_camera_bags])[1:2],
        list(run.keypoint_sets.values()),
        loaded.robot,
        Tracking(config.matcher, config.tracker),
        tmp_path / "tracks",
        workers=1,
    )
    np.testing.assert_array_equal(tracked.uv_px, again.uv_px)


def test_a_camera_that_was_silent_in_a_demonstration_is_named(tmp_path):
    """At the start it is no fault: topics are found one after the other."""
    whole = write_bag(tmp_path / "whole", 0, TWO_CAMERAS)
    candidates = [
        propose_candidates([whole], seen, SelectionConfig())
        for seen in (TWO_CAMERAS, TWO_CAMERAS.seen_by("left"))
    ]
    tracking = Tracking("sift", "template_lk")
    late = write_bag(tmp_path / "late", 0, TWO_CAMERAS, silent=range(3))
    assert len(track_demonstration(late, candidates, TWO_CAMERAS, tracking)) == STEPS - 3
    broken = write_bag(tmp_path / "broken", 0, TWO_CAMERAS, silent=range(5, 12))
    assert [problem.split(" apart")[0] for problem in check_bag(broken, TWO_CAMERAS).problems] == [
        "left/camera/image_raw/compressed: images are 0.400 s"
    ]
    with pytest.raises(BagError, match=r"camera 'left' has no image of the 0\.2 s before 0\.45 s into"):
        track_demonstration(broken, candidates, TWO_CAMERAS, tracking)


def test_replay_holds_where_a_camera_was_silent(tmp_path):
    run = write_run_folder(tmp_path / "run", robot=TWO_CAMERAS)
    broken = write_bag(tmp_path / "broken", 0, TWO_CAMERAS, silent=range(5, 12))
    assert "camera_left_stale" in replay(broken, run, TWO_CAMERAS).holds


def test_candidates_gather_where_the_first_images_differ():
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)
    firsts = []
    for k in range(5):
        image = ground.copy()
        image[60:120, 40 + 50 * k : 80 + 50 * k] = rng.integers(0, 255, (60, 40, 3), dtype=np.uint8)
        firsts.append(image)
    uv_px = focused_candidates(firsts, CandidateConfig(count=80, focus=0.75), np.random.default_rng(1))
    assert uv_px.shape == (80, 2)
    on_object = ((uv_px >= [36, 56]) & (uv_px <= [84, 124])).all(axis=1)
    assert on_object.mean() > 0.6
    spread = focused_candidates(firsts[:1], CandidateConfig(count=80), np.random.default_rng(1))
    assert spread.shape == (80, 2)


def test_a_small_thing_that_moves_is_not_left_without_candidates_beside_a_large_one():
    rng = np.random.default_rng(0)
    ground = np.full((240, 320, 3), 128, np.uint8)
    firsts = []
    for k in range(6):
        image = ground.copy()
        image[20 + 5 * k : 140 + 5 * k, 20:140] = rng.integers(0, 255, (120, 120, 3), dtype=np.uint8)
        image[200:220, 200 + 20 * k : 220 + 20 * k] = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
        firsts.append(image)
    uv_px = focused_candidates(firsts, CandidateConfig(count=64, focus=0.75), np.random.default_rng(1))
    on_small = ((uv_px >= [192, 192]) & (uv_px <= [228, 228])).all(axis=1)
    assert on_small.sum() >= 4, "by its share of the area it would get one"


def test_points_that_a_person_named_are_used_as_they_are(bags, tmp_path):
    named = tuple((float(u), float(v)) for u, v in propose_candidates(find_bags([bags]), ROBOT, FEW).uv_px)
    config = SelectionConfig.model_validate(
        _merged(
            SelectionConfig().model_dump(),
            {**SMALL, "candidates": {"uv_px": named, "transferred_min": 0.5}, "choice": {"objective": "all"}},
        )
    )
    run = select_keypoints([bags], tmp_path / "run", ROBOT, config)
    figures = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert {tuple(point["uv_px"]) for point in figures["keypoints"]} <= {
        (round(u, 1), round(v, 1)) for u, v in named
    }
    assert len(run.keypoint_set) == figures["keypoints_trackable"] > 3
    assert figures["objective"] == "all"
    assert figures["agreement_of_rounds"] is None
    assert "Agreement of the rounds" not in (tmp_path / "run" / "report" / "index.html").read_text()
    assert np.isfinite(figures["held_out_error"])
    assert not (tmp_path / "run" / "report" / "path.png").exists(), "nothing was chosen"
    outside = config.model_copy(update={"candidates": CandidateConfig(uv_px=((640.0, 3.0),))})
    with pytest.raises(SelectionError, match=r"\[640\.0, 3\.0\] is not in the template, which is 640x480"):
        propose_candidates(find_bags([bags]), ROBOT, outside)


def test_candidates_can_be_tried_in_the_demonstrations(bags):
    config = SelectionConfig(candidates=CandidateConfig(count=12, strategy="tracked"))
    found = find_bags([bags])
    first, again = (propose_candidates(found, ROBOT, config).uv_px for _ in range(2))
    assert first.shape == (12, 2)
    np.testing.assert_array_equal(first, again)


def test_a_backend_that_is_not_installed_is_named_with_the_command_that_gets_it(bags, tmp_path, monkeypatch):
    """Also out of the processes that track."""
    monkeypatch.setenv("ATK_WEIGHTS", str(tmp_path / "none"))
    found = find_bags([bags])
    candidates = propose_candidates(found, ROBOT, SelectionConfig(candidates=CandidateConfig(count=4)))
    with pytest.raises(BackendError, match="get_weights dinov2"):
        track_demonstrations(
            found, [candidates], ROBOT, Tracking("dinov2", "template_lk"), tmp_path / "tracks", workers=1
        )
    assert BackendError in USER_ERRORS


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("alpha: 1", "alpha"),
        ("select: {penalty: {alpha: -1}}", "alpha"),
        ("choice: {objective: best}", "objective"),
        ("select: 3", "select"),
        ("- 1", "used"),
        ("policy: {name: cnn}", "unknown policy 'cnn'; known: diffusion, flow, gaussian, mlp"),
        ("policy: {encoder: sum}", "unknown encoder 'sum'"),
        ("policy: {name: flow, sizes: {depth: 3}}", "no size 'depth'; its sizes and their defaults: width"),
        ("policy: {sizes: {width: 0}}", "size 'width' of policy 'mlp' is 0"),
        ("{execution_horizon: 9, policy: {horizon: 8}}", "execution_horizon is 9, but a chunk has only 8"),
        ("select: {keep: best}", "Give keep and patience to refit"),
        ("refit: {keep: first}", "keep"),
        ("log: {tensorbord: true}", "tensorbord"),
        ("candidates: 3", "candidates"),
        ("[", "YAML|used"),
    ],
)
def test_settings_that_cannot_be_used_are_explained(tmp_path, content, match):
    path = tmp_path / "settings.yaml"
    path.write_text(content)
    with pytest.raises(SelectionError, match=match):
        SelectionConfig.load(path)


def test_settings_change_only_what_they_name(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("choice: {tolerance: 0.1}")
    config, default = SelectionConfig.load(path), SelectionConfig()
    assert config.choice.tolerance == 0.1
    assert config.choice.keypoints_max == default.choice.keypoints_max
    assert config.refit == default.refit


def test_the_published_objective_is_chosen_by_its_name(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("{choice: {objective: published}, select: {penalty: {alpha: 0.005}}}")
    config = SelectionConfig.load(path)
    assert config == SelectionConfig.published(0.005)
    assert (config.select.gates, config.select.cross_fit, config.select.members) == ("bernoulli", False, 1)


def test_user_errors_end_with_one_line_and_status_1(bags, tmp_path):
    for arguments, expected in (
        (command("select", tmp_path, "--output", tmp_path / "run"), "no rosbag2 folder"),
        (command("select", bags, "--output", tmp_path / "run", "--robot", tmp_path / "no.yaml"), "no.yaml"),
        (command("evaluate_offline", tmp_path / "no", bags, "--output", tmp_path / "o"), "does not exist"),
    ):
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 1
        assert expected in done.stderr
        assert "Traceback" not in done.stderr


def test_help_teaches():
    done = subprocess.run(command("select", "--help"), capture_output=True, text=True, check=True)
    for part in ("run folder", "examples:", "--robot", "continues where it was"):
        assert part in done.stdout

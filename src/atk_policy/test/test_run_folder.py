"""The run folder survives the way to the robot, and every way of being unusable is explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from run_folders import ROBOT, TWO_CAMERAS, write_run_folder

from atk_perception.robot_description import RobotDescription
from atk_policy.checkpoint import load_checkpoint
from atk_policy.policies.protocol import PolicyInput
from atk_policy.run_folder import POLICY_FILE, ROBOT_FILE, WEIGHTS_FILE, RunFolder, RunFolderError


@pytest.fixture
def run(tmp_path):
    return write_run_folder(tmp_path / "run")


def edit(path, **changes):
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def test_what_is_saved_is_what_is_loaded(run):
    loaded = RunFolder.load(run.path)
    seen = PolicyInput(torch.rand(1, 1, 4, 2) * 300, torch.ones(1, 1, 4), torch.zeros(1, 1, 8))
    assert torch.equal(loaded.policy.act(seen), run.policy.act(seen))
    assert loaded.file == run.file
    assert loaded.robot == ROBOT
    assert loaded.keypoint_set.ids.tolist() == [10, 11, 12, 13]


@pytest.mark.parametrize("encoder", ["concat", "attention"])
@pytest.mark.parametrize("policy", ["mlp", "gaussian", "diffusion", "flow"])
def test_every_policy_survives_the_way(tmp_path, policy, encoder):
    run = write_run_folder(tmp_path / "run", policy_name=policy, encoder=encoder, history=2)
    loaded = RunFolder.load(run.path)
    seen = PolicyInput(torch.rand(3, 2, 4, 2) * 300, torch.ones(3, 2, 4), torch.zeros(3, 2, 8))
    assert type(loaded.policy) is type(run.policy)
    assert torch.equal(loaded.policy.act(seen), run.policy.act(seen))


def test_what_release_0_wrote_is_still_read(run):
    """policy.yaml without encoder and execution_horizon, and the names of the weights."""
    content = yaml.safe_load((run.path / POLICY_FILE).read_text())
    del content["encoder"], content["execution_horizon"]
    (run.path / POLICY_FILE).write_text(yaml.safe_dump(content))
    loaded = RunFolder.load(run.path)
    assert (loaded.file.encoder, loaded.file.execution_horizon) == ("concat", 1)
    tensors, _ = load_checkpoint(run.path / WEIGHTS_FILE)
    assert {"embed.weight", "embed.bias", "trunk.0.inner.weight", "head.1.weight"} <= tensors.keys()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"policy": "cnn"}, "unknown policy 'cnn'; known: diffusion, flow, gaussian, mlp"),
        ({"encoder": "sum"}, "unknown encoder 'sum'; known: attention, concat"),
        ({"execution_horizon": 7}, "execution_horizon is 7, but a chunk has only 6"),
    ],
)
def test_what_this_release_does_not_have_is_named(run, changes, match):
    edit(run.path / POLICY_FILE, **changes)
    with pytest.raises(RunFolderError, match=match):
        RunFolder.load(run.path)


@pytest.mark.parametrize("name", [POLICY_FILE, WEIGHTS_FILE, ROBOT_FILE, "keypoints.yaml", "template.png"])
def test_a_missing_file_is_named(run, name):
    (run.path / name).unlink()
    with pytest.raises(RunFolderError, match=name):
        RunFolder.load(run.path)


def test_a_missing_folder_says_how_to_make_one(tmp_path):
    with pytest.raises(RunFolderError, match="ros2 run atk_policy select"):
        RunFolder.load(tmp_path / "nowhere")


def test_a_future_format_version_is_refused_with_what_to_do(run):
    edit(run.path / POLICY_FILE, format_version=99)
    with pytest.raises(RunFolderError, match=r"format_version 99; this release reads 1\. Use the release"):
        RunFolder.load(run.path)


@pytest.mark.parametrize("content", [b"{", b"- 1", b"\xff\xfe\x00"])
def test_a_policy_file_that_is_no_policy_file_is_refused(run, content):
    (run.path / POLICY_FILE).write_bytes(content)
    with pytest.raises(RunFolderError, match=POLICY_FILE):
        RunFolder.load(run.path)


def test_an_entry_out_of_range_is_named(run):
    edit(run.path / POLICY_FILE, horizon=0)
    with pytest.raises(RunFolderError, match="horizon"):
        RunFolder.load(run.path)


def test_weights_that_were_cut_short_or_do_not_fit_are_refused(run):
    weights = run.path / WEIGHTS_FILE
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunFolderError, match="no readable safetensors"):
        RunFolder.load(run.path)
    weights.write_bytes(whole)
    edit(run.path / POLICY_FILE, sizes={"width": 32, "blocks": 1})
    with pytest.raises(RunFolderError, match="does not fit"):
        RunFolder.load(run.path)


def test_weights_that_are_not_finite_are_refused(run):
    with torch.no_grad():
        run.policy.embed.weight[0, 0] = float("nan")
    run.save()
    with pytest.raises(RunFolderError, match="not finite"):
        RunFolder.load(run.path)


def test_keypoints_of_another_set_are_refused(run):
    other = write_run_folder(run.path.parent / "other", keypoints=3, name="plates")
    other.keypoint_set.save(run.path)
    with pytest.raises(RunFolderError, match="'plates'"):
        RunFolder.load(run.path)


def test_another_robot_is_refused_naming_every_difference(run):
    joints = ROBOT.joints.model_copy(update={"names": tuple(reversed(ROBOT.joints.names))})
    camera = ROBOT.camera.model_copy(update={"width": 640, "height": 360})
    other = ROBOT.model_copy(
        update={"joints": joints, "camera": camera, "control_rate_hz": 10.0, "name": "other"}
    )
    with pytest.raises(RunFolderError) as error:
        run.require_robot(other)
    for entry in ("joints.names", "control_rate_hz", "camera size", "'other'"):
        assert entry in str(error.value)
    half = ROBOT.camera.model_copy(update={"width": 320, "height": 240})
    run.require_robot(ROBOT.model_copy(update={"camera": half}))


def test_a_refused_robot_file_is_told_by_file_and_line(run, tmp_path):
    """Whoever changed a line of the robot file finds it again."""
    text = Path(ROBOT.origin.name).read_text()
    text = text.replace("control_rate_hz: 20.0", "control_rate_hz: 10.0").replace("width: 640", "width: 320")
    line_of = {
        entry: text[: text.index(entry)].count("\n") + 1 for entry in ("control_rate_hz", "width: 320")
    }
    path = tmp_path / "my_robot.yaml"
    path.write_text(text)
    with pytest.raises(RunFolderError) as error:
        RunFolder.load(run.path).require_robot(RobotDescription.load(path))
    message = str(error.value)
    assert f"(here: {run.path / ROBOT_FILE}, there: {path})" in message
    assert re.search(
        rf"control_rate_hz: 20\.0 here \(line \d+\), 10\.0 there \(line {line_of['control_rate_hz']}\)",
        message,
    )
    assert f"camera size of camera: 640x480 here, 320x480 there (line {line_of['width: 320']})" in message


# ----------------------------------------------------------------------------------- several cameras


@pytest.fixture
def two(tmp_path):
    return write_run_folder(tmp_path / "two", keypoints=3, robot=TWO_CAMERAS)


def test_each_camera_keeps_its_own_set(two):
    assert sorted(p.name for p in (two.path / "cameras" / "left").iterdir()) == [
        "keypoints.yaml",
        "template.png",
    ]
    loaded = RunFolder.load(two.path)
    assert {name: points.ids.tolist() for name, points in loaded.keypoint_sets.items()} == {
        "camera": [10, 11, 12],
        "left": [13, 14, 15],
    }
    assert loaded.keypoint_ids.tolist() == [10, 11, 12, 13, 14, 15]
    assert loaded.file == two.file
    assert loaded.robot == TWO_CAMERAS


def test_with_one_camera_nothing_is_written_that_older_releases_do_not_read(run):
    assert "more_cameras" not in (run.path / POLICY_FILE).read_text()
    assert "more_cameras" not in (run.path / ROBOT_FILE).read_text()
    assert not (run.path / "cameras").exists()


def test_a_set_of_an_earlier_selection_does_not_stay(two):
    write_run_folder(two.path)
    assert not (two.path / "cameras").exists()
    RunFolder.load(two.path)


def test_a_missing_set_of_a_camera_is_named(two):
    (two.path / "cameras" / "left" / "keypoints.yaml").unlink()
    with pytest.raises(RunFolderError, match=r"cameras/left/keypoints\.yaml does not exist"):
        RunFolder.load(two.path)


def test_sets_that_were_exchanged_are_refused(two):
    two.keypoint_set.save(two.path / "cameras" / "left")
    with pytest.raises(
        RunFolderError, match=r"cameras/left/keypoints\.yaml holds set 'cups' of camera 'camera'"
    ):
        RunFolder.load(two.path)


def test_a_set_of_a_camera_that_the_policy_does_not_see_through_is_refused(two):
    two.keypoint_set.save(two.path / "cameras" / "right")
    with pytest.raises(RunFolderError, match=r"cameras/ holds sets of \['right'\]"):
        RunFolder.load(two.path)


def test_a_camera_that_its_robot_lacks_is_refused(two):
    (two.path / ROBOT_FILE).write_text(ROBOT.dump())
    with pytest.raises(RunFolderError, match=r"no camera \['left'\]; it has \['camera'\]"):
        RunFolder.load(two.path)


def test_sets_of_one_name_are_refused(two):
    content = yaml.safe_load((two.path / POLICY_FILE).read_text())
    content["more_cameras"][0]["keypoint_set"] = "cups"
    (two.path / POLICY_FILE).write_text(yaml.safe_dump(content))
    edit(two.path / "cameras" / "left" / "keypoints.yaml", name="cups")
    with pytest.raises(RunFolderError, match=r"have one name: \['cups', 'cups'\]"):
        RunFolder.load(two.path)


def test_every_camera_that_the_policy_sees_through_is_needed_and_no_other(run, two):
    assert run.require_robot(TWO_CAMERAS) == TWO_CAMERAS.seen_by("camera")
    assert two.require_robot(TWO_CAMERAS) == TWO_CAMERAS
    with pytest.raises(RunFolderError, match=r"camera\.name: left here.*, camera there"):
        two.require_robot(ROBOT)
    left = TWO_CAMERAS.more_cameras[0].model_copy(update={"height": 360})
    with pytest.raises(RunFolderError, match="camera size of left: 640x480 here, 640x360 there"):
        two.require_robot(TWO_CAMERAS.model_copy(update={"more_cameras": (left,)}))

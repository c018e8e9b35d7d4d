"""Demonstrations go to a LeRobotDataset and come back the same; lerobot itself writes and reads it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from bag_writing import ROBOT, write_demonstration

from atk_perception.frames import bag_robot, check_bag, read_frames
from atk_perception.keypoint_set import KeypointSet
from atk_perception.keypoint_tracker import KeypointTracker
from atk_perception.lerobot_dataset import (
    ACTION,
    KEYPOINTS,
    STATE,
    LeRobotError,
    dataset_robot,
    export_demonstrations,
    features,
    import_dataset,
    other_cameras,
)
from atk_perception.registry import make_matcher, make_tracker

INSTALLED = importlib.util.find_spec("lerobot") is not None
needs_lerobot = pytest.mark.skipif(not INSTALLED, reason="lerobot is not installed (an optional dependency)")
# lerobot's image statistics want images of some size.
SIZE = (120, 160)
ROBOT_OF_SIZE = ROBOT.model_copy(
    update={"camera": ROBOT.camera.model_copy(update={"width": SIZE[1], "height": SIZE[0]})}
)
CAMERA = "observation.images.camera"


@pytest.fixture
def bags(tmp_path):
    return [
        write_demonstration(
            tmp_path / f"demo_{k}",
            steps=8 + 3 * k,
            seed=k,
            image_size=SIZE,
            custom_data={"atk_robot_file": ROBOT_OF_SIZE.dump(), "atk_label": "success"},
        )[0]
        for k in range(2)
    ]


def test_features_name_joints_and_tracks():
    found = features(ROBOT, {"camera": (480, 640, 3), "left": (240, 320, 3)}, 5, video=True)
    assert found[STATE]["names"] == [*ROBOT.joints.names, "gripper_opening"]
    assert found[CAMERA] == {
        "dtype": "video",
        "shape": (480, 640, 3),
        "names": ["height", "width", "channels"],
    }
    assert found["observation.images.left"]["shape"] == (240, 320, 3)
    assert found[f"{KEYPOINTS}.uv_px"]["shape"] == (5, 2)
    assert not [key for key in features(ROBOT, {}, 0, video=False) if key.startswith(KEYPOINTS)]


@pytest.mark.skipif(INSTALLED, reason="lerobot is installed")
@pytest.mark.parametrize("name", ["export", "import"])
def test_without_lerobot_the_commands_say_how_to_get_it(bags, tmp_path, name):
    code = f"from atk_perception.lerobot_command import {name}_main as main; main()"
    (tmp_path / "meta").mkdir()
    arguments = [str(bags[0]), "--task", "t"] if name == "export" else [str(tmp_path), "--robot", "ROBOT"]
    robot = tmp_path / "robot.yaml"
    robot.write_text(ROBOT.dump())
    arguments = [str(robot) if a == "ROBOT" else a for a in arguments]
    command = [sys.executable, "-c", code, *arguments, "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install lerobot" in done.stderr
    assert not (tmp_path / "out").exists()


@needs_lerobot
def test_there_and_back_the_frames_are_the_same(bags, tmp_path):
    """PNG: pixels exactly; joints to the float32 that LeRobot stores."""
    root = tmp_path / "dataset"
    done = export_demonstrations(bags, ROBOT_OF_SIZE, root, task="cups", repo_id="local/cups", video=False)
    assert (done.episodes, done.frames, done.keypoints) == (2, 19, 0)
    robot = dataset_robot(root)
    assert robot == ROBOT_OF_SIZE
    back = import_dataset(root, tmp_path / "back", robot)
    assert [bag.name for bag in back] == ["demo_0", "demo_1"]
    for original, copy in zip(bags, back, strict=True):
        assert check_bag(copy, robot).ok
        assert bag_robot(copy) == robot
        pairs = list(zip(read_frames(original, robot), read_frames(copy, robot), strict=True))
        assert len(pairs) >= 8
        for mine, theirs in pairs:
            np.testing.assert_array_equal(mine.payload, theirs.payload)
            np.testing.assert_allclose(mine.robot.vector(), theirs.robot.vector(), atol=1e-6)
            np.testing.assert_allclose(mine.action, theirs.action, atol=1e-6)


@needs_lerobot
def test_lerobot_reads_states_actions_tracks_and_task(make_scene, bags, tmp_path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    scene = make_scene(seed=3)
    template = scene.template()
    keypoint_set = KeypointSet.create("set", template.uv_px, template.image_rgb, camera_name="camera")

    def make() -> dict[str, KeypointTracker]:
        return {"camera": KeypointTracker(keypoint_set, make_matcher("sift"), make_tracker("template_lk"))}

    root = tmp_path / "dataset"
    done = export_demonstrations(
        bags, ROBOT_OF_SIZE, root, task="cups", repo_id="local/cups", make_trackers=make, video=True
    )
    assert done.keypoints == len(keypoint_set)
    dataset = LeRobotDataset("local/cups", root=root)
    assert (dataset.num_episodes, dataset.num_frames, dataset.fps) == (2, 19, 20)
    assert dataset.meta.robot_type == ROBOT.name
    assert list(root.rglob("*.mp4"))
    rows = dataset.hf_dataset
    frames = [frame for bag in bags for frame in read_frames(bag, ROBOT_OF_SIZE)]
    for row, frame in zip(rows, frames, strict=True):
        np.testing.assert_allclose(row[STATE].numpy(), frame.robot.vector(), atol=1e-6)
        np.testing.assert_allclose(row[ACTION].numpy(), frame.action, atol=1e-6)
    tracker, seen = make()["camera"], []
    for _ in read_frames(bags[0], ROBOT_OF_SIZE, lambda ns, image: seen.append(tracker.update(ns, image))):
        pass
    for row, expected in zip(rows, seen, strict=False):
        np.testing.assert_array_equal(row[f"{KEYPOINTS}.uv_px"].numpy(), expected.uv_px)
        np.testing.assert_array_equal(row[f"{KEYPOINTS}.visible"].numpy() > 0, expected.visible)


# -- several cameras --------------------------------------------------------------------------------

LEFT = ROBOT_OF_SIZE.camera.model_copy(
    update={
        "name": "left",
        "frame_id": "left_optical_frame",
        "image_topic": "left/camera/image_raw",
        "camera_info_topic": "left/camera/camera_info",
        "recorded_topic": "left/camera/image_raw/compressed",
    }
)
TWO = ROBOT_OF_SIZE.model_copy(update={"more_cameras": (LEFT,)})


def two_camera_bag(path, **how):
    return write_demonstration(
        path,
        steps=8,
        image_size=SIZE,
        negatives=[LEFT.recorded_topic],
        custom_data={"atk_robot_file": TWO.dump()},
        **how,
    )[0]


def write_run(folder, tracker: str) -> list[KeypointSet]:
    """The sets of a run folder whose policy sees through both cameras, in the policy's order."""
    sets = []
    for k, camera in enumerate(("camera", "left")):
        rng = np.random.default_rng(k)
        template = rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        points = rng.uniform(30, 90, (3 + k, 2))
        sets.append(
            KeypointSet.create(
                f"{camera}_set", points, template, camera_name=camera, ids=10 * k + np.arange(3 + k)
            )
        )
    sets[0].save(folder)
    sets[1].save(folder / "cameras" / "left")
    (folder / "policy.yaml").write_text(f"matcher: sift\ntracker: {tracker}\n")
    return sets


@needs_lerobot
def test_every_camera_goes_there_and_back(tmp_path):
    bag, root = two_camera_bag(tmp_path / "demo"), tmp_path / "dataset"
    export_demonstrations([bag], TWO, root, task="cups", repo_id="local/cups", video=False)
    robot = dataset_robot(root)
    assert robot == TWO
    assert other_cameras(root, TWO) == []
    (copy,) = import_dataset(root, tmp_path / "back", robot)
    assert check_bag(copy, TWO).ok
    for name in ("camera", "left"):
        mine, theirs = (list(read_frames(path, TWO.seen_by(name))) for path in (bag, copy))
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one.payload, other.payload)
    with pytest.raises(
        LeRobotError, match=r"--camera x names one camera, robot 'sim_panda' has \['camera', 'left'\]"
    ):
        import_dataset(root, tmp_path / "x", TWO, camera_key="x")
    # Whoever has fewer cameras is told what is left out.
    assert other_cameras(root, ROBOT_OF_SIZE) == ["observation.images.left"]
    assert other_cameras(root, ROBOT_OF_SIZE, "observation.images.left") == ["observation.images.camera"]


@needs_lerobot
def test_the_command_exports_the_tracks_of_every_camera_with_the_backends_of_the_run_folder(tmp_path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    bag, root = two_camera_bag(tmp_path / "demo"), tmp_path / "dataset"
    sets = write_run(tmp_path / "run", tracker="lucas_kanade")
    code = "from atk_perception.lerobot_command import export_main as main; main()"
    command = [sys.executable, "-c", code, str(bag), "--output", str(root), "--task", "t", "--images", "png"]
    done = subprocess.run(
        [*command, "--run", str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {"episodes": 1, "frames": 8, "keypoints": 7}
    assert "tracks of camera left: matcher sift, tracker lucas_kanade" in done.stdout
    sidecar = json.loads((root / "meta" / "atk.json").read_text())
    assert [(entry["camera"], entry["ids"]) for entry in sidecar["keypoint_sets"]] == [
        ("camera", [0, 1, 2]),
        ("left", [10, 11, 12, 13]),
    ]
    rows = LeRobotDataset("local/dataset", root=root).hf_dataset
    for k, points in enumerate(sets):
        tracker = KeypointTracker(points, make_matcher("sift"), make_tracker("lucas_kanade"))
        frames = read_frames(bag, TWO.seen_by(points.camera_name), tracker.update)
        part = slice(0, 3) if k == 0 else slice(3, 7)
        for row, frame in zip(rows, frames, strict=True):
            np.testing.assert_array_equal(row[f"{KEYPOINTS}.uv_px"].numpy()[part], frame.payload.uv_px)


@needs_lerobot
def test_keypoints_of_a_camera_that_the_robot_lacks_and_a_silent_camera_are_refused(tmp_path):
    sets = write_run(tmp_path / "run", tracker="template_lk")
    left = KeypointTracker(sets[1], make_matcher("sift"), make_tracker("template_lk"))
    bag, root = two_camera_bag(tmp_path / "demo"), tmp_path / "dataset"
    with pytest.raises(
        LeRobotError, match=r"keypoints of camera \['left'\]; robot 'sim_panda' has \['camera'\]"
    ):
        export_demonstrations(
            [bag], ROBOT_OF_SIZE, root, task="t", repo_id="local/t", make_trackers=lambda: {"left": left}
        )
    silent = two_camera_bag(tmp_path / "silent", topic_ends={LEFT.recorded_topic: 2})
    with pytest.raises(LeRobotError, match=r"camera \['left'\] has no image of the 0\.2 s before"):
        export_demonstrations([silent], TWO, root, task="t", repo_id="local/t", video=False)
    assert not root.exists()


@needs_lerobot
def test_a_dataset_that_does_not_fit_is_refused_by_name(bags, tmp_path):
    root = tmp_path / "dataset"
    export_demonstrations(bags[:1], ROBOT_OF_SIZE, root, task="cups", repo_id="local/cups", video=False)
    with pytest.raises(LeRobotError, match="exists already"):
        export_demonstrations(bags, ROBOT_OF_SIZE, root, task="cups", repo_id="local/cups")
    joints = ROBOT.joints.model_copy(update={"names": tuple("abcdefg")})
    for robot, message in (
        (ROBOT_OF_SIZE.model_copy(update={"joints": joints}), r"is of \['panda_joint1'"),
        (ROBOT_OF_SIZE.model_copy(update={"control_rate_hz": 10.0}), "20 frames per second"),
    ):
        with pytest.raises(LeRobotError, match=message):
            import_dataset(root, tmp_path / "back", robot)
    with pytest.raises(LeRobotError, match=r"has no images 'observation\.images\.wrist'; it has"):
        import_dataset(root, tmp_path / "back", ROBOT_OF_SIZE, camera_key="observation.images.wrist")
    with pytest.raises(LeRobotError, match=r"no meta/info\.json"):
        import_dataset(tmp_path, tmp_path / "back", ROBOT_OF_SIZE)
    assert not (tmp_path / "back").exists()


@needs_lerobot
def test_a_bag_with_a_gap_is_not_exported_as_if_it_had_none(tmp_path):
    bag, _ = write_demonstration(tmp_path / "holed", steps=10, image_size=SIZE, lost_images={4, 5})
    with pytest.raises(LeRobotError, match=r"a gap of 0\.150 s between frames"):
        export_demonstrations(
            [bag], ROBOT_OF_SIZE, tmp_path / "dataset", task="t", repo_id="local/t", video=False
        )
    assert not (tmp_path / "dataset").exists()

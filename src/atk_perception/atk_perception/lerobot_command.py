"""Command lines `lerobot_export` and `lerobot_import`: demonstrations to a LeRobotDataset and back."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tqdm import tqdm

from atk_perception.backend_choice import CAMERAS_FOLDER, BackendChoiceError, Backends, choose_backends
from atk_perception.frames import BagError, JointStateError, bag_robot
from atk_perception.image_codec import ImageFormatError
from atk_perception.keypoint_set import KeypointSet, KeypointSetError
from atk_perception.keypoint_tracker import KeypointTracker
from atk_perception.lerobot_dataset import (
    LeRobotError,
    dataset_robot,
    export_demonstrations,
    import_dataset,
    other_cameras,
)
from atk_perception.public_models import BackendError
from atk_perception.recording import DISCARDED_SUFFIX, UNFINISHED_SUFFIX, RecordingError
from atk_perception.registry import make_matcher, make_tracker
from atk_perception.robot_description import RobotDescription, RobotDescriptionError

USER_ERRORS = (
    BackendChoiceError,
    BackendError,
    BagError,
    ImageFormatError,
    JointStateError,
    KeypointSetError,
    LeRobotError,
    RecordingError,
    RobotDescriptionError,
)


def _bags(paths: list[Path]) -> list[Path]:
    """The bags among `paths` and directly inside them; what was discarded or never finished is left out."""
    found: list[Path] = []
    for path in paths:
        inside = (
            [path]
            if (path / "metadata.yaml").is_file()
            else sorted(p.parent for p in path.glob("*/metadata.yaml"))
        )
        if not inside:
            raise BagError(
                f"{path} is no rosbag2 folder and holds none (a bag is a folder with metadata.yaml)"
            )
        found += [bag for bag in inside if not bag.name.endswith((UNFINISHED_SUFFIX, DISCARDED_SUFFIX))]
    return found


def _keypoint_sets(folder: Path) -> list[KeypointSet]:
    """Of a run folder, or a set by itself: the first camera's, then those of further cameras.

    Raises:
        KeypointSetError: one cannot be read, or two are of one camera.
    """
    sets = [KeypointSet.load(path) for path in (folder, *sorted((folder / CAMERAS_FOLDER).glob("*")))]
    cameras = [points.camera_name for points in sets]
    if len(set(cameras)) != len(cameras):
        raise KeypointSetError(
            f"{folder} holds several sets of one camera: {cameras}; copy the whole run folder again"
        )
    return sets


def export_main() -> None:
    """Console entry of `lerobot_export`; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="lerobot_export",
        description="Write demonstrations (rosbag2 folders) as a LeRobotDataset v3. Needs 'pip install lerobot'.",
        epilog="example: lerobot_export demonstrations/ --output sushi_lerobot --task 'put the sushi on the plate' "
        "--run runs/sushi",
    )
    parser.add_argument("bags", nargs="+", type=Path, help="rosbag2 folders, or folders of them")
    parser.add_argument("--output", type=Path, required=True, help="folder of the dataset; must not exist")
    parser.add_argument("--task", required=True, help="what the demonstrations do, in words")
    parser.add_argument("--repo-id", default="", help="name of the dataset (default: local/OUTPUT)")
    parser.add_argument("--robot", type=Path, help="robot description (default: the first bag's)")
    parser.add_argument(
        "--run", type=Path, help="run folder or keypoint set: tracks of every camera's set become features"
    )
    parser.add_argument("--images", choices=("video", "png"), default="video", help="png is exact, and large")
    args = parser.parse_args()
    try:
        bags = _bags(args.bags)
        robot = RobotDescription.load(args.robot) if args.robot else bag_robot(bags[0])
        if robot is None:
            raise LeRobotError(f"bag {bags[0]} holds no robot description; give --robot")
        sets = _keypoint_sets(args.run) if args.run else []
        backends = choose_backends(args.run)[0] if args.run else Backends()

        def make() -> dict[str, KeypointTracker]:
            return {
                points.camera_name: KeypointTracker(
                    points, make_matcher(backends.matcher), make_tracker(backends.tracker)
                )
                for points in sets
            }

        with tqdm(total=len(bags), unit="bag") as bar:
            done = export_demonstrations(
                bags,
                robot,
                args.output,
                task=args.task,
                repo_id=args.repo_id or f"local/{args.output.resolve().name}",
                make_trackers=make,
                video=args.images == "video",
                report=lambda name: bar.update(),
            )
    except USER_ERRORS as error:
        raise SystemExit(f"lerobot_export: {error}") from error
    print(f"dataset: {done.root}")
    for points in sets:
        print(
            f"tracks of camera {points.camera_name}: matcher {backends.matcher}, tracker {backends.tracker}"
        )
    print(json.dumps({"episodes": done.episodes, "frames": done.frames, "keypoints": done.keypoints}))


def import_main() -> None:
    """Console entry of `lerobot_import`; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="lerobot_import",
        description="Write a LeRobotDataset v3 as demonstrations (rosbag2 folders). Needs 'pip install lerobot'.",
        epilog="example: lerobot_import sushi_lerobot --output demonstrations --robot my_robot.yaml",
    )
    parser.add_argument("dataset", type=Path, help="folder of the dataset (with meta/info.json)")
    parser.add_argument("--output", type=Path, required=True, help="folder that the bags are written to")
    parser.add_argument("--robot", type=Path, help="robot description (default: the one that was exported)")
    parser.add_argument("--camera", default="", help="observation.images.NAME (default: the robot's camera)")
    args = parser.parse_args()
    try:
        robot = RobotDescription.load(args.robot) if args.robot else dataset_robot(args.dataset)
        if robot is None:
            raise LeRobotError(f"dataset {args.dataset} was not exported by this stack; give --robot")
        left_out = other_cameras(args.dataset, robot, args.camera)
        with tqdm(unit="bag") as bar:
            bags = import_dataset(
                args.dataset, args.output, robot, camera_key=args.camera, report=lambda name: bar.update()
            )
    except USER_ERRORS as error:
        raise SystemExit(f"lerobot_import: {error}") from error
    print(f"demonstrations: {args.output}")
    if left_out:
        print(f"left out: {', '.join(left_out)}; robot '{robot.name}' has no such camera")
    print(json.dumps({"episodes": len(bags), "bags": [bag.name for bag in bags]}))

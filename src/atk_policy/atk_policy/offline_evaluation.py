"""Replay bags through tracker and policy and compare with what was commanded (no robot, no ROS graph).

The same KeypointTracker and PolicyRunner as on the robot. The robot's state comes from the bag, so errors do not build
up: this says how well the policy agrees with the expert, not how well it closes the loop. Where a bag holds a live run
of the policy (policy/status, and better keypoints too), it also says how exactly the bag gives its commands again.
Open OUTPUT/index.html. In a graph, `replay.launch.py` with the live nodes shows the same.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tqdm import tqdm

from atk_perception.camera_placing import ViewpointError
from atk_perception.frames import BagError, JointStateError
from atk_perception.image_codec import ImageFormatError
from atk_perception.keypoint_set import KeypointSetError
from atk_perception.public_models import BackendError
from atk_perception.robot_description import RobotDescription, RobotDescriptionError
from atk_perception.video import VideoError
from atk_perception.viewpoint import VIEWPOINTS
from atk_policy.demonstrations import DemonstrationError, find_bags
from atk_policy.offline_report import Evaluation, summary, write_report
from atk_policy.replay import Agreement, Replay, agreement, replay
from atk_policy.run_folder import RunFolder, RunFolderError

USER_ERRORS = (
    BackendError,
    BagError,
    DemonstrationError,
    ImageFormatError,
    JointStateError,
    RobotDescriptionError,
    KeypointSetError,
    RunFolderError,
    VideoError,
    ViewpointError,
)


def evaluate(
    run: RunFolder,
    label: str,
    bags: list[Path],
    robot: RobotDescription,
    output: Path,
    folder: str,
    videos: int,
    viewpoint: str = "none",
) -> Evaluation:
    """One run folder over all bags; the first `videos` of them also as video.

    Raises:
        BagError, JointStateError, ImageFormatError, RunFolderError, VideoError, ViewpointError: see `replay`.
    """
    replays: list[Replay] = []
    agreements: dict[str, Agreement] = {}
    filmed = [bag.name for bag in bags[:videos]]
    for bag in tqdm(bags, unit="bag", desc=label):
        video = output / folder / f"{bag.name}.mp4" if bag.name in filmed else None
        replays.append(replay(bag, run, robot, video=video, viewpoint=viewpoint))
        found = agreement(bag, run, robot, replays[-1].seen)
        if found is not None:
            agreements[bag.name] = found
    return Evaluation(label, folder, run, replays, agreements, filmed)


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="evaluate_offline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: evaluate_offline runs/sushi demonstrations/ --output runs/sushi/offline --compare runs/older",
    )
    parser.add_argument("run_folder", type=Path, help="written by 'select'")
    parser.add_argument("bags", nargs="+", type=Path, help="rosbag2 folders, or folders of them")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for index.html, its pictures and metrics.json"
    )
    parser.add_argument("--robot", type=Path, help="robot description (default: the run folder's)")
    parser.add_argument("--compare", type=Path, metavar="RUN", help="another run folder, shown side by side")
    parser.add_argument(
        "--videos", type=int, default=3, help="bags that a video is made of (default: %(default)s)"
    )
    parser.add_argument(
        "--viewpoint",
        choices=VIEWPOINTS,
        default="none",
        help="of bags whose camera stood elsewhere than in the demonstrations: reproject keypoints by work_plane of the robot "
        "description or by the bag's depth images (default: %(default)s)",
    )
    args = parser.parse_args()
    try:
        bags = find_bags(args.bags)
        paths = [args.run_folder, *([args.compare] if args.compare else [])]
        runs = [RunFolder.load(path) for path in paths]
        robot = RobotDescription.load(args.robot) if args.robot else runs[0].robot
        folders = [""] if len(runs) == 1 else ["first", "second"]
        evaluations = [
            evaluate(run, str(path), bags, robot, args.output, folder, args.videos, args.viewpoint)
            for run, path, folder in zip(runs, paths, folders, strict=True)
        ]
    except USER_ERRORS as error:
        raise SystemExit(f"evaluate_offline: {error}") from error
    write_report(evaluations, robot, args.output)
    figures = summary(evaluations[0], robot)
    if len(evaluations) > 1:
        figures["compared_with"] = summary(evaluations[1], robot)
    (args.output / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(f"report: {args.output / 'index.html'}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

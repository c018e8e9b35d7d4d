"""Command line of the offline selection: `ros2 run atk_policy select DEMONSTRATIONS... --output RUN`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from atk_perception.camera_placing import ViewpointError
from atk_perception.frames import BagError, JointStateError, bag_robot
from atk_perception.image_codec import ImageFormatError
from atk_perception.keypoint_set import KeypointSetError
from atk_perception.public_models import BackendError
from atk_perception.robot_description import RobotDescription, RobotDescriptionError
from atk_policy.demonstrations import DemonstrationError, find_bags
from atk_policy.run_folder import REPORT_FOLDER
from atk_policy.selection import STAGES, SelectionConfig, SelectionError, select_keypoints
from atk_policy.training_log import TrainingLogError
from atk_policy.worker_processes import WorkerError

USER_ERRORS = (
    BackendError,
    BagError,
    DemonstrationError,
    ImageFormatError,
    JointStateError,
    KeypointSetError,
    RobotDescriptionError,
    SelectionError,
    TrainingLogError,
    ViewpointError,
    WorkerError,
)

DESCRIPTION = """\
Choose the few image keypoints that a task needs, and train its policy on them.

Reads demonstrations (rosbag2 folders as 'ros2 bag record -s mcap' writes them), tracks candidate
keypoints through every one, trains a sparse mask over the candidates together with the policy, and
writes the run folder: all that is copied to the robot. Open RUN/report/index.html afterwards and
look at the chosen points.

Interrupted, even by kill -9? Give the same command again: it continues where it was.
"""

EPILOG = """\
examples:
  select demonstrations/ --output runs/sushi
  select demonstrations/ --output runs/sushi --robot config/robots/my_robot.yaml
  select ep_01 ep_02 ep_07 --output runs/sushi --config my_settings.yaml

settings (--config, YAML; only what differs from the defaults, which are meant to be left alone):
  name: sushi            # of the keypoint set
  candidates: {count: 512, strategy: tracked}   # random (published), textured (default), tracked
  matcher: dinov2        # public models: first 'ros2 run atk_perception get_weights dinov2', see ATK_WEIGHTS there
  choice: {objective: published}      # one mask and one alpha, as published
  select: {penalty: {alpha: 0.001}}   # lower keeps more points; published objective only
  policy: {name: flow, encoder: attention}   # mlp, gaussian, diffusion, flow; concat, attention
  refit: {steps: 4000, keep: best, patience: 10}
  log: {tensorboard: true}                   # RUN/.select/tensorboard
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="select",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("demonstrations", nargs="+", type=Path, help="rosbag2 folders, or folders of them")
    parser.add_argument("--output", type=Path, required=True, help="run folder to write")
    parser.add_argument(
        "--robot",
        type=Path,
        help="robot description (default: robot.yaml recorded beside the first demonstration)",
    )
    parser.add_argument("--config", type=Path, help="settings (YAML) that differ from the defaults")
    parser.add_argument("--name", help="name of the keypoint set (default: the output folder's name)")
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        help="processes that track, train and measure (default: %(default)s)",
    )
    parser.add_argument(
        "--restart", action="store_true", help="train anew instead of continuing (tracks stay cached)"
    )
    return parser.parse_args(arguments)


def robot_of(demonstrations: list[Path], path: Path | None) -> RobotDescription:
    """The robot description that was given, or the one recorded with the first demonstration.

    Raises:
        RobotDescriptionError: there is none.
    """
    if path is not None:
        return RobotDescription.load(path)
    bag = find_bags(demonstrations)[0]
    recorded = bag_robot(bag)
    if recorded is None:
        raise RobotDescriptionError(
            f"{bag} holds no robot description (bags of 'ros2 bag record' do not); give --robot with that of the robot "
            "that the demonstrations were recorded on"
        )
    return recorded


class Bars:
    """One progress bar per stage on standard error."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: tqdm | None = None

    def __call__(self, stage: str, fraction: float, detail: str) -> None:
        """Progress of select_keypoints."""
        if stage != self._stage:
            self.close()
            self._stage = stage
            title = f"{STAGES.index(stage) + 1}/{len(STAGES)} {stage:<7}"
            self._bar = tqdm(
                total=1.0, desc=title, bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} {postfix}"
            )
        assert self._bar is not None
        self._bar.set_postfix_str(detail, refresh=False)
        self._bar.update(fraction - self._bar.n)

    def close(self) -> None:
        """Finish the last bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    args = parse_arguments()
    bars = Bars()
    try:
        config = SelectionConfig.load(args.config)
        if args.name or config.name == SelectionConfig().name:
            config = config.model_copy(update={"name": args.name or args.output.resolve().name})
        robot = robot_of(args.demonstrations, args.robot)
        run = select_keypoints(
            args.demonstrations,
            args.output,
            robot,
            config,
            resume=not args.restart,
            workers=args.workers,
            progress=bars,
        )
    except USER_ERRORS as error:
        bars.close()
        raise SystemExit(f"select: {error}") from error
    except KeyboardInterrupt:
        bars.close()
        raise SystemExit("select: interrupted; give the same command again to continue") from None
    bars.close()
    report = run.path / REPORT_FOLDER
    metrics = json.loads((report / "metrics.json").read_text())
    print(
        f"{metrics['keypoints_kept']} of {metrics['keypoints_candidates']} keypoints kept; look at {report / 'index.html'}"
    )
    metrics.pop("curves")  # for the file, not for a line
    print(json.dumps({**metrics, "run_folder": str(run.path)}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()

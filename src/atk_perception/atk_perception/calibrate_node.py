"""Find out where a camera stands, by a printed board, and write it as a camera calibration.

The board lies still where both the camera sees it and you know where it is in the robot's base frame; or fixed to the table,
as a base frame of its own. Intrinsics are those of camera_info. Nothing is written unless the pictures agree.
"""

from __future__ import annotations

import argparse
import json
import queue
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import rclpy
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from atk_perception.camera_calibration import CameraCalibration, CameraCalibrationError
from atk_perception.extrinsics import FORMS, BoardError, BoardPose, board_pose, extrinsics, parse_board
from atk_perception.image_codec import ImageFormatError, rgb_from_message
from atk_perception.input_thread import InputThread
from atk_perception.managed_node import ERROR, OK, ManagedNode, run_node
from atk_perception.points_in_camera import CalibrationError
from atk_perception.rigid_transforms import difference, pose_from_rpy
from atk_perception.robot_description import RobotDescription, RobotDescriptionError

BOARD_FRAME = "board"
USER_ERRORS = (BoardError, CalibrationError, CameraCalibrationError, RobotDescriptionError, OSError)


class CalibrateNode(ManagedNode):
    """Measures and writes on request (service `~/calibrate`)."""

    def __init__(self) -> None:
        super().__init__("calibrator")
        self.declare("robot", "", "robot description file (YAML); names the camera's topics", read_only=True)
        self.declare("camera", "", "name of the camera; empty: the robot's first", read_only=True)
        self.declare("board", "charuco:5x7:0.04:0.03:DICT_5X5_100", f"the printed board: {FORMS}")
        self.declare("output", "calibration.yaml", "file that the calibration is written to")
        self.declare(
            "base_frame",
            BOARD_FRAME,
            "frame that the camera's pose is told in; 'board': the board's own, which must then never move",
        )
        self.declare(
            "board_pose",
            [0.0] * 6,
            "of the board in base_frame: x y z [m], roll pitch yaw [rad], as URDF writes them",
        )
        self.declare("frames", 30, "pictures that are averaged", minimum=3, maximum=1000)
        self.declare("timeout_s", 20.0, "how long to look for them", minimum=1.0, maximum=600.0)
        self._request = threading.Lock()

    def configure(self) -> None:
        """Read the robot description and the board, offer the service."""
        robot = RobotDescription.load(self.parameter("robot"))
        name = self.parameter("camera") or robot.camera.name
        self._camera = robot.seen_by(name).camera
        self._board = parse_board(self.parameter("board"))
        if len(self.parameter("board_pose")) != 6:
            raise BoardError("board", "board_pose holds x y z [m], roll pitch yaw [rad]: six numbers")
        self._service = self.create_service(Trigger, "~/calibrate", self._on_calibrate)

    def activate(self) -> None:
        """Wait for the first request."""
        self._ending = threading.Event()
        self.set_diagnostic(OK, "ready")

    def deactivate(self) -> None:
        """End a measurement that is under way."""
        self._ending.set()

    def cleanup(self) -> None:
        """Withdraw the service."""
        self.destroy_service(self._service)

    def _on_calibrate(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            _, response.message = self.calibrate()
            response.success = True
            self.set_diagnostic(OK, response.message)
        except USER_ERRORS as error:
            response.success, response.message = False, f"nothing written: {error}"
            self.get_logger().error(response.message)
            self.set_diagnostic(ERROR, response.message)
        return response

    def calibrate(self) -> tuple[CameraCalibration, str]:
        """Look at the board, write the file; returns what is in it, and one line for a person.

        Raises:
            BoardError: the board is not seen, is another one, or the pictures disagree; nothing is written.
            CalibrationError, CameraCalibrationError: camera_info cannot be used.
            OSError: the file cannot be written.
        """
        with self._request:
            poses, info = self._look()
            found = extrinsics(
                poses, pose_from_rpy(self.parameter("board_pose")[:3], self.parameter("board_pose")[3:])
            )
            calibration = CameraCalibration.of(
                info,
                found.T_base_camera,
                self.parameter("base_frame"),
                rectified=self._camera.is_rectified,
                estimated={
                    "camera": self._camera.name,
                    "board": self.parameter("board"),
                    "board_pose": list(self.parameter("board_pose")),
                    "frames": found.frames,
                    "reprojection_error_px": round(found.error_px, 3),
                    "spread_m": round(found.spread_m, 5),
                    "spread_rad": round(found.spread_rad, 6),
                },
            )
            path = Path(self.parameter("output")).expanduser()
            calibration.save(path)
        message = (
            f"{path}: {found.frames} pictures, reprojection error {found.error_px:.2f} px, poses within "
            f"{1e3 * found.spread_m:.1f} mm and {57.3 * found.spread_rad:.2f} degrees"
        )
        if (
            self._camera.calibration is not None
            and self._camera.calibration.base_frame == calibration.base_frame
        ):
            metres, radians = difference(self._camera.calibration.T_base_camera, found.T_base_camera)
            message += f"; {100 * metres:.1f} cm and {57.3 * radians:.1f} degrees from the one before"
        self.get_logger().info(message)
        return calibration, message

    def _look(self) -> tuple[list[BoardPose], Any]:
        """Poses of the board in as many pictures as asked for, and the camera_info they were made with."""
        images: queue.Queue[Any] = queue.Queue(maxsize=1)
        infos: list[Any] = []

        def take(message: Any) -> None:
            if not images.full():  # looking takes longer than a camera's period
                images.put(message)

        def note(message: Any) -> None:
            infos[:] = [message]

        inputs = InputThread(self, "calibration")
        inputs.subscribe(CameraInfo, self._camera.camera_info_topic, note, qos_profile_sensor_data)
        qos = QoSProfile(depth=1, reliability=qos_profile_sensor_data.reliability)
        inputs.subscribe(Image, self._camera.image_topic, take, qos)
        inputs.start()
        try:
            return self._poses(images, infos)
        finally:
            inputs.close()

    def _poses(self, images: queue.Queue[Any], infos: list[Any]) -> tuple[list[BoardPose], Any]:
        poses: list[BoardPose] = []
        refused: Counter[str] = Counter()
        last = BoardError("no_board", "")
        deadline = time.monotonic() + self.parameter("timeout_s")
        while len(poses) < self.parameter("frames"):
            if not poses and refused.total() >= self.parameter("frames"):
                raise last
            if time.monotonic() > deadline or self._ending.is_set():
                if poses:
                    others = f"; the others: {dict(refused)}, at last: {last}" if refused else ""
                    raise BoardError(
                        last.cause,
                        f"the board was seen in {len(poses)} pictures within {self.parameter('timeout_s'):g} s, "
                        f"{self.parameter('frames')} are needed{others}",
                    )
                if refused:
                    raise last
                missing = self._camera.image_topic if infos else self._camera.camera_info_topic
                raise BoardError("no_board", f"nothing is heard on {missing}; is the camera running?")
            try:
                message = images.get(timeout=0.1)
                if not infos:
                    continue
                image = rgb_from_message(message)
            except queue.Empty:
                continue
            except ImageFormatError as error:
                raise BoardError("no_board", str(error)) from error
            camera = CameraCalibration.of(
                infos[0],
                pose_from_rpy([0.0] * 3, [0.0] * 3),
                BOARD_FRAME,
                rectified=self._camera.is_rectified,
            ).camera
            try:
                poses.append(board_pose(self._board, image, camera))
            except BoardError as error:
                last = error
                refused[error.cause] += 1
        return poses, infos[0]


def main() -> None:
    """Console entry of the node."""
    run_node(CalibrateNode)


def calibrate_command() -> None:
    """Console entry of `calibrate_camera`: one measurement; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="calibrate_camera",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: calibrate_camera my_robot.yaml --board charuco:5x7:0.04:0.03:DICT_5X5_100 --base-frame panda_link0 "
        "--board-pose 0.4 -0.1 0.0 3.1416 0 0 --output calibration.yaml; what follows --ros-args goes to ROS",
    )
    parser.add_argument("robot", type=Path, help="robot description (YAML)")
    parser.add_argument("--board", required=True, help=FORMS)
    parser.add_argument("--output", type=Path, required=True, help="file to write (YAML)")
    parser.add_argument("--camera", default="", help="name of the camera (default: the robot's first)")
    parser.add_argument(
        "--base-frame",
        default=BOARD_FRAME,
        help="frame of --board-pose; 'board': the board itself, which must then never move (default: %(default)s)",
    )
    parser.add_argument(
        "--board-pose",
        type=float,
        nargs=6,
        default=[0.0] * 6,
        metavar=("X", "Y", "Z", "ROLL", "PITCH", "YAW"),
        help="of the board in the base frame [m, rad]",
    )
    parser.add_argument("--frames", type=int, default=30, help="pictures (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=20.0, help="[s] (default: %(default)s)")
    ours, ros = sys.argv[1:], list[str]()
    if "--ros-args" in ours:
        ours, ros = ours[: ours.index("--ros-args")], ours[ours.index("--ros-args") + 1 :]
    args = parser.parse_args(ours)
    if args.base_frame != BOARD_FRAME and not any(args.board_pose):
        parser.error(f"--base-frame {args.base_frame} needs --board-pose: where the board is in it")
    parameters = {
        "robot": str(args.robot),
        "board": f"'{args.board}'",
        "output": str(args.output),
        "camera": f"'{args.camera}'",
        "base_frame": args.base_frame,
        "board_pose": str([float(x) for x in args.board_pose]),
        "frames": str(args.frames),
        "timeout_s": str(float(args.timeout)),
        "autostart": "false",
    }
    given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    rclpy.init(args=[sys.argv[0], "--ros-args", *given, *ros])
    node = CalibrateNode()
    signal.signal(signal.SIGINT, lambda *_: node.deactivate())
    try:
        # No executor: images come through a thread of their own, and nobody else asks anything.
        if not node.bring_up():
            raise SystemExit("calibrate_camera: nothing written; the cause is above")
        try:
            calibration, message = node.calibrate()
        except USER_ERRORS as error:
            raise SystemExit(f"calibrate_camera: nothing written: {error}") from error
        print(message)
        print(json.dumps(calibration.estimated))
    finally:
        node.trigger_shutdown()
        node.destroy_node()
        rclpy.try_shutdown()

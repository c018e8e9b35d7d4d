"""Camera frame to joint command between separate processes, at 30 Hz and 640x480.

The real camera node plays recorded images, the real tracker and policy nodes work on them, and
this process stands for the robot: it takes the commands and answers with joint states. Nothing is
simulated meanwhile, so the figures are those of the stack alone. The pictures do not follow the arm, so it soon is where
it has no business to be: the policy is started anew from home, as for an episode, every RUN_S.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
import yaml
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import Float64MultiArray
from tqdm import tqdm

from atk_interfaces.action import RunPolicy
from atk_interfaces.msg import KeypointArray, PolicyStatus
from atk_perception.frames import read_frames, stamp_ns_of
from atk_perception.input_thread import InputThread
from atk_perception.robot_description import RobotDescription
from atk_sim import demo
from atk_sim.closed_loop_node import RELIABLE
from atk_sim.graph import GraphError, NodeGraph, robot_file

CAMERA_HZ = 30.0
JOINT_STATES_HZ = 200.0
# Frames this close to the end may still be on their way when the counting stops.
SETTLE_S = 2.0
RUN_S = 15


class RobotStandIn(Node):
    """Answers commands with joint states, and notes what the other nodes say."""

    def __init__(self, robot: RobotDescription, start_rad: np.ndarray, context: rclpy.Context) -> None:
        super().__init__("latency_benchmark", context=context)
        self._robot = robot
        self._home = np.append(start_rad, robot.gripper.max_m)
        self._position = self._home.copy()
        self._publisher = self.create_publisher(JointState, robot.topics.joint_states, RELIABLE)
        self._inputs = InputThread(self, "inputs")
        gripper_topic = robot.topics.gripper_command
        assert gripper_topic is not None, "this robot's gripper hears a topic, not an action"
        for kind, topic, callback, qos in (
            (Float64MultiArray, robot.topics.command, self._on_arm, RELIABLE),
            (Float64MultiArray, gripper_topic, self._on_gripper, RELIABLE),
            (CameraInfo, robot.camera.camera_info_topic, self._on_camera, 100),
            (KeypointArray, "keypoints", self._on_keypoints, RELIABLE),
            (PolicyStatus, "policy/status", self._on_status, RELIABLE),
        ):
            self._inputs.subscribe(kind, topic, callback, qos)
        self._ending = threading.Event()
        self._joint_states = threading.Thread(target=self._publish_all, daemon=True)
        self._run = ActionClient(self, RunPolicy, "policy/run")
        self.runs = 0
        self.sent_ns: list[int] = []
        self.tracked_ns: set[int] = set()
        self.latency_ms: dict[int, float] = {}
        self.running = 0

        self._inputs.start()
        self._joint_states.start()

    @property
    def is_ready(self) -> bool:
        """There are keypoints, and a policy to take them."""
        return bool(self.tracked_ns) and bool(self._run.server_is_ready())

    def start_run(self) -> None:
        """Have the policy run from home, and again when that has ended. Call in the executor's thread."""
        self._position = self._home.copy()
        goal = RunPolicy.Goal()
        goal.time_limit.sec = RUN_S
        self._run.send_goal_async(goal).add_done_callback(self._on_goal)

    def _on_goal(self, sent: Any) -> None:
        goal = sent.result()
        if self._ending.is_set() or not goal.accepted:  # that no commands come is noticed by who counts them
            return
        self.runs += 1
        goal.get_result_async().add_done_callback(lambda _: self.start_run())

    def close(self) -> None:
        """Leave the graph."""
        self._ending.set()
        self._joint_states.join()
        self._inputs.close()
        self.destroy_node()

    def _publish_all(self) -> None:
        due = time.monotonic()
        while not self._ending.wait(max(0.0, due - time.monotonic())):
            self._publish()
            due += 1.0 / JOINT_STATES_HZ

    def _publish(self) -> None:
        message = JointState(name=[*self._robot.joints.names, self._robot.gripper.joint])
        opening = self._robot.gripper.joint_position(self._position[-1])
        message.position = [*self._position[:-1].tolist(), opening]
        message.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _on_arm(self, message: Float64MultiArray) -> None:
        self._position[:-1] = message.data

    def _on_gripper(self, message: Float64MultiArray) -> None:
        self._position[-1] = message.data[0]

    def _on_camera(self, message: CameraInfo) -> None:
        self.sent_ns.append(stamp_ns_of(message))

    def _on_keypoints(self, message: KeypointArray) -> None:
        self.tracked_ns.add(stamp_ns_of(message))

    def _on_status(self, message: PolicyStatus) -> None:
        self.running += message.state == PolicyStatus.RUNNING
        if len(message.command):
            self.latency_ms[stamp_ns_of(message)] = message.latency_ms


def prepare(folder: Path, demonstrations: int, domain_id: int) -> tuple[Path, Path, Path]:
    """Record and select at 30 Hz once; returns run folder, robot file and image folder."""
    robot, images = folder / "robot.yaml", folder / "pictures"
    if not robot.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        description = yaml.safe_load(robot_file("sim_panda").read_text())
        description["control_rate_hz"] = description["camera"]["rate_hz"] = CAMERA_HZ
        robot.write_text(yaml.safe_dump(description, sort_keys=False))
    run = demo.small_run(folder, robot, demonstrations, domain_id)
    if any(images.glob("*.bmp")):
        return run, robot, images
    bag = next(iter(sorted((folder / "demonstrations").iterdir())))
    images.mkdir(exist_ok=True)
    pictures = [frame.payload for frame in read_frames(bag, RobotDescription.load(robot))]
    # There and back, so that a loop has no jump. Not compressed: a camera's pictures need no decoding either.
    for k, image in enumerate([*pictures, *pictures[-2:0:-1]]):
        cv2.imwrite(str(images / f"{k:05d}.bmp"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return run, robot, images


def cpu_seconds(pids: list[int]) -> float:
    """User and system time that processes have used [s]."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(run: Path, robot_path: Path, images: Path, seconds: float, domain_id: int) -> dict[str, object]:
    """Run the graph for `seconds` and return the figures.

    Raises:
        GraphError: a node ended, or no command came.
    """
    robot = RobotDescription.load(robot_path)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    stand_in = RobotStandIn(robot, np.array(robot.home_rad), context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(stand_in)
    spinning = threading.Thread(target=executor.spin, daemon=True)
    spinning.start()
    reliable = {f"qos_overrides./{robot.camera.image_topic}.subscription.reliability": "reliable"}
    with NodeGraph(run.parent / "logs", domain_id) as graph:
        nodes = [
            graph.start("atk_perception", "tracker_node", {"run_folder": str(run), **reliable}),
            graph.start("atk_policy", "policy_node", {"run_folder": str(run), "robot": str(robot_path)}),
            graph.start(
                "atk_perception",
                "camera_node",
                {
                    "source": str(images),
                    "rate_hz": CAMERA_HZ,
                    "loop": True,
                    "frame_id": robot.camera.frame_id,
                },
            ),
        ]
        try:
            _start_policy(stand_in, executor, graph)
            first, started_cpu, started = (
                len(stand_in.sent_ns),
                cpu_seconds([n.pid for n in nodes]),
                time.monotonic(),
            )
            for _ in tqdm(range(round(seconds)), desc="measure", unit="s", file=sys.stderr):
                time.sleep(1.0)
                graph.check()
            cores = (cpu_seconds([n.pid for n in nodes]) - started_cpu) / (time.monotonic() - started)
            sent = stand_in.sent_ns[first:]
            time.sleep(SETTLE_S)
        finally:
            executor.shutdown(timeout_sec=2.0)
            spinning.join(timeout=2.0)
            stand_in.close()
            context.try_shutdown()
    latency = np.array([stand_in.latency_ms[stamp] for stamp in sent if stamp in stand_in.latency_ms])
    if latency.size == 0:
        raise GraphError(f"no command came for {len(sent)} images; the logs are in {run.parent / 'logs'}")
    p50, p95, p99 = np.percentile(latency, [50, 95, 99]).round(2).tolist()
    return {
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
        "frames_sent": len(sent),
        "frames_lost": sum(stamp not in stand_in.tracked_ns for stamp in sent),
        "commands": int(latency.size),
        "runs": stand_in.runs,
        "cpu_cores": round(cores, 2),
    }


def _start_policy(
    stand_in: RobotStandIn, executor: SingleThreadedExecutor, graph: NodeGraph, timeout_s: float = 60.0
) -> None:
    """Ask the policy to run, and wait for its first command."""
    deadline = time.monotonic() + timeout_s
    asked = False
    while stand_in.running == 0:
        graph.check()
        if time.monotonic() > deadline:
            raise GraphError(
                f"no command after {timeout_s:.0f} s: {len(stand_in.tracked_ns)} keypoint messages came"
            )
        if not asked and stand_in.is_ready:
            asked = True
            executor.create_task(stand_in.start_run)
        time.sleep(0.1)


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(prog="latency_benchmark", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/bench"), help="where a run is made once and kept"
    )
    parser.add_argument(
        "--demonstrations", type=int, default=10, help="recorded for that run (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long to measure (default: %(default)s)"
    )
    args = parser.parse_args()
    domain_id = int(os.environ.get("ROS_DOMAIN_ID") or 10 + os.getpid() % 80)
    try:
        run, robot, images = prepare(args.folder, args.demonstrations, domain_id)
        figures = measure(run, robot, images, args.seconds, domain_id)
    except GraphError as error:
        raise SystemExit(f"latency_benchmark: {error}") from error
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""The graphs of processes in which faults strike: the whole stack with a simulated arm in motion, and a witness.

The simulator stands in for a robot: real time, the system's clock, drivers behind a relay that can lie. A `Rig` says what
else a graph has, for the faults of what not every robot has: a camera node, a moveit node, a controller that answers.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import time
from enum import Enum
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from std_msgs.msg import String

from atk_interfaces.msg import PolicyStatus
from atk_perception.robot_description import RobotDescription
from atk_perception.service_answers import answers_reach
from atk_sim import demo
from atk_sim.closed_loop_node import RELIABLE, ClosedLoopClient
from atk_sim.graph import NodeGraph
from atk_sim.settable_clock import SettableClock, missing_compiler
from atk_sim.simulation import Simulation, demonstrated

MOVING_RAD_S = 0.15
ACTION = "joint_trajectory_controller/follow_joint_trajectory"


class Rig(Enum):
    """What a graph is made of beside simulator, relay, tracker, policy and witness."""

    DRIVERS = "drivers on the system's clock"
    SIMULATED = "a simulated clock"
    CAMERA = "the camera node in the place of the simulator's camera"
    MOVEIT = "the moveit node, which looks at every plan"
    ACTION = "a controller that takes goals"
    SET_CLOCK = "a system clock that can be set"

    @property
    def missing(self) -> str:
        """Why there is no such graph here, or ''."""
        if self is Rig.ACTION and importlib.util.find_spec("control_msgs") is None:
            return "control_msgs is not installed (apt install ros-jazzy-control-msgs; PyPI has none)"
        return missing_compiler() if self is Rig.SET_CLOCK else ""


def film(robot: RobotDescription, folder: Path) -> None:
    """Images of an episode that the expert drives, there and back, for the camera node; made once."""
    if folder.is_dir():
        return
    part = folder.with_suffix(".part")
    part.mkdir(parents=True, exist_ok=True)
    simulation = Simulation(robot)
    try:
        frames = [simulation.rgb() for _ in demonstrated(simulation, "sushi", "RP", 0)]
    finally:
        simulation.close()
    for k, image in enumerate([*frames, *frames[-2:0:-1]]):
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(part / f"{k:05d}.png"), bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    part.rename(folder)


def changed_robot(path: Path, output: Path, **changes: object) -> Path:
    """A copy of a robot description with other entries."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    return output


class Stage:
    """A graph of processes with the arm in motion.

    Args:
        run_folder: the policy.
        robot_path: robot description.
        logs: folder of this graph's logs and of the recorder's file.
        domain_id: DDS domain.
        rig: what it is made of.
    """

    def __init__(
        self, run_folder: Path, robot_path: Path, logs: Path, domain_id: int, rig: Rig = Rig.DRIVERS
    ) -> None:
        self.robot = RobotDescription.load(robot_path)
        self.rig = rig
        self.nodes = NodeGraph(logs, domain_id)
        self.wire_path = logs / "wire.jsonl"
        self.clock = SettableClock(logs / "clock") if rig is Rig.SET_CLOCK else None
        self._active: list[str] = []
        try:
            self._start(run_folder, robot_path, logs)
            self.client = ClosedLoopClient(self.nodes)
        except BaseException:
            self.nodes.close()
            raise
        self._set = self.client.node.create_publisher(String, "faults/set", RELIABLE)
        self.client.node.create_subscription(
            String, "faults/active", lambda m: self._active.append(m.data), RELIABLE
        )
        self.client.wait_for("the fault injector", lambda: self._set.get_subscription_count() > 0, 30.0)

    def _start(self, run_folder: Path, robot_path: Path, logs: Path) -> None:
        rig, topics, camera = self.rig, self.robot.topics, self.robot.camera
        simulated = rig is Rig.SIMULATED
        live = {} if self.clock is None else self.clock.environment
        sim = demo._sim_parameters(argparse.Namespace(task="sushi"), robot_path)
        sim |= {"lockstep": False, "system_clock": not simulated, "real_time_factor": 1.0}
        seen = "unseen" if rig is Rig.CAMERA else "robot"
        through = {
            camera.image_topic: f"{seen}/{camera.image_topic}",
            topics.joint_states: f"robot/{topics.joint_states}",
            topics.command: f"robot/{topics.command}",
            "/clock": "robot/clock",
        }
        reliable = {f"qos_overrides./{camera.image_topic}.subscription.reliability": "reliable"}
        run = {"run_folder": str(run_folder), "use_sim_time": simulated}
        policy_robot = robot_path
        if rig is Rig.MOVEIT:  # the model stands in for MoveIt's scene
            policy_robot = changed_robot(robot_path, logs / "robot_moveit.yaml", scene_check="moveit")
        elif rig is Rig.ACTION:
            sink = {"command_sink": "follow_joint_trajectory", "command_action": ACTION}
            policy_robot = changed_robot(robot_path, logs / "robot_action.yaml", **sink)
        start = self.nodes.start
        start("atk_sim", "wire_recorder_node", {"output": str(self.wire_path)})
        injector = {"action": ACTION} if rig is Rig.ACTION else {}
        start("atk_sim", "fault_injector_node", injector, environment=live)
        start("atk_sim", "sim_robot_node", sim, remappings=through, environment=live)
        if rig is Rig.CAMERA:
            images = logs.parent / "camera_images"
            film(self.robot, images)
            source = {
                "source": str(images),
                "loop": True,
                "rate_hz": camera.rate_hz,
                "frame_id": camera.frame_id,
            }
            start("atk_perception", "camera_node", source)
        if rig is Rig.MOVEIT:
            start("atk_policy", "moveit_node", {"robot": str(robot_path)})
        answers = {"keypoints": "tracker/keypoints"}
        start("atk_perception", "tracker_node", {**run, **reliable}, remappings=answers, environment=live)
        start("atk_policy", "policy_node", {**run, "robot": str(policy_robot)}, environment=live)

    def close(self) -> None:
        """End every process."""
        self.client.close()
        self.nodes.close()

    # -- what is done to it: each returns when it did so [s] ------------------------------------------

    def inject(self, name: str) -> float:
        """Have the injector act, and wait for its confirmation."""
        self._active.clear()
        asked_s = time.time()
        self._set.publish(String(data=name))
        self.client.wait_for(f"the fault '{name}'", lambda: name in self._active, 10.0)
        return asked_s

    def signal(self, label: str, number: int) -> float:
        """Send a signal to a node's process."""
        struck_s = time.time()
        os.kill(self.nodes.pid(label), number)
        return struck_s

    def pause(self, label: str, seconds: float) -> float:
        """Stop a node's process for a while."""
        struck_s = self.signal(label, signal.SIGSTOP)
        time.sleep(seconds)
        self.signal(label, signal.SIGCONT)
        return struck_s

    def change_state(self, node: str, transition: int) -> float:
        """Ask a managed node for a transition, without waiting for the answer."""
        client = self.client.node.create_client(ChangeState, f"{node}/change_state")
        self.client.wait_for(f"{node}/change_state", client.service_is_ready, 10.0)
        # Else the time it takes to be discovered counts as the node's.
        self.client.wait_for(f"answers of {node}", answers_reach(self.client.node, node), 10.0)
        struck_s = time.time()
        client.call_async(ChangeState.Request(transition=Transition(id=transition)))
        return struck_s

    def stop_policy(self) -> float:
        """Call the stop service."""
        struck_s = time.time()
        self.client.stop_policy()
        return struck_s

    def reset_tracker(self) -> float:
        """Have the tracker forget the scene."""
        struck_s = time.time()
        self.client.reset_tracker()
        return struck_s

    def set_clock(self, ahead_ns: int) -> float:
        """Set the system clock of every process but the witness's."""
        assert self.clock is not None, f"in a graph with {self.rig.value} no clock can be set"
        struck_s = time.time()
        self.clock.set(ahead_ns)
        return struck_s

    # -- motion ------------------------------------------------------------------------------------

    def move(self, seed: int) -> None:
        """Start an episode and wait until the arm is well in motion."""
        self.client.stop_policy()
        self.client.reset("sushi", "RP", seed, "topics")
        self.client.start_policy()
        self.client.wait_for("motion", self._is_moving, 30.0)
        # Not always in the same phase of the motion.
        time.sleep(float(np.random.default_rng(seed).uniform(0.1, 0.8)))

    def _is_moving(self) -> bool:
        recent = [s for s in self.client.policy_statuses() if s.state == PolicyStatus.RUNNING][-6:]
        if len(recent) < 6:
            return False
        commands: Any = [s.command[:-1] for s in recent]
        steps = np.abs(np.diff(commands, axis=0)).max(axis=1)
        return bool((steps * self.robot.control_rate_hz > MOVING_RAD_S).all())

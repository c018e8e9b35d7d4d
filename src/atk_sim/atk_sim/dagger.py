"""DAgger (Ross et al. 2011): the student drives, the expert says what it would have done there.

The paper's sim-to-real training (method.md, training). What comes out are bags like any demonstration: the images and joint
states that the student met, and the expert's commands in the place of its own. So they go through the same
tracker and the same trainer as everything else. Beside them lies where everything was, for exact tracks.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from rosbags.typesys import Stores, get_typestore

from atk_perception.demonstration_topics import with_gripper_topic
from atk_perception.image_codec import RgbImage
from atk_perception.recording import DemonstrationWriter
from atk_perception.robot_description import RobotDescription
from atk_sim.camera import FloatArray
from atk_sim.exact_demonstrations import Witnessed
from atk_sim.robots.panda import FINGER_JOINTS
from atk_sim.rollout import START_NS, Agent
from atk_sim.simulation import Simulation

_TYPES = get_typestore(Stores.ROS2_JAZZY)
IMAGE, STATE, ARRAY = (
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/JointState",
    "std_msgs/msg/Float64MultiArray",
)


class CorrectionWriter:
    """A bag of frames and what should have been commanded in each, as the recorder would have written it."""

    def __init__(self, path: Path, robot: RobotDescription) -> None:
        robot, self._gripper_topic = with_gripper_topic(robot)
        self._kinds = {
            robot.camera.recorded_topic: IMAGE,
            robot.topics.joint_states: STATE,
            robot.topics.recorded_arm_command: ARRAY,
            self._gripper_topic: ARRAY,
        }
        self._robot = robot
        self._writer = DemonstrationWriter(path, self._kinds, robot)

    def add(self, stamp_ns: int, image_rgb: RgbImage, measured: FloatArray, action: FloatArray) -> None:
        """One control frame: (H, W, 3) image, (J + 1,) measured and commanded joints [rad] and opening [m]."""
        robot, types = self._robot, _TYPES.types
        stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=robot.camera.frame_id)
        finger_m = robot.gripper.joint_position(float(measured[-1]))
        positions = np.array([*measured[:-1], finger_m, finger_m])
        png = cv2.imencode(".png", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))[1].ravel()
        layout = types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        none = np.zeros(0)
        names = [*robot.joints.names, *FINGER_JOINTS]
        for topic, message in (
            (robot.topics.joint_states, types[STATE](header, names, positions, none, none)),
            (robot.camera.recorded_topic, types[IMAGE](header, "rgb8; png compressed bgr8", png)),
            (robot.topics.recorded_arm_command, types[ARRAY](layout, np.asarray(action[:-1], np.float64))),
            (self._gripper_topic, types[ARRAY](layout, np.asarray(action[-1:], np.float64))),
        ):
            self._writer.write(topic, stamp_ns, bytes(_TYPES.serialize_cdr(message, self._kinds[topic])))

    def keep(self, witnessed: Witnessed | None = None) -> None:
        """Finish the bag; what was witnessed of it is put beside its messages first."""
        if witnessed is not None:
            witnessed.save(self._writer.partial)
        self._writer.keep()


def record_corrections(simulation: Simulation, agent: Agent, task: str, seed: int, path: Path) -> bool:
    """Let the student drive an episode (RP) and write the expert's commands along its way; returns whether it succeeded.

    A folder that an interrupted run left unfinished must be gone.
    """
    simulation.reset(task, "RP", seed)
    agent.begin(simulation)
    writer = CorrectionWriter(path, simulation.robot)
    frames = []
    stamp_ns, period_ns = START_NS, round(1e9 / simulation.robot.camera.rate_hz)
    command = simulation.measured()
    while not simulation.done:
        step = agent.act(simulation, stamp_ns)
        frames.append((simulation.world.positions, simulation.measured(), simulation.expert_command()))
        writer.add(stamp_ns, simulation.rgb(), *frames[-1][1:])
        command = command if step.command is None else step.command
        simulation.step(command)
        stamp_ns += period_ns
    writer.keep(Witnessed(*(np.array(column) for column in zip(*frames, strict=True))))
    return simulation.succeeded

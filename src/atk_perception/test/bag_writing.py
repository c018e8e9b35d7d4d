"""Real, tiny MCAP bags for tests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from atk_perception.robot_description import RobotDescription

ROBOT_FILE = Path(__file__).parents[2] / "atk_bringup" / "config" / "robots" / "sim_panda.yaml"
ROBOT = RobotDescription.load(ROBOT_FILE)
TYPES = get_typestore(Stores.ROS2_JAZZY)
START_NS = 3_000_000_000


def write_demonstration(
    path: Path,
    steps: int,
    *,
    seed: int = 0,
    command_every: int = 1,
    without: Collection[str] = (),
    lost_images: Collection[int] = (),
    log_offset_ns: int = 0,
    image_size: tuple[int, int] = (24, 32),
    image_every_ns: int = ROBOT.control_period_ns,
    topic_ends: Mapping[str, int] | None = None,
    custom_data: Mapping[str, str] | None = None,
    arm_command: str = "positions",
    change: Callable[[str, int, Any], Any] = lambda topic, step, message: message,
    types: Mapping[str, str] | None = None,
    empty_topics: Mapping[str, str] | None = None,
    negatives: Collection[str] = (),
) -> tuple[Path, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Write `steps` control periods; returns the bag and (image, robot state, action) of each.

    Args:
        topic_ends: topic -> step from which on it is silent.
        arm_command: "positions", "trajectory" (the action and what else was planned then) or "twist".
        change: what is written instead of the message of a topic and step.
        types: topic -> message type, where `change` makes it another.
        empty_topics: topic -> message type of topics that hold no message.
        negatives: image topics of further cameras, which see the negative of the first one's image.
    """
    rng = np.random.default_rng(seed)
    stamp_type, header_type = TYPES.types["builtin_interfaces/msg/Time"], TYPES.types["std_msgs/msg/Header"]
    layout = TYPES.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    image_type, state_type, array_type = (
        "sensor_msgs/msg/CompressedImage",
        "sensor_msgs/msg/JointState",
        "std_msgs/msg/Float64MultiArray",
    )
    topics = {
        ROBOT.camera.recorded_topic: image_type,
        ROBOT.topics.joint_states: state_type,
        ROBOT.topics.command: {
            "positions": array_type,
            "trajectory": "trajectory_msgs/msg/JointTrajectory",
            "twist": "geometry_msgs/msg/TwistStamped",
        }[arm_command],
        ROBOT.topics.gripper_command: array_type,
        **dict.fromkeys(negatives, image_type),
        **(types or {}),
        **(empty_topics or {}),
    }

    def header(stamp_ns: int):
        return header_type(
            stamp=stamp_type(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9), frame_id="camera"
        )

    def arm_message(action: np.ndarray, rng: np.random.Generator):
        if arm_command == "positions":
            return TYPES.types[array_type](layout=layout, data=action)
        if arm_command == "twist":
            vector = TYPES.types["geometry_msgs/msg/Vector3"](x=0.1, y=0.0, z=0.0)
            twist = TYPES.types["geometry_msgs/msg/Twist"](linear=vector, angular=vector)
            return TYPES.types["geometry_msgs/msg/TwistStamped"](header=header(1), twist=twist)
        point, duration = (
            TYPES.types["trajectory_msgs/msg/JointTrajectoryPoint"],
            TYPES.types["builtin_interfaces/msg/Duration"],
        )
        planned = [action, *rng.uniform(-1, 1, (3, len(action)))]
        points = [
            point(
                positions=position,
                velocities=np.zeros(len(action)),
                accelerations=np.zeros(0),
                effort=np.zeros(0),
                time_from_start=duration(sec=0, nanosec=k * ROBOT.control_period_ns),
            )
            for k, position in enumerate(planned, start=1)
        ]
        return TYPES.types["trajectory_msgs/msg/JointTrajectory"](
            header=header(0), joint_names=list(ROBOT.joints.names), points=points
        )

    expected = []
    ends = topic_ends or {}
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
    for key, value in (custom_data or {}).items():
        writer.set_custom_data(key, value)
    with writer:
        connections = {
            topic: writer.add_connection("/" + topic, name, typestore=TYPES)
            for topic, name in topics.items()
            if topic not in without
        }

        def put(topic: str, stamp_ns: int, message) -> None:
            step = (stamp_ns - START_NS) // image_every_ns
            if topic in connections and step < ends.get(topic, steps):
                changed = change(topic, step, message)
                writer.write(
                    connections[topic], stamp_ns + log_offset_ns, TYPES.serialize_cdr(changed, topics[topic])
                )

        for k in range(steps):
            stamp_ns = START_NS + k * image_every_ns
            image = rng.integers(0, 255, (*image_size, 3), dtype=np.uint8)
            q = rng.uniform(-1, 1, ROBOT.joint_count)
            opening, action = rng.uniform(0, 0.08), rng.uniform(-1, 1, ROBOT.action_size)
            expected.append((image, np.append(q, opening), action))
            names = [*ROBOT.joints.names, ROBOT.gripper.joint]
            position = np.append(q, ROBOT.gripper.joint_position(opening))
            empty = np.zeros(0)
            put(
                ROBOT.topics.joint_states,
                stamp_ns,
                TYPES.types[state_type](
                    header=header(stamp_ns), name=names, position=position, velocity=empty, effort=empty
                ),
            )
            shown = {ROBOT.camera.recorded_topic: image, **dict.fromkeys(negatives, 255 - image)}
            for topic, seen in shown.items() if k not in lost_images else ():
                png = cv2.imencode(".png", cv2.cvtColor(seen, cv2.COLOR_RGB2BGR))[1]
                put(
                    topic,
                    stamp_ns,
                    TYPES.types[image_type](
                        header=header(stamp_ns), format="rgb8; png compressed bgr8", data=png.ravel()
                    ),
                )
            if k % command_every == 0:
                put(
                    ROBOT.topics.command,
                    stamp_ns + 2_000_000,
                    arm_message(action[:-1], rng),
                )
                put(
                    ROBOT.topics.gripper_command,
                    stamp_ns + 2_000_000,
                    TYPES.types[array_type](layout=layout, data=action[-1:]),
                )
    return path, expected

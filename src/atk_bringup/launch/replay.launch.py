"""Tracker and policy on a recorded bag; what they command goes to replay/... and reaches no robot.

Usage:

    ros2 launch atk_bringup replay.launch.py run_folder:=/data/run
    ros2 bag play BAG --clock 100
"""

from launch import LaunchDescription
from launch.substitutions import LaunchConfiguration

from atk_bringup.launching import (
    InReplay,
    RobotEntry,
    RobotFile,
    argument,
    bringup,
    managed_node,
    rviz,
    rviz_arguments,
    text,
    tracker,
    tracker_arguments,
)


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    run_folder = LaunchConfiguration("run_folder")
    robot_file = RobotFile(LaunchConfiguration("robot"), run_folder)
    commands = [RobotEntry(robot_file, f"topics.{name}") for name in ("command", "gripper_command")]
    return bringup(
        [
            argument("run_folder", "run folder written by 'select'"),
            argument(
                "robot",
                "robot description: a shipped name or a path; empty: the one in the run folder",
                "",
            ),
            *tracker_arguments(image_reliability="reliable", compressed="true"),
            *rviz_arguments(camera_frame="true"),
        ],
        [
            tracker(robot_file),
            managed_node(
                "atk_policy",
                "policy_node",
                "policy",
                {"run_folder": text(run_folder), "robot": text(robot_file)},
                [(topic, InReplay(topic)) for topic in commands],
            ),
            *rviz(robot_file),
        ],
        use_sim_time="true",
    )

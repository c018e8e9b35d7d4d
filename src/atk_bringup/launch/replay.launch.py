"""Tracker and policy on a recorded bag; what they command goes to replay/... and reaches no robot.

Usage:

    ros2 launch atk_bringup replay.launch.py run_folder:=/data/run
    ros2 bag play BAG --clock 100

or, where `ros2 bag` is not installed, or every image is to be waited for:

    ros2 launch atk_bringup replay.launch.py run_folder:=/data/run bag:=BAG
"""

from launch import LaunchDescription
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, NotEqualsSubstitution

from atk_bringup.launching import (
    BOOLEAN,
    RobotFile,
    argument,
    boolean,
    bringup,
    joint_monitor,
    joint_monitor_argument,
    managed_node,
    number,
    rviz,
    rviz_arguments,
    text,
    tracker_arguments,
    trackers,
)


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    run_folder = LaunchConfiguration("run_folder")
    robot_file = RobotFile(LaunchConfiguration("robot"), run_folder)
    return bringup(
        [
            argument("run_folder", "run folder written by 'select'"),
            argument(
                "robot",
                "robot description: a shipped name or a path; empty: the one in the run folder",
                "",
            ),
            argument("bag", "rosbag2 folder to play; empty: 'ros2 bag play' does", ""),
            argument("rate", "of the recorded time, with bag:=", "1.0"),
            argument(
                "lockstep",
                "with bag:=, whose answers recorded time waits for: the same commands on every machine",
                "policy",
                ["none", "tracker", "policy"],
            ),
            argument("start_paused", "with bag:=, begin when player/resume is called", "false", BOOLEAN),
            *tracker_arguments(image_reliability="reliable", compressed="true"),
            *rviz_arguments(camera_frame="true"),
            joint_monitor_argument(),
        ],
        [
            trackers(robot_file),
            managed_node(
                "atk_policy",
                "policy_node",
                "policy",
                {"run_folder": text(run_folder), "robot": text(robot_file), "replay": True},
            ),
            managed_node(
                "atk_perception",
                "play_node",
                "player",
                {
                    "bag": text(LaunchConfiguration("bag")),
                    "robot": text(robot_file),
                    "rate": number(LaunchConfiguration("rate")),
                    "clock_hz": 100.0,
                    "lockstep": text(LaunchConfiguration("lockstep")),
                    "start_paused": boolean(LaunchConfiguration("start_paused")),
                },
                condition=IfCondition(NotEqualsSubstitution(LaunchConfiguration("bag"), "")),
            ),
            joint_monitor(robot_file),
            *rviz(robot_file),
        ],
        use_sim_time="true",
    )

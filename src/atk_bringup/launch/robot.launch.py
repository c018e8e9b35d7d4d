"""Tracker and policy on a real robot. Nothing moves until the action policy/run is asked for.

With `scene_check: moveit` in the robot description the moveit node runs beside them, in a process of its own.

Usage:

    ros2 launch atk_bringup robot.launch.py run_folder:=/data/run robot:=/data/my_robot.yaml
"""

from launch import LaunchDescription
from launch.actions import GroupAction
from launch.conditions import IfCondition
from launch.substitutions import EqualsSubstitution, LaunchConfiguration

from atk_bringup.launching import (
    BOOLEAN,
    RobotEntry,
    RobotFile,
    argument,
    bringup,
    cameras,
    joint_monitor,
    joint_monitor_argument,
    managed_node,
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
            argument(
                "camera", "start a camera node per camera; false where drivers publish", "false", BOOLEAN
            ),
            argument(
                "camera_source",
                "of the camera node: device, video file or image folder; of several cameras with commas between",
                "/dev/video0",
            ),
            argument(
                "camera_calibration",
                "of the camera node: calibration file (YAML); of several cameras with commas between",
                "",
            ),
            argument(
                "moveit_config",
                "with scene_check: moveit, the package of the MoveIt configuration, as panda_moveit_config",
                "",
            ),
            *tracker_arguments(image_reliability="best_effort", compressed="false"),
            *rviz_arguments(camera_frame="false"),
            joint_monitor_argument(),
        ],
        [
            GroupAction([cameras(robot_file)], condition=IfCondition(LaunchConfiguration("camera"))),
            trackers(robot_file),
            managed_node(
                "atk_policy",
                "policy_node",
                "policy",
                {"run_folder": text(run_folder), "robot": text(robot_file)},
            ),
            joint_monitor(robot_file),
            managed_node(
                "atk_policy",
                "moveit_node",
                "moveit",
                {"robot": text(robot_file), "moveit_config": text(LaunchConfiguration("moveit_config"))},
                condition=IfCondition(
                    EqualsSubstitution(RobotEntry(robot_file, "scene_check", default="none"), "moveit")
                ),
            ),
            *rviz(robot_file),
        ],
        use_sim_time="false",
    )

"""Tracker and policy on a real robot. Nothing moves until the action policy/run is asked for.

Beside them, in a process of its own, the node that brings the arm home (moveit/go_home), and that checks every plan with
`scene_check: moveit` in the robot description.

Usage:

    ros2 launch atk_bringup robot.launch.py run_folder:=/data/run robot:=/data/my_robot.yaml
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import GroupAction, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from atk_bringup.launching import (
    BOOLEAN,
    RobotFile,
    argument,
    bringup,
    cameras,
    joint_monitor,
    joint_monitor_argument,
    managed_node,
    moves_home,
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

    def policy(context: LaunchContext) -> list[Node]:
        given = context.launch_configurations["velocity_scale"]
        return [
            managed_node(
                "atk_policy",
                "policy_node",
                "policy",
                {
                    "run_folder": text(run_folder),
                    "robot": text(robot_file),
                    # Where it is not given, the parameter file may have it.
                    **({"velocity_scale": number(LaunchConfiguration("velocity_scale"))} if given else {}),
                },
            )
        ]

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
            argument(
                "velocity_scale",
                "share of the joint velocity limits that the policy may use, in (0, 1]; begin slowly on a new robot; "
                "empty: 1, or what params_file says",
                "",
            ),
            *tracker_arguments(image_reliability="best_effort", compressed="false"),
            *rviz_arguments(camera_frame="false"),
            joint_monitor_argument(),
        ],
        [
            GroupAction([cameras(robot_file)], condition=IfCondition(LaunchConfiguration("camera"))),
            trackers(robot_file),
            # Before the policy, whose plans it checks.
            managed_node(
                "atk_policy",
                "moveit_node",
                "moveit",
                {"robot": text(robot_file), "moveit_config": text(LaunchConfiguration("moveit_config"))},
                condition=IfCondition(moves_home(robot_file)),
            ),
            OpaqueFunction(function=policy),
            joint_monitor(robot_file),
            *rviz(robot_file),
        ],
        use_sim_time="false",
    )

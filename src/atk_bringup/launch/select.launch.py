"""The offline selection as an action server (`selection/select`); the command line is `ros2 run atk_policy select`.

Usage:

    ros2 launch atk_bringup select.launch.py
"""

from launch import LaunchDescription
from launch.substitutions import LaunchConfiguration

from atk_bringup.launching import RobotFile, argument, bringup, managed_node, text


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    return bringup(
        [
            argument(
                "robot",
                "robot description: a shipped name or a path; empty: the one beside the demonstrations",
                "",
            ),
        ],
        [
            managed_node(
                "atk_policy",
                "selection_node",
                "selection",
                {"robot": text(RobotFile(LaunchConfiguration("robot")))},
            )
        ],
        use_sim_time="false",
    )

"""The simulated robot, driven by the policy of a run folder or by its scripted expert.

Usage:

    ros2 launch atk_bringup sim.launch.py run_folder:=runs/demo/run
    ros2 launch atk_bringup sim.launch.py driver:=expert rviz:=true
"""

from launch import LaunchDescription
from launch.actions import GroupAction
from launch.conditions import IfCondition
from launch.substitutions import EqualsSubstitution, LaunchConfiguration

from atk_bringup.launching import (
    BOOLEAN,
    OWN_CLOCK,
    RobotFile,
    argument,
    boolean,
    bringup,
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
    robot_file = RobotFile(LaunchConfiguration("robot"))
    with_policy = IfCondition(EqualsSubstitution(LaunchConfiguration("driver"), "topics"))
    return bringup(
        [
            argument("run_folder", "run folder written by 'select'; not needed with driver:=expert", ""),
            argument("robot", "robot description: a shipped name or a path", "sim_panda"),
            argument(
                "driver",
                "who commands: the policy (topics) or the scripted expert",
                "topics",
                ["topics", "expert"],
            ),
            argument("task", "task of the first episode", "sushi"),
            argument(
                "disturbance",
                "RP, RB, RO, Light (each adding to the one before), camera, occlusion or freeze; NAME:SEVERITY for more or less",
                "RP",
            ),
            argument("seed", "seed of the first episode", "0"),
            argument("wait_for_reset", "begin when the service sim/reset is called", "false", BOOLEAN),
            *tracker_arguments(image_reliability="reliable", compressed="false", pose_from="topic"),
            *rviz_arguments(camera_frame="false"),
            joint_monitor_argument(),
        ],
        [
            GroupAction(
                [
                    trackers(robot_file, OWN_CLOCK),
                    managed_node(
                        "atk_policy",
                        "policy_node",
                        "policy",
                        {"run_folder": text(run_folder), "robot": text(robot_file)},
                        OWN_CLOCK,
                    ),
                    joint_monitor(robot_file, OWN_CLOCK),
                ],
                condition=with_policy,
            ),
            # Last: its world begins when everybody listens.
            managed_node(
                "atk_sim",
                "sim_robot_node",
                "sim",
                {
                    "robot": text(robot_file),
                    "driver": text(LaunchConfiguration("driver")),
                    "task": text(LaunchConfiguration("task")),
                    "disturbance": text(LaunchConfiguration("disturbance")),
                    "seed": LaunchConfiguration("seed"),
                    "wait_for_reset": boolean(LaunchConfiguration("wait_for_reset")),
                },
                OWN_CLOCK,
            ),
            *rviz(robot_file, OWN_CLOCK),
        ],
        use_sim_time="true",
    )

"""The recorder of demonstrations, on a robot or with the simulator beside it.

Usage:

    ros2 launch atk_bringup record.launch.py robot:=/data/my_robot.yaml output:=/data/demonstrations
    ros2 launch atk_bringup record.launch.py robot:=/data/my_robot.yaml camera:=true camera_source:=/dev/video0
    ros2 launch atk_bringup record.launch.py simulator:=true output:=demonstrations
"""

from launch import LaunchDescription
from launch.actions import GroupAction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration

from atk_bringup.launching import (
    BOOLEAN,
    OWN_CLOCK,
    RobotFile,
    argument,
    bringup,
    cameras,
    managed_node,
    rviz,
    rviz_arguments,
    text,
)


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    simulator = LaunchConfiguration("simulator")
    robot_file = RobotFile(LaunchConfiguration("robot"))
    return bringup(
        [
            argument("robot", "robot description: a shipped name or a path", "sim_panda"),
            argument("output", "folder that the demonstrations are written to", "demonstrations"),
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
            argument("simulator", "start the simulated robot and its scripted expert", "false", BOOLEAN),
            argument("task", "of the simulator", "sushi"),
            *rviz_arguments(camera_frame="false"),
        ],
        [
            GroupAction([cameras(robot_file)], condition=IfCondition(LaunchConfiguration("camera"))),
            managed_node(
                "atk_sim",
                "sim_robot_node",
                "sim",
                {
                    "robot": text(robot_file),
                    "driver": "expert",
                    "task": text(LaunchConfiguration("task")),
                    # An episode must not be half over when its recording starts.
                    "wait_for_reset": True,
                },
                OWN_CLOCK,
                condition=IfCondition(simulator),
            ),
            managed_node(
                "atk_perception",
                "record_node",
                "recorder",
                {"robot": text(robot_file), "output": text(LaunchConfiguration("output"))},
                OWN_CLOCK,
            ),
            *rviz(robot_file, OWN_CLOCK),
        ],
        use_sim_time=simulator,
    )

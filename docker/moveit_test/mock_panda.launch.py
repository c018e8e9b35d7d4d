"""MoveIt's Panda under ros2_control's mock hardware: joint states, a trajectory controller, TF. No move_group, no RViz."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch_ros.actions import Node
from moveit_configs_utils import MoveItConfigsBuilder

CONFIG = Path(get_package_share_directory("moveit_resources_panda_moveit_config")) / "config"
CONTROLLERS = ("joint_state_broadcaster", "panda_arm_controller")


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    robot = MoveItConfigsBuilder("moveit_resources_panda").robot_description(
        file_path="config/panda.urdf.xacro"
    )
    description = robot.to_moveit_configs().robot_description
    return LaunchDescription(
        [
            Node(
                package="controller_manager",
                executable="ros2_control_node",
                parameters=[str(CONFIG / "ros2_controllers.yaml")],
                remappings=[("/controller_manager/robot_description", "/robot_description")],
            ),
            Node(
                package="robot_state_publisher", executable="robot_state_publisher", parameters=[description]
            ),
            # The arm's foot in MoveIt's world: without it MoveIt never knows the whole state.
            Node(
                package="tf2_ros",
                executable="static_transform_publisher",
                arguments=["--frame-id", "world", "--child-frame-id", "panda_link0"],
            ),
            *(
                Node(package="controller_manager", executable="spawner", arguments=[name])
                for name in CONTROLLERS
            ),
        ]
    )

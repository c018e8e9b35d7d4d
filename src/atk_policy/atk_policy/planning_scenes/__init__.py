"""Planning scenes by the name that a robot description gives (`scene_check`)."""

from __future__ import annotations

from collections.abc import Callable

from atk_perception.robot_description import RobotDescription
from atk_policy.planning_scenes.protocol import PlanningScene, PlanningSceneError, SceneOptions


def _model(robot: RobotDescription, options: SceneOptions) -> PlanningScene:
    from atk_policy.planning_scenes.model import ModelScene

    return ModelScene(robot, options)


def _moveit(robot: RobotDescription, options: SceneOptions) -> PlanningScene:
    # MoveIt comes with ROS 2 from apt only, so it is imported when it is chosen.
    try:
        from atk_policy.planning_scenes.moveit_scene import MoveItScene
    except ImportError as error:
        raise PlanningSceneError(
            f"robot description '{robot.name}' has scene_check: moveit, but MoveIt's Python interface cannot be imported "
            f"({error}). Install it: apt install ros-jazzy-moveit-py ros-jazzy-moveit-configs-utils ros-jazzy-moveit; or set "
            "scene_check: model, which needs no MoveIt"
        ) from error
    return MoveItScene(robot, options)


PLANNING_SCENES: dict[str, Callable[[RobotDescription, SceneOptions], PlanningScene]] = {
    "model": _model,
    "moveit": _moveit,
}


def make_planning_scene(robot: RobotDescription, options: SceneOptions) -> PlanningScene:
    """The scene that `robot.scene_check` names.

    Raises:
        PlanningSceneError: none is named, or it cannot be had here.
        RobotDescriptionError: the model cannot be used.
    """
    if robot.scene_check not in PLANNING_SCENES:
        raise PlanningSceneError(
            f"robot description '{robot.name}' has scene_check: {robot.scene_check}; to check plans, set one of "
            f"{', '.join(sorted(PLANNING_SCENES))}"
        )
    return PLANNING_SCENES[robot.scene_check](robot, options)

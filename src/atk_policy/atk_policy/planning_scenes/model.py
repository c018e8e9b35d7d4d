"""The scene as the robot description's model has it: the arm, and what is fixed around it. No MoveIt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from atk_perception.robot_description import RobotDescription
from atk_policy.kinematics import KinematicModel
from atk_policy.planning_scenes.protocol import GoHomeError, PlanningSceneError, SceneOptions
from atk_policy.scene_validation import Plan, dense

FloatArray = npt.NDArray[np.float64]


class ModelScene:
    """KinematicModel as a planning scene. Its only way home is the straight one, joint by joint.

    Raises:
        RobotDescriptionError: the model cannot be used.
        PlanningSceneError: `home_state` was given, which only MoveIt knows.
    """

    def __init__(self, robot: RobotDescription, options: SceneOptions) -> None:
        if options.home_state:
            raise PlanningSceneError(
                f"home_state '{options.home_state}' is a named state of MoveIt; with scene_check 'model' leave it empty, "
                "and the arm goes to home_rad of the robot description"
            )
        self._robot = robot
        self._model = KinematicModel(robot)

    def scene_fault(self, q_batch: FloatArray) -> tuple[str, int]:
        """See `PlanningScene`: workspace, self_collision, scene_collision."""
        return self._model.scene_fault(q_batch)

    def fault_detail(self, q: FloatArray) -> str:
        """See `PlanningScene`."""
        return self._model.fault_detail(q)

    def go_home(
        self, q_now: FloatArray, follow: Callable[[FloatArray], None], check: Callable[[], None]
    ) -> None:
        """See `PlanningScene`: straight in joint space where that is free, else refused. `follow` looks after stops.

        A start outside the workspace is where arms are parked; once inside, the way stays there.
        """
        home = np.array(self._robot.home_rad)
        way = dense(Plan(np.array([0.0, 1.0]), np.stack([q_now[:-1], home])))
        inside = [not self._model.workspace_fault(q[None])[0] for q in way.position_rad]
        entered = inside.index(True) if True in inside else 0
        cause, row = self._model.collision_fault(way.position_rad)
        if not cause:
            cause, row = self._model.workspace_fault(way.position_rad[entered:])
            row += entered
        if cause:
            where = "where the arm is" if row == 0 else f"{way.time_s[row]:.0%} of the way"
            raise GoHomeError(
                f"the straight way home is not free: {cause} {where} ({self._model.fault_detail(way.position_rad[row])}). "
                "Move the arm by hand to where it is free, or plan a way around with MoveIt (scene_check: moveit)"
            )
        follow(home)

    def inverse(self, T_base_tip: FloatArray, q_start: FloatArray) -> FloatArray:
        """See `PlanningScene`; by mink."""
        return self._model.inverse(T_base_tip, q_start)

    def close(self) -> None:
        """See `PlanningScene`: nothing was started."""

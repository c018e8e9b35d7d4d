"""MoveIt's planning scene: collision objects, what is attached to the arm, octomap, and planners around them.

The only module that imports moveit_py. It is written against the jazzy branch of moveit2 (2.12); the names of its
keyword arguments are those of the bindings.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
import yaml
from geometry_msgs.msg import Pose
from moveit.core.collision_detection import CollisionRequest, CollisionResult
from moveit.core.controller_manager import ExecutionStatus
from moveit.core.planning_interface import MotionPlanResponse
from moveit.core.planning_scene import PlanningScene
from moveit.core.robot_model import JointModelGroup, RobotModel
from moveit.core.robot_state import RobotState
from moveit.planning import (
    MoveItPy,
    PlanningComponent,
    PlanningSceneMonitor,
    PlanRequestParameters,
    TrajectoryExecutionManager,
)
from moveit_configs_utils import MoveItConfigsBuilder

from atk_perception.robot_description import RobotDescription
from atk_policy.kinematics import InverseKinematicsError, KinematicModel
from atk_policy.planning_scenes.execution import carry_out
from atk_policy.planning_scenes.protocol import GoHomeError, PlanningSceneError, SceneOptions

FloatArray = npt.NDArray[np.float64]

NODE_NAME = "moveit_py"
CONFIG_SUFFIX = "_moveit_config"
JOINT_STATES_WAIT_S = 10.0
PLANNING_TIME_S = 5.0
PLANNING_ATTEMPTS = 3
IK_TIMEOUT_S = 0.1
# Callbacks that waited for a planner are through by then.
HEARD_S = 0.1


class MoveItScene:
    """MoveIt in this process, which should be its own: it brings a second ROS context, and has crashed on the way down.

    Joints move in the frame of MoveIt's model, whose root should be the foot of the arm, as it is in the model of the
    robot description; that model serves for the workspace, which MoveIt's scene does not know.

    Raises:
        PlanningSceneError: MoveIt does not start, or its group has other joints.
        RobotDescriptionError: the robot description's model cannot be used.
    """

    def __init__(self, robot: RobotDescription, options: SceneOptions) -> None:
        assert robot.kinematics is not None  # the robot description sees to it where scene_check is moveit
        self._robot, self._options = robot, options
        self._group: str = robot.kinematics.moveit_group
        self._model = KinematicModel(robot)
        self._moveit = self._start()
        self._monitor: PlanningSceneMonitor = self._moveit.get_planning_scene_monitor()
        self._order = self._joint_order()

    def _start(self) -> MoveItPy:
        arguments: dict[str, Any] = {
            "node_name": NODE_NAME,
            "name_space": self._options.namespace,
            "remappings": {"joint_states": self._robot.topics.joint_states},
        }
        try:
            if not self._options.moveit_config:
                # By default MoveItPy reads the parameter files of this process' command line: those of a launch file.
                return MoveItPy(**arguments)
            with tempfile.TemporaryDirectory() as folder:
                # A file of our own rather than `config_dict`, which names the node without its namespace.
                path = Path(folder) / "moveit.yaml"
                path.write_text(yaml.safe_dump({"/**": {"ros__parameters": self._parameters()}}))
                return MoveItPy(launch_params_filepaths=[str(path)], **arguments)
        except RuntimeError as error:
            raise PlanningSceneError(
                f"MoveIt did not start: {error}. It needs the robot's joint states on "
                f"'{self._robot.topics.joint_states}' within {JOINT_STATES_WAIT_S:g} s, and a configuration: parameter "
                f"'moveit_config' is '{self._options.moveit_config}', expected a package as panda{CONFIG_SUFFIX}"
            ) from error

    def _parameters(self) -> dict[str, Any]:
        package = self._options.moveit_config
        builder = MoveItConfigsBuilder(package.removesuffix(CONFIG_SUFFIX), package_name=package)
        parameters: dict[str, Any] = (
            builder.planning_pipelines(pipelines=["ompl"]).to_moveit_configs().to_dict()
        )
        parameters |= {
            "planning_scene_monitor_options": {
                "name": "planning_scene_monitor",
                "robot_description": "robot_description",
                "wait_for_initial_state_timeout": JOINT_STATES_WAIT_S,
            },
            "planning_pipelines": {"pipeline_names": ["ompl"]},
            "plan_request_params": {
                "planning_pipeline": "ompl",
                "planning_attempts": PLANNING_ATTEMPTS,
                "planning_time": PLANNING_TIME_S,
            },
        }
        if self._options.use_sim_time:
            parameters["use_sim_time"] = True
        return parameters

    def _joint_order(self) -> list[int]:
        """Row of each of the group's joints in the robot description."""
        model: RobotModel = self._moveit.get_robot_model()
        if not model.has_joint_model_group(self._group):
            raise PlanningSceneError(
                f"MoveIt has no group '{self._group}' (kinematics.moveit_group); it has "
                f"{', '.join(model.joint_model_group_names)}"
            )
        group: JointModelGroup = model.get_joint_model_group(self._group)
        names = list(group.active_joint_model_names)
        ours = list(self._robot.joints.names)
        if sorted(names) != sorted(ours):
            raise PlanningSceneError(
                f"MoveIt's group '{self._group}' moves {names}; robot description '{self._robot.name}' has {ours}"
            )
        return [ours.index(name) for name in names]

    # -- checks ------------------------------------------------------------------------------------

    def scene_fault(self, q_batch: FloatArray) -> tuple[str, int]:
        """See `PlanningScene`: workspace, self_collision, scene_collision."""
        cause, outside = self._model.workspace_fault(q_batch)
        batch = q_batch[:outside] if cause else q_batch
        scene: PlanningScene
        with self._monitor.read_only() as scene:
            state = self._state(scene)
            for row, q in enumerate(batch):
                self._place(state, q)
                if scene.is_state_colliding(robot_state=state, joint_model_group_name=self._group):
                    return self._collision(scene, state), row
        return cause, outside

    def _state(self, scene: PlanningScene) -> RobotState:
        """A copy of the present state: a fresh one would lack what is attached to the arm."""
        state: RobotState = copy.copy(scene.current_state)
        return state

    def _place(self, state: RobotState, q: FloatArray) -> None:
        state.set_joint_group_active_positions(
            self._group, np.ascontiguousarray(np.asarray(q, dtype=np.float64)[self._order])
        )
        state.update()

    def _collision(self, scene: PlanningScene, state: RobotState) -> str:
        request, result = CollisionRequest(), CollisionResult()
        request.joint_model_group_name = self._group
        scene.check_self_collision(request, result, state)
        return "self_collision" if result.collision else "scene_collision"

    def fault_detail(self, q: FloatArray) -> str:
        """See `PlanningScene`. The bindings do not give the names of what meets; MoveIt's log does."""
        workspace = self._model.workspace_fault(q[None])[0]
        scene: PlanningScene
        with self._monitor.read_only() as scene:
            state = self._state(scene)
            self._place(state, q)
            colliding = scene.is_state_colliding(
                robot_state=state, joint_model_group_name=self._group, verbose=True
            )
        parts = [self._model.workspace_detail(q)] if workspace else []
        if colliding:
            parts.append(
                f"MoveIt finds a contact of group '{self._group}'; the log of {NODE_NAME} names the bodies"
            )
        return "; ".join(parts)

    # -- motion ------------------------------------------------------------------------------------

    def go_home(
        self, q_now: FloatArray, follow: Callable[[FloatArray], None], check: Callable[[], None]
    ) -> None:
        """See `PlanningScene`: planned around obstacles and carried out by MoveIt's own controllers."""
        component: PlanningComponent = self._moveit.get_planning_component(self._group)
        component.set_start_state_to_current_state()
        if self._options.home_state:
            if self._options.home_state not in component.named_target_states:
                raise GoHomeError(
                    f"MoveIt's group '{self._group}' has no state '{self._options.home_state}' (home_state); it has "
                    f"{', '.join(component.named_target_states)}"
                )
            component.set_goal_state(configuration_name=self._options.home_state)
        else:
            scene: PlanningScene
            with self._monitor.read_only() as scene:
                goal = self._state(scene)
            self._place(goal, np.array(self._robot.home_rad))
            component.set_goal_state(robot_state=goal)
        request = self._request()
        plan: MotionPlanResponse = component.plan(single_plan_parameters=request)
        if not plan:
            raise GoHomeError(
                f"MoveIt found no way home in {request.planning_time:g} s (error code {plan.error_code.val}, see "
                "moveit_msgs/msg/MoveItErrorCodes); free the arm or its home, then ask again"
            )
        # The bindings keep Python's lock while they plan: a stop that came meanwhile is heard only now.
        time.sleep(HEARD_S)
        manager: TrajectoryExecutionManager = self._moveit.get_trajectory_execution_manager()
        status: ExecutionStatus = carry_out(
            lambda: self._moveit.execute(plan.trajectory, controllers=[]), manager.stop_execution, check
        )
        if not status:
            raise GoHomeError(
                f"MoveIt's controllers did not carry out the way home: {status.status}; see their log, and "
                "moveit_controllers.yaml of the MoveIt configuration"
            )

    def _request(self) -> PlanRequestParameters:
        """MoveIt's parameters, wherever they came from, at our speed."""
        request = PlanRequestParameters(self._moveit, "")
        share = self._options.speed_share
        request.max_velocity_scaling_factor = request.max_acceleration_scaling_factor = share
        return request

    def inverse(self, T_base_tip: FloatArray, q_start: FloatArray) -> FloatArray:
        """See `PlanningScene`; by the solver of the MoveIt configuration (`RobotState.set_from_ik`).

        It is asked for the link that its group ends with; where the tip of the robot description is from there, both
        models are asked for at `q_start`.
        """
        model: RobotModel = self._moveit.get_robot_model()
        group: JointModelGroup = model.get_joint_model_group(self._group)
        link = str(group.link_model_names[-1])
        scene: PlanningScene
        with self._monitor.read_only() as scene:
            state = self._state(scene)
        self._place(state, q_start)
        T_link_tip = np.linalg.inv(state.get_frame_transform(link)) @ self._model.tip_pose(q_start)
        if not state.set_from_ik(
            self._group, _message(T_base_tip @ np.linalg.inv(T_link_tip)), link, IK_TIMEOUT_S
        ):
            raise InverseKinematicsError(
                f"MoveIt found no joint positions that bring the tip to {np.round(T_base_tip[:3, 3], 4).tolist()} m"
            )
        state.update()
        found = np.empty(len(self._order))
        found[self._order] = state.get_joint_group_positions(self._group)
        return found

    def close(self) -> None:
        """See `PlanningScene`."""
        self._moveit.shutdown()


def _message(T: FloatArray) -> Pose:
    quaternion = np.empty(4)  # w x y z
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(T[:3, :3]).ravel())
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = (float(value) for value in T[:3, 3])
    pose.orientation.w, pose.orientation.x, pose.orientation.y, pose.orientation.z = map(float, quaternion)
    return pose

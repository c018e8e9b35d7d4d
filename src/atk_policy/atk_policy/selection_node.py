"""Action server of the offline selection (`~/select`), around the same function as the command line."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup

from atk_interfaces.action import SelectKeypoints
from atk_perception.managed_node import ERROR, OK, ManagedNode, run_node
from atk_policy.select_command import USER_ERRORS, robot_of
from atk_policy.selection import SelectionConfig, select_keypoints


class SelectionCancelled(Exception):
    """The goal was cancelled, or the node is going down."""


class SelectionNode(ManagedNode):
    """Selects keypoints on request, one selection at a time."""

    def __init__(self) -> None:
        super().__init__("selection")
        self.declare("robot", "", "robot description; empty: the one recorded beside the demonstrations")
        self.declare("workers", 2, "processes that track", minimum=1, maximum=64)
        self._busy = threading.Lock()
        self._ending = threading.Event()

    def activate(self) -> None:
        """Offer the action."""
        self._ending.clear()
        self._server = ActionServer(
            self,
            SelectKeypoints,
            "~/select",
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )
        self.set_diagnostic(OK, "ready")

    def deactivate(self) -> None:
        """End a selection in progress; it can be resumed."""
        self._ending.set()
        with self._busy:
            self._server.destroy()

    def _on_goal(self, _: SelectKeypoints.Goal) -> GoalResponse:
        if self._busy.locked() or self._ending.is_set():
            self.get_logger().warning("refused: a selection is in progress, or the node is going down")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _execute(self, goal: Any) -> SelectKeypoints.Result:
        def progress(stage: str, fraction: float, detail: str) -> None:
            if goal.is_cancel_requested or self._ending.is_set():
                raise SelectionCancelled("cancelled; the same request with resume continues")
            self.set_diagnostic(OK, f"{stage} {fraction:.0%}", detail=detail)
            goal.publish_feedback(
                SelectKeypoints.Feedback(stage=stage, progress=float(fraction), detail=detail)
            )

        request = goal.request
        result = SelectKeypoints.Result(run_folder=request.run_folder)
        with self._busy:
            try:
                demonstrations = [Path(path) for path in request.demonstrations]
                robot_path = self.parameter("robot")
                output = Path(request.run_folder)
                config = SelectionConfig.load(request.config_file)
                if config.name == SelectionConfig().name:
                    config = config.model_copy(update={"name": output.resolve().name})
                run = select_keypoints(
                    demonstrations,
                    output,
                    robot_of(demonstrations, Path(robot_path) if robot_path else None),
                    config,
                    resume=request.resume,
                    workers=self.parameter("workers"),
                    progress=progress,
                )
            except SelectionCancelled as error:
                result.message = str(error)
                self.set_diagnostic(OK, result.message)
                (goal.canceled if goal.is_cancel_requested else goal.abort)()
                return result
            except (*USER_ERRORS, OSError) as error:
                result.message = str(error)
                self.get_logger().error(result.message)
                self.set_diagnostic(ERROR, result.message)
                goal.abort()
                return result
        result.success = True
        result.keypoints_kept = len(run.keypoint_ids)
        result.keypoints_candidates = int(run.keypoint_set.chosen["candidates"])
        result.message = f"{result.keypoints_kept} of {result.keypoints_candidates} keypoints kept"
        self.set_diagnostic(OK, result.message)
        goal.succeed()
        return result


def main() -> None:
    """Console entry."""
    run_node(SelectionNode)

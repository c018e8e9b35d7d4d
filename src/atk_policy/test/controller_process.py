"""The controllers of a robot description as a process of its own, with the judges of `controller_rules` behind them.

Run as a script: `python controller_process.py ROBOT.yaml`. One order a line on stdin, one JSON object a line on stdout:

    mode NAME   accept, refuse, abort (tolerance or grasp failure), stall (of a gripper) or mute: what becomes of goals
    report      what arrived and what was wrong with it
    end         the same, nothing follows any more; then the process ends
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import rclpy
from controller_rules import ForwardPositionJudge, GripperJudge, Judge, ServoJudge, TrajectoryJudge
from rclpy.action import ActionServer, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from atk_perception.robot_description import RobotDescription

# On a robot 0.1 s; here several processes and other tests share two cores.
SERVO_TIMEOUT_S = 5.0


class Controllers(Node):
    """Arm and gripper of a robot description."""

    def __init__(self, robot: RobotDescription) -> None:
        super().__init__("controllers")
        self.mode = "accept"
        self.robot = robot
        self.arm = getattr(self, f"_arm_{robot.command_sink}")()
        self.gripper = getattr(self, f"_gripper_{robot.gripper.sink}")()

    def report(self) -> dict[str, Any]:
        return {
            name: {"count": judge.count, "violations": judge.violations}
            for name, judge in (("arm", self.arm), ("gripper", self.gripper))
        }

    # -- arms --------------------------------------------------------------------------------------

    def _arm_forward_position(self) -> Judge:
        judge = ForwardPositionJudge(self.robot)
        self.create_subscription(Float64MultiArray, self.robot.topics.command, judge.take, 10)
        return judge

    def _arm_joint_trajectory(self) -> Judge:
        judge = TrajectoryJudge(self.robot)
        self.create_subscription(JointTrajectory, self.robot.topics.command, judge.take, 10)
        return judge

    def _arm_follow_joint_trajectory(self) -> Judge:
        from control_msgs.action import FollowJointTrajectory

        judge = TrajectoryJudge(self.robot)
        result = FollowJointTrajectory.Result
        Goals(
            self,
            FollowJointTrajectory,
            self.robot.command_action,
            lambda goal: judge.take(goal.trajectory),
            preempted=result(error_code=result.INVALID_GOAL, error_string="preempted by a new goal"),
            failed=result(error_code=result.PATH_TOLERANCE_VIOLATED, error_string="panda_joint1 0.2 rad off"),
            stalled=result(),
        )
        return judge

    def _arm_servo_joint(self) -> Judge:
        from control_msgs.msg import JointJog

        judge = self._servo(0)
        self.create_subscription(
            JointJog, self.robot.topics.command, lambda m: judge.take_jog(m, self._now_s()), 10
        )
        return judge

    def _arm_servo_twist(self) -> Judge:
        from geometry_msgs.msg import TwistStamped

        judge = self._servo(1)
        self.create_subscription(
            TwistStamped, self.robot.topics.command, lambda m: judge.take_twist(m, self._now_s()), 10
        )
        return judge

    def _servo(self, command_type: int) -> ServoJudge:
        from moveit_msgs.srv import ServoCommandType

        judge = ServoJudge(self.robot, command_type, SERVO_TIMEOUT_S)

        def switch(request: Any, response: Any) -> Any:
            response.success = self.mode == "accept" and judge.switch(request.command_type)
            return response

        self.create_service(ServoCommandType, "servo_node/switch_command_type", switch)
        return judge

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds / 1e9

    # -- grippers ----------------------------------------------------------------------------------

    def _gripper_position(self) -> Judge:
        judge = Judge(self.robot)

        def take(message: Float64MultiArray) -> None:
            judge.count += 1
            judge._note(len(message.data) != 1, f"{len(message.data)} values: the controller is in ERROR")
            inside = self.robot.gripper.min_m <= message.data[0] <= self.robot.gripper.max_m
            judge._note(not inside, f"opening {message.data[0]}")

        self.create_subscription(Float64MultiArray, self.robot.topics.gripper_command, take, 10)
        return judge

    def _gripper_gripper_command(self) -> Judge:
        from control_msgs.action import GripperCommand

        judge = GripperJudge(self.robot)
        self._gripper_goals(GripperCommand, judge, lambda goal: judge.take_command(goal, self._now_s()))
        return judge

    def _gripper_parallel_gripper_command(self) -> Judge:
        from control_msgs.action import ParallelGripperCommand

        judge = GripperJudge(self.robot)
        self._gripper_goals(
            ParallelGripperCommand, judge, lambda goal: judge.take_parallel(goal, self._now_s())
        )
        return judge

    def _gripper_goals(self, kind: Any, judge: GripperJudge, take: Any) -> None:
        result = kind.Result
        Goals(
            self,
            kind,
            self.robot.gripper.action,
            take,
            preempted=result(),
            failed=result(),
            stalled=result(stalled=True),
            on_failure=judge.forget,
        )


class Goals:
    """An action server that carries out one goal at a time, as ros2_control's do: a new one aborts the one before."""

    def __init__(self, node: Controllers, kind: Any, name: Any, take: Any, **results: Any) -> None:
        self._node, self._take = node, take
        self._on_failure = results.pop("on_failure", lambda: None)
        self._results = results | {"succeeded": kind.Result()}
        self._active: Future[str] | None = None
        self._server = ActionServer(
            node,
            kind,
            name,
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            callback_group=ReentrantCallbackGroup(),
        )

    async def _on_goal(self, goal: Any) -> GoalResponse:
        if self._node.mode == "mute":
            await Future(executor=self._node.executor)
        accepted = self._take(goal) and self._node.mode != "refuse"
        if not accepted:
            self._on_failure()
        return GoalResponse.ACCEPT if accepted else GoalResponse.REJECT

    def _on_accepted(self, goal: Any) -> None:
        if self._active is not None and not self._active.done():
            self._active.set_result("preempted")
        self._active = Future(executor=self._node.executor)
        goal.execute()

    async def _execute(self, goal: Any) -> Any:
        ended = self._active
        if self._node.mode == "abort":
            self._on_failure()
            ended.set_result("failed")
        elif self._node.mode == "stall":
            ended.set_result("stalled")
        outcome = await ended
        goal.abort()
        return self._results[outcome]


class ControllerProcess:
    """The process as a test sees it."""

    def __init__(self, robot: RobotDescription, folder: Path, environment: dict[str, str]) -> None:
        path = folder / "controlled_robot.yaml"
        path.write_text(robot.dump())
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(path)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._read()

    def mode(self, name: str) -> None:
        """What becomes of goals from now on."""
        self._ask(f"mode {name}")

    def report(self) -> dict[str, Any]:
        return self._ask("report")

    def end(self) -> dict[str, Any]:
        """The last report; the process ends."""
        report = self._ask("end")
        self._process.wait(timeout=20)
        return report

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _ask(self, order: str) -> dict[str, Any]:
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        assert line, f"the controllers ended with {self._process.wait()}"
        return json.loads(line)


def main() -> None:
    rclpy.init()
    node = Controllers(RobotDescription.load(sys.argv[1]))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinning = threading.Thread(target=executor.spin, daemon=True)
    spinning.start()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order, *arguments = line.split()
        answer: dict[str, Any] = {}
        if order == "mode":
            (node.mode,) = arguments
        else:
            if order == "end":
                node.arm.finish()
                node.gripper.finish()
            answer = node.report()
        print(json.dumps(answer), flush=True)
        if order == "end":
            break
    executor.shutdown(timeout_sec=2.0)
    spinning.join(timeout=2.0)
    node.destroy_node()  # says goodbye: otherwise it would be there for the others until its lease is over
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()

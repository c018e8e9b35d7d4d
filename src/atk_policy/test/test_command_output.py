"""Every sink against its controller in another process, over DDS; and what becomes of controllers that do not play along."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import rclpy
from command_plans import (
    ACTION_ROBOT,
    JOG_ROBOT,
    PARALLEL_ROBOT,
    PERIOD_NS,
    ROBOT,
    SERVO_ROBOT,
    TRAJECTORY_ROBOT,
    plans,
)
from controller_process import ControllerProcess
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_msgs.msg import Float64MultiArray

from atk_perception.robot_description import RobotDescription
from atk_policy.command_output import CommandOutput
from atk_policy.command_plan import CommandPlan
from atk_policy.command_sinks import make_arm_sink, make_gripper_sink
from atk_policy.command_sinks.protocol import Topic

pytestmark = pytest.mark.system

WAIT_S = 30.0
PERIOD_S = PERIOD_NS / 1e9
HOLD = CommandPlan.hold(np.append(ROBOT.home_rad, 0.08), PERIOD_NS)
_DOMAINS = itertools.count(os.getpid() % 60)


class Sender(LifecycleNode):
    """What the policy node does with a CommandOutput."""

    def __init__(self, robot: RobotDescription, context: rclpy.Context) -> None:
        super().__init__("sender", context=context)
        self.robot = robot

    def on_configure(self, state: object) -> TransitionCallbackReturn:
        self.output = CommandOutput(self, self.robot)
        return super().on_configure(state)


class Bench:
    """A sender in this process and, once started, the controllers in another."""

    def __init__(self, robot: RobotDescription, folder: object) -> None:
        self.domain_id = 11 + next(_DOMAINS) % 90
        self._folder, self.robot = folder, robot
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain_id)
        self.node = Sender(robot, self.context)
        self.node.trigger_configure()
        self.node.trigger_activate()
        self.output = self.node.output
        self.output.begin()
        self.executor = MultiThreadedExecutor(num_threads=2, context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()
        self.controllers: ControllerProcess | None = None
        targets = (make_arm_sink(robot).target, make_gripper_sink(robot).target)
        self.topics = [target.name for target in targets if isinstance(target, Topic)]

    def start_controllers(self) -> ControllerProcess:
        environment = {**os.environ, "ROS_DOMAIN_ID": str(self.domain_id)}
        self.controllers = ControllerProcess(self.robot, self._folder, environment)
        for topic in self.topics:
            self.wait("discovery", lambda topic=topic: self.node.count_subscribers(topic))
        self.wait("the controllers", lambda: not self.output.fault())
        return self.controllers

    def wait(self, what: str, ready: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not ready():
            assert time.monotonic() < deadline, f"waited for {what}; fault '{self.output.fault()}'"
            time.sleep(0.01)

    def wait_sending(self, what: str, ready: Callable[[], object], plan: CommandPlan = HOLD) -> None:
        """As the policy node holds: the same plan in every period."""

        def send() -> object:
            self.output.send(plan)
            time.sleep(PERIOD_S)
            return ready()

        self.wait(what, send)

    def send_all(self) -> int:
        """Everything of `plans`, one a period, as the arm follows; how many there were."""
        count, measured = 0, None
        for plan in plans(0.6):
            assert self.output.fault() == ""
            self.output.send(plan, measured)
            measured = plan.command[:-1]
            count += 1
            time.sleep(PERIOD_S)
        return count

    def close(self) -> None:
        if self.controllers is not None:
            self.controllers.kill()
        self.executor.shutdown(timeout_sec=2.0)
        self.thread.join(timeout=2.0)
        self.output.destroy()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def bench(request, tmp_path) -> Iterator[Callable[[RobotDescription], Bench]]:
    benches: list[Bench] = []

    def make(robot: RobotDescription) -> Bench:
        benches.append(Bench(robot, tmp_path))
        return benches[-1]

    yield make
    for one in benches:
        one.close()


def need_control_msgs() -> None:
    pytest.importorskip(
        "control_msgs", reason="control_msgs is not on PyPI; it comes with apt (ros-jazzy-control-msgs)"
    )


def need_moveit_msgs() -> None:
    pytest.importorskip(
        "moveit_msgs", reason="moveit_msgs is not on PyPI; it comes with apt (ros-jazzy-moveit-msgs)"
    )


def all_well(report: dict, count: int) -> None:
    assert report["arm"] == {"count": count, "violations": []}
    assert report["gripper"]["violations"] == []


@pytest.mark.parametrize("robot", [ROBOT, TRAJECTORY_ROBOT], ids=lambda robot: robot.command_sink)
def test_topics_get_every_plan_and_no_rule_is_broken(bench, robot):
    one = bench(robot)
    controllers = one.start_controllers()
    count = one.send_all()
    one.wait("the last command", lambda: controllers.report()["gripper"]["count"] == count)
    all_well(controllers.end(), count)


def test_goals_replace_each_other_without_a_fault_and_the_gripper_gets_what_is_new(bench):
    need_control_msgs()
    one = bench(ACTION_ROBOT)
    assert one.output.fault() == "controller_missing"
    controllers = one.start_controllers()
    count = one.send_all()
    one.wait("the last goal", lambda: controllers.report()["arm"]["count"] == count)
    report = controllers.end()
    all_well(report, count)
    assert report["gripper"]["count"] == 2, "open, then shut; once each"


def test_a_parallel_gripper_gets_what_is_new(bench):
    need_control_msgs()
    one = bench(PARALLEL_ROBOT)
    controllers = one.start_controllers()
    count = one.send_all()
    one.wait("the last command", lambda: controllers.report()["arm"]["count"] == count)
    report = controllers.end()
    all_well(report, count)
    assert report["gripper"]["count"] == 2


def test_servo_is_switched_gets_velocities_and_rest_as_the_last_word(bench):
    need_control_msgs()
    need_moveit_msgs()
    one = bench(JOG_ROBOT)
    assert one.output.fault() == "controller_missing"
    controllers = one.start_controllers()
    count = one.send_all()
    one.wait("the last command", lambda: controllers.report()["arm"]["count"] == count)
    all_well(controllers.end(), count)


def test_servo_gets_twists_of_the_tip_and_rest_as_the_last_word(bench):
    need_control_msgs()
    need_moveit_msgs()
    one = bench(SERVO_ROBOT)
    controllers = one.start_controllers()
    count = one.send_all()
    one.wait("the last command", lambda: controllers.report()["arm"]["count"] == count)
    all_well(controllers.end(), count)


def test_the_controllers_process_reports_what_breaks_a_rule(bench):
    """The tests above can fail: over the same wire, a command of the wrong size is reported."""
    one = bench(ROBOT)
    controllers = one.start_controllers()
    publisher = one.node.create_publisher(Float64MultiArray, ROBOT.topics.command, 10)
    one.wait("discovery", lambda: publisher.get_subscription_count())
    publisher.publish(Float64MultiArray(data=[0.0] * 3))
    one.wait("the report", lambda: controllers.report()["arm"]["count"] == 1)
    assert "ERROR" in controllers.end()["arm"]["violations"][0]


def test_goals_that_break_a_rule_are_reported_and_rejected(bench):
    need_control_msgs()
    one = bench(ACTION_ROBOT)
    controllers = one.start_controllers()
    back = CommandPlan(np.array([2, 1]) * PERIOD_NS, np.tile(HOLD.position, (2, 1)), np.zeros((2, 8)))
    one.output.send(back)
    one.wait("the fault", lambda: one.output.fault() == "controller_rejected")
    assert "strictly increase" in controllers.end()["arm"]["violations"][0]


def test_an_arm_that_does_not_play_along_is_a_fault_until_it_does(bench):
    need_control_msgs()
    one = bench(ACTION_ROBOT)
    controllers = one.start_controllers()
    for mode, fault in (("refuse", "rejected"), ("abort", "aborted"), ("mute", "silent")):
        controllers.mode(mode)
        one.wait_sending(mode, lambda fault=fault: one.output.fault() == f"controller_{fault}")
        controllers.mode("accept")
        one.wait_sending("the recovery", lambda: not one.output.fault())
    controllers.mode("refuse")
    one.wait_sending("the fault", lambda: one.output.fault() == "controller_rejected")
    one.output.begin()
    assert one.output.fault() == "", "a run begins with a clean slate"


def test_a_gripper_that_does_not_play_along_is_a_fault_and_is_asked_again(bench):
    need_control_msgs()
    one = bench(PARALLEL_ROBOT)
    controllers = one.start_controllers()
    for mode, fault in (("refuse", "rejected"), ("abort", "aborted"), ("mute", "silent")):
        controllers.mode(mode)
        one.output.begin()
        one.wait_sending(mode, lambda fault=fault: one.output.fault() == f"gripper_{fault}")
        before = controllers.report()["gripper"]["count"]
        controllers.mode("accept")
        one.wait_sending("the recovery", lambda: not one.output.fault())
        assert controllers.report()["gripper"]["count"] > before, "asked again"
    controllers.mode("stall")
    one.output.begin()
    before = controllers.report()["gripper"]["count"]
    one.wait_sending("the grasp", lambda: controllers.report()["gripper"]["count"] > before)
    for _ in range(20):
        one.output.send(HOLD)
        time.sleep(PERIOD_S)
        assert one.output.fault() == "", "an object between the fingers is no failure"
    assert controllers.end()["gripper"]["count"] == before + 1


def test_controllers_that_vanish_are_missing(bench):
    need_control_msgs()
    one = bench(ACTION_ROBOT)
    controllers = one.start_controllers()
    one.output.send(HOLD)
    controllers.end()
    one.wait("the fault", lambda: one.output.fault() == "controller_missing")
    one.output.send(HOLD)  # to nobody: no exception
    one.start_controllers()
    one.wait_sending("the recovery", lambda: not one.output.fault())


def test_servo_that_refuses_its_command_type_is_a_fault(bench):
    need_control_msgs()
    need_moveit_msgs()
    one = bench(JOG_ROBOT)
    controllers = one.start_controllers()
    controllers.mode("refuse")
    one.output.begin()
    one.wait("the fault", lambda: one.output.fault() == "controller_rejected")
    controllers.mode("accept")
    one.wait("the recovery", lambda: not one.output.fault())


def test_messages_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "control_msgs", None)
    monkeypatch.setitem(sys.modules, "control_msgs.action", None)
    monkeypatch.delitem(sys.modules, "atk_policy.command_sinks.follow_joint_trajectory", raising=False)
    with pytest.raises(ValueError, match=r"follow_joint_trajectory' needs 'control_msgs.*not installed"):
        make_arm_sink(ACTION_ROBOT)

"""Plans as the safety layer makes them, for tests of what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from atk_perception.robot_description import Kinematics, RobotDescription
from atk_policy.command_plan import CommandPlan
from atk_policy.safe_motion import SafeMotion
from atk_policy.safety import SafetyLimits

ROBOT_PATH = Path(__file__).parents[2] / "atk_bringup" / "config" / "robots" / "sim_panda.yaml"
ROBOT = RobotDescription.load(ROBOT_PATH)
PERIOD_NS = ROBOT.control_period_ns


def robot_with(*, gripper: dict[str, object] | None = None, **changes: object) -> RobotDescription:
    """The simulated Panda with other entries, validated as a file would be."""
    content = ROBOT.model_dump(mode="json")
    content |= {name: value for name, value in changes.items() if name != "command"}
    content["gripper"] |= gripper or {}
    if "command" in changes:
        content["topics"]["command"] = changes["command"]
    return RobotDescription.model_validate(content)


KINEMATICS = Kinematics(
    model="panda.xml",
    tip="tip",
    workspace_min_m=(-1, -1, 0),
    workspace_max_m=(1, 1, 1),
    base_frame="panda_link0",
)
TRAJECTORY_ROBOT = robot_with(
    command_sink="joint_trajectory", command="joint_trajectory_controller/joint_trajectory"
)
ACTION_ROBOT = robot_with(
    command_sink="follow_joint_trajectory",
    command_action="joint_trajectory_controller/follow_joint_trajectory",
    gripper={"sink": "gripper_command", "action": "gripper_controller/gripper_cmd", "max_effort": 20.0},
)
PARALLEL_ROBOT = robot_with(
    gripper={
        "sink": "parallel_gripper_command",
        "action": "gripper_controller/gripper_cmd",
        "max_effort": 20.0,
    }
)
JOG_ROBOT = robot_with(command_sink="servo_joint", command="servo_node/delta_joint_cmds")
SERVO_ROBOT = robot_with(
    command_sink="servo_twist",
    command="servo_node/delta_twist_cmds",
    kinematics=KINEMATICS.model_dump(mode="json"),
)


def plans(seconds: float = 1.0) -> Iterator[CommandPlan]:
    """A wave of the arm while the gripper closes, then the brake to rest: one plan per control period."""
    motion = SafeMotion(SafetyLimits.of(ROBOT).motion)
    home = np.array(ROBOT.home_rad)
    motion.reset(home)
    period_s = PERIOD_NS / 1e9
    steps = round(seconds / period_s)
    opening_m = ROBOT.gripper.max_m

    def wanted(step: int) -> tuple[np.ndarray, np.ndarray]:
        phase = 2.0 * np.pi * 0.5 * step * period_s
        return home + 0.3 * np.sin(phase), np.full(len(home), 0.3 * np.pi * np.cos(phase))

    for step in range(steps):
        assert not motion.advance(*wanted(step), period_s)
        opening_m = ROBOT.gripper.max_m if step < steps // 2 else ROBOT.gripper.min_m
        yield motion.plan(opening_m, PERIOD_NS, wanted(step + 1))
    while not motion.at_rest:
        motion.brake(period_s)
        yield motion.plan(opening_m, PERIOD_NS)

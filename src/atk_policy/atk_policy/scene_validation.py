"""Whether a plan may be carried out: every state on it, close enough together, is asked about.

Pure: the plan as numbers in, a verdict out. The moveit node asks here before it answers the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atk_perception.robot_description import RobotDescription
from atk_policy.planning_scenes.protocol import PlanningScene

FloatArray = npt.NDArray[np.float64]

# Between two states that are asked about no joint moves further: at the reach of an arm, 2 cm.
STEP_MAX_RAD = 0.02
# What a setpoint on a limit may be beyond it by rounding.
LIMIT_TOLERANCE_RAD = 1e-3


class PlanError(ValueError):
    """A plan cannot be read; `cause` is a short name for the message that says so."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class Plan:
    """Where the arm is to be, and when.

    Attributes:
        time_s: (N,) from the plan's start, N >= 1, strictly increasing.
        position_rad: (N, J) in the order of the robot description.
    """

    time_s: FloatArray
    position_rad: FloatArray


@dataclass(frozen=True)
class PlanVerdict:
    """`cause` names the first fault on a plan, '' if there is none; `fault_time_s` is -1 then."""

    cause: str = ""
    detail: str = ""
    fault_time_s: float = -1.0

    @property
    def valid(self) -> bool:
        """The plan has no fault."""
        return not self.cause


def plan_of(
    joint_names: Sequence[str],
    time_s: Sequence[float],
    positions: Sequence[Sequence[float]],
    robot: RobotDescription,
) -> Plan:
    """A plan of what a JointTrajectory holds, whatever the order of its joints.

    Raises:
        PlanError: it is empty (plan_empty), holds other joints (plan_joints), a point with another
            number of positions (plan_malformed) or one that is not finite (plan_not_finite), or
            times that do not increase (plan_times).
    """
    if sorted(joint_names) != sorted(robot.joints.names):
        raise PlanError(
            "plan_joints",
            f"the plan is for the joints {list(joint_names)}, robot '{robot.name}' has {list(robot.joints.names)}; "
            "give both nodes the same robot description",
        )
    if not positions:
        raise PlanError("plan_empty", "the plan holds no points")
    sizes = {len(point) for point in positions}
    if sizes != {len(joint_names)} or len(time_s) != len(positions):
        raise PlanError(
            "plan_malformed",
            f"the plan's points hold {sorted(sizes)} positions for {len(joint_names)} joints",
        )
    order = [list(joint_names).index(name) for name in robot.joints.names]
    plan = Plan(np.array(time_s, dtype=np.float64), np.array(positions, dtype=np.float64)[:, order])
    if not np.isfinite(plan.position_rad).all():
        raise PlanError("plan_not_finite", "the plan holds a position that is not finite")
    if not np.isfinite(plan.time_s).all() or (np.diff(plan.time_s) <= 0).any():
        raise PlanError("plan_times", f"the plan's times do not increase: {plan.time_s.round(4).tolist()}")
    return plan


def dense(plan: Plan, step_max_rad: float = STEP_MAX_RAD) -> Plan:
    """The plan with states put between its own, on straight lines, so that no joint moves further between two.

    A controller that interpolates with splines stays near these lines; the model's clearance covers the rest.
    """
    moves = np.abs(np.diff(plan.position_rad, axis=0)).max(axis=1, initial=0.0)
    pieces = np.maximum(1, np.ceil(moves / step_max_rad - 1e-9)).astype(int)
    # Positions along the plan, counted in its own points: 0, 1/pieces[0], ..., 1, 1 + 1/pieces[1], ...
    along = [np.zeros(1)] + [k + np.arange(1, count + 1) / count for k, count in enumerate(pieces)]
    at = np.concatenate(along)
    own = np.arange(len(plan.time_s))
    position = np.stack([np.interp(at, own, joint) for joint in plan.position_rad.T], axis=1)
    return Plan(np.interp(at, own, plan.time_s), position)


def validate(plan: Plan, robot: RobotDescription, scene: PlanningScene) -> PlanVerdict:
    """The first fault on a plan in time: joint_limits, or what the scene names."""
    low, high = np.array(robot.joints.position_min_rad), np.array(robot.joints.position_max_rad)
    states = dense(_until_beyond(plan, low, high))
    outside = (states.position_rad < low - LIMIT_TOLERANCE_RAD) | (
        states.position_rad > high + LIMIT_TOLERANCE_RAD
    )
    rows_outside = np.flatnonzero(outside.any(axis=1))
    inside = int(rows_outside[0]) if len(rows_outside) else len(states.time_s)
    cause, row = scene.scene_fault(states.position_rad[:inside])
    if cause:
        return PlanVerdict(cause, scene.fault_detail(states.position_rad[row]), float(states.time_s[row]))
    if inside == len(states.time_s):
        return PlanVerdict()
    joint = int(np.flatnonzero(outside[inside])[0])
    return PlanVerdict(
        "joint_limits",
        f"{robot.joints.names[joint]} is to be at {states.position_rad[inside, joint]:.4f} rad, outside "
        f"{low[joint]:g} to {high[joint]:g}",
        float(states.time_s[inside]),
    )


def _until_beyond(plan: Plan, low: FloatArray, high: FloatArray) -> Plan:
    """The plan to its first point far beyond the limits: what follows is not asked about, however far it goes."""
    span = high - low
    far = ((plan.position_rad < low - span) | (plan.position_rad > high + span)).any(axis=1)
    if not far.any():
        return plan
    end = int(np.flatnonzero(far)[0]) + 1
    position = plan.position_rad[:end].copy()
    position[-1] = np.clip(position[-1], low - span, high + span)
    return Plan(plan.time_s[:end], position)

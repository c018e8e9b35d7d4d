"""Plans as the moveit node reads them: what is refused, what is asked about, and when the first fault lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atk_perception.robot_description import RobotDescription
from atk_policy.planning_scenes import PLANNING_SCENES, make_planning_scene
from atk_policy.planning_scenes.protocol import GoHomeError, PlanningSceneError, SceneOptions
from atk_policy.scene_validation import STEP_MAX_RAD, Plan, PlanError, dense, plan_of, validate

ROBOT = RobotDescription.load(
    Path(__file__).parents[2] / "atk_bringup" / "config" / "robots" / "sim_panda.yaml"
)
SCENE = make_planning_scene(ROBOT, SceneOptions())
# The box is met before anything else; without it, the arm meets itself.
WIDE = ROBOT.model_copy(
    update={
        "kinematics": ROBOT.kinematics.model_copy(
            update={"workspace_min_m": (-9.0, -9.0, -9.0), "workspace_max_m": (9.0, 9.0, 9.0)}
        )
    }
)
WIDE_SCENE = make_planning_scene(WIDE, SceneOptions())
HOME = np.array(ROBOT.home_rad)
NAMES = list(ROBOT.joints.names)
FOLDED = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 0.0, 0.785])  # hand against the forearm
LOW, HIGH = np.array(ROBOT.joints.position_min_rad), np.array(ROBOT.joints.position_max_rad)

positions = st.integers(1, 5).flatmap(
    lambda n: arrays(np.float64, (n, 7), elements=st.floats(-3.0, 3.0, allow_nan=False))
)


def plan_through(*points: np.ndarray, period_s: float = 0.05) -> Plan:
    return Plan(period_s * np.arange(1, len(points) + 1), np.stack(points))


# -- reading -----------------------------------------------------------------------------------------


def test_joints_are_taken_by_name():
    order = [6, 0, 5, 1, 4, 2, 3]
    plan = plan_of([NAMES[k] for k in order], [0.1], [HOME[order]], ROBOT)
    assert np.array_equal(plan.position_rad, HOME[None])


@pytest.mark.parametrize(
    ("names", "times", "points", "cause"),
    [
        (NAMES[:6], [0.1], [HOME[:6]], "plan_joints"),
        ([*NAMES[:6], "fr3_joint7"], [0.1], [HOME], "plan_joints"),
        (NAMES, [], [], "plan_empty"),
        (NAMES, [0.1, 0.2], [HOME, HOME[:6]], "plan_malformed"),
        (NAMES, [0.1], [np.append(HOME[:6], np.nan)], "plan_not_finite"),
        (NAMES, [0.2, 0.1], [HOME, HOME], "plan_times"),
        (NAMES, [0.1, 0.1], [HOME, HOME], "plan_times"),
    ],
)
def test_a_plan_that_cannot_be_read_is_named(names, times, points, cause):
    with pytest.raises(PlanError) as caught:
        plan_of(names, times, points, ROBOT)
    assert caught.value.cause == cause


# -- in between --------------------------------------------------------------------------------------


@given(positions)
def test_no_joint_moves_further_than_a_step_and_no_point_is_left_out(points):
    plan = Plan(0.05 * np.arange(1, len(points) + 1), points)
    states = dense(plan)
    assert np.abs(np.diff(states.position_rad, axis=0)).max(initial=0.0) <= STEP_MAX_RAD + 1e-9
    assert (np.diff(states.time_s) > 0).all()
    for time_s, point in zip(plan.time_s, points, strict=True):
        row = np.abs(states.time_s - time_s).argmin()
        assert np.allclose(states.position_rad[row], point)


# -- verdicts ----------------------------------------------------------------------------------------


def test_a_plan_around_home_is_valid():
    verdict = validate(plan_through(HOME, HOME + 0.05, HOME), ROBOT, SCENE)
    assert (verdict.valid, verdict.cause, verdict.fault_time_s) == (True, "", -1.0)


def test_a_fault_is_reported_where_it_begins_between_the_points():
    verdict = validate(Plan(np.array([0.05, 1.05]), np.stack([HOME, FOLDED])), WIDE, WIDE_SCENE)
    assert verdict.cause == "self_collision"
    assert verdict.detail == "panda_hand meets panda_link5"
    assert 0.05 < verdict.fault_time_s < 1.05
    before = HOME + (verdict.fault_time_s - 0.05 - 0.02) * (FOLDED - HOME)
    after = HOME + (verdict.fault_time_s - 0.05) * (FOLDED - HOME)
    assert WIDE_SCENE.scene_fault(before[None])[0] == ""
    assert WIDE_SCENE.scene_fault(after[None])[0] == "self_collision"


@given(st.integers(0, 6), st.booleans(), st.floats(0.01, 1e9))
def test_what_leaves_the_joint_limits_is_named_however_far_it_goes(joint, upwards, beyond):
    goal = HOME.copy()
    goal[joint] = HIGH[joint] + beyond if upwards else LOW[joint] - beyond
    # At the limit already, so that nothing else comes first.
    start = HOME.copy()
    start[joint] = (HIGH if upwards else LOW)[joint]
    everywhere = _Nowhere()
    verdict = validate(plan_through(start, goal), ROBOT, everywhere)
    assert verdict.cause == "joint_limits"
    assert NAMES[joint] in verdict.detail
    assert 0.05 < verdict.fault_time_s <= 0.1
    assert everywhere.asked < 2000


def test_of_two_faults_the_earlier_counts():
    beyond = FOLDED.copy()
    beyond[6] = HIGH[6] + 0.5
    assert validate(plan_through(HOME, FOLDED, beyond), WIDE, WIDE_SCENE).cause == "self_collision"
    turned = HOME.copy()
    turned[6] = HIGH[6] + 0.5
    assert validate(plan_through(HOME, turned, FOLDED), WIDE, WIDE_SCENE).cause == "joint_limits"


def test_a_setpoint_on_a_limit_is_valid():
    edge = HOME.copy()
    edge[6] = HIGH[6] + 1e-5
    assert validate(plan_through(edge), ROBOT, SCENE).valid


class _Nowhere:
    """A scene without anything in it that counts what it is asked."""

    asked = 0

    def scene_fault(self, q_batch):
        self.asked += len(q_batch)
        return "", -1

    def fault_detail(self, q):
        raise AssertionError("nothing to tell")


# -- the way home ------------------------------------------------------------------------------------


def go_on() -> None:
    """Nobody asks for a stop."""


def test_the_model_scene_goes_straight_home_or_says_what_is_in_the_way():
    goals = []
    SCENE.go_home(np.append(HOME + 0.2, 0.04), goals.append, go_on)
    assert np.array_equal(goals, [HOME])
    with pytest.raises(
        GoHomeError, match=r"self_collision where the arm is \(.*panda_hand meets panda_link5"
    ):
        SCENE.go_home(np.append(FOLDED, 0.04), goals.append, go_on)
    assert len(goals) == 1


def test_the_way_home_may_begin_outside_the_workspace_and_must_not_leave_it_again():
    goals = []
    aside = HOME.copy()
    aside[0] = 2.0
    assert SCENE.scene_fault(aside[None])[0] == "workspace"
    SCENE.go_home(np.append(aside, 0.04), goals.append, go_on)
    assert np.array_equal(goals, [HOME])
    # Inside it, with the elbow the other way round: on the way back the hand would go through the ceiling.
    twisted = np.array([2.42, -0.78, -2.45, -1.2, 2.3, 1.36, -0.89])
    assert SCENE.scene_fault(twisted[None]) == ("", -1)
    with pytest.raises(GoHomeError, match=r"workspace \d+% of the way \(the tip is at z = 0.70"):
        SCENE.go_home(np.append(twisted, 0.04), goals.append, go_on)
    assert len(goals) == 1


# -- which scene -------------------------------------------------------------------------------------


def test_the_scene_is_chosen_in_the_robot_description():
    assert set(PLANNING_SCENES) == {"model", "moveit"}
    with pytest.raises(
        PlanningSceneError, match="scene_check: none; to check plans, set one of model, moveit"
    ):
        make_planning_scene(ROBOT.model_copy(update={"scene_check": "none"}), SceneOptions())


def test_moveit_where_it_is_not_installed_is_named_with_its_packages():
    try:
        import moveit  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("MoveIt is installed")
    robot = ROBOT.model_copy(update={"scene_check": "moveit"})
    with pytest.raises(
        PlanningSceneError, match="apt install ros-jazzy-moveit-py ros-jazzy-moveit-configs-utils"
    ):
        make_planning_scene(robot, SceneOptions())


def test_a_named_home_without_moveit_is_refused():
    with pytest.raises(PlanningSceneError, match="home_state 'ready' is a named state of MoveIt"):
        make_planning_scene(ROBOT, SceneOptions(home_state="ready"))

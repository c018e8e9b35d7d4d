"""Faults in motion, through the campaign's own graph: the hold comes and its cause is named.

What depends on the machine's speed (deadlines, accelerations on the wire) is measured by `make faults`.
"""

from __future__ import annotations

import pytest
from stack_arguments import next_domain

from atk_sim.fault_campaign import FAULTS, refuse, strike
from atk_sim.fault_stage import Stage
from atk_sim.graph import robot_file

pytestmark = pytest.mark.system

BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.mark.timeout(300)
def test_faults_in_motion_are_held_and_named(run_folder, tmp_path):
    robot_path = robot_file("sim_panda")
    stage = Stage(run_folder, robot_path, tmp_path / "logs", next_domain())
    try:
        for name in ("joints_nan", "keypoints_other_set", "kill_policy"):
            result = strike(stage, BY_NAME[name], seed=1)
            assert result.unnamed == ""
            assert result.wrong == ""
    finally:
        stage.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["kill_camera", "kill_moveit", "controller_rejects", "clock_set_back"])
def test_what_not_every_robot_has_is_held_and_named_too(run_folder, tmp_path, name):
    """The camera node, the moveit node, a controller that answers, and the system's own clock."""
    fault = BY_NAME[name]
    if fault.rig.missing:
        pytest.skip(fault.rig.missing)
    stage = Stage(run_folder, robot_file("sim_panda"), tmp_path / "logs" / "graph", next_domain(), fault.rig)
    try:
        result = strike(stage, fault, seed=1)
    finally:
        stage.close()
    assert (result.unnamed, result.wrong) == ("", "")
    assert result.hold_s is not None


@pytest.mark.parametrize(
    "name", ["wrong_robot_file", "corrupt_policy", "missing_run_folder", "future_run_folder"]
)
def test_what_cannot_begin_is_refused_by_name(run_folder, tmp_path, name):
    result = refuse(BY_NAME[name], 3, run_folder, robot_file("sim_panda"), tmp_path)
    assert (result.wrong, result.unnamed) == ("", "")


def test_there_are_at_least_thirty_faults_each_with_a_name_of_its_own():
    assert len(BY_NAME) == len(FAULTS) >= 30

"""The arm's model against what is published of it, against itself, and against what it must refuse."""

from __future__ import annotations

import contextlib
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atk_perception.robot_description import RobotDescription, RobotDescriptionError
from atk_policy.kinematics import InverseKinematicsError, KinematicModel

ROBOTS = Path(__file__).parents[2] / "atk_bringup" / "config" / "robots"
NAMES = ("sim_panda", "panda", "ur5e_robotiq")
DESCRIPTIONS = {name: RobotDescription.load(ROBOTS / f"{name}.yaml") for name in NAMES}
MODELS = {name: KinematicModel(robot) for name, robot in DESCRIPTIONS.items()}
SHARES = arrays(np.float64, 8, elements=st.floats(0.0, 1.0))

# Universal Robots, "DH parameters for calculations of kinematics and dynamics": a, d [m], alpha [rad] of the UR5e.
UR5E_DH = (
    (0.0, 0.1625, np.pi / 2),
    (-0.425, 0.0, 0.0),
    (-0.3922, 0.0, 0.0),
    (0.0, 0.1333, np.pi / 2),
    (0.0, 0.0997, -np.pi / 2),
    (0.0, 0.0996, 0.0),
)
UR5E_COUPLING_AND_PADS_M = 0.011 + 0.144
# A small arm: one link on a column, and a block beside it.
PENDULUM = """
<mujoco>
  <compiler angle="radian"/>
  <default><geom type="capsule" size="0.02"/></default>
  <worldbody>
    <geom name="block" type="box" pos="0 0.5 0.5" size="0.1 0.1 0.5"/>
    <body name="column">
      <geom fromto="0 0 0.05  0 0 0.4"/>
      <body name="arm" pos="0 0 0.5">
        <joint name="turn" axis="0 0 1" range="-3 3"/>
        <geom fromto="0.05 0 0  0.5 0 0"/>
        <body name="end" pos="0.5 0 0">EXTRA<site name="tip"/></body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


def between_limits(model: KinematicModel, shares: np.ndarray) -> np.ndarray:
    return model.q_min + shares[: model.joint_count] * (model.q_max - model.q_min)


def denavit_hartenberg(a: float, d: float, alpha: float, theta: float) -> np.ndarray:
    c, s, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
    return np.array([[c, -s * ca, s * sa, a * c], [s, c * ca, -c * sa, a * s], [0, sa, ca, d], [0, 0, 0, 1]])


def described(tmp_path: Path, *, extra: str = "", **entries: object) -> RobotDescription:
    """Description of the pendulum, read from its file as a user's would be."""
    (tmp_path / "pendulum.xml").write_text(PENDULUM.replace("EXTRA", extra))
    one = {entry: (value[0],) for entry, value in DESCRIPTIONS["panda"].joints.model_dump().items()}
    joints = {**one, "names": ["turn"], "position_min_rad": [-2.0], "position_max_rad": [2.0]}
    kinematics = {
        "model": "pendulum.xml",
        "tip": "tip",
        "workspace_min_m": [-1, -1, 0],
        "workspace_max_m": [1, 1, 1],
        **entries,
    }
    content = DESCRIPTIONS["panda"].model_dump(mode="json")
    robot = RobotDescription.model_validate(
        {**content, "joints": joints, "home_rad": [0.0], "kinematics": kinematics}
    )
    (tmp_path / "robot.yaml").write_text(robot.dump())
    return RobotDescription.load(tmp_path / "robot.yaml")


# -- kinematics --------------------------------------------------------------------------------------


@given(SHARES)
def test_the_panda_is_where_the_simulated_panda_is(shares):
    panda = pytest.importorskip("atk_sim.robots.panda")
    simulated, q = panda.kinematic_model(), between_limits(MODELS["panda"], shares)
    data = mujoco.MjData(simulated)
    for name, value in zip(DESCRIPTIONS["panda"].joints.names, q, strict=True):
        data.joint(name).qpos[0] = value
    mujoco.mj_kinematics(simulated, data)
    site = data.site(panda.TCP_SITE)
    pose = MODELS["panda"].tip_pose(q)
    assert np.abs(pose[:3, 3] - site.xpos).max() < 1e-6
    assert np.abs(pose[:3, :3] - site.xmat.reshape(3, 3)).max() < 1e-6


@given(SHARES)
def test_the_ur5e_is_where_its_published_parameters_put_it(shares):
    q = between_limits(MODELS["ur5e_robotiq"], shares)
    expected = np.diag([-1.0, -1.0, 1.0, 1.0])  # REP 103's base_link to the base of the parameters
    for (a, d, alpha), theta in zip(UR5E_DH, q, strict=True):
        expected = expected @ denavit_hartenberg(a, d, alpha, theta)
    tool = np.eye(4)
    tool[2, 3] = UR5E_COUPLING_AND_PADS_M
    assert np.abs(MODELS["ur5e_robotiq"].tip_pose(q) - expected @ tool).max() < 1e-6


@pytest.mark.parametrize("name", NAMES)
@given(shares=SHARES)
def test_the_jacobian_is_the_change_of_the_pose(name, shares):
    model = MODELS[name]
    q, step = between_limits(model, shares), 1e-6
    jacobian = model.tip_jacobian(q)
    assert jacobian.shape == (6, model.joint_count)
    for k in range(model.joint_count):
        ahead, behind = (model.tip_pose(q + sign * step * np.eye(model.joint_count)[k]) for sign in (1, -1))
        turn = ahead[:3, :3] @ behind[:3, :3].T / (2 * step)
        difference = np.append(
            (ahead[:3, 3] - behind[:3, 3]) / (2 * step),
            [(turn[2, 1] - turn[1, 2]) / 2, (turn[0, 2] - turn[2, 0]) / 2, (turn[1, 0] - turn[0, 1]) / 2],
        )
        assert np.abs(jacobian[:, k] - difference).max() < 1e-5


@pytest.mark.parametrize("name", ["panda", "ur5e_robotiq"])
@settings(max_examples=40, deadline=None)
@given(shares=SHARES, aside=arrays(np.float64, 8, elements=st.floats(-0.2, 0.2)))
def test_inverse_kinematics_returns_to_a_pose_inside_the_limits(name, shares, aside):
    model = MODELS[name]
    q = between_limits(model, 0.1 + 0.8 * shares)
    # At a singularity a pose has no solution nearby, or a line of them: another matter.
    assume(np.linalg.svd(model.tip_jacobian(q), compute_uv=False)[-1] > 0.03)
    pose = model.tip_pose(q)
    found = None
    with contextlib.suppress(
        InverseKinematicsError
    ):  # another branch may end at a limit; that is said, as below
        found = model.inverse(pose, q + aside[: model.joint_count])
    assume(found is not None)
    assert (found >= model.q_min).all()
    assert (found <= model.q_max).all()
    assert np.abs(model.tip_pose(found) - pose).max() < 2e-4


def test_inverse_kinematics_of_a_reachable_pose_nearby_is_found():
    """The round trip above may skip; this may not."""
    for name in ("panda", "ur5e_robotiq"):
        model, home = MODELS[name], np.array(DESCRIPTIONS[name].home_rad)
        for shift_m in ([0.1, 0, 0], [0, 0.15, 0], [0, 0, -0.2]):
            pose = model.tip_pose(home)
            pose[:3, 3] += shift_m
            found = model.inverse(pose, home)
            assert np.abs(model.tip_position_m(found) - pose[:3, 3]).max() < 2e-5


def test_inverse_kinematics_of_a_pose_out_of_reach_is_refused():
    far = np.eye(4)
    far[:3, 3] = (3.0, 0.0, 0.5)
    with pytest.raises(InverseKinematicsError, match=r"\[3.0, 0.0, 0.5\] m: from .* it came to within \d+"):
        MODELS["panda"].inverse(far, np.array(DESCRIPTIONS["panda"].home_rad))


@pytest.mark.parametrize(
    "pose", [np.eye(3), np.diag([1.0, 1.0, -1.0, 1.0]), np.full((4, 4), np.nan), 2 * np.eye(4)]
)
def test_what_is_no_pose_is_refused(pose):
    with pytest.raises(ValueError, match="expected a pose"):
        MODELS["panda"].inverse(pose, np.array(DESCRIPTIONS["panda"].home_rad))


@pytest.mark.parametrize("q", [np.zeros(6), np.append(np.zeros(6), np.nan), np.zeros((1, 7))])
def test_what_are_no_joint_positions_is_refused(q):
    with pytest.raises(ValueError, match="7 finite joint positions"):
        MODELS["panda"].tip_pose(q)


def test_joints_are_those_of_the_description_whatever_the_order_of_the_model():
    joints = DESCRIPTIONS["panda"].joints
    order = [3, 1, 6, 0, 2, 5, 4]
    entries = {entry: tuple(values[k] for k in order) for entry, values in joints.model_dump().items()}
    home = tuple(DESCRIPTIONS["panda"].home_rad[k] for k in order)
    other = DESCRIPTIONS["panda"].model_copy(
        update={"joints": joints.model_copy(update=entries), "home_rad": home}
    )
    mixed, q = KinematicModel(other), np.array(home) + 0.1
    plain = q[np.argsort(order)]
    assert np.allclose(mixed.tip_pose(q), MODELS["panda"].tip_pose(plain))
    assert np.allclose(mixed.tip_jacobian(q)[:, np.argsort(order)], MODELS["panda"].tip_jacobian(plain))
    assert np.allclose(mixed.q_min[np.argsort(order)], MODELS["panda"].q_min)


# -- scene -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_home_and_what_is_around_it_are_free(name):
    home = np.array(DESCRIPTIONS[name].home_rad)
    around = home + np.random.default_rng(0).uniform(-0.08, 0.08, (200, len(home)))
    assert MODELS[name].scene_fault(np.vstack([home, around])) == ("", -1), MODELS[name].fault_detail(home)


@pytest.mark.parametrize(
    ("name", "q", "bodies"),
    [
        ("panda", [0.0, -0.5, 0.0, -3.0, 0.0, 0.1, 0.785], {"panda_link1", "panda_link2"}),
        ("panda", [0.0, -0.785, 0.0, -2.356, 0.0, 0.0, 0.785], {"panda_link5"}),
        ("ur5e_robotiq", [0.0, -1.5708, 3.0, -1.5708, -1.5708, 0.0], {"upper_arm_link", "shoulder_link"}),
    ],
)
def test_a_folded_arm_meets_itself(name, q, bodies):
    # The box is another matter.
    everywhere = DESCRIPTIONS[name].kinematics.model_copy(
        update={"workspace_min_m": (-9, -9, -9), "workspace_max_m": (9, 9, 9)}
    )
    model = KinematicModel(DESCRIPTIONS[name].model_copy(update={"kinematics": everywhere}))
    home = DESCRIPTIONS[name].home_rad
    assert model.scene_fault(np.array([home, home, q])) == ("self_collision", 2)
    named = {word for part in model.fault_detail(np.array(q)).split("; ") for word in part.split(" meets ")}
    assert named & bodies, named


def test_the_box_and_the_table_are_told_apart():
    model, home = MODELS["sim_panda"], np.array(DESCRIPTIONS["sim_panda"].home_rad)
    pose = model.tip_pose(home)
    pose[:3, 3] = (0.5, 0.0, 0.012)
    low = model.inverse(pose, home)
    assert model.scene_fault(low[None]) == ("", -1), "the fingers are at the table, as for a grasp"
    pose[2, 3] = -0.05
    below = model.inverse(pose, home)
    assert model.scene_fault(np.stack([home, low, below])) == ("workspace", 2)
    assert model.fault_detail(below) == (
        "the tip is at z = -0.050 m, outside -0.02 to 0.7 m; panda_hand meets table"
    )
    # The elbow over the table's edge: the tip stays high, link 6 goes into the table.
    everywhere = DESCRIPTIONS["sim_panda"].kinematics.model_copy(
        update={"workspace_min_m": (-9, -9, -9), "workspace_max_m": (9, 9, 9)}
    )
    free = KinematicModel(DESCRIPTIONS["sim_panda"].model_copy(update={"kinematics": everywhere}))
    assert free.scene_fault(below[None]) == ("scene_collision", 0)


def test_the_scripted_expert_stays_free_of_everything():
    """What the simulator's expert commands, servo noise and clutter included, is never refused."""
    simulation_module = pytest.importorskip("atk_sim.simulation")
    simulation = simulation_module.Simulation(DESCRIPTIONS["sim_panda"], 1.0, render=False)
    commands = []
    for seed in (0, 1, 2):
        simulation.reset("sushi", "RO", seed)
        while not simulation.done:
            commands.append(simulation.expert_command())
            simulation.step(commands[-1])
    batch = np.array(commands)[:, :-1]
    fault, row = MODELS["sim_panda"].scene_fault(batch)
    assert not fault, MODELS["sim_panda"].fault_detail(batch[row])


@pytest.mark.parametrize("batch", [np.zeros(7), np.zeros((2, 6)), np.full((2, 7), np.inf)])
def test_what_is_no_batch_of_joint_positions_is_refused(batch):
    with pytest.raises(ValueError, match="expected finite joint positions"):
        MODELS["panda"].scene_fault(batch)


def test_an_empty_batch_has_no_fault():
    assert MODELS["panda"].scene_fault(np.empty((0, 7))) == ("", -1)


# -- models of one's own -----------------------------------------------------------------------------


def test_a_model_beside_the_description_is_used_with_the_stricter_limits(tmp_path):
    model = KinematicModel(described(tmp_path))
    assert np.allclose(model.tip_position_m(np.zeros(1)), (0.5, 0.0, 0.5))
    assert (model.q_min, model.q_max) == ([-2.0], [2.0])
    assert model.scene_fault(np.array([[0.0], [0.5], [np.pi / 2]])) == ("scene_collision", 2)
    assert model.fault_detail(np.array([np.pi / 2])) == "arm meets block"


def test_shapes_that_overlap_at_home_are_no_fault(tmp_path):
    """A round shape too many on the column touches the end link in every pose: no fault of any pose."""
    overlapping = '<geom fromto="0 0 -0.3  -0.5 0 -0.3"/>'
    model = KinematicModel(described(tmp_path, extra=overlapping))
    assert ("column", "end") in model.ignored_pairs
    assert model.scene_fault(np.array([[0.0], [0.3]])) == ("", -1)


def test_joints_of_a_gripper_stay_where_the_model_puts_them(tmp_path):
    finger = '<body name="finger"><joint name="slide" type="slide" axis="1 0 0" range="0 0.1"/><geom type="sphere" size="0.01"/></body>'
    model = KinematicModel(described(tmp_path, extra=finger))
    pose = model.tip_pose(np.array([0.3]))
    assert np.allclose(model.inverse(pose, np.zeros(1)), 0.3, atol=1e-4)


URDF = """
<robot name="pendulum">
  <link name="column"><collision><origin xyz="0 0 0.2"/><geometry><cylinder radius="0.02" length="0.4"/></geometry></collision></link>
  <joint name="turn" type="revolute">
    <parent link="column"/><child link="arm"/><origin xyz="0 0 0.5"/><axis xyz="0 0 1"/>
    <limit lower="-3" upper="3" effort="1" velocity="1"/>
  </joint>
  <link name="arm">
    <inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><origin xyz="0.3 0 0" rpy="0 1.5708 0"/><geometry><cylinder radius="0.02" length="0.4"/></geometry></collision>
  </link>
  <joint name="fixed" type="fixed"><parent link="arm"/><child link="tool"/><origin xyz="0.5 0 0"/></joint>
  <link name="tool"/>
</robot>
"""


def test_a_urdf_serves_as_well_and_keeps_its_fixed_links(tmp_path):
    (tmp_path / "pendulum.urdf").write_text(URDF)
    described(tmp_path)
    text = (tmp_path / "robot.yaml").read_text().replace("pendulum.xml", "pendulum.urdf")
    (tmp_path / "robot.yaml").write_text(text.replace("tip: tip", "tip: tool"))
    model = KinematicModel(RobotDescription.load(tmp_path / "robot.yaml"))
    assert np.allclose(model.tip_position_m(np.array([np.pi / 2])), (0.0, 0.5, 0.5), atol=1e-6)
    assert model.scene_fault(np.array([[0.0], [1.0]])) == ("", -1)


@pytest.mark.parametrize(
    ("extra", "entries", "message"),
    [
        (
            "",
            {"tip": "nose"},
            r"no site or body 'nose' \(kinematics.tip\); sites: tip; bodies: column, arm, end",
        ),
        (
            '<joint name="ball" type="ball"/><geom type="sphere" size="0.01"/>',
            {},
            "joint 'ball', which moves freely",
        ),
        ("<nonsense/>", {}, "cannot be read as MJCF or URDF: .*nonsense"),
    ],
)
def test_an_unusable_model_is_named_with_the_reason(tmp_path, extra, entries, message):
    with pytest.raises(RobotDescriptionError, match=message):
        KinematicModel(described(tmp_path, extra=extra, **entries))


def test_a_joint_that_the_model_lacks_is_named():
    joints = DESCRIPTIONS["panda"].joints
    renamed = joints.model_copy(update={"names": (*joints.names[:6], "fr3_joint7")})
    with pytest.raises(
        RobotDescriptionError, match=r"has no joint fr3_joint7; it has panda_joint1, .*panda_joint7"
    ):
        KinematicModel(DESCRIPTIONS["panda"].model_copy(update={"joints": renamed}))


def test_a_description_without_a_model_is_refused():
    with pytest.raises(RobotDescriptionError, match="no entry 'kinematics'"):
        KinematicModel(DESCRIPTIONS["panda"].model_copy(update={"kinematics": None}))

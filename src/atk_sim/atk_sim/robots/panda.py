"""Franka Emika Panda with its hand, as a MuJoCo model.

Kinematics and joint ranges are Franka's published ones (Craig's convention, the numbers of `franka_description`);
link and joint names are those of MoveIt's Panda. Position servos stand in for Franka's joint impedance control.
"""

from dataclasses import dataclass

import mujoco
import numpy as np

from atk_sim.robots.meshes import panda_shells
from atk_sim.shapes import rounded_box

ARM_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
ARM_ACTUATORS = ARM_JOINTS
GRIPPER_ACTUATOR = "panda_gripper"
TCP_SITE = "panda_hand_tcp"
FINGER_BODIES = ("panda_leftfinger", "panda_rightfinger")
ROBOT_PREFIX = "panda_"  # every body of the robot starts with it

# Bits of MuJoCo's contype/conaffinity: the robot meets the scene, never itself (the experts stay far from that).
SCENE_CONTACT = {"contype": 1, "conaffinity": 3}
ROBOT_CONTACT = {"contype": 2, "conaffinity": 1}

_HALF = np.sqrt(0.5)


@dataclass(frozen=True)
class _Link:
    """One joint of the chain and the link it moves: placement in the parent, limits, servo, mass."""

    position_m: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]  # w x y z
    range_rad: tuple[float, float]
    torque_max_nm: float
    stiffness_nm_rad: float
    damping_nms_rad: float
    mass_kg: float
    centre_m: tuple[float, float, float]
    inertia_kgm2: tuple[float, float, float]  # diagonal; the servos dominate the off-diagonal terms


_X_UP, _X_DOWN = (_HALF, _HALF, 0.0, 0.0), (_HALF, -_HALF, 0.0, 0.0)
_WIDE = (-2.8973, 2.8973)
# Stiffness over damping gives every joint a lag of 0.1 s, about that of Franka's own joint impedance controller.
_CHAIN = (
    _Link(
        (0, 0, 0.333), (1, 0, 0, 0), _WIDE, 87, 1600, 160, 4.97, (0.004, 0.002, -0.048), (0.703, 0.707, 0.009)
    ),
    _Link(
        (0, 0, 0),
        _X_DOWN,
        (-1.7628, 1.7628),
        87,
        1600,
        160,
        0.65,
        (-0.003, -0.029, 0.003),
        (0.008, 0.028, 0.026),
    ),
    _Link((0, -0.316, 0), _X_UP, _WIDE, 87, 1400, 140, 3.23, (0.028, 0.039, -0.067), (0.037, 0.036, 0.011)),
    _Link(
        (0.0825, 0, 0),
        _X_UP,
        (-3.0718, -0.0698),
        87,
        1400,
        140,
        3.59,
        (-0.053, 0.104, 0.027),
        (0.026, 0.020, 0.028),
    ),
    _Link(
        (-0.0825, 0.384, 0), _X_DOWN, _WIDE, 12, 280, 28, 1.23, (-0.012, 0.041, -0.038), (0.036, 0.029, 0.009)
    ),
    _Link(
        (0, 0, 0), _X_UP, (-0.0175, 3.7525), 12, 280, 28, 1.67, (0.060, -0.014, -0.011), (0.002, 0.004, 0.005)
    ),
    _Link((0.088, 0, 0), _X_UP, _WIDE, 12, 280, 28, 0.74, (0.011, -0.004, 0.062), (0.013, 0.010, 0.005)),
)

# material: colour, specular, shininess
_MATERIALS = {
    "white": ((0.93, 0.94, 0.95, 1), 0.35, 0.5),
    "off_white": ((0.84, 0.86, 0.88, 1), 0.35, 0.5),
    "dark_grey": ((0.20, 0.20, 0.21, 1), 0.3, 0.4),
    "light_blue": ((0.04, 0.54, 0.78, 1), 0.3, 0.4),
    "green": ((0.1, 0.8, 0.2, 1), 0.3, 0.4),
    "metal": ((0.62, 0.63, 0.65, 1), 0.7, 0.7),
    "rubber": ((0.11, 0.11, 0.12, 1), 0.05, 0.1),
}


def add_panda(spec: mujoco.MjSpec, *, visible: bool = True) -> None:
    """Put the Panda with its base at the world's origin, facing +x, position servos on every joint.

    `visible=False` leaves the shells out: that is the robot-only model for inverse kinematics.
    """
    for name, (rgba, specular, shininess) in _MATERIALS.items():
        spec.add_material(name=ROBOT_PREFIX + name, rgba=rgba, specular=specular, shininess=shininess)
    links = [spec.worldbody.add_body(name="panda_link0", pos=[0, 0, 0])]
    for index, (joint, link) in enumerate(zip(ARM_JOINTS, _CHAIN, strict=True), start=1):
        body = links[-1].add_body(
            name=f"panda_link{index}",
            pos=link.position_m,
            quat=link.quaternion,
            mass=link.mass_kg,
            ipos=link.centre_m,
            inertia=link.inertia_kgm2,
            explicitinertial=True,
            gravcomp=1,
        )
        body.add_joint(
            name=joint,
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=[0, 0, 1],
            range=link.range_rad,
            armature=0.1,
            damping=1,
        )
        _add_servo(spec, joint, link)
        links.append(body)
    if visible:
        _add_shells(spec, links)
    links[7].add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[0.045, 0.05, 0], pos=[0, 0, 0.04], group=3, **ROBOT_CONTACT
    )
    _add_hand(spec, links[7], visible=visible)


def _add_servo(spec: mujoco.MjSpec, joint: str, link: _Link) -> None:
    spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        gainprm=[link.stiffness_nm_rad] + [0] * 9,
        biasprm=[0, -link.stiffness_nm_rad, -link.damping_nms_rad] + [0] * 7,
        ctrllimited=True,
        ctrlrange=link.range_rad,
        forcelimited=True,
        forcerange=[-link.torque_max_nm, link.torque_max_nm],
    )


def _add_shells(spec: mujoco.MjSpec, links: list[mujoco.MjsBody]) -> None:
    for shell in panda_shells():
        name = f"panda_{shell.link}_{shell.material}"
        spec.add_mesh(
            name=name,
            uservert=shell.vertices_m.astype(np.float32).reshape(-1),
            userface=shell.faces.reshape(-1),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
        _add_visual(
            links[int(shell.link[4:])], shell.material, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name
        )


def _add_visual(body: mujoco.MjsBody, material: str, **geometry: object) -> None:
    body.add_geom(material=ROBOT_PREFIX + material, contype=0, conaffinity=0, group=2, mass=0, **geometry)


def _add_hand(spec: mujoco.MjSpec, flange: mujoco.MjsBody, *, visible: bool) -> None:
    """The Franka hand, 0.107 m behind joint 7's frame: two fingers that close along the hand's y axis."""
    hand = flange.add_body(
        name="panda_hand",
        pos=[0, 0, 0.107],
        quat=[np.cos(np.pi / 8), 0, 0, -np.sin(np.pi / 8)],
        mass=0.73,
        ipos=[-0.01, 0, 0.03],
        inertia=[0.001, 0.0025, 0.0017],
        explicitinertial=True,
        gravcomp=1,
    )
    box = mujoco.mjtGeom.mjGEOM_BOX
    hand.add_geom(type=box, size=[0.03, 0.1, 0.033], pos=[0, 0, 0.033], group=3, **ROBOT_CONTACT)
    hand.add_site(name=TCP_SITE, pos=[0, 0, 0.1034], size=[0.004] * 3, group=4)
    if visible:
        shell = rounded_box(0.062, 0.204, 0.062, squareness=5.0)
        shell.add_to(spec, "panda_hand_shell")
        _add_visual(
            hand, "white", type=mujoco.mjtGeom.mjGEOM_MESH, meshname="panda_hand_shell", pos=[0, 0, 0.0]
        )
        _add_visual(hand, "dark_grey", type=box, size=[0.017, 0.088, 0.004], pos=[0, 0, 0.061])
        _add_visual(
            hand, "metal", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.032, 0.004, 0], pos=[0, 0, 0.0]
        )
        _add_visual(hand, "light_blue", type=box, size=[0.0312, 0.014, 0.004], pos=[0, 0, 0.042])
    for joint, name, side in zip(FINGER_JOINTS, FINGER_BODIES, (1, -1), strict=True):
        finger = hand.add_body(
            name=name,
            pos=[0, 0, 0.0584],
            mass=0.015,
            ipos=[0, 0.01 * side, 0.02],
            inertia=[3e-6, 3e-6, 1e-6],
            explicitinertial=True,
            gravcomp=1,
        )
        finger.add_joint(
            name=joint,
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[0, side, 0],
            range=[0, 0.04],
            armature=0.1,
            damping=1,
        )
        # The pad's inner face lies at y = 0 of the finger: an opening of 2 q is the free width between the pads.
        finger.add_geom(
            name=f"{name}_pad",
            type=box,
            size=[0.0105, 0.004, 0.0115],
            pos=[0, 0.004 * side, 0.0425],
            material=ROBOT_PREFIX + "rubber",
            condim=4,
            friction=[1.6, 0.02, 0.001],
            solimp=[0.95, 0.99, 0.001, 0.5, 2],
            solref=[0.004, 1],
            priority=1,
            group=2,
            mass=0,
            **ROBOT_CONTACT,
        )
        finger.add_geom(
            type=box,
            size=[0.0095, 0.006, 0.014],
            pos=[0, 0.0095 * side, 0.03],
            material=ROBOT_PREFIX + "metal",
            group=2,
            mass=0,
            **ROBOT_CONTACT,
        )
        if visible:
            _add_visual(
                finger, "dark_grey", type=box, size=[0.0105, 0.0125, 0.012], pos=[0, 0.0135 * side, 0.010]
            )
    spec.add_equality(
        name="panda_fingers_move_together",
        type=mujoco.mjtEq.mjEQ_JOINT,
        objtype=mujoco.mjtObj.mjOBJ_JOINT,
        name1=FINGER_JOINTS[1],
        name2=FINGER_JOINTS[0],
        data=[0, 1, 0, 0, 0] + [0] * 7,
        solref=[0.004, 1],
    )
    tendon = spec.add_tendon(name="panda_opening")
    for joint in FINGER_JOINTS:
        tendon.wrap_joint(joint, 0.5)
    spec.add_actuator(
        name=GRIPPER_ACTUATOR,
        target="panda_opening",
        trntype=mujoco.mjtTrn.mjTRN_TENDON,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        gainprm=[2500] + [0] * 9,
        biasprm=[0, -2500, -200] + [0] * 7,
        ctrllimited=True,
        ctrlrange=[0, 0.04],
        forcelimited=True,
        forcerange=[-70, 70],
    )


def kinematic_model() -> mujoco.MjModel:
    """The robot alone, without shells: what inverse kinematics solves on (mink finds no solution with free objects)."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    add_panda(spec, visible=False)
    return spec.compile()

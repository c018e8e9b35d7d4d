"""The arm's model: where its tip is, which joints bring it elsewhere, and whether it would touch anything.

Forward kinematics, collision and distance are MuJoCo's; inverse kinematics is mink's. Numbers in, numbers out: J arm
joints in the order of the robot description, poses in the frame of the model's world.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mink
import mujoco
import numpy as np
import numpy.typing as npt

from atk_perception.robot_description import RobotDescription, RobotDescriptionError

FloatArray = npt.NDArray[np.float64]

# Links count as touching at this distance: the shipped models enclose the links to within as much.
CLEARANCE_M = 0.005
# What inverse kinematics may leave; a tenth of what the arms here can repeat.
POSITION_TOLERANCE_M = 1e-5
ROTATION_TOLERANCE_RAD = 1e-4
# From a tenth of a metre away it takes some ten steps; what has not come near after so many will not.
STEPS_MAX = 200

_NO_FAULT = ("", -1)
_JOINTS_OF_ONE_VALUE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))


class InverseKinematicsError(ValueError):
    """No joint positions inside the limits were found that bring the tip to a pose."""


class KinematicModel:
    """Kinematics and collision model that a robot description names (`kinematics.model`, MJCF or URDF).

    What counts as what: the robot is everything that hangs on the body that carries the arm's first joint, and the fixed
    bodies between that and the world. All else that is fixed, geoms of the world body above all, is scene. Joints that
    are not the arm's, as those of a gripper, stay where the model puts them.

    Not for two threads at a time.

    Args:
        robot: gives the model, its tip, the workspace, joint names and limits, and home.

    Raises:
        RobotDescriptionError: no model is named, it cannot be read, or it lacks the tip or a joint.
    """

    def __init__(self, robot: RobotDescription) -> None:
        if robot.kinematics is None:
            raise RobotDescriptionError(
                f"robot description '{robot.name}' has no entry 'kinematics'; it names the model, its tip and the workspace"
            )
        self._source = robot.kinematics.model_file()
        self._robot = robot
        self._box_min = np.array(robot.kinematics.workspace_min_m)
        self._box_max = np.array(robot.kinematics.workspace_max_m)
        spec = _read(self._source)
        self._use(spec.compile())
        self._robot_bodies = self._find_robot_bodies()
        self.ignored_pairs: tuple[tuple[str, str], ...] = tuple(
            sorted(self._adjacent() | self._touching_at_home())
        )
        """Names of the bodies whose contact is not a fault: neighbours, and what touches at home."""
        for first, second in self.ignored_pairs:
            spec.add_exclude(bodyname1=first, bodyname2=second)
        self._use(spec.compile())

    def _use(self, model: mujoco.MjModel) -> None:
        """Work on `model` from now on."""
        self._model, self._data = model, mujoco.MjData(model)
        names, limits = self._robot.joints.names, self._robot.joints
        known = {model.joint(k).name: k for k in range(model.njnt)}
        missing = [name for name in names if name not in known]
        if missing:
            raise self._unusable(f"has no joint {', '.join(missing)}; it has {', '.join(known) or 'none'}")
        for name, k in known.items():
            if model.jnt_type[k] not in _JOINTS_OF_ONE_VALUE:
                raise self._unusable(
                    f"has the joint '{name}', which moves freely; give a model of the robot and what is fixed around it"
                )
        ids = [known[name] for name in names]
        self._q_index, self._v_index = model.jnt_qposadr[ids], model.jnt_dofadr[ids]
        # The robot description is the one place where limits stand; where the model is stricter, it knows why.
        for k, low, high in zip(ids, limits.position_min_rad, limits.position_max_rad, strict=True):
            if model.jnt_limited[k]:
                low, high = max(low, model.jnt_range[k, 0]), min(high, model.jnt_range[k, 1])
            model.jnt_limited[k], model.jnt_range[k] = True, (low, high)
        self._q_min, self._q_max = model.jnt_range[ids].T
        model.geom_margin[:] = CLEARANCE_M
        self._tip_kind, self._tip = self._find_tip()

    def _unusable(self, why: str) -> RobotDescriptionError:
        return RobotDescriptionError(f"kinematic model {self._source} of robot '{self._robot.name}' {why}")

    def _find_tip(self) -> tuple[str, int]:
        assert self._robot.kinematics is not None
        name = self._robot.kinematics.tip
        for kind, objects in (("site", mujoco.mjtObj.mjOBJ_SITE), ("body", mujoco.mjtObj.mjOBJ_BODY)):
            k = mujoco.mj_name2id(self._model, objects, name)
            if k >= 0:
                return kind, k
        sites = [self._model.site(k).name for k in range(self._model.nsite)]
        bodies = [self._model.body(k).name for k in range(1, self._model.nbody)]
        raise self._unusable(
            f"has no site or body '{name}' (kinematics.tip); sites: {', '.join(sites) or 'none'}; "
            f"bodies: {', '.join(bodies)}"
        )

    # -- what may touch what -----------------------------------------------------------------------

    def _find_robot_bodies(self) -> npt.NDArray[np.bool_]:
        """(bodies,) whether each is part of the robot."""
        model = self._model
        roots = set()
        for name in self._robot.joints.names:
            body = int(model.joint(name).bodyid[0])
            while model.body_parentid[body] != 0:
                body = int(model.body_parentid[body])
            roots.add(body)
        mine = np.zeros(model.nbody, dtype=bool)
        for body in range(1, model.nbody):  # parents come before their children
            mine[body] = body in roots or mine[model.body_parentid[body]]
        return mine

    def _adjacent(self) -> set[tuple[str, str]]:
        """Robot bodies that one joint connects, with all that is welded to either."""
        model = self._model
        weld = model.body_weldid
        pairs = set()
        for first in range(1, model.nbody):
            for second in range(1, model.nbody):
                parent_weld = weld[model.body_parentid[weld[second]]]
                if weld[second] != 0 and parent_weld == weld[first] and self._both_robot(first, second):
                    pairs.add(self._names(first, second))
        return pairs

    def _touching_at_home(self) -> set[tuple[str, str]]:
        """Robot bodies whose shapes overlap at home: the shapes are at fault, not the pose."""
        self._place(np.array(self._robot.home_rad))
        mujoco.mj_collision(self._model, self._data)
        bodies = self._model.geom_bodyid[self._data.contact.geom].reshape(-1, 2)
        return {self._names(first, second) for first, second in bodies if self._both_robot(first, second)}

    def _both_robot(self, first: int, second: int) -> bool:
        return bool(self._robot_bodies[first] and self._robot_bodies[second])

    def _names(self, first: int, second: int) -> tuple[str, str]:
        names = sorted(self._model.body(int(body)).name for body in (first, second))
        return names[0], names[1]

    # -- kinematics --------------------------------------------------------------------------------

    @property
    def joint_count(self) -> int:
        """J, the number of arm joints."""
        return len(self._q_index)

    @property
    def q_min(self) -> FloatArray:
        """(J,) lower limits [rad], the stricter of robot description and model."""
        low: FloatArray = self._q_min.copy()
        return low

    @property
    def q_max(self) -> FloatArray:
        """(J,) upper limits [rad], the stricter of robot description and model."""
        high: FloatArray = self._q_max.copy()
        return high

    def _place(self, q: FloatArray) -> None:
        self._data.qpos[self._q_index] = q
        mujoco.mj_kinematics(self._model, self._data)

    def _configuration(self, q: FloatArray) -> FloatArray:
        """`q` as (J,) floats.

        Raises:
            ValueError: another number of values, or one that is not finite.
        """
        values = np.asarray(q, dtype=np.float64)
        if values.shape != (self.joint_count,) or not np.isfinite(values).all():
            raise ValueError(
                f"expected {self.joint_count} finite joint positions [rad] of {', '.join(self._robot.joints.names)}; "
                f"got {values.tolist()}"
            )
        return values

    def _tip_m(self) -> FloatArray:
        position: FloatArray = (self._data.site_xpos if self._tip_kind == "site" else self._data.xpos)[
            self._tip
        ]
        return position

    def tip_pose(self, q: FloatArray) -> FloatArray:
        """(4, 4) T_base_tip at joint positions `q` (J,) [rad]."""
        self._place(self._configuration(q))
        matrices = self._data.site_xmat if self._tip_kind == "site" else self._data.xmat
        pose = np.eye(4)
        pose[:3, :3] = matrices[self._tip].reshape(3, 3)
        pose[:3, 3] = self._tip_m()
        return pose

    def tip_position_m(self, q: FloatArray) -> FloatArray:
        """(3,) position of the tip [m] at joint positions `q` (J,) [rad]."""
        self._place(self._configuration(q))
        return self._tip_m().copy()

    def tip_jacobian(self, q: FloatArray) -> FloatArray:
        """(6, J) velocity [m/s] and angular velocity [rad/s] of the tip, in base axes, per joint velocity."""
        self._place(self._configuration(q))
        mujoco.mj_comPos(self._model, self._data)
        linear, angular = np.zeros((2, 3, self._model.nv))
        if self._tip_kind == "site":
            mujoco.mj_jacSite(self._model, self._data, linear, angular, self._tip)
        else:
            mujoco.mj_jacBody(self._model, self._data, linear, angular, self._tip)
        jacobian: FloatArray = np.vstack([linear, angular])[:, self._v_index]
        return jacobian

    def inverse(self, T_base_tip: FloatArray, q_start: FloatArray) -> FloatArray:
        """(J,) joint positions [rad] inside the limits that bring the tip to (4, 4) `T_base_tip`.

        Gauss-Newton steps from `q_start`, so the solution is one nearby; collisions are not looked at.

        Raises:
            InverseKinematicsError: none was found from there; the pose may be out of reach.
            ValueError: `T_base_tip` is no pose, or `q_start` no joint positions.
        """
        target = _checked_pose(T_base_tip)
        configuration = mink.Configuration(self._model)
        q = configuration.q.copy()
        q[self._q_index] = np.clip(self._configuration(q_start), self._q_min, self._q_max)
        configuration.update(q)
        # Damped by the error (Sugihara 2011): bold near the goal, careful far from it or near a singularity.
        task = mink.FrameTask(
            self._tip, self._tip_kind, position_cost=1.0, orientation_cost=0.3, lm_damping=0.1
        )
        task.set_target(mink.SE3.from_matrix(target))
        others = sorted(set(range(self._model.nv)) - set(self._v_index.tolist()))
        still = [mink.DofFreezingTask(self._model, others)] if others else None
        limits = [mink.ConfigurationLimit(self._model)]
        error = np.full(6, np.inf)
        for _ in range(STEPS_MAX):
            error = task.compute_error(configuration)
            if (
                np.linalg.norm(error[:3]) < POSITION_TOLERANCE_M
                and np.linalg.norm(error[3:]) < ROTATION_TOLERANCE_RAD
            ):
                solution: FloatArray = np.clip(configuration.q[self._q_index], self._q_min, self._q_max)
                return solution
            try:
                step = mink.solve_ik(
                    configuration, [task], 1.0, "daqp", damping=1e-9, limits=limits, constraints=still
                )
            except mink.NoSolutionFound as problem:
                raise InverseKinematicsError(f"inverse kinematics found no step: {problem}") from problem
            configuration.integrate_inplace(step, 1.0)
        raise InverseKinematicsError(
            f"no joint positions found that bring the tip to {target[:3, 3].round(4).tolist()} m: from "
            f"{np.round(q_start, 3).tolist()} it came to within {1e3 * np.linalg.norm(error[:3]):.1f} mm and "
            f"{np.linalg.norm(error[3:]):.3f} rad; the pose may be out of reach, or start elsewhere"
        )

    # -- scene -------------------------------------------------------------------------------------

    def scene_fault(self, q_batch: FloatArray) -> tuple[str, int]:
        """First row of (N, J) `q_batch` [rad] that must not be, and why; ('', -1) where there is none.

        The causes: workspace (the tip leaves its box), self_collision, scene_collision.

        Raises:
            ValueError: another number of joints, or a value that is not finite.
        """
        return self._first(q_batch, lambda: self._box_cause() or self._contact_cause())

    def workspace_fault(self, q_batch: FloatArray) -> tuple[str, int]:
        """As `scene_fault`, of the workspace alone."""
        return self._first(q_batch, self._box_cause)

    def collision_fault(self, q_batch: FloatArray) -> tuple[str, int]:
        """As `scene_fault`, of collisions alone."""
        return self._first(q_batch, self._contact_cause)

    def _first(self, q_batch: FloatArray, cause_here: Callable[[], str]) -> tuple[str, int]:
        for row, q in enumerate(self._batch(q_batch)):
            self._place(q)
            if cause := cause_here():
                return cause, row
        return _NO_FAULT

    def _batch(self, q_batch: FloatArray) -> FloatArray:
        batch = np.asarray(q_batch, dtype=np.float64)
        if batch.ndim != 2 or batch.shape[1] != self.joint_count or not np.isfinite(batch).all():
            finite = "" if np.isfinite(batch).all() else ", not all finite"
            raise ValueError(
                f"expected finite joint positions (N, {self.joint_count}) [rad]; got shape {batch.shape}{finite}"
            )
        return batch

    def _box_cause(self) -> str:
        tip = self._tip_m()
        return "workspace" if (tip < self._box_min).any() or (tip > self._box_max).any() else ""

    def _contact_cause(self) -> str:
        mujoco.mj_collision(self._model, self._data)
        if self._data.ncon == 0:
            return ""
        faults = {cause for cause, _, _ in self._contacts()}
        return min(faults, key=("self_collision", "scene_collision").index, default="")

    def _contacts(self) -> list[tuple[str, str, str]]:
        """(cause, body, body) of the contacts that the robot has."""
        found = []
        for geoms in self._data.contact.geom.reshape(-1, 2):
            mine = int(self._robot_bodies[self._model.geom_bodyid[geoms]].sum())
            if mine:
                found.append(
                    ("self_collision" if mine == 2 else "scene_collision", *self._shape_names(geoms))
                )
        return found

    def _shape_names(self, geoms: npt.NDArray[np.int32]) -> tuple[str, str]:
        """Of each geom its body's name, the robot's first; of the world body's its own, since 'world' says little."""
        names = []
        for geom in geoms:
            body = int(self._model.geom_bodyid[geom])
            own = self._model.geom(int(geom)).name if body == 0 else ""
            names.append((not self._robot_bodies[body], own or self._model.body(body).name))
        (_, first), (_, second) = sorted(names)
        return first, second

    def fault_detail(self, q: FloatArray) -> str:
        """For people: what is wrong at joint positions `q` (J,) [rad]; '' where nothing is."""
        parts = [part for part in [self.workspace_detail(q)] if part]
        mujoco.mj_collision(self._model, self._data)
        parts += sorted({f"{first} meets {second}" for _, first, second in self._contacts()})
        return "; ".join(parts)

    def workspace_detail(self, q: FloatArray) -> str:
        """For people: along which axes the tip leaves its box at joint positions `q` (J,) [rad]; '' for none."""
        self._place(self._configuration(q))
        return "; ".join(
            f"the tip is at {axis} = {at:.3f} m, outside {low:g} to {high:g} m"
            for axis, at, low, high in zip("xyz", self._tip_m(), self._box_min, self._box_max, strict=True)
            if not low <= at <= high
        )


class Workspace:
    """The workspace box alone, as a `safe_motion.Scene`: MoveIt's own node looks after collisions."""

    def __init__(self, model: KinematicModel) -> None:
        self._model = model

    def scene_fault(self, positions_rad: FloatArray) -> tuple[str, int]:
        """See `KinematicModel.workspace_fault`."""
        return self._model.workspace_fault(positions_rad)


def scene_of(robot: RobotDescription) -> KinematicModel | Workspace | None:
    """What setpoints are checked against before they are sent, as `robot.scene_check` says; None: nothing.

    Raises:
        RobotDescriptionError: the kinematic model cannot be used.
    """
    if robot.scene_check == "none":
        return None
    model = KinematicModel(robot)
    return model if robot.scene_check == "model" else Workspace(model)


def _read(path: Path) -> mujoco.MjSpec:
    """The model as MuJoCo's editable specification, every body named and none merged into another.

    Raises:
        RobotDescriptionError: MuJoCo cannot read it.
    """
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        spec.compiler.fusestatic = False  # of a URDF: the base would become part of the world, which is scene
        for number, body in enumerate(spec.bodies):
            if not body.name:
                body.name = f"body_{number}"
        spec.compile()
    except ValueError as error:
        raise RobotDescriptionError(
            f"kinematic model {path} cannot be read as MJCF or URDF: {' '.join(str(error).split())}. "
            "A URDF's meshes must lie beside it, or simple shapes stand in their place"
        ) from error
    return spec


def _checked_pose(T: FloatArray) -> FloatArray:
    pose = np.asarray(T, dtype=np.float64)
    if (
        pose.shape != (4, 4)
        or not np.isfinite(pose).all()
        or not np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-6)
        or np.linalg.det(pose[:3, :3]) < 0
        or not np.allclose(pose[3], (0, 0, 0, 1))
    ):
        raise ValueError(
            f"expected a pose, a (4, 4) matrix of rotation and translation [m]; got {pose.tolist()}"
        )
    return pose

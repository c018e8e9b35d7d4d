"""The simulated robot without ROS: what `sim_robot_node` and fast in-process evaluation both drive."""

from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_perception.robot_description import RobotDescription
from atk_sim.camera import CameraPlacement
from atk_sim.disturbances import Disturbance, add_surroundings, find_disturbance, sample_surroundings
from atk_sim.experts import InverseKinematics, MotionLimits, ScriptedExpert
from atk_sim.rendering import CameraRenderer, add_camera
from atk_sim.robots.panda import ARM_JOINTS, FINGER_JOINTS, add_panda
from atk_sim.scene import stream
from atk_sim.tasks import Task, find_task
from atk_sim.world import World

FloatArray = NDArray[np.float64]

JOINT_STATE_PERIOD_S = 0.01
SETTLING_S = 0.2  # objects start half a millimetre above the table
SUCCESS_HOLD_STEPS = 5  # control periods that success must hold: a piece that rolls off has not been placed
START_SPREAD_RAD = 0.04  # of each joint around home, uniformly
EXPERT_SHARE_OF_LIMITS = 0.6
SERVO_NOISE_PERIOD_S = 0.5
DEMONSTRATION_SERVO_NOISE_RAD = 0.01


@dataclass(frozen=True)
class JointSample:
    """The robot at one instant of an episode."""

    time_s: float  # since the reset
    position_rad: FloatArray  # (7,) in the robot description's joint order
    velocity_rad_s: FloatArray  # (7,)
    opening_m: float


@dataclass(frozen=True)
class EpisodeState:
    """How far an episode is."""

    task: str
    disturbance: str
    seed: int
    step: int  # control periods since the reset
    max_steps: int
    success: bool  # latched
    done: bool


class InvalidCommandError(ValueError):
    """A command that the robot cannot take; the message says why."""


class Simulation:
    """One robot, one camera, one episode at a time. The same reset and commands give bit-identical pictures.

    Args:
        robot: joint order, control rate, limits, camera size.
        servo_noise_rad: standard deviation of a smooth random offset between each command and what the servo is given.
            It pushes the expert off its way, so that demonstrations hold recoveries (DART, Laskey et al. 2017).

    Raises:
        ValueError: the description is not one of this robot.
    """

    def __init__(self, robot: RobotDescription, *, servo_noise_rad: float = 0.0) -> None:
        if sorted(robot.joints.names) != sorted(ARM_JOINTS) or robot.gripper.joint not in FINGER_JOINTS:
            raise ValueError(
                f"the simulator has a Panda with joints {', '.join(ARM_JOINTS)} and gripper joint {FINGER_JOINTS[0]}; "
                f"the robot description '{robot.name}' has {', '.join(robot.joints.names)} and {robot.gripper.joint}. "
                "Use config/robots/sim_panda.yaml of atk_bringup."
            )
        self.robot = robot
        self.servo_noise_rad = servo_noise_rad
        self._order = [ARM_JOINTS.index(name) for name in robot.joints.names]
        self._period_s = 1.0 / robot.control_rate_hz
        self._samples_per_period = round(self._period_s / JOINT_STATE_PERIOD_S)
        self._ik = InverseKinematics(self._to_arm(np.array(robot.home_rad)))
        self._renderer: CameraRenderer | None = None
        self._world: World | None = None

    def reset(self, task: str, disturbance: str, seed: int) -> None:
        """Start an episode, a pure function of its arguments.

        Raises:
            ValueError: no task or disturbance of that name (the message lists them), or a negative seed.
        """
        chosen, level = find_task(task), find_disturbance(disturbance)
        if seed < 0:
            raise ValueError(f"the seed of an episode is a whole number from 0 on; {seed} was given")
        home_rad = self._to_arm(np.array(self.robot.home_rad))
        start_rad = home_rad + stream(seed, "arm").uniform(-START_SPREAD_RAD, START_SPREAD_RAD, len(home_rad))
        self.close()
        self._task, self._disturbance, self._seed = chosen, level, seed
        camera = self.robot.camera
        spec = build_scene(chosen, level, seed, camera.width, camera.height)
        self._world = World(spec, start_rad, self.robot.gripper.max_m)
        self._world.advance(SETTLING_S)
        self._expert = ScriptedExpert(self._ik, self._expert_limits(), self._period_s)
        self._noise = _ServoNoise(stream(seed, "servo"), self.servo_noise_rad, chosen.max_duration_s)
        self._step = 0
        self._held_success = 0
        self._success = False

    @property
    def world(self) -> World:
        """Physics of the present episode, for tasks, experts and ground truth. RuntimeError before the first reset."""
        if self._world is None:
            raise RuntimeError(
                "the simulation holds no episode yet: call reset(task, disturbance, seed) first"
            )
        return self._world

    @property
    def camera(self) -> CameraPlacement:
        """The camera of the present episode's task."""
        return self._task.camera

    @property
    def camera_matrix(self) -> FloatArray:
        """(3, 3) K [px]."""
        return self.camera.intrinsics(self.robot.camera.width, self.robot.camera.height)

    @property
    def state(self) -> EpisodeState:
        """Progress and success of the present episode."""
        max_steps = round(self._task.max_duration_s / self._period_s)
        return EpisodeState(
            self._task.name,
            self._disturbance.name,
            self._seed,
            self._step,
            max_steps,
            self._success,
            self._success or self._step >= max_steps,
        )

    @property
    def renderer(self) -> CameraRenderer:
        """Pictures of the present episode; made on first use, and usable only in the thread that first used it."""
        if self._renderer is None:
            self._renderer = CameraRenderer(self.world, self.robot.camera.width, self.robot.camera.height)
        return self._renderer

    def observe(self) -> JointSample:
        """The robot now."""
        world = self.world
        return JointSample(
            self._step * self._period_s,
            world.arm_position_rad[self._order],
            world.arm_velocity_rad_s[self._order],
            world.opening_m,
        )

    def expert_command(self) -> FloatArray:
        """(8,) what the privileged expert commands now; ask once per control period."""
        command = self._expert.command(self.world, self._task.goal(self.world))
        return np.append(command[:-1][self._order], command[-1])

    def check_command(self, command: FloatArray) -> FloatArray:
        """(8,) the command as float64; InvalidCommandError when its size is wrong or a value is not finite."""
        command = np.asarray(command, dtype=np.float64)
        size = self.robot.action_size
        if command.shape != (size,):
            raise InvalidCommandError(
                f"a command holds {size} values, {size - 1} joint positions [rad] and a gripper opening [m]; "
                f"one of shape {command.shape} was given"
            )
        if not np.isfinite(command).all():
            raise InvalidCommandError(f"a command must be finite; {command.tolist()} was given")
        return command

    def step(self, command: FloatArray) -> tuple[JointSample, ...]:
        """Run physics for one control period under `command` (8,); returns the robot every 10 ms, the end included."""
        command = self.check_command(command)
        world, start_s = self.world, self._step * self._period_s
        samples = []
        for index in range(1, self._samples_per_period + 1):
            time_s = start_s + index * JOINT_STATE_PERIOD_S
            world.set_servos(self._to_arm(command[:-1]) + self._noise.at(time_s), float(command[-1]))
            world.advance(JOINT_STATE_PERIOD_S)
            samples.append(
                JointSample(
                    time_s,
                    world.arm_position_rad[self._order],
                    world.arm_velocity_rad_s[self._order],
                    world.opening_m,
                )
            )
        self._step += 1
        self._held_success = self._held_success + 1 if self._task.success(world) else 0
        self._success = self._success or self._held_success >= SUCCESS_HOLD_STEPS
        return tuple(samples)

    def close(self) -> None:
        """Free what the present episode renders with."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _to_arm(self, values: FloatArray) -> FloatArray:
        """From the description's joint order to that of ARM_JOINTS."""
        ordered = np.empty(len(ARM_JOINTS))
        ordered[self._order] = values
        return ordered

    def _expert_limits(self) -> MotionLimits:
        joints = self.robot.joints
        return MotionLimits(
            EXPERT_SHARE_OF_LIMITS * self._to_arm(np.array(joints.velocity_max_rad_s)),
            EXPERT_SHARE_OF_LIMITS * self._to_arm(np.array(joints.acceleration_max_rad_s2)),
        )


def build_scene(task: Task, disturbance: Disturbance, seed: int, width: int, height: int) -> mujoco.MjSpec:
    """Robot, task, surroundings and camera of one episode. Building anew costs 30 ms, and leaves nothing behind."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    layout = task.sample_layout(stream(seed, "pose"))
    add_panda(spec)
    add_surroundings(spec, sample_surroundings(disturbance, seed, layout, task.camera))
    task.add_objects(spec, layout)
    add_camera(spec, task.camera, width, height)
    return spec


class _ServoNoise:
    """Smooth random joint offsets: Gaussian knots half a second apart, eased in between."""

    def __init__(self, rng: np.random.Generator, deviation_rad: float, duration_s: float) -> None:
        count = int(duration_s / SERVO_NOISE_PERIOD_S) + 3
        self._knots = deviation_rad * rng.standard_normal((count, len(ARM_JOINTS)))
        self._knots[0] = 0.0  # an episode starts where the arm was put

    def at(self, time_s: float) -> FloatArray:
        """(7,) offset [rad] at a time since the reset."""
        index, share = divmod(time_s / SERVO_NOISE_PERIOD_S, 1.0)
        before, after = (self._knots[min(int(index) + k, len(self._knots) - 1)] for k in (0, 1))
        eased = share * share * (3 - 2 * share)
        offset: FloatArray = before + eased * (after - before)
        return offset


def default_robot_description() -> Path:
    """`sim_panda.yaml` as atk_bringup installs it."""
    from ament_index_python.packages import get_package_share_path

    path: Path = get_package_share_path("atk_bringup") / "config" / "robots" / "sim_panda.yaml"
    return path

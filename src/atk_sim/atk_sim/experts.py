"""The scripted, privileged expert: where the hand should go, turned into smooth joint position commands.

A task's `goal` says where the hand should be, from the present state alone. The expert then looks a bounded way ahead of
where the hand *is* (not of where it was told to go), so that its command, too, is a function of what can be observed:
a policy can imitate it, and it recovers from whatever pushed the arm.
"""

from dataclasses import dataclass

import mink
import numpy as np
from numpy.typing import NDArray

from atk_sim.robots.panda import ARM_JOINTS, TCP_SITE, kinematic_model
from atk_sim.world import World

FloatArray = NDArray[np.float64]

# The servos lag 0.1 s behind: looking 4 cm ahead moves the hand at about 0.3 m/s.
LOOKAHEAD_M, LOOKAHEAD_RAD = 0.037, 0.2
GRIPPER_LOOKAHEAD_M = 0.02  # of opening: closes in about half a second, so that the closing shows in the data


@dataclass(frozen=True)
class Goal:
    """What the expert wants next: fingertips there, hand pointing down and turned by `yaw_rad`, opened by `opening_m`."""

    tcp_position_m: FloatArray  # (3,) in the world
    yaw_rad: float
    opening_m: float


def smoothstep(x: float) -> float:
    """0 below 0, 1 above 1, smooth in between."""
    t = min(max(x, 0.0), 1.0)
    return t * t * (3 - 2 * t)


def nearest_half_turn(angle_rad: float) -> float:
    """The equal heading of a two-fingered hand that is nearest to zero, in (-pi/2, pi/2]."""
    return float(np.pi / 2 - (np.pi / 2 - angle_rad) % np.pi)


def funnel(
    tcp_m: FloatArray, target_m: FloatArray, clearance_m: float, *, extra_misfit_m: float = 0.0
) -> FloatArray:
    """A point (3,) to head for so that `target_m` is reached from above without sweeping over the table.

    The hand may be as low as a funnel over the target allows: at the target's height within 8 mm of it, `clearance_m`
    higher from 7 cm on. Below the funnel's wall it rises before it moves sideways.
    """
    lateral_m = target_m[:2] - tcp_m[:2]
    misfit_m = float(np.hypot(*lateral_m)) + extra_misfit_m
    height_m = target_m[2] + clearance_m * smoothstep((misfit_m - 0.008) / 0.062)
    freedom = 1.0 - smoothstep((height_m - tcp_m[2] - 0.01) / 0.05)
    return np.array([*(tcp_m[:2] + freedom * lateral_m), height_m])


class InverseKinematics:
    """Joint positions of a pose of the hand, by mink on the robot alone; near-home solutions where there is a choice."""

    def __init__(self, home_rad: FloatArray) -> None:
        model = kinematic_model()
        self._configuration = mink.Configuration(model)
        self._arm = [model.joint(name).qposadr[0] for name in ARM_JOINTS]
        self._hand = mink.FrameTask(
            TCP_SITE, "site", position_cost=1.0, orientation_cost=0.3, lm_damping=1e-4
        )
        self._posture = mink.PostureTask(model, cost=5e-3)
        posture = np.zeros(model.nq)
        posture[self._arm] = home_rad
        self._posture.set_target(posture)
        self._limits = [mink.ConfigurationLimit(model)]

    def solve(self, start_rad: FloatArray, position_m: FloatArray, yaw_rad: float) -> FloatArray:
        """(7,) joint positions near `start_rad` that put the downward hand there; the nearest it can do otherwise."""
        down = mink.SO3.from_z_radians(yaw_rad) @ mink.SO3.from_x_radians(np.pi)
        self._hand.set_target(mink.SE3.from_rotation_and_translation(down, position_m))
        q = np.zeros(self._configuration.model.nq)
        q[self._arm] = start_rad
        self._configuration.update(q)
        for _ in range(12):  # converges to 0.1 mm in 3 to 6 from a lookahead away
            velocity = mink.solve_ik(
                self._configuration,
                [self._hand, self._posture],
                1.0,
                "daqp",
                damping=1e-6,
                limits=self._limits,
            )
            self._configuration.integrate_inplace(velocity, 1.0)
            if np.abs(velocity).max() < 2e-4:
                break
        return np.array(self._configuration.q[self._arm])


@dataclass(frozen=True)
class MotionLimits:
    """Bounds on the expert's commands, (7,) each; well inside what the robot can do."""

    velocity_rad_s: FloatArray
    acceleration_rad_s2: FloatArray


class ScriptedExpert:
    """Commands for one episode. Remembers only its last command, to bound velocity and acceleration."""

    def __init__(self, ik: InverseKinematics, limits: MotionLimits, period_s: float) -> None:
        self._ik = ik
        self._limits = limits
        self._period_s = period_s
        self._last_rad: FloatArray | None = None
        self._velocity_rad_s = np.zeros(len(ARM_JOINTS))

    def command(self, world: World, goal: Goal) -> FloatArray:
        """(8,): absolute joint positions [rad] in the order of ARM_JOINTS, then the gripper's opening [m]."""
        way_m = goal.tcp_position_m - world.tcp_position_m
        turn_rad = nearest_half_turn(goal.yaw_rad - world.tcp_yaw_rad)
        position_m = world.tcp_position_m + way_m * _ahead(float(np.linalg.norm(way_m)), LOOKAHEAD_M)
        yaw_rad = world.tcp_yaw_rad + turn_rad * _ahead(abs(turn_rad), LOOKAHEAD_RAD)
        arm_rad = self._bounded(self._ik.solve(world.arm_position_rad, position_m, yaw_rad), world)
        change_m = np.clip(goal.opening_m - world.opening_m, -GRIPPER_LOOKAHEAD_M, GRIPPER_LOOKAHEAD_M)
        return np.append(arm_rad, world.opening_m + change_m)

    def _bounded(self, wanted_rad: FloatArray, world: World) -> FloatArray:
        last_rad = world.arm_position_rad if self._last_rad is None else self._last_rad
        wanted_rad_s = _scaled_into((wanted_rad - last_rad) / self._period_s, self._limits.velocity_rad_s)
        change = wanted_rad_s - self._velocity_rad_s
        velocity = self._velocity_rad_s + _scaled_into(
            change, self._limits.acceleration_rad_s2 * self._period_s
        )
        self._velocity_rad_s = velocity
        self._last_rad = last_rad + velocity * self._period_s
        return self._last_rad.copy()


def _scaled_into(values: FloatArray, bounds: FloatArray) -> FloatArray:
    """`values` shrunk as a whole until each is within its bound, so that the hand keeps its direction."""
    return values / max(1.0, float(np.max(np.abs(values) / bounds)))


def _ahead(distance: float, lookahead: float) -> float:
    """Share of the remaining way to look ahead: all of it when close, `lookahead` / distance from afar.

    1 - exp(-d/L) instead of min(d, L), so that the command slows down gently before it comes to rest.
    """
    ratio = distance / lookahead
    return (1.0 - float(np.exp(-ratio))) / ratio if ratio > 1e-6 else 1.0

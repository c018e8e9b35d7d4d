"""One jerk-limited reference that can always stop: the only source of arm setpoints.

Whatever is asked for, each setpoint lies on a continuous trajectory inside the position, velocity,
acceleration and jerk limits, and is only taken when a braking trajectory from it, inside the same
limits and clear of the scene, has been found before. A hold is that braking trajectory: the way to
stop never has to be computed in an emergency. (Fail-safe motion in the sense of Petti and Fraichard
2005, "Safe motion planning in dynamic environments"; trajectories by Ruckig, Berscheid and Kroeger 2021.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from ruckig import ControlInterface, InputParameter, Result, Ruckig, Synchronization, Trajectory

from atk_policy.command_plan import CommandPlan

FloatArray = npt.NDArray[np.float64]

# Setpoints closer than this are one for every controller; Ruckig needs some time to solve for.
SHORTEST_STEP_S = 1e-3
# Between two states that are checked against the scene; a joint at 2 rad/s moves 0.04 rad.
SCENE_SAMPLING_S = 0.02
# Between two states whose position is checked: a joint that turns back at 20 rad/s2 does so within 1e-4 rad.
POSITION_SAMPLING_S = 0.005
# That, and the rounding of a trajectory that ends on a limit.
POSITION_TOLERANCE_RAD = 1e-4


class Scene(Protocol):
    """Who knows where the arm must not be."""

    def scene_fault(self, positions_rad: FloatArray) -> tuple[str, int]:
        """Name of the first fault along (N, J) positions and its row; ('', -1) when there is none."""
        ...


@dataclass(frozen=True)
class MotionLimits:
    """(J,) each: position [rad], velocity [rad/s], acceleration [rad/s2], jerk [rad/s3]."""

    position_min: FloatArray
    position_max: FloatArray
    velocity_max: FloatArray
    acceleration_max: FloatArray
    jerk_max: FloatArray


@dataclass(frozen=True)
class _State:
    position: FloatArray
    velocity: FloatArray
    acceleration: FloatArray


class SafeMotion:
    """The arm's reference. It begins with `reset`; time passes only through `advance` and `brake`.

    Args:
        limits: of the J joints.
        scene: what to keep clear of besides the limits, None for nothing.
    """

    def __init__(self, limits: MotionLimits, scene: Scene | None = None) -> None:
        self._limits = limits
        self._scene = scene
        joints = len(limits.position_min)
        self._solver = Ruckig(joints)
        self._request = InputParameter(joints)
        self._request.max_velocity = limits.velocity_max.tolist()
        self._request.max_acceleration = limits.acceleration_max.tolist()
        self._request.max_jerk = limits.jerk_max.tolist()
        self._request.target_acceleration = [0.0] * joints
        self._state = _State(np.zeros(joints), np.zeros(joints), np.zeros(joints))
        self._tail = Trajectory(joints)
        self._tail_s = self._tail_end_s = 0.0

    def reset(self, position: FloatArray, velocity: FloatArray | None = None) -> None:
        """Begin anew at (J,) `position` [rad]; `velocity` [rad/s] is that of whoever drove until now.

        Raises:
            ValueError: not finite; there would be nothing to hold.
        """
        velocity = np.zeros(len(position)) if velocity is None else velocity
        if not (np.isfinite(position).all() and np.isfinite(velocity).all()):
            raise ValueError(f"the position to hold is not finite: {position.tolist()}, {velocity.tolist()}")
        limit = self._limits.velocity_max
        state = _State(position.copy(), np.clip(velocity, -limit, limit), np.zeros(len(position)))
        self._take(state, self._braking(state))

    # -- where it is -------------------------------------------------------------------------------

    @property
    def position(self) -> FloatArray:
        """(J,) present setpoint [rad]."""
        return self._state.position

    @property
    def velocity(self) -> FloatArray:
        """(J,) its velocity [rad/s]."""
        return self._state.velocity

    @property
    def at_rest(self) -> bool:
        """Nothing moves and nothing will, unless `advance` says so."""
        return self._tail_s >= self._tail_end_s

    # -- time passes -------------------------------------------------------------------------------

    def advance(self, wanted: FloatArray, wanted_velocity: FloatArray, elapsed_s: float) -> str:
        """Go towards (J,) `wanted` [rad], to be passed with `wanted_velocity` [rad/s], for `elapsed_s`.

        Returns:
            '' or why it could not be done: position_limit, motion_unsolvable, or what the scene
            says; the arm then brakes for `elapsed_s` instead.
        """
        found = self._towards(self._state, wanted, wanted_velocity, max(elapsed_s, SHORTEST_STEP_S))
        if isinstance(found, str):
            self.brake(elapsed_s)
            return found
        self._take(*found)
        return ""

    def brake(self, elapsed_s: float) -> None:
        """Follow the braking trajectory for `elapsed_s`; at rest, stay."""
        self._tail_s = min(self._tail_s + elapsed_s, self._tail_end_s)
        self._state = _state_at(self._tail, self._tail_s)

    def plan(
        self, gripper_m: float, period_ns: int, then: tuple[FloatArray, FloatArray] | None = None
    ) -> CommandPlan:
        """The present setpoint, due in one period, and what follows when nothing else is ever sent.

        Args:
            gripper_m: opening commanded all along.
            period_ns: between setpoints.
            then: (J,) position and velocity wanted a period later, taken in before braking if safe.
        """
        period_s = period_ns / 1e9
        states = [self._state]
        tail, begin_s, end_s = self._tail, self._tail_s, self._tail_end_s
        if then is not None:
            found = self._towards(self._state, *then, period_s)
            if not isinstance(found, str):
                states.append(found[0])
                tail, begin_s, end_s = found[1], 0.0, found[1].duration
        steps = int(np.ceil((end_s - begin_s) / period_s - 1e-9))
        states += [_state_at(tail, min(begin_s + k * period_s, end_s)) for k in range(1, steps + 1)]
        position = np.array([np.append(state.position, gripper_m) for state in states])
        velocity = np.array([np.append(state.velocity, 0.0) for state in states])
        velocity[-1] = 0.0  # at rest but for rounding
        return CommandPlan(period_ns * np.arange(1, len(states) + 1), position, velocity)

    # -- parts -------------------------------------------------------------------------------------

    def _take(self, state: _State, tail: Trajectory) -> None:
        self._state, self._tail, self._tail_s = state, tail, 0.0
        moves = np.abs(state.velocity).max() > 1e-9 or np.abs(state.acceleration).max() > 1e-9
        self._tail_end_s = float(tail.duration) if moves else 0.0

    def _towards(
        self, state: _State, wanted: FloatArray, wanted_velocity: FloatArray, duration_s: float
    ) -> tuple[_State, Trajectory] | str:
        """State after `duration_s` and the way to stop from there, or why there is none."""
        limits = self._limits
        inside = np.clip(wanted, limits.position_min, limits.position_max)
        # A wish beyond a limit is no wish to pass that limit at speed.
        velocity = np.where(inside == wanted, wanted_velocity, 0.0)
        found: tuple[_State, Trajectory] | str = ""
        for end_velocity in (np.clip(velocity, -limits.velocity_max, limits.velocity_max), 0.0 * velocity):
            found = self._candidate(state, inside, end_velocity, duration_s)
            if not isinstance(found, str):
                break
        return found

    def _candidate(
        self, state: _State, wanted: FloatArray, wanted_velocity: FloatArray, duration_s: float
    ) -> tuple[_State, Trajectory] | str:
        step = self._solve(state, wanted, wanted_velocity, duration_s)
        if step is None:
            return "motion_unsolvable"
        after = _state_at(step, duration_s)
        tail = self._braking(after)
        path = np.vstack(
            [
                _positions(step, duration_s, POSITION_SAMPLING_S),
                _positions(tail, tail.duration, POSITION_SAMPLING_S),
            ]
        )
        # Outside already (a person pushed the arm there): the way back in is open, further out is not.
        low = np.minimum(self._limits.position_min, state.position) - POSITION_TOLERANCE_RAD
        high = np.maximum(self._limits.position_max, state.position) + POSITION_TOLERANCE_RAD
        if (path < low).any() or (path > high).any():
            return "position_limit"
        if self._scene is not None:
            every = round(SCENE_SAMPLING_S / POSITION_SAMPLING_S)
            # Backwards, so that where the arm comes to rest is among them.
            cause, _ = self._scene.scene_fault(path[::-every][::-1])
            if cause:
                return cause
        return after, tail

    def _solve(
        self, state: _State, wanted: FloatArray, wanted_velocity: FloatArray, duration_s: float
    ) -> Trajectory | None:
        request = self._request
        request.control_interface = ControlInterface.Position
        request.synchronization = Synchronization.Time
        request.minimum_duration = duration_s
        request.target_position = wanted.tolist()
        return self._calculate(state, wanted_velocity)

    def _braking(self, state: _State) -> Trajectory:
        """The fastest stop of every joint. It exists from every state that Ruckig itself has led to."""
        request = self._request
        request.control_interface = ControlInterface.Velocity
        request.synchronization = Synchronization.No
        request.minimum_duration = None
        tail = self._calculate(state, np.zeros(len(state.position)))
        if tail is None:
            raise ArithmeticError(f"Ruckig finds no way to stop from {state}")
        return tail

    def _calculate(self, state: _State, target_velocity: FloatArray) -> Trajectory | None:
        request = self._request
        request.current_position = state.position.tolist()
        request.current_velocity = state.velocity.tolist()
        request.current_acceleration = state.acceleration.tolist()
        request.target_velocity = target_velocity.tolist()
        trajectory = Trajectory(len(state.position))
        result = self._solver.calculate(request, trajectory)
        return trajectory if result in (Result.Working, Result.Finished) else None


def _state_at(trajectory: Trajectory, time_s: float) -> _State:
    return _State(*(np.array(values) for values in trajectory.at_time(time_s)))


def _positions(trajectory: Trajectory, duration_s: float, sampling_s: float) -> FloatArray:
    """(N, J) along the trajectory, its end included and its beginning not."""
    count = max(1, int(np.ceil(duration_s / sampling_s)))
    return np.array([trajectory.at_time(t)[0] for t in np.linspace(0.0, duration_s, count + 1)[1:]])

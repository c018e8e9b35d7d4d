"""What the safety layer lets through: where the robot is to be at which time from now, ending at rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CommandPlan:
    """Setpoints of the near future; the last is at rest, so that a robot that hears no more stops by itself.

    Attributes:
        time_ns: (N,) from the moment the plan is sent, strictly increasing, > 0.
        position: (N, J + 1) [rad, m], the gripper opening last.
        velocity: (N, J + 1) [rad/s, m/s]; zeros in the last row.
    """

    time_ns: npt.NDArray[np.int64]
    position: FloatArray
    velocity: FloatArray

    @classmethod
    def hold(cls, position: FloatArray, period_ns: int) -> CommandPlan:
        """Stay at (J + 1,) `position`."""
        return cls(np.array([period_ns]), position[None].copy(), np.zeros((1, len(position))))

    @property
    def command(self) -> FloatArray:
        """(J + 1,) the setpoint for now: what a controller without a notion of time is given."""
        command: FloatArray = self.position[0]
        return command

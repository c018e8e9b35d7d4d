"""Which openings become goals of a gripper's action: a goal in every control period would preempt itself for ever."""

from __future__ import annotations

import math

# Shares of the gripper's range: a change that is followed at once, and one that is not worth a motion.
COARSE_SHARE, FINE_SHARE = 0.05, 0.005
# A small change is followed once the opening has stayed there for this long [s].
SETTLED_S = 0.3
# Between two goals [s]; a gripper that closes takes about one.
PERIOD_S = 0.2
# After a goal was refused or failed [s].
RETRY_S = 0.5


class GripperGoals:
    """Decides, opening by opening. Not thread-safe.

    Args:
        range_m: from shut to open [m].
    """

    def __init__(self, range_m: float) -> None:
        self._coarse_m, self._fine_m = COARSE_SHARE * range_m, FINE_SHARE * range_m
        self._level_m, self._level_s = math.inf, 0.0
        self._sent_m: float | None = None
        self._not_before_s = -math.inf

    def begin(self) -> None:
        """Forget what was sent: somebody else may have moved the gripper since."""
        self._sent_m = None
        self._not_before_s = -math.inf

    def take(self, opening_m: float, now_s: float) -> bool:
        """Whether `opening_m`, wanted at `now_s` on a steady clock, is to be sent as a goal; then it counts as sent."""
        if abs(opening_m - self._level_m) > self._fine_m:
            self._level_m, self._level_s = opening_m, now_s
        if now_s < self._not_before_s:
            return False
        if self._sent_m is not None:
            settled = now_s - self._level_s >= SETTLED_S
            if abs(opening_m - self._sent_m) <= (self._fine_m if settled else self._coarse_m):
                return False
        self._sent_m, self._not_before_s = opening_m, now_s + PERIOD_S
        return True

    def retry(self, now_s: float) -> None:
        """What was sent last did not help: send again, after a pause."""
        self._sent_m, self._not_before_s = None, now_s + RETRY_S

"""Overlapping action chunks to one action per control period (temporal ensembling, ACT, Zhao et al. 2023)."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class ActionQueue:
    """Chunks with their stamps; answers what to do at a time.

    An action is the mean of what all chunks say about that time, weighted by exp(-decay * age of the
    chunk in control periods): 0 trusts all alike, a large value only the newest.

    Args:
        period_ns: control period.
        decay: of the weights, per control period of age, >= 0.
        memory: chunks kept at most.
    """

    def __init__(self, period_ns: int, decay: float, memory: int) -> None:
        self._period_ns = period_ns
        self._decay = decay
        self._chunks: deque[tuple[int, FloatArray]] = deque(maxlen=memory)

    def clear(self) -> None:
        """Forget all chunks."""
        self._chunks.clear()

    def add(self, stamp_ns: int, chunk: FloatArray) -> None:
        """Add a chunk, (H, A): action k is for the time stamp + k periods."""
        self._chunks.append((stamp_ns, chunk))

    def action_at(self, time_ns: int) -> FloatArray | None:
        """(A,) the action for a time, or None when no chunk covers it."""
        total: FloatArray | None = None
        weights = 0.0
        newest = self._chunks[-1][0] if self._chunks else 0
        for stamp_ns, chunk in self._chunks:
            index = round((time_ns - stamp_ns) / self._period_ns)
            if not 0 <= index < len(chunk):
                continue
            weight = float(np.exp(-self._decay * (newest - stamp_ns) / self._period_ns))
            total = weight * chunk[index] if total is None else total + weight * chunk[index]
            weights += weight
        return None if total is None else total / weights

    def plan_from(self, time_ns: int, count: int) -> list[FloatArray]:
        """Up to `count` actions for `time_ns` and the periods after it, ending where no chunk reaches."""
        plan = []
        for k in range(count):
            action = self.action_at(time_ns + k * self._period_ns)
            if action is None:
                break
            plan.append(action)
        return plan

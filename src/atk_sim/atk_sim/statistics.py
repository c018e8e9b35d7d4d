"""How sure a success rate is."""

from __future__ import annotations

import math


def wilson_interval(successes: int, episodes: int, z: float = 1.96) -> tuple[float, float]:
    """95% interval of a success rate (Wilson, 1927), honest also at 0 and at all successes."""
    if episodes == 0:
        return 0.0, 1.0
    rate = successes / episodes
    centre = rate + z * z / (2 * episodes)
    spread = z * math.sqrt(rate * (1 - rate) / episodes + z * z / (4 * episodes * episodes))
    scale = 1 + z * z / episodes
    return (centre - spread) / scale, (centre + spread) / scale

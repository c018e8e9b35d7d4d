"""Whether success rates differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Count = tuple[int, int]  # successes, episodes


def difference_p(pairs: Sequence[tuple[Count, Count]]) -> float:
    """Whether two series of episodes have the same success rates: two-sided p-value of Fisher's exact test.

    Args:
        pairs: the counts of both series, for every kind of episode. Rates may differ between kinds: each kind is compared
            with itself, and what they say is put together (the exact test of several 2x2 tables, Mehta et al. 1985).

    Returns:
        The probability, given all totals, of outcomes that are no likelier than this one.
    """
    successes_of_second, likely = 0, np.ones(1)
    for (first, of_first), (second, of_second) in pairs:
        both = first + second
        possible = range(max(0, both - of_first), min(of_second, both) + 1)
        ways = [math.comb(of_second, k) * math.comb(of_first, both - k) for k in possible]
        total = sum(ways)
        likely = np.convolve(likely, [way / total for way in ways])
        successes_of_second += second - possible.start
    here = likely[successes_of_second]
    return float(min(1.0, likely[likely <= here * (1 + 1e-9)].sum()))

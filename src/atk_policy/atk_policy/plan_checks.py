"""Which plans of a run were found free by who knows the scene, and so whether the arm may go on.

Pure: stamps and times in, a cause out. A plan holds the setpoint that is due, one more period of motion, and the way to
stop from there (`SafeMotion.plan`). A plan that was found free is thus good for one period beyond its own setpoint, and for
the brake after it: as long as that holds, the arm is nowhere and comes nowhere that was not looked at. What the policy wants
a period later may differ a little from what the plan foresaw; a scene's padding is for that.
"""

from __future__ import annotations


class PlanChecks:
    """The plans of one run and the answers to them; not thread-safe.

    Times are of a clock that passes evenly, stamps name plans and only grow.

    The causes: plan_unchecked (no plan of this run has been answered), plan_check_stale (the answers are late), and
    whatever an answer names. That one stays for the run: a policy that wants into an obstacle wants there again, a little
    further each time.

    Args:
        period_ns: of control: no setpoint is further from the one before.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._stamp_ns = -1
        self.begin()

    def begin(self) -> None:
        """A run begins: what was sent and answered before says nothing about it."""
        self._first_ns = self._stamp_ns + 1
        self._sent: dict[int, int] = {}  # stamp to time, of those whose answer still matters
        self._answered = False
        self._free: tuple[int, int] | None = None  # stamp and time of the newest plan that was found free
        self.cause = ""

    def send(self, now_ns: int, clock_ns: int) -> int:
        """A plan is sent to be looked at, now; returns its stamp: `clock_ns`, or the next that was not given yet."""
        self._sent = {s: t for s, t in self._sent.items() if now_ns - t <= self._period_ns}
        self._stamp_ns = max(clock_ns, self._stamp_ns + 1)
        self._sent[self._stamp_ns] = now_ns
        return self._stamp_ns

    def answer(self, stamp_ns: int, cause: str) -> bool:
        """The plan of that stamp has been looked at; True when it is the first of this run that is not free."""
        if stamp_ns < self._first_ns:
            return False
        self._answered = True
        if cause:
            news = not self.cause
            self.cause = self.cause or cause
            return news
        if stamp_ns in self._sent and (self._free is None or stamp_ns > self._free[0]):
            self._free = (stamp_ns, self._sent[stamp_ns])
        return False

    def fault(self, now_ns: int) -> str:
        """Why the arm must not take another step now, or ''."""
        if self.cause or not self._answered:
            return self.cause or "plan_unchecked"
        if self._free is not None:
            stamp_ns, sent_ns = self._free
            # A step is a period of motion at most, however late it comes; several are no more than the time they took.
            if stamp_ns == self._stamp_ns or now_ns - sent_ns <= self._period_ns:
                return ""
        return "plan_check_stale"

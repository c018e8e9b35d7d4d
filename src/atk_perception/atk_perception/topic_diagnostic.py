"""How often something comes and how old it is then, told as diagnostic_updater's TopicDiagnostic tells it.

The same texts and keys ("Actual frequency (Hz)", "Latest timestamp delay:", ...), since diagnostic aggregators, rqt and
people's scripts know them. That package has no place for the latency of what a node answers, which is added.

Source: ros/diagnostics, diagnostic_updater (FrequencyStatus, TimeStampStatus), REP 107.
"""

from __future__ import annotations

import threading
from collections import deque

OK, WARN, ERROR = 0, 1, 2
# As diagnostic_updater: rates are those of the last so many reports, a tenth beside the bounds is no fault.
WINDOW_REPORTS, TOLERANCE = 5, 0.1


class TopicDiagnostic:
    """One topic. `tick` for every message, `report` for every diagnostic message. Thread-safe.

    Args:
        name: of the topic, as people know it.
        rate_hz: that is promised; 0 where nothing is.
        delay_max_s: older than this a message is late; 0 where nothing is promised.
    """

    def __init__(self, name: str, rate_hz: float = 0.0, delay_max_s: float = 0.0) -> None:
        self.name = name
        self._rate_hz, self._delay_max_s = rate_hz, delay_max_s
        self._lock = threading.Lock()
        self._count = self._late = self._unstamped = 0
        self._delays_s: list[float] = []
        self._reports: deque[tuple[int, int]] = deque(maxlen=WINDOW_REPORTS)

    def tick(self, now_ns: int, stamp_ns: int) -> None:
        """A message with this stamp has come, or was answered, now (ROS clock)."""
        with self._lock:
            self._count += 1
            if stamp_ns == 0:
                self._unstamped += 1
                return
            delay_s = (now_ns - stamp_ns) / 1e9
            self._late += bool(self._delay_max_s and delay_s > self._delay_max_s)
            self._delays_s.append(delay_s)

    def report(self, now_ns: int) -> tuple[int, str, dict[str, str]]:
        """(level, message, values) since the reports before."""
        with self._lock:
            if self._reports and now_ns < self._reports[-1][0]:  # another replay or simulation
                self._reports.clear()
            began_ns, began_count = self._reports[0] if self._reports else (now_ns, 0)
            self._reports.append((now_ns, self._count))
            delays_s, self._delays_s = self._delays_s, []
            events, window_s = self._count - began_count, (now_ns - began_ns) / 1e9
            rate_hz = events / window_s if window_s > 0 else 0.0
            level, message = self._judge_rate(events, rate_hz, window_s)
            values = {
                "Events in window": f"{events}",
                "Events since startup": f"{self._count}",
                "Duration of window (s)": f"{window_s:.6f}",
                "Actual frequency (Hz)": f"{rate_hz:.6f}",
            }
            if self._rate_hz:
                values["Target frequency (Hz)"] = f"{self._rate_hz:.6f}"
                values["Minimum acceptable frequency (Hz)"] = f"{self._rate_hz * (1 - TOLERANCE):.6f}"
                values["Maximum acceptable frequency (Hz)"] = f"{self._rate_hz * (1 + TOLERANCE):.6f}"
            timing_level, timing = self._judge_delays(delays_s)
            if delays_s:
                values["Earliest timestamp delay:"] = f"{min(delays_s):.6f}"
                values["Latest timestamp delay:"] = f"{max(delays_s):.6f}"
                values["Mean timestamp delay:"] = f"{sum(delays_s) / len(delays_s):.6f}"
            if self._delay_max_s:
                values["Latest acceptable timestamp delay:"] = f"{self._delay_max_s:.6f}"
            values["Late diagnostic update count:"] = f"{self._late}"
            values["Zero seen diagnostic update count:"] = f"{self._unstamped}"
            return max(level, timing_level), "; ".join(filter(None, [message, timing])), values

    def _judge_rate(self, events: int, rate_hz: float, window_s: float) -> tuple[int, str]:
        if self._count == 0:
            return ERROR, "No events recorded."
        if window_s <= 0:  # the first report, or a simulation that stands still
            return OK, ""
        if events == 0:
            return ERROR, "No events recorded."
        if self._rate_hz and rate_hz < self._rate_hz * (1 - TOLERANCE):
            return WARN, "Frequency too low."
        if self._rate_hz and rate_hz > self._rate_hz * (1 + TOLERANCE):
            return WARN, "Frequency too high."
        return OK, "Desired frequency met"

    def _judge_delays(self, delays_s: list[float]) -> tuple[int, str]:
        if not delays_s:
            return OK, ""
        if self._delay_max_s and max(delays_s) > self._delay_max_s:
            return WARN, "Timestamps too far in past seen."
        return OK, "Timestamps are reasonable."

"""Limits how often recurring problems are logged."""

import threading

from pipeline.process.clock import Clock

_EVERY_S = 10.0


class LogLimit:
    """Allows one line in `every_s`. Thread-safe."""

    def __init__(self, clock: Clock, every_s: float = _EVERY_S) -> None:
        self._clock, self._every_s = clock, every_s
        self._lock = threading.Lock()
        self._logged_at_s: float | None = None
        self._suppressed = 0

    def allow(self) -> int | None:
        """The number of lines suppressed since the last one if a line may be logged now, else None."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            if self._logged_at_s is not None and now_s - self._logged_at_s < self._every_s:
                self._suppressed += 1
                return None
            suppressed, self._logged_at_s, self._suppressed = self._suppressed, now_s, 0
            return suppressed

    def reset(self) -> None:
        """Allow the next line."""
        with self._lock:
            self._logged_at_s, self._suppressed = None, 0

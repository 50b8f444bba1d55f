"""Where time comes from at the edges: a clock that is handed in, never looked up.

Inside the pipeline time is the log's; only writers of a log, servers and the command line ask a clock. Tests hand in a
`ManualClock`, so nothing here or anywhere else calls `time.time()` on its own.
"""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the edges need of time."""

    def now_ms(self) -> int:
        """Wall time in milliseconds since 1970, UTC."""

    def monotonic_s(self) -> float:
        """Seconds that never run backwards, for durations."""

    def wait(self, seconds: float) -> None:
        """Let `seconds` pass; the only way anything here sleeps."""


class SystemClock:
    """The machine's clock. Thread-safe."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


class ManualClock:
    """A clock that moves only when told to. Thread-safe.

    >>> clock = ManualClock(1_000)
    >>> clock.wait(2.5)
    >>> clock.now_ms()
    3500
    """

    def __init__(self, now_ms: int = 0) -> None:
        self._now_ms = now_ms
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._now_ms / 1000

    def wait(self, seconds: float) -> None:
        with self._lock:
            self._now_ms += round(seconds * 1000)

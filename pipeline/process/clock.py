"""Wall time at the edges: a clock that is passed as an argument.

Inside the pipeline, time is event time. A clock decides only when something is done (commits, stored state, timeouts,
append times), never what is emitted or learned. No other module calls `time.time()` or `time.sleep()`, so tests can
pass a manual clock.
"""

import time
from typing import Protocol

LATEST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999. A later time is a mistake, such as microseconds, and no library shows it."""


class Clock(Protocol):
    """Wall time, durations and waiting."""

    def now_ms(self) -> int:
        """Wall time in milliseconds since 1970, UTC."""

    def monotonic_s(self) -> float:
        """Seconds that never decrease, for durations."""

    def wait(self, seconds: float) -> None:
        """Sleep for `seconds`."""


class SystemClock:
    """The machine's clock. Thread-safe."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

"""A clock that tests advance."""

import threading


class ManualClock:
    """A clock that only `wait` advances. Thread-safe."""

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

"""Large requests and scrapes give way to small requests: they wait between their steps until none is in progress."""

from pipeline.process.clock import Clock
from pipeline.serving.rest.lane import Lane

_LONGEST_WAIT_S = 0.05
_WAIT_PER_WORK = 3.0
"""However many small requests there are, and if one never ends, the others get this share of the time."""


class GiveWay:
    """Called between two steps; belongs to one thread."""

    def __init__(self, small: Lane, clock: Clock) -> None:
        self._small, self._clock = small, clock
        self._began_s, self._waited_s = clock.monotonic_s(), 0.0

    def __call__(self) -> None:
        """Wait until `small` is idle, but in all not longer than three times as long as the work took."""
        now_s = self._clock.monotonic_s()
        worked_s = now_s - self._began_s - self._waited_s
        allowed_s = min(_LONGEST_WAIT_S, _WAIT_PER_WORK * worked_s - self._waited_s)
        if allowed_s > 0:
            self._small.wait_until_idle(allowed_s)
            self._waited_s += self._clock.monotonic_s() - now_s

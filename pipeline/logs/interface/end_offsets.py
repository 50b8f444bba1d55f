"""End offsets and lags for display: the caller never waits long for an unavailable log.

Code that reads or appends waits up to a minute for a broker that restarts; a metrics scrape or a status must not. The
end offset is therefore requested in a thread of its own, one at a time, and until that request has ended no other one
is sent.
"""

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from pipeline.logs.interface.log import Log

TIMEOUT_S = 1.0


class EndOffsets:
    """Thread-safe."""

    def __init__(self, log: Log, timeout_s: float = TIMEOUT_S) -> None:
        self._log, self._timeout_s = log, timeout_s
        self._lock = threading.Lock()
        self._pending: Future[int] | None = None

    def end_offset(self, topic: str, partition: int) -> int | None:
        """`Log.end_offset`; None if it does not return in time. Raises its LogError if it fails in time."""
        with self._lock:
            if self._pending is not None and not self._pending.done():
                return None
            pending = self._pending = Future[int]()
            arguments = (pending, topic, partition)
            threading.Thread(target=self._request, args=arguments, name="end offset", daemon=True).start()
            try:
                return pending.result(self._timeout_s)
            except FutureTimeoutError:
                return None

    def lag(self, topic: str, partition: int, offset: int) -> int | None:
        """Records from `offset` to the end; None if the log does not respond in time. Raises as `end_offset`."""
        end = self.end_offset(topic, partition)
        return None if end is None else max(0, end - offset)

    def _request(self, pending: Future[int], topic: str, partition: int) -> None:
        try:
            pending.set_result(self._log.end_offset(topic, partition))
        except Exception as failure:
            # After the timeout nothing reads the future; the log itself counts failed calls.
            pending.set_exception(failure)

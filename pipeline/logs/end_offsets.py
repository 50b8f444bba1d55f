"""Where partitions end, for those who only show it: a log that is away is not waited for.

A broker that restarts is worth a minute to whoever works with the log, and none to a scrape or a status. The question
is then left to a thread of its own, one at a time, and until that has its answer nobody asks again.
"""

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTimeError

from pipeline.logs.log import Log

WITHIN_S = 1.0


class Ends:
    """Thread-safe."""

    def __init__(self, log: Log, within_s: float = WITHIN_S) -> None:
        self._log, self._within_s = log, within_s
        self._turn = threading.Lock()
        self._asked: Future[int] | None = None

    def end(self, topic: str, partition: int) -> int | None:
        """`Log.end_offset`; None where the log does not tell in time. Raises LogError where it does, and cannot."""
        with self._turn:
            if self._asked is not None and not self._asked.done():
                return None
            asked = self._asked = Future[int]()
            threading.Thread(target=self._ask, args=(asked, topic, partition), name="ends", daemon=True).start()
            try:
                return asked.result(self._within_s)
            except NotInTimeError:
                return None

    def lag(self, topic: str, partition: int, offset: int) -> int | None:
        """Records from `offset` to the end; None where the log does not tell in time. Raises as `end`."""
        end = self.end(topic, partition)
        return None if end is None else max(0, end - offset)

    def _ask(self, asked: Future[int], topic: str, partition: int) -> None:
        try:
            asked.set_result(self._log.end_offset(topic, partition))
        except Exception as failure:
            # For whoever still waits; later nobody does, and the log has counted it.
            asked.set_exception(failure)

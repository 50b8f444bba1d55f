"""A lane: a few threads with a bounded queue that compute the responses to requests of one kind.

The threads are daemons: a function of the user that never returns must not keep the process from its end. That is why
this is no `ThreadPoolExecutor`, which waits for its threads at exit.
"""

import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from pipeline.process.clock import Clock
from pipeline.serving.link.response import Refusal, Response

Work = Callable[[], Response]
Respond = Callable[[Response], None]

_LONGEST_PAUSE_S = 1.0


class _Task(NamedTuple):
    work: Work
    respond: Respond
    expires_s: float


class Lane:
    """Thread-safe."""

    def __init__(self, name: str, threads: int, waiting: int, clock: Clock, share: float = 1.0) -> None:
        """Start `threads` threads; at most `waiting` requests wait for one.

        A thread works for `share` of the time: after a request it pauses in proportion, so that requests of this lane
        leave the processor to other lanes.
        """
        self.name, self._clock, self._limit = name, clock, threads + waiting
        self._pause_per_s = 1 / share - 1
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._pending = 0
        self._started_s: dict[int, float] = {}
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"{name} {number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work, respond: Respond, deadline_s: float) -> None:
        """Pass the response of `work` to `respond`, in a thread of the lane; neither may raise.

        Work that has not begun within `deadline_s` is skipped. Raises Refusal with 503 if the queue is full.
        """
        if not self._admit():
            text = f"too many requests wait for a thread, at most {self._limit} are accepted. hint: retry later"
            raise Refusal(503, text, ("retry-after", "1"))
        self._tasks.put(_Task(work, respond, self._clock.monotonic_s() + deadline_s))

    def wait_until_idle(self, timeout_s: float) -> None:
        """Wait until no request is waiting or running, at most `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending, timeout_s)

    def stuck(self, after_s: float) -> bool:
        """Whether every thread has been running one request for longer than `after_s`."""
        started_s, now_s = list(self._started_s.values()), self._clock.monotonic_s()
        return len(started_s) == len(self._threads) and all(now_s - started > after_s for started in started_s)

    def close(self) -> None:
        """End the threads after their current request; returns at once."""
        for _ in self._threads:
            self._tasks.put(None)

    def _admit(self) -> bool:
        with self._changed:
            if self._pending >= self._limit:
                return False
            self._pending += 1
            return True

    def _work(self, number: int) -> None:
        while (task := self._tasks.get()) is not None:
            started_s = self._started_s[number] = self._clock.monotonic_s()
            try:
                if started_s < task.expires_s:
                    task.respond(task.work())
            finally:
                del self._started_s[number]
                with self._changed:
                    self._pending -= 1
                    if not self._pending:
                        self._changed.notify_all()
            if self._pause_per_s:
                self._clock.wait(min(_LONGEST_PAUSE_S, self._pause_per_s * (self._clock.monotonic_s() - started_s)))

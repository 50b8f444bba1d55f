"""The queue of one hook: its notices are delivered in order by a thread of its own, with retries.

A hook that is slow, fails or raises therefore delays and stops no other hook. Memory is bounded: notices beyond the
queue's size fail at once.
"""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from pipeline.configuration.model.training import HookDelivery
from pipeline.process.clock import Clock

_MAX_WAIT_S = 60.0


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed; `final` if another attempt would fail too."""

    problem: str
    final: bool = False


class Hook(Protocol):
    """A receiver of notices; `name` contains no secret."""

    name: str

    def send(self, encoded: bytes) -> Failure | None:
        """Deliver a notice within the configured time; returns why it was not delivered."""


class Report(Protocol):
    """Records notices that one hook did not receive."""

    def __call__(self, hook: str, notice_id: str, problem: str, notices: int = 1) -> None: ...


class HookQueue:
    """Thread-safe. `close` waits for deliveries up to a timeout."""

    def __init__(self, hook: Hook, delivery: HookDelivery, clock: Clock, report: Report) -> None:
        self._hook, self._delivery, self._clock, self._report = hook, delivery, clock, report
        self._pending: deque[tuple[str, bytes]] = deque()
        """Ids and bytes of notices not delivered; the delivery of the first may be in progress."""
        self._worker: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, notice_id: str, encoded: bytes) -> None:
        """Queue a notice; one that does not fit is reported."""
        with self._lock:
            full = len(self._pending) >= self._delivery.queue_events
            if not full:
                self._pending.append((notice_id, encoded))
                if self._worker is None:
                    self._worker = threading.Thread(target=self._deliver, name=f"hook {self._hook.name}", daemon=True)
                    self._worker.start()
        if full:
            self._report(self._hook.name, notice_id, f"{self._delivery.queue_events} earlier notices are pending")

    def close(self, timeout_s: float) -> None:
        """Wait until all notices are delivered; report those pending after `timeout_s` and drop them."""
        with self._lock:
            worker = self._worker
        if worker is not None:
            worker.join(max(0.0, timeout_s))
        with self._lock:
            dropped = [notice_id for notice_id, _ in self._pending]
            self._pending.clear()
        if dropped:
            problem = (
                f"{len(dropped)} notices dropped at the end, this one first: they took longer than {timeout_s:g} s"
            )
            self._report(self._hook.name, dropped[0], problem, len(dropped))

    def _deliver(self) -> None:
        """Deliver notices in order until none is pending."""
        while (notice := self._first()) is not None:
            problem = self._send(notice)
            with self._lock:
                if not self._is_first(notice):
                    continue  # dropped and reported by `close`
                self._pending.popleft()
            if problem is not None:
                self._report(self._hook.name, notice[0], problem)

    def _first(self) -> tuple[str, bytes] | None:
        """The notice to deliver; None ends the worker."""
        with self._lock:
            if self._pending:
                return self._pending[0]
            self._worker = None
            return None

    def _is_first(self, notice: tuple[str, bytes]) -> bool:
        return bool(self._pending) and self._pending[0] is notice

    def _send(self, notice: tuple[str, bytes]) -> str | None:
        """Attempt to deliver a notice until it is delivered, dropped, or the attempts are used up; the last problem."""
        wait_s, attempt = self._delivery.retry_after_s, 1
        while (failure := self._attempt(notice[1])) is not None:
            if failure.final or attempt >= self._delivery.attempts or not self._is_first(notice):
                return failure.problem + (f" (after {attempt} attempts)" if attempt > 1 else "")
            self._clock.wait(wait_s)
            wait_s, attempt = min(2 * wait_s, _MAX_WAIT_S), attempt + 1
        return None

    def _attempt(self, encoded: bytes) -> Failure | None:
        try:
            return self._hook.send(encoded)
        except Exception as failure:  # whatever it is, it must not end the thread: the next notices would pile up
            return Failure(f"{type(failure).__name__} in the hook")

"""Hooks: announce published versions and rollbacks as CloudEvents 1.0 in structured JSON.

The notices topic receives every event and is the record. A webhook and an executable, if configured, receive it too,
from a separate thread. If one fails or times out, the failure is logged, counted and appended to the topic as
`springtide.hook.failed`, and training continues.
"""

import subprocess
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from pipeline.configuration.project import Project
from pipeline.errors import SpringtideError
from pipeline.logs.interface.log import Log

VERSION_PUBLISHED = "springtide.version.published"
ROLLBACK = "springtide.rollback"
HOOK_FAILED = "springtide.hook.failed"

_TIMEOUT_S = 5.0
_CLOSE_S = 10.0
_QUEUE_EVENTS = 1_000

logger = structlog.get_logger(__name__)


def announce(project: Project, log: Log, event_type: str, subject: str, data: Mapping[str, Any]) -> None:
    """Announce one event and wait for its hooks, at most as long as `Hooks.close` does."""
    with closing(Hooks(project, log)) as hooks:
        hooks.announce(event_type, subject, data)


class Hooks:
    """Announces events in order. Thread-safe. `close` waits for deliveries up to a timeout."""

    def __init__(self, project: Project, log: Log) -> None:
        self._project, self._log = project, log
        self._webhook, self._executable = project.config.publish.webhook, project.config.publish.executable
        self._pending: deque[tuple[str, bytes]] = deque()
        """Ids and bytes of events not delivered to the hooks; the delivery of the first may be in progress."""
        self._worker: threading.Thread | None = None
        self._lock = threading.RLock()
        self.failures = 0
        log.create_topic(project.config.topics.notices, 1)

    def announce(self, event_type: str, subject: str, data: Mapping[str, Any]) -> None:
        """Append the event to the notices topic, then queue it for webhook and executable.

        Args:
            event_type: for example VERSION_PUBLISHED.
            subject: what the event concerns, for example `g0/s0-of-1/42`. Type and subject form the event's id, so that
                receivers recognise an announcement repeated after a crash.
            data: JSON-able.
        """
        event_id = f"{event_type}:{subject}"
        encoded = self._append(event_type, subject, event_id, data)
        if not (self._webhook or self._executable):
            return
        with self._lock:
            if len(self._pending) >= _QUEUE_EVENTS:
                self._fail("queue", event_id, f"{_QUEUE_EVENTS} events are pending for slow hooks")
                return
            self._pending.append((event_id, encoded))
            if self._worker is None:
                self._worker = threading.Thread(target=self._deliver, name="hooks", daemon=True)
                self._worker.start()

    def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Wait until all events are delivered; events pending after `timeout_s` are dropped and count as failures."""
        with self._lock:
            worker = self._worker
        if worker is not None:
            worker.join(timeout_s)
        with self._lock:
            dropped = [event_id for event_id, _ in self._pending]
            self._pending.clear()
            if dropped:
                problem = f"{len(dropped)} events dropped, this one first: the hooks took longer than {timeout_s:g} s"
                self._fail("close", dropped[0], problem, len(dropped))

    def _append(self, event_type: str, subject: str, event_id: str, data: Mapping[str, Any]) -> bytes:
        attributes = {
            "id": event_id,
            "source": f"/springtide/{self._project.config.name}",
            "type": event_type,
            "specversion": "1.0",
            "subject": subject,
            "time": datetime.fromtimestamp(self._project.clock.now_ms() / 1000, UTC),
            "datacontenttype": "application/json",
        }
        encoded = JSONFormat().write(CloudEvent(attributes, dict(data)))
        self._log.append(self._project.config.topics.notices, 0, [encoded])
        return bytes(encoded)

    def _deliver(self) -> None:
        """Deliver events to the hooks in order until none is pending."""
        while (event := self._next()) is not None:
            problems = list(self._call_hooks(event[1]))
            with self._lock:
                if not self._pending or self._pending[0] is not event:
                    continue  # dropped and reported by `close`
                for hook, problem in problems:
                    self._fail(hook, event[0], problem)
                self._pending.popleft()

    def _next(self) -> tuple[str, bytes] | None:
        """The event to deliver; None ends the worker."""
        with self._lock:
            if self._pending:
                return self._pending[0]
            self._worker = None
            return None

    def _call_hooks(self, encoded: bytes) -> Iterator[tuple[str, str]]:
        """Call the hooks with one event; yields each hook that failed, and the reason."""
        if self._webhook and (problem := _post(self._webhook, encoded)):
            yield self._webhook, problem
        if self._executable and (problem := _execute(self._project.root, self._executable, encoded)):
            yield self._executable, problem

    def _fail(self, hook: str, event_id: str, problem: str, events: int = 1) -> None:
        with self._lock:
            self.failures += events
            count = self.failures
        logger.error("hook failed", hook=hook, about=event_id, problem=problem)
        data = {"hook": hook, "event": event_id, "problem": problem}
        try:
            self._append(HOOK_FAILED, event_id, f"{HOOK_FAILED}:{event_id}:{hook}:{count}", data)
        except SpringtideError as failure:  # the log is unavailable; the next append raises
            logger.error("hook failure cannot be appended", problem=str(failure))


def _post(url: str, encoded: bytes) -> str | None:
    """POST an event; returns the reason of a failure."""
    headers = {"Content-Type": JSONFormat.CONTENT_TYPE}
    try:
        request = urllib.request.Request(url, encoded, headers, method="POST")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            return None
    except (OSError, ValueError, urllib.error.URLError) as failure:
        return str(failure)


def _execute(root: Path, executable: str, encoded: bytes) -> str | None:
    """Run a program of the project folder with the event on its stdin; returns the reason of a failure."""
    try:
        done = subprocess.run(
            [root / executable], input=encoded, capture_output=True, timeout=_TIMEOUT_S, cwd=root, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        return str(failure)
    if done.returncode:
        return f"ended with {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}"
    return None

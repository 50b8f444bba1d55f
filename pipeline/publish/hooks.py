"""Hooks: tells the world about published versions and rollbacks, as CloudEvents 1.0 in structured JSON.

The notices topic gets every event and is the record. A webhook and an executable, where configured, get it too, from a
thread of their own: what fails there, or is too slow, is logged, counted and noted in the topic as
`springtide.hook.failed`, and training goes on.
"""

import subprocess
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from pipeline.configuration.project import Project
from pipeline.errors import SpringtideError
from pipeline.logs.log import Log

VERSION_PUBLISHED = "springtide.version.published"
ROLLBACK = "springtide.rollback"
HOOK_FAILED = "springtide.hook.failed"

_TIMEOUT_S = 5.0
_CLOSE_S = 10.0
_QUEUE_EVENTS = 1_000

_talk = structlog.get_logger(__name__)


def announce(project: Project, log: Log, event_type: str, subject: str, data: Mapping[str, Any]) -> None:
    """Announce one event and let every hook have it, for as long as `Hooks.close` waits."""
    hooks = Hooks(project, log)
    try:
        hooks.announce(event_type, subject, data)
    finally:
        hooks.close()


class Hooks:
    """Announces events in order. Thread-safe; `close` waits for what is under way, but not for long."""

    def __init__(self, project: Project, log: Log) -> None:
        self._project, self._log = project, log
        self._webhook, self._executable = project.config.publish.webhook, project.config.publish.executable
        self._waiting: deque[tuple[str, bytes]] = deque()
        """Events the hooks have not had; the first one may be under way."""
        self._worker: threading.Thread | None = None
        self._lock = threading.RLock()
        self.failures = 0
        log.create_topic(project.config.topics.notices, 1)

    def announce(self, event_type: str, subject: str, data: Mapping[str, Any]) -> None:
        """Append the event to the notices topic, then hand it to webhook and executable.

        Args:
            event_type: such as VERSION_PUBLISHED.
            subject: what it is about, such as `g0/s0-of-1/42`. With the type it is the event's id: an announcement that
                is repeated after a crash can be told by it.
            data: JSON-able.
        """
        event_id = f"{event_type}:{subject}"
        encoded = self._note(event_type, subject, event_id, data)
        if not (self._webhook or self._executable):
            return
        with self._lock:
            if len(self._waiting) >= _QUEUE_EVENTS:
                self._fail("queue", event_id, f"{_QUEUE_EVENTS} events are waiting for slow hooks")
                return
            self._waiting.append((event_id, encoded))
            if self._worker is None:
                self._worker = threading.Thread(target=self._deliver, name="hooks", daemon=True)
                self._worker.start()

    def close(self, within_s: float = _CLOSE_S) -> None:
        """Let the hooks finish what was announced; what they have not had `within_s` from now is dropped, and noted."""
        with self._lock:
            worker = self._worker
        if worker is not None:
            worker.join(within_s)
        with self._lock:
            dropped = [event_id for event_id, _ in self._waiting]
            self._waiting.clear()
            if dropped:
                problem = f"{len(dropped)} events dropped, this one first: the hooks did not end within {within_s:g} s"
                self._fail("close", dropped[0], problem, len(dropped))

    def _note(self, event_type: str, subject: str, event_id: str, data: Mapping[str, Any]) -> bytes:
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
        """Bring events to the hooks, one after the other, until none waits."""
        while (event := self._next()) is not None:
            problems = list(self._bring(event[1]))
            with self._lock:
                if not self._waiting or self._waiting[0] is not event:
                    continue  # dropped meanwhile, which was said
                for hook, problem in problems:
                    self._fail(hook, event[0], problem)
                self._waiting.popleft()

    def _next(self) -> tuple[str, bytes] | None:
        """The event to bring; where there is none, the worker's work is done."""
        with self._lock:
            if self._waiting:
                return self._waiting[0]
            self._worker = None
            return None

    def _bring(self, encoded: bytes) -> Iterator[tuple[str, str]]:
        """Tell the hooks of one event; gives those that failed, and why."""
        if self._webhook and (problem := _post(self._webhook, encoded)):
            yield self._webhook, problem
        if self._executable and (problem := _execute(self._project.root, self._executable, encoded)):
            yield self._executable, problem

    def _fail(self, hook: str, event_id: str, problem: str, events: int = 1) -> None:
        with self._lock:
            self.failures += events
            count = self.failures
        _talk.error("hook failed", hook=hook, about=event_id, problem=problem)
        data = {"hook": hook, "event": event_id, "problem": problem}
        try:
            self._note(HOOK_FAILED, event_id, f"{HOOK_FAILED}:{event_id}:{hook}:{count}", data)
        except SpringtideError as failure:  # the log itself fails: whoever appends next will say so
            _talk.error("hook failure cannot be noted", problem=str(failure))


def _post(url: str, encoded: bytes) -> str | None:
    """POST an event; returns what went wrong."""
    headers = {"Content-Type": JSONFormat.CONTENT_TYPE}
    try:
        request = urllib.request.Request(url, encoded, headers, method="POST")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            return None
    except (OSError, ValueError, urllib.error.URLError) as failure:
        return str(failure)


def _execute(root: Path, executable: str, encoded: bytes) -> str | None:
    """Run a program beside the configuration with the event on its stdin; returns what went wrong."""
    try:
        done = subprocess.run(
            [root / executable], input=encoded, capture_output=True, timeout=_TIMEOUT_S, cwd=root, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        return str(failure)
    if done.returncode:
        return f"ended with {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}"
    return None

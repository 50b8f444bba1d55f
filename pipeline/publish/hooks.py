"""Hooks: tells the world about published versions and rollbacks, as CloudEvents 1.0 in structured JSON.

The notices topic gets every event and is the record. A webhook and an executable, where configured, get it too, from a
thread of their own: what fails there is logged, counted and noted in the topic as `freshet.hook.failed`, and training
goes on.
"""

import queue
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from pipeline.ground.errors import FreshetError
from pipeline.ground.project import Project
from pipeline.logs.log import Log

VERSION_PUBLISHED = "freshet.version.published"
ROLLBACK = "freshet.rollback"
HOOK_FAILED = "freshet.hook.failed"

_TIMEOUT_S = 5.0
_QUEUE_EVENTS = 1_000

_talk = structlog.get_logger(__name__)


def announce(project: Project, log: Log, event_type: str, subject: str, data: Mapping[str, Any]) -> None:
    """Announce one event and wait until every hook has had it."""
    hooks = Hooks(project, log)
    try:
        hooks.announce(event_type, subject, data)
    finally:
        hooks.close()


class Hooks:
    """Announces events in order. Thread-safe; `close` waits for what is under way."""

    def __init__(self, project: Project, log: Log) -> None:
        self._project, self._log = project, log
        self._webhook, self._executable = project.config.publish.webhook, project.config.publish.executable
        self._waiting: queue.Queue[tuple[str, bytes] | None] = queue.Queue(_QUEUE_EVENTS)
        self._worker: threading.Thread | None = None
        self._lock = threading.Lock()
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
        self._start()
        try:
            self._waiting.put_nowait((event_id, encoded))
        except queue.Full:
            self._fail("queue", event_id, f"{_QUEUE_EVENTS} events are waiting for slow hooks")

    def close(self) -> None:
        """Let the hooks finish what was announced."""
        if self._worker:
            self._waiting.put(None)
            self._worker.join()
            self._worker = None

    def _note(self, event_type: str, subject: str, event_id: str, data: Mapping[str, Any]) -> bytes:
        attributes = {
            "id": event_id,
            "source": f"/freshet/{self._project.config.name}",
            "type": event_type,
            "specversion": "1.0",
            "subject": subject,
            "time": datetime.fromtimestamp(self._project.clock.now_ms() / 1000, UTC),
            "datacontenttype": "application/json",
        }
        encoded = JSONFormat().write(CloudEvent(attributes, dict(data)))
        self._log.append(self._project.config.topics.notices, 0, [encoded])
        return bytes(encoded)

    def _start(self) -> None:
        with self._lock:
            if self._worker is None:
                self._worker = threading.Thread(target=self._deliver, name="hooks", daemon=True)
                self._worker.start()

    def _deliver(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            event_id, encoded = waiting
            if self._webhook and (problem := _post(self._webhook, encoded)):
                self._fail(self._webhook, event_id, problem)
            if self._executable and (problem := _execute(self._project.root, self._executable, encoded)):
                self._fail(self._executable, event_id, problem)

    def _fail(self, hook: str, event_id: str, problem: str) -> None:
        with self._lock:
            self.failures += 1
            count = self.failures
        _talk.error("hook failed", hook=hook, about=event_id, problem=problem)
        data = {"hook": hook, "event": event_id, "problem": problem}
        try:
            self._note(HOOK_FAILED, event_id, f"{HOOK_FAILED}:{event_id}:{hook}:{count}", data)
        except FreshetError as failure:  # the log itself fails: whoever appends next will say so
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

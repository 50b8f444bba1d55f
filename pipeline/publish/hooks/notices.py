"""Notices: published versions and rollbacks, announced as CloudEvents 1.0 in structured JSON.

The notices topic receives every notice and is the record. A webhook and an executable, if configured, receive it too,
each through its own queue and thread (`hook_queue.py`). If one fails, the failure is logged, counted and appended to
the topic as `springtide.hook.failed`, and training continues.
"""

import threading
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import structlog
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import SecretStr

from pipeline.configuration.deployment.address import check_webhook
from pipeline.configuration.environment import read_secret
from pipeline.configuration.project import Project
from pipeline.errors import ConfigError, SpringtideError
from pipeline.logs.interface.log import Log
from pipeline.publish.hooks.executable import Executable
from pipeline.publish.hooks.hook_queue import Hook, HookQueue
from pipeline.publish.hooks.webhook import Webhook
from pipeline.telemetry import metrics

VERSION_PUBLISHED = "springtide.version.published"
ROLLBACK = "springtide.rollback"
HOOK_FAILED = "springtide.hook.failed"

logger = structlog.get_logger(__name__)


def announce(project: Project, log: Log, notice_type: str, subject: str, data: Mapping[str, Any]) -> None:
    """Announce one notice and wait for its hooks, at most as long as `Hooks.close` does."""
    with closing(Hooks(project, log)) as hooks:
        hooks.announce(notice_type, subject, data)


class Hooks:
    """Announces notices in order. Thread-safe. `close` waits for deliveries up to a timeout."""

    def __init__(self, project: Project, log: Log) -> None:
        """Raises ConfigError if the webhook's URL is in a file or variable that cannot be read."""
        self._project, self._log = project, log
        delivery = project.config.publish.hooks
        self._queues = [HookQueue(hook, delivery, project.clock, self._fail) for hook in _hooks(project)]
        self._lock = threading.Lock()
        self.failures = 0
        log.create_topic(project.config.topics.notices, 1)

    def announce(self, notice_type: str, subject: str, data: Mapping[str, Any]) -> None:
        """Append the notice to the notices topic, then queue it for webhook and executable.

        Args:
            notice_type: for example VERSION_PUBLISHED.
            subject: what the notice is about, for example `g0/s0-of-1/42`. Type and subject form its id, so that
                receivers recognise an announcement repeated after a crash.
            data: JSON-able.
        """
        notice_id = f"{notice_type}:{subject}"
        encoded = self._append(notice_type, subject, notice_id, data)
        for queue in self._queues:
            queue.put(notice_id, encoded)

    def close(self, timeout_s: float | None = None) -> None:
        """Wait until all notices are delivered; those pending after `timeout_s` are dropped and count as failures.

        The timeout is `publish.hooks.close_s` unless given.
        """
        clock = self._project.clock
        left_s = self._project.config.publish.hooks.close_s if timeout_s is None else timeout_s
        for queue in self._queues:
            began_at_s = clock.monotonic_s()
            queue.close(left_s)
            left_s -= clock.monotonic_s() - began_at_s

    def _append(self, notice_type: str, subject: str, notice_id: str, data: Mapping[str, Any]) -> bytes:
        attributes = {
            "id": notice_id,
            "source": f"/springtide/{self._project.config.name}",
            "type": notice_type,
            "specversion": "1.0",
            "subject": subject,
            "time": datetime.fromtimestamp(self._project.clock.now_ms() / 1000, UTC),
            "datacontenttype": "application/json",
        }
        encoded = JSONFormat().write(CloudEvent(attributes, dict(data)))
        self._log.append(self._project.config.topics.notices, 0, [encoded])
        return bytes(encoded)

    def _fail(self, hook: str, notice_id: str, problem: str, notices: int = 1) -> None:
        with self._lock:
            self.failures += notices
            count = self.failures
        metrics.HOOK_FAILURES.labels(hook).inc(notices)
        logger.error("hook failed", hook=hook, about=notice_id, problem=problem)
        data = {"hook": hook, "event": notice_id, "problem": problem}
        try:
            self._append(HOOK_FAILED, notice_id, f"{HOOK_FAILED}:{notice_id}:{hook}:{count}", data)
        except SpringtideError as failure:  # the log is unavailable; the next append raises
            logger.error("hook failure cannot be appended", problem=str(failure))


def _hooks(project: Project) -> list[Hook]:
    """The configured hooks. Raises ConfigError."""
    publish, hooks = project.config.publish, list[Hook]()
    if publish.webhook is not None:
        hooks.append(Webhook(_webhook_url(project), JSONFormat.CONTENT_TYPE, publish.hooks))
    if publish.executable is not None:
        hooks.append(Executable(project.root, publish.executable, publish.hooks, project.clock))
    return hooks


def _webhook_url(project: Project) -> str:
    configured = project.config.publish.webhook
    assert configured is not None
    if isinstance(configured, SecretStr):
        return configured.get_secret_value()
    try:
        return check_webhook(read_secret(configured, project.root))
    except ValueError as failure:
        raise ConfigError(f"publish.webhook: {failure}") from None

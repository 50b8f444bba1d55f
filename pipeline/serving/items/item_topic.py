"""Follows the topic of items: the last change of each item since the read before. A wrong record is left out, counted
and logged, so that it does not hold the others.
"""

import structlog

from pipeline.logs.interface.log import Log
from pipeline.process.clock import Clock
from pipeline.process.log_limit import LogLimit
from pipeline.recall.item_changes import ItemChange, ItemName, decode_changes
from pipeline.telemetry import metrics

logger = structlog.get_logger(__name__)


class ItemTopic:
    """Not thread-safe."""

    def __init__(self, log: Log, topic: str, column: str, clock: Clock) -> None:
        """Start before the first record. `column` names the items."""
        self._log, self._topic, self._column, self._limit = log, topic, column, LogLimit(clock)
        log.create_topic(topic, 1)
        self.rewind()

    def rewind(self) -> None:
        """Read from the first record again."""
        self._position = self._log.begin_offset(self._topic, 0)

    def read(self) -> list[ItemChange]:
        """The items changed by the next records, each once; empty at the end of the topic. Raises LogError."""
        found: dict[ItemName, ItemChange] = {}
        while not found and (records := self._log.read(self._topic, 0, self._position)):
            for record in records:
                changes, problems = decode_changes(record.value, self._column, record.key)
                found |= {change.name: change for change in changes}
                for problem in problems:
                    self.refuse(f"offset {record.offset}: {problem}")
            self._position = records[-1].offset + 1
        return list(found.values())

    def refuse(self, problem: str) -> None:
        """Count and log, at a bounded rate, an item that is left out."""
        metrics.RECALL_REFUSED.inc()
        if (suppressed := self._limit.allow()) is not None:
            logger.error("item refused", topic=self._topic, problem=problem, suppressed=suppressed)

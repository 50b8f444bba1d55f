"""Reads the topic of items: the changes of its records in their order, and what is wrong with the others."""

from dataclasses import dataclass

from pipeline.logs.interface.log import Log
from pipeline.recall.item_changes import ItemChange, decode_changes


@dataclass(frozen=True)
class ReadChanges:
    """What some records hold."""

    changes: list[ItemChange]
    """In the order of the records."""
    problems: list[str]
    """Of changes that are left out, each with its offset."""
    end: int
    """The offset after the records."""


class ItemTopic:
    """Thread-safe."""

    def __init__(self, log: Log, topic: str, column: str) -> None:
        """Create the topic if there is none. `column` names the items. Raises LogError."""
        self._log, self._topic, self._column = log, topic, column
        log.create_topic(topic, 1)

    def begin(self) -> int:
        """The offset of the first record. Raises LogError."""
        return self._log.begin_offset(self._topic, 0)

    def read(self, start: int) -> ReadChanges | None:
        """The next records from offset `start` on; None at the end of the topic. Raises LogError."""
        records = self._log.read(self._topic, 0, start)
        if not records:
            return None
        found = ReadChanges([], [], records[-1].offset + 1)
        for record in records:
            changes, problems = decode_changes(record.value, self._column, record.key)
            found.changes.extend(changes)
            found.problems.extend(f"offset {record.offset}: {problem}" for problem in problems)
        return found

"""The interface of the log: topics of partitions of ordered records with offsets.

Three engines implement it: SQLite (embedded), Kafka, and an archive of Avro files (read only). One contract test runs
against all of them (`tests/support/world/log_contract.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Headers = Mapping[str, str]

_BACKWARDS_RECORDS = 256


class Record(NamedTuple):
    """One record as read."""

    offset: int
    appended_at_ms: int
    """Append time by the log's clock; never decreases inside a partition, unless that clock is corrected by an hour."""
    value: bytes
    headers: Mapping[str, str] = {}
    key: bytes | None = None
    """Names what the record is about. A compacted topic keeps the last record of each key."""


class NewRecord(NamedTuple):
    """A record that is appended."""

    value: bytes
    headers: Headers
    key: bytes | None


@dataclass(frozen=True)
class ReadLimits:
    """Limits of one `read`, which returns at the first limit reached."""

    records: int = 1_000
    max_bytes: int = 16 << 20
    """At least one record is returned, of whatever size."""
    wait_ms: int = 0
    """How long to wait for a first record at the end of the log."""


@dataclass(frozen=True)
class Fence:
    """The right to append to one partition, valid until a later fence of the partition is acquired."""

    topic: str
    partition: int
    epoch: int


class Log(Protocol):
    """Thread-safe. Every method raises LogError for a topic or partition that does not exist."""

    def create_topic(self, topic: str, partitions: int) -> None:
        """Create the topic if it does not exist. Raises LogError if it has another number of partitions."""

    def topics(self) -> list[str]:
        """Names of all topics, sorted."""

    def partitions(self, topic: str) -> int:
        """Number of partitions of the topic."""

    def log_id(self, topic: str) -> str:
        """The id that the topic got when it was created; a topic deleted and created again has another."""

    def delete_topic(self, topic: str) -> None:
        """Remove the topic with all its records."""

    def begin_offset(self, topic: str, partition: int) -> int:
        """The lowest offset that can still be read."""

    def end_offset(self, topic: str, partition: int) -> int:
        """The offset after the last readable record; the next record gets this offset or a later one."""

    def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        """The first offset appended at or after `at_ms`; the end offset if there is none."""

    def read(self, topic: str, partition: int, start: int, limits: ReadLimits = ReadLimits()) -> list[Record]:
        """Records from `start` on, in order; offsets may have gaps. Empty at the end of the log.

        Raises OffsetError if `start` is below the begin offset or above the end offset.
        """

    def append(
        self,
        topic: str,
        partition: int,
        values: Sequence[bytes],
        *,
        fence: Fence | None = None,
        headers: Headers | Sequence[Headers] | None = None,
        keys: Sequence[bytes] | None = None,
    ) -> int:
        """Append all values durably and atomically; returns the offset of the first.

        `headers` is one mapping for all records, or a sequence with one mapping per value. `keys` has a key, not empty,
        for each value; an empty value with a key is a tombstone, on Kafka a null.

        Raises FencedError if a later fence of the partition was acquired. After a LogError of a broker the outcome is
        unknown and the fence is lost: acquire it again and read what was written.
        """

    def acquire_fence(self, topic: str, partition: int) -> Fence:
        """Acquire the right to append; invalidates every earlier fence of this partition."""

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Remove the records below offset `before`."""

    def close(self) -> None:
        """Release files and connections; the log cannot be used afterwards."""


def read_to_end(log: Log, topic: str, partition: int, start: int | None = None) -> Iterator[list[Record]]:
    """All records from `start` (default: the beginning) to the current end, in the lists that `read` returns."""
    at = log.begin_offset(topic, partition) if start is None else start
    while records := log.read(topic, partition, at):
        yield records
        at = records[-1].offset + 1


def last_record(log: Log, topic: str, partition: int) -> Record | None:
    """The latest record of a partition; None if there is none."""
    return next(records_backwards(log, topic, partition), None)


def records_backwards(log: Log, topic: str, partition: int) -> Iterator[Record]:
    """The records of a partition from the latest to the first. The last offsets may be gaps."""
    begin, stop = log.begin_offset(topic, partition), log.end_offset(topic, partition)
    back = 1
    while begin < stop:
        start = at = max(begin, stop - back)
        found: list[Record] = []
        while at < stop and (records := log.read(topic, partition, at, ReadLimits(records=stop - at))):
            found += [record for record in records if record.offset < stop]
            at = records[-1].offset + 1
        yield from reversed(found)
        stop, back = start, min(2 * back, _BACKWARDS_RECORDS)

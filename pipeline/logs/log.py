"""The log: topics of partitions of ordered records with offsets. What everything else here is a function of.

Three engines speak this interface: SQLite (embedded), Kafka, and an archive of Avro files (read only). The same
contract runs against all of them (`tests/support/log_contract.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.configuration import section
from pipeline.errors import InputError, LogError, OffsetError

Headers = Mapping[str, str]


class Record(NamedTuple):
    """One record as read."""

    offset: int
    appended_at_ms: int
    """Append time by the log's clock; never runs backwards inside a partition."""
    value: bytes
    headers: Mapping[str, str] = {}


@dataclass(frozen=True)
class ReadLimits:
    """When one `read` returns: at the first limit reached."""

    records: int = 1_000
    max_bytes: int = 16 << 20
    """At least one record is returned, however large."""
    wait_ms: int = 0
    """How long to wait for a first record where there is none yet."""


@dataclass(frozen=True)
class Fence:
    """The right to append to one partition, until somebody takes it over."""

    topic: str
    partition: int
    epoch: int


class Log(Protocol):
    """Thread-safe. Every method raises LogError for a topic or partition that does not exist."""

    def create_topic(self, topic: str, partitions: int) -> None:
        """Make the topic, or check that it has just as many partitions. Raises LogError where it has not."""

    def topics(self) -> list[str]:
        """Names of all topics, sorted."""

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""

    def log_id(self, topic: str) -> str:
        """Identity of this making of the topic: another after it was deleted and made again."""

    def delete_topic(self, topic: str) -> None:
        """Remove the topic with all its records."""

    def begin_offset(self, topic: str, partition: int) -> int:
        """The lowest offset that can still be read."""

    def end_offset(self, topic: str, partition: int) -> int:
        """The offset behind the last record that can be read; the next one gets it, or a later one."""

    def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        """The first offset appended at or after `at_ms`; the end offset where there is none."""

    def read(self, topic: str, partition: int, start: int, limits: ReadLimits = ReadLimits()) -> list[Record]:
        """Records from `start` on, in order; gaps are normal. Empty at the end of the log.

        Raises OffsetError where `start` lies below the begin offset or above the end offset.
        """

    def append(
        self,
        topic: str,
        partition: int,
        values: Sequence[bytes],
        *,
        fence: Fence | None = None,
        headers: Headers | Sequence[Headers] | None = None,
    ) -> int:
        """Append all values durably and atomically; returns the offset of the first.

        `headers` are those of every record, or one's own for each in a sequence as long as `values`.

        Raises FencedError where `fence` is no longer the newest of its partition. After a LogError of a broker the
        outcome is unknown and a fence is lost: take it again, and read what was said.
        """

    def acquire_fence(self, topic: str, partition: int) -> Fence:
        """Take the right to append; every earlier fence of this partition is dead from now on."""

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Forget the records below offset `before`."""

    def close(self) -> None:
        """Release files; the log cannot be used afterwards."""


def headers_of_each(headers: Headers | Sequence[Headers] | None, count: int) -> Sequence[Headers]:
    """The headers of each of `count` records that are appended together.

    >>> headers_of_each({"a": "1"}, 2)
    [{'a': '1'}, {'a': '1'}]
    """
    if headers is None or isinstance(headers, Mapping):
        return [headers or {}] * count
    if len(headers) != count:
        raise InputError(f"headers: got {len(headers)} for {count} values, wanted one mapping, or one for each value")
    return headers


def runs_of(log: Log, topic: str, partition: int, start: int | None = None) -> Iterator[list[Record]]:
    """All records from `start` on, or from the beginning, to the end there is; in runs as `read` returns them."""
    at = log.begin_offset(topic, partition) if start is None else start
    while records := log.read(topic, partition, at):
        yield records
        at = records[-1].offset + 1


def last_record(log: Log, topic: str, partition: int) -> Record | None:
    """The newest record of a partition; None where there is none. The last offsets may be gaps, so it looks back."""
    begin, end = log.begin_offset(topic, partition), log.end_offset(topic, partition)
    back = 1
    while begin < end:
        start = max(begin, end - back)
        records = log.read(topic, partition, start, ReadLimits(records=back))
        if records or start == begin:
            return records[-1] if records else None
        back *= 2
    return None


def check_partitions(log: Log, topic: str, read: int) -> None:
    """Raise LogError where `topic` has not just the partitions that are read: one that was added would never be."""
    found = log.partitions(topic)
    if found != read:
        raise LogError(
            f"topic {topic} has {found} partitions, {read} are read. hint: springtide stop, set logs.partitions to "
            f"{found} for both inputs, and run again: a partition that was added is read from its beginning"
        )


def check_start(name: str, start: int, begin: int, end: int) -> None:
    """Raise OffsetError where a read cannot start at `start`."""
    if start < begin:
        raise OffsetError(
            f"partition {name} begins at offset {begin}, offset {start} is gone. hint: it was trimmed, begin there"
        )
    if start > end:
        raise OffsetError(
            f"partition {name} ends at offset {end}, offset {start} is not there yet. hint: is this the same log"
        )


def check_topic_name(topic: str) -> None:
    """Raise LogError for a name that cannot be a folder."""
    try:
        section.check_topic_name(topic)
    except ValueError as failure:
        raise LogError(str(failure)) from None

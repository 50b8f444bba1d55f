"""Ranges of a topic-partition, and how a Beam source reads the next block of one.

A range carries the partition's max event time at its start besides the offsets, because lateness depends on it. A
source does not choose its start, and refuses a log other than the one its offsets belong to.
"""

from dataclasses import dataclass
from typing import NamedTuple

from pipeline.arrays.block import EventKind
from pipeline.errors import LogReplacedError
from pipeline.logs.events.codec import DecodedRun, EventCodec
from pipeline.logs.interface.log import Log, ReadLimits
from pipeline.logs.interface.record_run import SupportsReadRun, read_run

BLOCK_RECORDS = 4_096
BLOCK_BYTES = 256 << 10
"""A block ends at the first of these limits."""
RUN_RECORDS, RUN_BYTES = 16_384, 1 << 20
"""The same limits for a log that reads runs, where the cost of a block outweighs that of its records."""


@dataclass(frozen=True)
class PartitionRange:
    """A range of one partition to read.

    Attributes:
        topic, kind, partition: the partition.
        start: first offset.
        stop: the offset to stop before; None follows the log.
        max_event_time_ms: the partition's max event time before `start`; None if it had no event.
        log_id: the log that the offsets belong to.
        partitions: how many partitions of the topic the job reads.
    """

    topic: str
    kind: EventKind
    partition: int
    start: int
    stop: int | None
    max_event_time_ms: int | None
    log_id: str
    partitions: int


class ReadSize(NamedTuple):
    """How much one read returned."""

    records: int
    value_bytes: int


def read_next(
    log: Log, codec: EventCodec, unread: PartitionRange, poll_ms: int = 0
) -> tuple[DecodedRun | None, ReadSize]:
    """Decode the next records of a range, at most one block; None if there are none.

    Waits up to `poll_ms` for records to arrive.
    """
    topic, partition, stop = unread.topic, unread.partition, unread.stop
    if unread.start == stop:
        return None, ReadSize(0, 0)
    records, max_bytes = (RUN_RECORDS, RUN_BYTES) if isinstance(log, SupportsReadRun) else (BLOCK_RECORDS, BLOCK_BYTES)
    limits = ReadLimits(records if stop is None else min(records, stop - unread.start), max_bytes, poll_ms)
    run = read_run(log, topic, partition, unread.start, limits)
    if stop is not None:
        run = run.before(stop)
    decoded = codec.decode(run, topic, partition, unread.max_event_time_ms) if len(run) else None
    return decoded, ReadSize(len(run), run.value_bytes)


def check_log_id(log: Log, topic: str, log_id: str) -> None:
    """Raise LogReplacedError if `topic` is not the log that the stored offsets belong to."""
    found = log.log_id(topic)
    if found != log_id:
        raise LogReplacedError(
            f"topic {topic} was deleted and created again: its log is {found}, the stored offsets are of {log_id}. "
            "hint: restore the topic, or begin with a new state folder and new topics"
        )

"""Writes events of one kind to the log: packed into blocks, each event in the partition of its key."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import EventKind
from pipeline.arrays.keys import shard_of
from pipeline.configuration.project import Project
from pipeline.configuration.streams.events import EventColumns, Events
from pipeline.ingest.files.chunk import BadRow
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.dead_letters import dead_letter_records, dead_letters
from pipeline.logs.interface.log import Headers, Log

BLOCK_ROWS = 8_192
"""Events per record, at most."""
NO_OFFSET = -1
"""Source offset in the dead letter of a row that was refused before it reached the log."""
_ORIGINAL_BYTES = 512 << 10
"""Bytes of a row that its dead letter keeps: a broker accepts records of up to 1 MiB by default."""


class EventWriter:
    """Appends to the topic of `kind` and, for refused rows, to the dead letters. Not thread-safe."""

    def __init__(self, project: Project, log: Log, kind: EventKind) -> None:
        config = project.config
        self.kind, self.log = kind, log
        self.events = config.events
        self.columns: EventColumns = config.events.by_kind[kind]
        self.topic = config.input_topics[kind]
        self.dead_topic = config.topics.dead_letters
        self.codec = EventCodec(config.events, kind, log)
        self.partitions = log.partitions(self.topic)

    def append(self, batch: pa.RecordBatch) -> None:
        """Append typed events, in order; the columns of `batch` are `at` (int64 ms) and the declared ones."""
        for partition, part in split_by_partition(batch, self.events, self.partitions):
            self.append_part(partition, part, None)

    def append_part(self, partition: int, part: pa.RecordBatch, headers: Headers | None) -> None:
        """Append typed events of one partition, as packed records."""
        starts = range(0, part.num_rows, BLOCK_ROWS)
        values = [self.codec.encode_block(part.slice(start, BLOCK_ROWS)) for start in starts]
        self.log.append(self.topic, partition, values, headers=headers)

    def append_dead_letters(self, file_name: str, bad: list[BadRow], headers: Headers) -> None:
        """Append a dead letter for each bad row of a file: its offset is NO_OFFSET, its row is the line in the file."""
        rows = [
            {
                "reason": row.reason,
                "topic": self.topic,
                "partition": 0,
                "offset": NO_OFFSET,
                "row": row.line,
                "detail": f"{file_name} line {row.line}: {_detail(row)}",
                "original": row.original[:_ORIGINAL_BYTES],
            }
            for row in bad
        ]
        values, letter_headers = dead_letter_records(dead_letters(rows), headers)
        self.log.append(self.dead_topic, 0, values, headers=letter_headers)


def split_by_partition(batch: pa.RecordBatch, events: Events, partitions: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each partition that receives any, in their order."""
    if not batch.num_rows:
        return
    if partitions == 1:
        yield 0, batch
        return
    partition_of = shard_of(batch, events.shard_columns, partitions)
    for partition in range(partitions):
        rows = np.flatnonzero(partition_of == partition)
        if len(rows):
            yield partition, batch.take(pa.array(rows))


def _detail(row: BadRow) -> str:
    cut = len(row.original) - _ORIGINAL_BYTES
    return f"{row.why}; its last {cut} bytes are not kept" if cut > 0 else row.why


def append_heartbeat(project: Project, log: Log, at_ms: int, kinds: Sequence[EventKind] | None = None) -> None:
    """Append to every partition of `kinds` (default: all) a record that declares the input complete before `at_ms`."""
    for kind in project.config.events.by_kind if kinds is None else kinds:
        writer = EventWriter(project, log, kind)
        value = writer.codec.encode_heartbeat(at_ms)
        for partition in range(writer.partitions):
            log.append(writer.topic, partition, [value])

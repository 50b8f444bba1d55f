"""The source in process: a DoFn that reads closed ranges of topic-partitions and emits source blocks."""

from collections.abc import Iterator
from dataclasses import replace

import apache_beam as beam

from pipeline.errors import OffsetError
from pipeline.logs.beam.partition_range import PartitionRange, check_log_id, read_next
from pipeline.logs.beam.source_block import SourceBlock, Transport
from pipeline.logs.beam.worker import LogHandle, Worker
from pipeline.logs.events.codec import EventCodec


class ReadClosedRange(beam.DoFn):  # type: ignore[misc]
    """PartitionRange, closed → its source blocks.

    Raises OffsetError if an offset was trimmed or lost, LogReplacedError if the topic was created again.
    """

    def __init__(self, handle: LogHandle, transport: Transport) -> None:
        self._handle, self._transport = handle, transport

    def process(self, element: PartitionRange) -> Iterator[bytes]:
        worker = self._handle.worker()
        with worker.reporting():
            for block in read_range(worker, element):
                yield self._transport.pack(block)


def read_range(worker: Worker, unread: PartitionRange) -> Iterator[SourceBlock]:
    """The blocks of a closed range, in log order."""
    log = worker.log
    check_log_id(log, unread.topic, unread.log_id)
    codec = EventCodec.of(worker.project, unread.kind, log)
    while decoded := read_next(log, codec, unread)[0]:
        block = SourceBlock.of(unread.start, decoded)
        unread = replace(unread, start=decoded.block.next_offset, max_event_time_ms=decoded.max_event_time_ms)
        yield block
    # Offsets may have gaps, so a range may end without a record.
    if unread.stop is not None and (end := log.end_offset(unread.topic, unread.partition)) < unread.stop:
        raise OffsetError(
            f"{unread.topic}/{unread.partition} ends at offset {end}, the range to read ends at {unread.stop}: "
            "the log has lost records. hint: restore the broker's data, or begin with a new state folder"
        )

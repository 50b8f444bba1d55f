"""The records of one samples partition, for readers that need every one of them.

A foreign or damaged record raises RecordError until an operator has put its offset into quarantine; the error covers
all such records that stand in a row. A readable record is returned even then: the join needs to know what it emitted.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import takewhile

from pipeline.configuration.project import Project
from pipeline.errors import RecordError
from pipeline.logs.events.sample_block import SampleBlock, decode_sample_record
from pipeline.logs.interface.log import Log, ReadLimits, Record
from pipeline.versions.ledger.ledger import Ledger

_LONGEST_ROW = 100_000
"""Foreign records in a row that one error covers in each direction."""
_READ_AT_ONCE = 1_000


class SampleRecords:
    """Decodes the records of one partition. The ledger is read at a record that cannot be read."""

    def __init__(self, project: Project, log: Log, shard: int) -> None:
        self._project, self._log, self._shard = project, log, shard
        self._topic = project.config.topics.samples

    def decode(self, record: Record) -> SampleBlock | None:
        """The samples of a record; None if it cannot be read and is in quarantine. Raises RecordError."""
        try:
            return decode_sample_record(record, self._topic, self._shard)
        except RecordError as failure:
            if self._in_quarantine(record.offset):
                return None
            raise with_foreign_neighbours(self._log, failure) from None

    def decode_all(self, records: Iterable[Record]) -> Iterator[tuple[Record, SampleBlock]]:
        """The readable records with their samples. Raises RecordError."""
        for record in records:
            block = self.decode(record)
            if block is not None:
                yield record, block

    def _in_quarantine(self, offset: int) -> bool:
        config = self._project.config
        ledger = Ledger(self._log, config.topics.ledger, config.logs.shards, self._project.clock, config.name)
        return ledger.quarantines.active(self._shard).covers(offset)


def with_foreign_neighbours(log: Log, failure: RecordError) -> RecordError:
    """The error of a record of the samples topic, for all records in a row around it that cannot be read."""
    topic, partition = failure.topic, failure.partition
    first, stop = failure, failure.offset + 1
    for problem in _foreign_before(log, failure):
        first = problem
    for record in _records_from(log, topic, partition, stop):
        if _problem(record, topic, partition) is None:
            break
        stop = record.offset + 1
    return RecordError(topic, partition, first.offset, first.value, first.problem, stop)


def _foreign_before(log: Log, failure: RecordError) -> Iterator[RecordError]:
    """The errors of the records before, backwards to the last readable one."""
    topic, partition, stop = failure.topic, failure.partition, failure.offset
    lowest = max(log.begin_offset(topic, partition), stop - _LONGEST_ROW)
    while stop > lowest:
        start = max(lowest, stop - _READ_AT_ONCE)
        records = _records_from(log, topic, partition, start)
        for record in reversed(list(takewhile(partial(_before, stop), records))):
            problem = _problem(record, topic, partition)
            if problem is None:
                return
            yield problem
        stop = start


def _before(stop: int, record: Record) -> bool:
    return record.offset < stop


def _records_from(log: Log, topic: str, partition: int, start: int) -> Iterator[Record]:
    """At most `_LONGEST_ROW` records from `start` on."""
    for _ in range(_LONGEST_ROW // _READ_AT_ONCE):
        records = log.read(topic, partition, start, ReadLimits(records=_READ_AT_ONCE))
        if not records:
            return
        yield from records
        start = records[-1].offset + 1


def _problem(record: Record, topic: str, partition: int) -> RecordError | None:
    try:
        decode_sample_record(record, topic, partition)
    except RecordError as failure:
        return failure
    return None

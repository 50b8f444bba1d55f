"""The records of one samples partition, for readers that need every one of them.

A foreign or damaged record raises RecordError until an operator has put its offset into quarantine. A readable record
is returned even then: the join needs to know what it emitted.
"""

from collections.abc import Iterable, Iterator

from pipeline.configuration.project import Project
from pipeline.errors import RecordError
from pipeline.logs.events.sample_block import SampleBlock, decode_sample_record
from pipeline.logs.interface.log import Record
from pipeline.versions.ledger.ledger import LEDGER_FILE, Ledger


class SampleRecords:
    """Decodes the records of one partition. The ledger is opened at the first record that cannot be read."""

    def __init__(self, project: Project, shard: int) -> None:
        self._project, self._shard = project, shard
        self._topic = project.config.topics.samples

    def decode(self, record: Record) -> SampleBlock | None:
        """The samples of a record; None if it cannot be read and is in quarantine. Raises RecordError."""
        try:
            return decode_sample_record(record, self._topic, self._shard)
        except RecordError:
            if self._in_quarantine(record.offset):
                return None
            raise

    def decode_all(self, records: Iterable[Record]) -> Iterator[tuple[Record, SampleBlock]]:
        """The readable records with their samples. Raises RecordError."""
        for record in records:
            block = self.decode(record)
            if block is not None:
                yield record, block

    def _in_quarantine(self, offset: int) -> bool:
        path = self._project.versions / LEDGER_FILE
        if not path.exists():
            return False
        ledger = Ledger(path, self._project.clock)
        try:
            return ledger.quarantines.active(self._shard).covers(offset)
        finally:
            ledger.close()

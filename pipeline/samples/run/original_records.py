"""The original bytes of dead letters: of an event that is a single record, that record as it is in the log."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import DEAD_LETTER_SCHEMA, DeadLetters
from pipeline.errors import DamagedError
from pipeline.formats.schemas import load_schema, unframe
from pipeline.logs.interface.log import Log, ReadLimits
from pipeline.logs.interface.record_run import read_run

_NEAR_RECORDS, _MOST_BYTES = 1_024, 1 << 20
"""Records no further apart are read in one request, up to so many bytes: on Kafka a seek costs more than it saves."""


def with_originals(letters: DeadLetters, log: Log) -> DeadLetters:
    """The same letters with their original bytes.

    Letters of packed rows, and letters whose record was trimmed, keep the row as JSON.
    """
    table = letters.table
    originals = table.column("original").to_pylist()
    letters_of: defaultdict[tuple[str, int], dict[int, int]] = defaultdict(dict)
    places = zip(*(table.column(n).to_pylist() for n in ("topic", "partition", "offset", "row")), strict=True)
    for letter, (topic, partition, offset, row) in enumerate(places):
        # Only a packed record has a second row; every first row has to be checked.
        if not row:
            letters_of[topic, partition][offset] = letter
    for (topic, partition), by_offset in letters_of.items():
        for offset, value in _values(log, topic, partition, sorted(by_offset)):
            if not _packed(value):
                originals[by_offset[offset]] = value
    column = DEAD_LETTER_SCHEMA.get_field_index("original")
    return DeadLetters(table.set_column(column, DEAD_LETTER_SCHEMA.field(column), pa.array(originals, pa.binary())))


def _packed(value: bytes) -> bool:
    try:
        return unframe(value)[0] == load_schema("event_block").id
    except DamagedError:
        return False  # a JSON event has no frame


def _values(log: Log, topic: str, partition: int, offsets: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """(offset, value) of the records at [n] ascending `offsets` that are still in the log."""
    begins = log.begin_offset(topic, partition)
    wanted = np.array([offset for offset in offsets if offset >= begins], np.int64)
    while len(wanted):
        gaps = np.flatnonzero(np.diff(wanted) > _NEAR_RECORDS)
        last = int(wanted[gaps[0] if len(gaps) else -1])
        run = read_run(log, topic, partition, int(wanted[0]), ReadLimits(last - int(wanted[0]) + 1, _MOST_BYTES))
        rows = np.flatnonzero(np.isin(run.offsets, wanted))
        yield from zip(run.offsets[rows].tolist(), run.values.take(pa.array(rows)).to_pylist(), strict=True)
        # A requested offset may be a gap: it is finished, found or not.
        wanted = wanted[wanted >= max(run.next_offset, int(wanted[0]) + 1)]

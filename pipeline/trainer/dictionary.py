"""The operator's dictionary: raw values behind keys, bounded per field. Training never reads it.

It is a help, not a truth: kept outside the versions, never rolled back, and full once the bound is reached. Written
with every commit, in blocks of keys and texts as packed columns; read by people, who can wait for a whole field.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.features.plan import FeaturePlan
from pipeline.ground.block import UInt64s
from pipeline.ground.project import Project
from pipeline.logs.columns import pack, unpack
from pipeline.trainer.prefetch import PreparedBatch
from pipeline.versions.database import Database

_SCHEMA = """
CREATE TABLE block (field TEXT NOT NULL, entries INTEGER NOT NULL, columns BLOB NOT NULL);
CREATE INDEX block_of_field ON block (field);
"""
_SCHEMA_VERSION = 2
_COLUMNS = pa.schema([("key", pa.uint64()), ("text", pa.string())])
_MOST_CHARACTERS = 120


class Dictionary:
    """Remembers the raw values of the first keys that were admitted. One writer, any readers."""

    def __init__(self, project: Project, shard: int) -> None:
        self._db = Database(project.versions / f"dictionary-{shard}.sqlite", _SCHEMA, _SCHEMA_VERSION)
        self._most = project.config.train.dictionary_size
        counted = self._db.read("SELECT field, sum(entries) AS n FROM block GROUP BY field")
        self._known = {row["field"]: int(row["n"]) for row in counted}
        self._waiting: defaultdict[str, list[pa.RecordBatch]] = defaultdict(list)

    def note(self, field: str, plan: FeaturePlan, prepared: PreparedBatch, admitted: npt.NDArray[np.int64]) -> None:
        """Keep the values of newly admitted keys, given as indices into the batch's distinct keys of `field`."""
        room = self._most - self._known.get(field, 0)
        admitted = admitted[: max(room, 0)]
        if not len(admitted):
            return
        places = prepared.fields[field].first_occurrences(admitted)
        texts = plan.describe(field, prepared.batch.samples, prepared.impression_at_ms, places)
        columns = [pa.array(prepared.fields[field].keys[admitted]), pc.utf8_slice_codeunits(texts, 0, _MOST_CHARACTERS)]
        self._waiting[field].append(pa.RecordBatch.from_arrays(columns, schema=_COLUMNS))
        self._known[field] = self._known.get(field, 0) + len(admitted)

    def write(self) -> None:
        """Make what was noted durable."""
        if self._waiting:
            whole = {field: pa.concat_batches(batches) for field, batches in self._waiting.items()}
            rows = [(field, batch.num_rows, pack(batch)) for field, batch in whole.items()]
            with self._db.transaction() as connection:
                connection.executemany("INSERT INTO block VALUES (?, ?, ?)", rows)
            self._waiting.clear()

    def values(self, field: str, keys: UInt64s) -> Sequence[str | None]:
        """[n] the raw value of each key, None where it is not known."""
        blocks = self._db.read("SELECT entries, columns FROM block WHERE field = ?", (field,))
        batches = [unpack(block["columns"], block["entries"]) for block in blocks]
        known = pa.Table.from_batches(batches, _COLUMNS).combine_chunks()
        places = pc.index_in(pa.array(keys), value_set=known["key"])
        texts: list[str | None] = known["text"].take(places).to_pylist()
        return texts

    def close(self) -> None:
        self._db.close()

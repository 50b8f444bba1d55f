"""The operator's dictionary: raw values behind keys, bounded per field. Training never reads it.

It is a help, not a truth: kept outside the versions, never rolled back, and full once the bound is reached. Written
with every commit, in blocks of keys and texts as packed columns; read by people, who can wait for a whole field.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import UInt64s
from pipeline.configuration.project import Project
from pipeline.features.plan import FeaturePlan
from pipeline.formats.columns import pack, unpack
from pipeline.trainer.batch.prefetch import PreparedBatch
from pipeline.versions.ledger.database import Database

_SCHEMA = """
CREATE TABLE block (field TEXT NOT NULL, entries INTEGER NOT NULL, columns BLOB NOT NULL);
CREATE INDEX block_of_field ON block (field);
"""
_SCHEMA_VERSION = 2
_COLUMNS = pa.schema([("key", pa.uint64()), ("text", pa.string())])
_MOST_CHARACTERS = 120


@dataclass(frozen=True)
class _Noted:
    """A batch, how its keys came about and, by field, which of its distinct keys are to be remembered."""

    plan: FeaturePlan
    prepared: PreparedBatch
    places: Mapping[str, npt.NDArray[np.int64]]


class Dictionary:
    """Remembers the raw values of the first keys that were admitted. One writer, any readers."""

    def __init__(self, project: Project, shard: int) -> None:
        self._db = Database(project.versions / f"dictionary-{shard}.sqlite", _SCHEMA, _SCHEMA_VERSION)
        self._most = project.config.train.dictionary_size
        counted = self._db.read("SELECT field, sum(entries) AS n FROM block GROUP BY field")
        self._known = {row["field"]: int(row["n"]) for row in counted}
        self._waiting: deque[_Noted] = deque()

    def note(self, plan: FeaturePlan, prepared: PreparedBatch, admitted: Mapping[str, npt.NDArray[np.int64]]) -> None:
        """Keep the values of newly admitted keys: by field, their places in the batch's distinct keys.

        Training calls this with every batch; what the values read like is left to `write`.
        """
        kept = {}
        for field, places in admitted.items():
            known = self._known.get(field, 0)
            if len(places) and known < self._most:
                kept[field] = places[: self._most - known]
                self._known[field] = known + len(kept[field])
        if kept:
            self._waiting.append(_Noted(plan, prepared, kept))

    def write(self) -> None:
        """Make what was noted durable. One thread at a time; training may note meanwhile."""
        noted = [self._waiting.popleft() for _ in range(len(self._waiting))]
        rows = []
        for _, alike in groupby(noted, key=lambda each: each.prepared.batch.samples.schema):
            rows += _blocks(list(alike))
        if rows:
            with self._db.transaction() as connection:
                connection.executemany("INSERT INTO block VALUES (?, ?, ?)", rows)

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


def _blocks(noted: Sequence[_Noted]) -> list[tuple[str, int, bytes]]:
    """(field, entries, packed columns) of what was noted of batches with the same columns."""
    described = [name for name in noted[0].plan.columns if name in noted[0].prepared.batch.samples.schema.names]
    samples = pa.concat_batches([each.prepared.batch.samples.select(described) for each in noted])
    at_ms = np.concatenate([each.prepared.impression_at_ms for each in noted])
    blocks = []
    for field in sorted({field for each in noted for field in each.places}):
        keys, places = _occurrences(field, noted)
        texts = _shortened(noted[0].plan.describe(field, samples, at_ms, places))
        block = pa.RecordBatch.from_arrays([pa.array(keys), texts], schema=_COLUMNS)
        blocks.append((field, block.num_rows, pack(block)))
    return blocks


def _shortened(texts: pa.StringArray) -> pa.StringArray:
    """Each text's first characters; most columns hold none that is longer, which their bytes tell at once."""
    longest_bytes = pc.max(pc.binary_length(texts)).as_py() or 0
    return texts if longest_bytes <= _MOST_CHARACTERS else pc.utf8_slice_codeunits(texts, 0, _MOST_CHARACTERS)


def _occurrences(field: str, noted: Sequence[_Noted]) -> tuple[UInt64s, npt.NDArray[np.int64]]:
    """Keys to remember [k], and where each comes first among the field's occurrences in all of these batches."""
    batches = [each.prepared.fields[field] for each in noted]
    bases = np.cumsum([0, *(len(batch.keys) for batch in batches)])
    none = np.empty(0, np.int64)
    wanted = np.concatenate([base + each.places.get(field, none) for base, each in zip(bases, noted, strict=False)])
    # A batch numbers its keys in order of first appearance: with the batches' numbers one behind the other, a key comes
    # first where the largest number so far goes up.
    numbers = np.concatenate([base + batch.inverse for base, batch in zip(bases, batches, strict=False)])
    first = np.flatnonzero(np.diff(np.maximum.accumulate(numbers), prepend=-1))
    return np.concatenate([batch.keys for batch in batches])[wanted], first[wanted]

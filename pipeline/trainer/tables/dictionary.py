"""The operator's dictionary: the raw values of keys, bounded per table. Training never reads it.

It is stored outside the versions, is never rolled back and accepts no more values at its bound. Every commit writes
blocks of keys and texts as packed columns; a lookup reads all blocks of a table. The file's `field` is the
name of a table.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.types import Int64s, UInt64s
from pipeline.configuration.project import Project
from pipeline.features.plan import FeaturePlan
from pipeline.formats.columns import pack, unpack
from pipeline.formats.sealed_database import Database
from pipeline.formats.sealed_tables import Schema, Table
from pipeline.trainer.batch.prefetch import PreparedBatch

_SCHEMA = Schema(
    3,
    (
        Table(
            "block",
            ("id INTEGER PRIMARY KEY", "field TEXT NOT NULL", "entries INTEGER NOT NULL", "columns BLOB NOT NULL"),
        ),
    ),
    "CREATE INDEX block_of_field ON block (field);",
)
_FIX = "delete it; only the names of keys are lost, and new ones are stored again"
_COLUMNS = pa.schema([("key", pa.uint64()), ("text", pa.string())])
_MAX_CHARACTERS = 120


@dataclass(frozen=True)
class _Noted:
    """A batch, the plan that made its keys and, by table, which of its distinct keys are to be stored."""

    plan: FeaturePlan
    prepared: PreparedBatch
    places: Mapping[str, Int64s]


class Dictionary:
    """Stores the raw values of the first keys that were admitted. One writer, any number of readers."""

    def __init__(self, project: Project, shard: int) -> None:
        self._db = Database(project.versions / f"dictionary-{shard}.sqlite", _SCHEMA, _FIX)
        self._max_entries = project.config.train.dictionary_size
        counts = self._db.read("SELECT field, sum(entries) AS n FROM block GROUP BY field")
        self._counts = {row["field"]: int(row["n"]) for row in counts}
        self._pending: deque[_Noted] = deque()

    def note(self, plan: FeaturePlan, prepared: PreparedBatch, admitted: Mapping[str, Int64s]) -> None:
        """Note newly admitted keys: by table, their places in the batch's distinct keys.

        Training calls this with every batch; `write` computes the texts.
        """
        noted = {}
        for table, places in admitted.items():
            count, places = self._counts.get(table, 0), places[places < len(prepared.tables[table].keys)]
            if len(places) and count < self._max_entries:
                noted[table] = places[: self._max_entries - count]
                self._counts[table] = count + len(noted[table])
        if noted:
            self._pending.append(_Noted(plan, prepared, noted))

    def write(self) -> None:
        """Write what was noted. One thread at a time; training may note meanwhile."""
        noted = [self._pending.popleft() for _ in range(len(self._pending))]
        rows = []
        for _, alike in groupby(noted, key=lambda each: each.prepared.batch.samples.schema):
            rows += _blocks(list(alike))
        if rows:
            with self._db.transaction() as connection:
                connection.executemany("INSERT INTO block (field, entries, columns) VALUES (?, ?, ?)", rows)

    def values(self, table: str, keys: UInt64s) -> Sequence[str | None]:
        """[n] the raw value of each key, None for a key that is not stored."""
        blocks = self._db.read("SELECT entries, columns FROM block WHERE field = ?", (table,))
        batches = [unpack(block["columns"], block["entries"]) for block in blocks]
        stored = pa.Table.from_batches(batches, _COLUMNS).combine_chunks()
        places = pc.index_in(pa.array(keys), value_set=stored["key"])
        texts: list[str | None] = stored["text"].take(places).to_pylist()
        return texts

    def close(self) -> None:
        self._db.close()


def _blocks(noted: Sequence[_Noted]) -> list[tuple[str, int, bytes]]:
    """(table, entries, packed columns) of the keys noted in batches with the same columns."""
    described = [name for name in noted[0].plan.columns if name in noted[0].prepared.batch.samples.schema.names]
    samples = pa.concat_batches([each.prepared.batch.samples.select(described) for each in noted])
    at_ms = np.concatenate([each.prepared.impression_at_ms for each in noted])
    blocks = []
    for table in sorted({table for each in noted for table in each.places}):
        for field, keys, places in _occurrences(table, noted):
            texts = _shortened(noted[0].plan.describe(field, samples, at_ms, places))
            block = pa.RecordBatch.from_arrays([pa.array(keys), texts], schema=_COLUMNS)
            blocks.append((table, block.num_rows, pack(block)))
    return blocks


def _shortened(texts: pa.StringArray) -> pa.StringArray:
    """Each text's first characters. Most columns have no longer text, which the lengths in bytes show at once."""
    longest_bytes = pc.max(pc.binary_length(texts)).as_py() or 0
    return texts if longest_bytes <= _MAX_CHARACTERS else pc.utf8_slice_codeunits(texts, 0, _MAX_CHARACTERS)


def _occurrences(table: str, noted: Sequence[_Noted]) -> Iterator[tuple[str, UInt64s, Int64s]]:
    """By field, the keys to store that the table has from it [k], and the place of each.

    The place is that of its first occurrence among the field's occurrences in all of these batches.
    """
    fields = noted[0].plan.fields_by_table[table]
    batches = [each.prepared.tables[table] for each in noted]
    bases = np.cumsum([0, *(len(batch.keys) for batch in batches)])
    none = np.empty(0, np.int64)
    wanted = np.concatenate([base + each.places.get(table, none) for base, each in zip(bases, noted, strict=False)])
    # A batch numbers its keys in order of first appearance, one field after the other. With the numbers of the batches
    # concatenated, an occurrence is a key's first if it raises the largest number so far.
    runs = [[each.prepared.fields[field].inverse for field in fields] for each in noted]
    numbers = np.concatenate([base + run for base, each in zip(bases, runs, strict=False) for run in each])
    first = np.flatnonzero(np.diff(np.maximum.accumulate(numbers), prepend=-1))[wanted]
    keys = np.concatenate([batch.keys for batch in batches])[wanted]
    lengths = np.array([[len(run) for run in each] for each in runs])  # [batches, fields]
    ends = np.cumsum(lengths).reshape(lengths.shape)
    # From a place among the occurrences of all fields to one among those of its own field.
    moved = (np.cumsum(lengths, axis=0) - ends).ravel()
    run_of = np.searchsorted(ends.ravel(), first, side="right")
    for number, field in enumerate(fields):
        mine = run_of % len(fields) == number
        if mine.any():
            yield field, keys[mine], first[mine] + moved[run_of[mine]]

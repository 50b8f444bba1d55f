"""The operator's dictionary: raw values behind keys, bounded per field. Training never reads it.

It is a help, not a truth: kept outside the versions, never rolled back, and full once the bound is reached.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.features.plan import FeaturePlan
from pipeline.ground.block import UInt64s
from pipeline.ground.project import Project
from pipeline.trainer.prefetch import PreparedBatch
from pipeline.versions.database import Database

_SCHEMA = """
CREATE TABLE value (
    field TEXT NOT NULL, key INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (field, key)
) WITHOUT ROWID;
"""
_SCHEMA_VERSION = 1
_MOST_CHARACTERS = 120


class Dictionary:
    """Remembers the raw values of the first keys that were admitted. One writer, any readers."""

    def __init__(self, project: Project, shard: int) -> None:
        self._db = Database(project.versions / f"dictionary-{shard}.sqlite", _SCHEMA, _SCHEMA_VERSION)
        self._most = project.config.train.dictionary_size
        counted = self._db.read("SELECT field, count(*) AS n FROM value GROUP BY field")
        self._known = {row["field"]: int(row["n"]) for row in counted}
        self._waiting: list[tuple[str, int, str]] = []

    def note(self, field: str, plan: FeaturePlan, prepared: PreparedBatch, admitted: npt.NDArray[np.int64]) -> None:
        """Keep the values of newly admitted keys, given as indices into the batch's distinct keys of `field`."""
        room = self._most - self._known.get(field, 0)
        admitted = admitted[: max(room, 0)]
        if not len(admitted):
            return
        places = prepared.fields[field].first_occurrences(admitted)
        texts = plan.describe(field, prepared.batch.samples, prepared.impression_at_ms, places)
        keys = prepared.fields[field].keys[admitted]
        self._waiting += [
            (field, _signed(int(key)), text[:_MOST_CHARACTERS]) for key, text in zip(keys, texts, strict=True)
        ]
        self._known[field] = self._known.get(field, 0) + len(admitted)

    def write(self) -> None:
        """Make what was noted durable."""
        if self._waiting:
            with self._db.transaction() as connection:
                connection.executemany("INSERT OR REPLACE INTO value VALUES (?, ?, ?)", self._waiting)
            self._waiting.clear()

    def values(self, field: str, keys: UInt64s) -> Sequence[str | None]:
        """[n] the raw value of each key, None where it is not known."""
        found = []
        for key in keys:
            rows = self._db.read("SELECT text FROM value WHERE field = ? AND key = ?", (field, _signed(int(key))))
            found.append(rows[0]["text"] if rows else None)
        return found

    def close(self) -> None:
        self._db.close()


def _signed(key: int) -> int:
    """SQLite's integers are signed."""
    return key - 2**64 if key >= 2**63 else key

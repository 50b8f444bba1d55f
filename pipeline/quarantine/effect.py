"""What a quarantine of chosen samples touches: how many samples, which keys of each field, how much importance.

Read-only: the samples log is scanned once, and features are computed for the chosen samples alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.arrays.types import Bools, Int64s, UInt64s
from pipeline.configuration.project import Project
from pipeline.features.plan import FeaturePlan
from pipeline.importance.row_statistics import statistics_of
from pipeline.importance.score import decayed
from pipeline.logs.events.sample_block import SampleBlock, impression_times, sample_times
from pipeline.logs.interface.log import Log, Record, read_to_end
from pipeline.quarantine.sample_mask import SampleMask
from pipeline.versions.ledger.sample_records import SampleRecords
from pipeline.versions.state import union_keys
from pipeline.versions.store.version_store import VersionStore

_PENDING_KEYS = 1 << 20
"""Keys of a field that are gathered before duplicates are dropped."""

Position = tuple[int, int]
"""(offset, row) in the samples log."""


@dataclass(frozen=True)
class FieldEffect:
    """What chosen samples touch in one field.

    Attributes:
        field: its name.
        table: the table that it reads.
        keys: distinct keys of the samples.
        rows: how many of them have a row in CURRENT.
        importance: of these rows, decayed to the log time of CURRENT.
        importance_share: of all rows of the table; None if they have none.
    """

    field: str
    table: str
    keys: int
    rows: int
    importance: float
    importance_share: float | None


@dataclass(frozen=True)
class Effect:
    """What chosen samples touch.

    Attributes:
        samples: how many were chosen.
        learned: how many of them lie before the position of CURRENT: only a rollback makes training skip them.
        fields: by field of the configuration.
    """

    samples: int
    learned: int
    fields: tuple[FieldEffect, ...]


def effect_of(
    project: Project, log: Log, versions: VersionStore, mask: SampleMask, starts: Mapping[int, Position] | None = None
) -> Effect:
    """What the samples in the mask touch.

    Args:
        project: of the model.
        log: holds the samples.
        versions: of CURRENT.
        mask: chooses the samples.
        starts: by shard, the sample position to begin at; without them, all samples of the log.

    Raises:
        RecordError: a record cannot be read and is not in quarantine.
        InputError: a column has another type in the samples.
        ModelError: a user's function fails.
    """
    plan, shards = FeaturePlan(project.config, project.root), range(project.config.logs.shards)
    scan = _Scan(project, log, plan, mask)
    found = [scan.shard(shard, (starts or {}).get(shard, (0, 0)), _position(versions, shard)) for shard in shards]
    touched = [_touched(project, versions, plan, part) for part in found] if any(p.samples for p in found) else []
    fields = tuple(
        _field_effect(name, table, [part.keys[name] for part in found], [rows[name] for rows in touched])
        for table, names in plan.fields_by_table.items()
        for name in names
    )
    order = {field.name: place for place, field in enumerate(project.config.fields)}
    return Effect(
        sum(part.samples for part in found),
        sum(part.learned for part in found),
        tuple(sorted(fields, key=lambda each: order[each.field])),
    )


@dataclass(frozen=True)
class _Found:
    """What was chosen in one shard: keys by field, [k] uint64 ascending, each once."""

    shard: int
    samples: int
    learned: int
    keys: Mapping[str, UInt64s]


class _Scan:
    """Reads the samples of shards and gathers the keys of those that a mask chooses."""

    def __init__(self, project: Project, log: Log, plan: FeaturePlan, mask: SampleMask) -> None:
        self._project, self._log, self._plan, self._mask = project, log, plan, mask
        self._topic = project.config.topics.samples

    def shard(self, shard: int, start: Position, learned_to: Position) -> _Found:
        """What is chosen in a shard from `start` on; `learned_to` is the position of CURRENT."""
        samples = learned = 0
        parts: dict[str, list[UInt64s]] = {field.name: [] for field in self._project.config.fields}
        for record, block in self._records(shard, start[0]):
            rows = np.flatnonzero(self._mask.excluded(block.batch, sample_times(block.batch), record.offset))
            rows = rows[_from(record.offset, rows, start)]
            if len(rows):
                samples += len(rows)
                learned += int(np.count_nonzero(~_from(record.offset, rows, learned_to)))
                self._gather(parts, block.batch.take(pa.array(rows)))
        return _Found(shard, samples, learned, {name: union_keys(keys) for name, keys in parts.items()})

    def _records(self, shard: int, offset: int) -> Iterator[tuple[Record, SampleBlock]]:
        if self._topic not in self._log.topics():
            return
        records = SampleRecords(self._project, self._log, shard)
        start = max(offset, self._log.begin_offset(self._topic, shard))
        for read in read_to_end(self._log, self._topic, shard, start):
            yield from records.decode_all(read)

    def _gather(self, parts: Mapping[str, list[UInt64s]], chosen: pa.RecordBatch) -> None:
        for name, found in self._plan.extract(chosen, impression_times(chosen)).keys.items():
            parts[name].append(found.keys)
            if sum(map(len, parts[name][1:])) > _PENDING_KEYS:
                parts[name][:] = [union_keys(parts[name])]


class _Touched(NamedTuple):
    """Of the rows of a table in one shard: how many have keys of the field, their importance, that of all rows."""

    rows: int
    importance: float
    whole: float


def _touched(project: Project, versions: VersionStore, plan: FeaturePlan, found: _Found) -> dict[str, _Touched]:
    """By field, the rows of CURRENT that have the keys found in a shard."""
    current, half_life_s = versions.current(found.shard), project.config.train.half_life_s
    commit = versions.restore(current) if current else None
    touched: dict[str, _Touched] = {}
    for table, names in plan.fields_by_table.items():
        change = commit.fields.get(table) if commit else None
        if commit is None or change is None:
            touched |= dict.fromkeys(names, _Touched(0, 0.0, 0.0))
            continue
        rows = statistics_of(change.rows)
        importance = decayed(rows["importance"], rows["last_seen_s"], commit.last_at_ms // 1000, half_life_s)
        for name in names:
            resident = np.isin(change.keys, found.keys[name], assume_unique=True)
            count = int(np.count_nonzero(resident))
            touched[name] = _Touched(count, float(importance[resident].sum()), float(importance.sum()))
    return touched


def _field_effect(name: str, table: str, keys: list[UInt64s], touched: list[_Touched]) -> FieldEffect:
    rows, importance = sum(part.rows for part in touched), sum(part.importance for part in touched)
    whole = sum(part.whole for part in touched)
    return FieldEffect(name, table, len(union_keys(keys)), rows, importance, importance / whole if whole else None)


def _from(offset: int, rows: Int64s, start: Position) -> Bools:
    """[n] which rows of a record are at or after a sample position."""
    return np.full(len(rows), offset > start[0]) | ((offset == start[0]) & (rows >= start[1]))


def _position(versions: VersionStore, shard: int) -> Position:
    current = versions.current(shard)
    if current is None:
        return 0, 0
    summary = versions.ledger.version(current)
    return summary.offset, summary.row

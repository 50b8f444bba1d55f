"""The publisher: turns what one commit changed into a realtime delta, and keeps the view that serving holds.

What is withheld from serving is row − served view and nothing else (error feedback): beside the view it remembers only
which keys have something withheld and how much that is worth, and both can be found again from rows and view. It writes
nothing; the trainer commits what it prepares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.arrays.block import UInt64s
from pipeline.arrays.per_field import run_per_field
from pipeline.configuration.training import Publish
from pipeline.publish.precision import SKIP, movement_worth, quantize, send_cost_bytes
from pipeline.publish.withheld import Bools, ScoredRows, Withheld, select_rows
from pipeline.versions.deltas.delta import Delta, FieldDelta, Level, UInt8s, UInt32s, encode_delta, served_digest
from pipeline.versions.deltas.row_groups import reorder_payload
from pipeline.versions.deltas.served_view import NO_HANDLE, ServedView

Rows = npt.NDArray[Any]

_CHUNK_ROWS = 65_536


class RowSource(Protocol):
    """What the publisher needs of a field's table."""

    def keys(self) -> UInt64s:
        """[n] uint64, every key that has a row, ascending."""

    def rows(self, keys: UInt64s) -> Rows:
        """[n] structured, with `weights`, `importance` and `unsettled` of each key."""


@dataclass(frozen=True)
class VersionRange:
    """Which versions a delta joins, and what of the log lies between them.

    Attributes:
        from_sequence: the version that serving has; 0 for nothing.
        to_sequence: the version this commit makes.
        first_at_ms: earliest event time learned from between them.
        last_at_ms: latest.
        model: what identifies the model (name, digest).
    """

    generation: int
    shard: int
    shards: int
    from_sequence: int
    to_sequence: int
    first_at_ms: int
    last_at_ms: int
    model: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TouchedRows:
    """What one commit changed in a field.

    Attributes:
        keys: [n] uint64 ascending, keys whose rows are new or were updated.
        rows: [n] structured, these rows as `RowSource.rows` gives them.
        removed: [r] uint64, keys that have no row any more.
    """

    keys: UInt64s
    rows: Rows
    removed: UInt64s


@dataclass(frozen=True)
class ServedChange:
    """What one delta changes in a field's served view: m rows as serving now holds them, by key, and tombstones."""

    keys: UInt64s
    handles: UInt32s
    bits: UInt8s
    payload: UInt8s
    removed: UInt64s


@dataclass(frozen=True)
class PreparedUpdate:
    """A delta and what it does to the served view, for the commit that makes both durable.

    Attributes:
        encoded: the exact bytes to publish.
        next_handles: by field, the next handle to be given out.
        served_digest: hex, of the view after this delta; the delta's `after`.
    """

    delta: Delta
    encoded: bytes
    fields: Mapping[str, ServedChange]
    next_handles: Mapping[str, int]
    served_digest: str


class Publisher:
    """Prepares the deltas of one shard. Not thread-safe: the trainer's thread owns it.

    After `prepare` the view is ahead of the last commit until the caller has committed: where a commit fails, make a
    new publisher from the restored version.
    """

    def __init__(
        self,
        config: Publish,
        tables: Mapping[str, RowSource],
        views: Mapping[str, ServedView],
        next_handles: Mapping[str, int] | None = None,
        dense: bytes = b"",
    ) -> None:
        """Continue from what serving holds.

        Args:
            config: the publish policy.
            tables: by field, where rows are read.
            views: by field, what serving holds; the publisher changes them from now on.
            next_handles: by field; a field that is missing starts at 0.
            dense: the dense weights that serving holds.
        """
        self.views = dict(views)
        self._config, self._tables = config, dict(tables)
        self._next_handles = {name: (next_handles or {}).get(name, 0) for name in self.views}
        self._served_digest = served_digest(self._digests(), dense)
        self._withheld = {name: self._find_withheld(name) for name in self.views}

    @property
    def served_digest(self) -> str:
        """Hex digest of what serving holds."""
        return self._served_digest

    def withheld(self, name: str) -> UInt64s:
        """[n] uint64, the keys of a field whose rows differ from what serving holds, as far as sending would help."""
        return self._withheld[name].keys

    def prepare(
        self, step: VersionRange, touched: Mapping[str, TouchedRows], dense: bytes, *, flush: bool = False
    ) -> PreparedUpdate:
        """The realtime delta of one commit; the served view holds it afterwards.

        Args:
            step: the versions it joins.
            touched: by field, what the commit changed.
            dense: the dense weights of the new version.
            flush: send every row that differs from its served value, whatever its worth.
        """
        before = self._served_digest
        removed = run_per_field(lambda name: self._take_in(name, touched.get(name)), self.views)
        chosen = self._choose(flush)
        taken = run_per_field(lambda name: self._take_out(name, chosen[name], touched.get(name)), chosen)
        sent = run_per_field(lambda name: self._send(name, *taken[name], removed[name]), taken)
        fields = {name: delta for name, (delta, _) in sent.items()}
        changes = {name: change for name, (_, change) in sent.items()}
        self._served_digest = served_digest(self._digests(), dense)
        delta = _delta(step, "realtime", before, self._served_digest, fields, dense)
        return PreparedUpdate(delta, encode_delta(delta), changes, dict(self._next_handles), self._served_digest)

    def _take_in(self, name: str, change: TouchedRows | None) -> UInt64s:
        """Forget the removed keys and judge the touched rows anew; returns the keys that serving has to drop."""
        if change is None:
            return np.empty(0, np.uint64)
        removed = np.sort(change.removed[self.views[name].bits(change.removed) > 0])
        self.views[name].remove(removed)
        judged = self._judge(name, change.keys, change.rows)
        withheld = self._withheld[name].without(np.unique(change.removed))
        self._withheld[name] = withheld.updated(judged)
        return removed

    def _judge(self, name: str, keys: UInt64s, rows: Rows) -> ScoredRows:
        """Which of `keys` have rows that differ from what serving holds, and what the difference is worth."""
        view = self.views[name]
        importance = rows["importance"].copy()  # a column of one row is contiguous as it is, and the commit's own
        apart = view.compare(keys, rows["weights"])
        # Of a row that was zeros when it was learned from, the score cannot tell: it counts like the others.
        told = importance > 0
        importance[~told] = importance[told].mean() if told.any() else 1
        worth = movement_worth(apart.moved, apart.length, importance)
        value = (worth / send_cost_bytes(view.dim, apart.bits > 0)).astype(np.float32)
        return ScoredRows(keys, worth, value, apart.differs)

    def _choose(self, flush: bool) -> dict[str, Bools]:
        """By field, which of the withheld rows to send now."""
        names = sorted(self._withheld)
        held = [self._withheld[name] for name in names]
        if flush:
            return {name: np.ones(len(h), np.bool_) for name, h in zip(names, held, strict=True)}
        worth = np.concatenate([np.empty(0, np.float32), *(h.worth for h in held)])
        value = np.concatenate([np.empty(0, np.float32), *(h.value for h in held)])
        chosen = select_rows(worth, value, self._config.share)
        parts: list[Bools] = np.split(chosen, np.cumsum([len(h) for h in held])[:-1])
        return dict(zip(names, parts, strict=True))

    def _take_out(self, name: str, chosen: Bools, change: TouchedRows | None) -> tuple[UInt64s, Rows]:
        """The keys that are withheld no longer, ascending, and their rows."""
        keys, self._withheld[name] = self._withheld[name].split(chosen)
        return keys, self._rows_of(name, keys, change)

    def _rows_of(self, name: str, keys: UInt64s, change: TouchedRows | None) -> Rows:
        """The rows of `keys`, which ascend: from the change where they are in it, from the table where they waited."""
        if change is None or not len(change.keys):
            return self._tables[name].rows(keys)
        places = np.minimum(np.searchsorted(change.keys, keys), len(change.keys) - 1)
        waited = change.keys[places] != keys
        rows = change.rows.take(places)
        if waited.any():
            rows[waited] = self._tables[name].rows(keys[waited])
        return rows

    def _send(self, name: str, keys: UInt64s, rows: Rows, removed: UInt64s) -> tuple[FieldDelta, ServedChange]:
        """Quantise the rows of `keys` as they deserve and put them into the view."""
        view = self.views[name]
        bits, payload, handles = self._quantised(name, keys, rows)
        sent = bits != SKIP
        keys, bits, handles = keys[sent], bits[sent], handles[sent]
        new = handles == NO_HANDLE
        handles[new] = self._hand_out(name, int(new.sum()))
        view.put(keys, handles, bits, payload)
        change = ServedChange(keys, handles, bits, payload, removed)
        return _delta_of(view.dim, change, new), change

    def _quantised(self, name: str, keys: UInt64s, rows: Rows) -> tuple[UInt8s, UInt8s, UInt32s]:
        """(bits [n], payload of those not skipped, handles [n] by which serving knows the keys now)."""
        importance = np.ascontiguousarray(rows["importance"])
        convergence = (1 - rows["unsettled"]).astype(np.float32)
        served, served_bits, handles = self.views[name].hold(keys)
        bits, payload = quantize(rows["weights"], served, served_bits, importance, convergence)
        return bits, payload, handles

    def _hand_out(self, name: str, count: int) -> UInt32s:
        first = self._next_handles[name]
        assert first + count < NO_HANDLE, f"field {name} has used up its handles"
        self._next_handles[name] = first + count
        return np.arange(first, first + count, dtype=np.uint32)

    def _find_withheld(self, name: str) -> Withheld:
        """After a start: every row against the view, those that sending would improve."""
        every, found = self._tables[name].keys(), []
        for start in range(0, len(every), _CHUNK_ROWS):
            keys = every[start : start + _CHUNK_ROWS]
            rows = self._tables[name].rows(keys)
            judged = self._judge(name, keys, rows)
            withheld = np.flatnonzero(judged.withheld)
            bits, _, _ = self._quantised(name, keys[withheld], rows[withheld])
            judged.withheld[withheld[bits == SKIP]] = False
            found.append(Withheld.empty().updated(judged))
        return Withheld.concatenated(found)

    def _digests(self) -> dict[str, int]:
        return {name: view.digest() for name, view in self.views.items()}


def field_delta(view: ServedView, keys: UInt64s, new: Bools, removed: UInt64s) -> FieldDelta:
    """The rows of `keys` as `view` holds them, `new` [n] bool marking those serving does not know, and tombstones."""
    handles, bits, payload = view.export(keys)
    return _delta_of(view.dim, ServedChange(keys, handles, bits, payload, removed), new)


def _delta_of(dim: int, change: ServedChange, new: Bools) -> FieldDelta:
    """A change as a delta tells it: rows that serving knows first."""
    none32, none64 = np.empty(0, np.uint32), np.empty(0, np.uint64)
    if new.all():
        return FieldDelta(dim, none32, change.keys, change.handles, change.bits, change.payload, change.removed)
    if not new.any():
        return FieldDelta(dim, change.handles, none64, none32, change.bits, change.payload, change.removed)
    order = np.argsort(new, kind="stable")
    payload = reorder_payload(change.payload, change.bits, order, dim)
    known, fresh = np.split(order, [len(new) - np.count_nonzero(new)])
    return FieldDelta(
        dim,
        change.handles[known],
        change.keys[fresh],
        change.handles[fresh],
        change.bits[order],
        payload,
        change.removed,
    )


def _delta(
    step: VersionRange, level: Level, before: str | None, after: str, fields: Mapping[str, FieldDelta], dense: bytes
) -> Delta:
    return Delta(
        level=level,
        generation=step.generation,
        shard=step.shard,
        shards=step.shards,
        from_sequence=step.from_sequence,
        to_sequence=step.to_sequence,
        first_at_ms=step.first_at_ms,
        last_at_ms=step.last_at_ms,
        base_generation=step.generation,
        before=before,
        after=after,
        fields=fields,
        dense=dense,
        model=step.model,
    )

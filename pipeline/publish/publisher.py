"""The publisher: computes the realtime delta of one commit and maintains the view that serving holds.

What is withheld from serving is row − served view and nothing else (error feedback). In addition to the view it stores
only which keys are withheld and what sending each is worth; both can be recomputed from rows and view. It performs no
I/O; the trainer commits what it prepares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.arrays.per_field import run_per_field
from pipeline.arrays.types import Bools, UInt8s, UInt32s, UInt64s
from pipeline.configuration.config import Config
from pipeline.configuration.model.training import Publish
from pipeline.publish.dense_weights import PublishedDense, TrainedWeights
from pipeline.publish.precision import SKIP, movement_worth, send_cost_bytes, sent_precision
from pipeline.publish.rounded_rows import ServedRows, quantize_rows
from pipeline.publish.withheld import ScoredRows, Withheld, select_rows
from pipeline.versions.deltas.coded_rows import reorder_payload
from pipeline.versions.deltas.delta import Delta, FieldDelta, encode_delta, served_digest
from pipeline.versions.deltas.quantizer import PRECISIONS, encode, payload_bytes
from pipeline.versions.deltas.rounding import RowRounding, as_read
from pipeline.versions.deltas.served_view import NO_HANDLE, ServedView

Rows = npt.NDArray[Any]

_CHUNK_ROWS = 65_536
_FLUSH_SHARE = 2
"""A flush fills at most half a record: the rows that a commit sends anyway and the dense weights need room too."""
_MOST_BITS = 32
_KEY_AND_HANDLE_BYTES = 13


def flush_limit(config: Config) -> int:
    """How many bytes a flush may add to a delta, which is one record of the log."""
    return config.logs.max_record_bytes // _FLUSH_SHARE


class RowSource(Protocol):
    """The part of a table that the publisher reads."""

    @property
    def rounding(self) -> RowRounding | None:
        """How training rounds its rows."""

    def keys(self) -> UInt64s:
        """[n] uint64, every key that has a row, ascending."""

    def rows(self, keys: UInt64s) -> Rows:
        """[n] structured, with `weights`, `importance` and `unsettled` of each key."""


@dataclass(frozen=True)
class VersionRange:
    """The versions before and after a commit, the event times learned from between them, and the model.

    All attributes are those of the commit's `Delta`.

    Attributes:
        from_sequence: the version that serving holds; 0 for none.
        to_sequence: the version of the commit.
        first_at_ms: earliest event time learned from between them.
        last_at_ms: latest event time learned from between them.
        model: name and digest of the model.
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
    """The rows of a table that one commit changed.

    Attributes:
        keys: [n] uint64 ascending, keys whose rows are new or were updated.
        rows: [n] structured, these rows as `RowSource.rows` returns them.
        removed: [r] uint64, keys whose rows were removed.
    """

    keys: UInt64s
    rows: Rows
    removed: UInt64s


@dataclass(frozen=True)
class ServedChange:
    """What one delta changes in the served view of a table: m rows as serving holds them, by key, and tombstones."""

    keys: UInt64s
    handles: UInt32s
    bits: UInt8s
    payload: UInt8s
    removed: UInt64s


@dataclass(frozen=True)
class PreparedUpdate:
    """A delta and its effect on the served view, for the commit that makes both durable.

    Attributes:
        encoded: the exact bytes to publish.
        fields: by table, the change of the served view.
        next_handles: by table, the next handle to assign.
        served_digest: hex, of the view after this delta; the delta's `after`.
        complete: whether serving holds every row of the tables after this delta, and nothing is withheld.
        served_dense: the dense weights that serving holds after it, if the delta only changes them; else empty.
    """

    delta: Delta
    encoded: bytes
    fields: Mapping[str, ServedChange]
    next_handles: Mapping[str, int]
    served_digest: str
    complete: bool
    served_dense: bytes = b""


class Publisher:
    """Prepares the deltas of one shard. Not thread-safe.

    After `prepare` the view is ahead of the last commit until the caller has committed. If the commit fails, construct
    a new publisher from the restored version.
    """

    def __init__(
        self,
        config: Publish,
        tables: Mapping[str, RowSource],
        views: Mapping[str, ServedView],
        next_handles: Mapping[str, int] | None = None,
        dense: bytes = b"",
        flush_bytes: int = 16 << 20,
    ) -> None:
        """Continue from what serving holds. Reads every row once, to find those withheld.

        Args:
            config: the publish policy.
            tables: by table, the source of its rows.
            views: by table, what serving holds; the publisher modifies them.
            next_handles: by table; a missing table starts at 0.
            dense: the dense weights that serving holds.
            flush_bytes: how much a flush may add to one delta, about: a log limits the size of a record.
        """
        self._flush_bytes = flush_bytes
        self.views = dict(views)
        self._config, self._tables = config, dict(tables)
        self._next_handles = {name: (next_handles or {}).get(name, 0) for name in self.views}
        self._dense = PublishedDense(config.dense_rounding, dense)
        self._served_digest = served_digest(self._digests(), dense)
        self._withheld = {name: self._scan_withheld(name) for name in self.views}

    @property
    def served_dense(self) -> bytes:
        """The dense weights that serving holds."""
        return self._dense.served

    @property
    def served_digest(self) -> str:
        """Hex digest of what serving holds."""
        return self._served_digest

    def withheld(self, name: str) -> UInt64s:
        """[n] uint64, the keys of a table whose rows differ from what serving holds, if sending them would help."""
        return self._withheld[name].keys

    def prepare(
        self,
        versions: VersionRange,
        touched: Mapping[str, TouchedRows],
        dense: bytes | TrainedWeights,
        *,
        flush: bool = False,
        hold: bool = False,
    ) -> PreparedUpdate:
        """Prepare the realtime delta of one commit and apply it to the served view.

        Args:
            versions: the versions before and after the commit.
            touched: by table, what the commit changed.
            dense: the dense weights of the new version; bytes are served as they are.
            flush: also send rows whatever their worth: every row that differs from its served value or that serving
                does not hold. As many as `flush_bytes` allows; the next flush sends more.
            hold: send no rows and the dense weights that serving has, so that only removed keys change.
        """
        before = self._served_digest
        removed = run_per_field(lambda name: self._score_touched(name, touched.get(name)), self.views)
        selected, left = self._select(hold), self._flush_bytes
        zeros = {name: np.empty(0, np.uint64) for name in self.views}
        if flush:
            for name in sorted(self.views):
                left = self._select_all(name, selected[name], left)
                zeros[name], left = self._unserved_zeros(name, left)
        rows = run_per_field(
            lambda name: self._pop_selected(name, selected[name], zeros[name], touched.get(name)), selected
        )
        sent = run_per_field(lambda name: self._send(name, *rows[name], removed[name]), rows)
        fields = {name: delta for name, (delta, _) in sent.items()}
        changes = {name: change for name, (_, change) in sent.items()}
        digests, update = self._digests(), self._dense.held() if hold else self._dense.update(dense)
        self._served_digest = served_digest(digests, update.served)
        delta = Delta(
            level="realtime",
            base_generation=versions.generation,
            before=before,
            after=self._served_digest,
            fields=fields,
            digests=digests,
            dense=update.sent,
            **vars(versions),
        )
        complete = flush and left >= 0 and not any(len(rows) for rows in self._withheld.values())
        return PreparedUpdate(
            delta, encode_delta(delta), changes, dict(self._next_handles), self._served_digest, complete,
            b"" if isinstance(update.sent, bytes) else update.served,
        )  # fmt: skip

    def _score_touched(self, name: str, change: TouchedRows | None) -> UInt64s:
        """Remove the removed keys and score the touched rows; returns the keys that serving has to remove."""
        if change is None:
            return np.empty(0, np.uint64)
        removed = np.sort(change.removed[self.views[name].bits(change.removed) > 0])
        self.views[name].remove(removed)
        scored = self._score(name, change.keys, change.rows)
        self._withheld[name] = self._withheld[name].without(np.unique(change.removed)).updated(scored)
        return removed

    def _score(self, name: str, keys: UInt64s, rows: Rows) -> ScoredRows:
        """Which rows differ from what serving holds, and what sending them is worth."""
        view = self.views[name]
        # A copy, because it is modified: for a single row np.ascontiguousarray would return the commit's memory.
        importance = rows["importance"].copy()
        distance = view.compare(keys, as_read(rows, self._tables[name].rounding))
        # The importance of a row that was zeros when it was learned from is 0: it counts as the mean of the others.
        scored = importance > 0
        importance[~scored] = importance[scored].mean() if scored.any() else 1
        worth = movement_worth(distance.moved, distance.length, importance)
        worth_per_byte = (worth / send_cost_bytes(view.dim, distance.bits > 0)).astype(np.float32)
        return ScoredRows(keys, worth, worth_per_byte, distance.differs)

    def _select(self, hold: bool) -> dict[str, Bools]:
        """By table, [n] bool: the withheld rows that are worth to be sent now; none with `hold`."""
        if hold:
            return {name: np.zeros(len(rows), np.bool_) for name, rows in self._withheld.items()}
        names = sorted(self._withheld)
        withheld = [self._withheld[name] for name in names]
        worth = np.concatenate([np.empty(0, np.float32), *(rows.worth for rows in withheld)])
        worth_per_byte = np.concatenate([np.empty(0, np.float32), *(rows.worth_per_byte for rows in withheld)])
        selected = select_rows(worth, worth_per_byte, self._config.share)
        parts: list[Bools] = np.split(selected, np.cumsum([len(rows) for rows in withheld])[:-1])
        return dict(zip(names, parts, strict=True))

    def _select_all(self, name: str, selected: Bools, left: int) -> int:
        """Select the other withheld rows too, in `selected` itself; returns the bytes left, negative if too few."""
        others = np.flatnonzero(~selected)
        chosen = others[: self._rows_in(name, left)]
        selected[chosen] = True
        return -1 if len(chosen) < len(others) else left - len(chosen) * self._row_bytes(name)

    def _unserved_zeros(self, name: str, left: int) -> tuple[UInt64s, int]:
        """Keys whose rows are zeros and which serving does not hold: no value differs, but the key becomes known."""
        keys = self._tables[name].keys()
        keys = np.setdiff1d(keys[self.views[name].bits(keys) == 0], self._withheld[name].keys, assume_unique=True)
        chosen = keys[: self._rows_in(name, left)]
        return chosen, -1 if len(chosen) < len(keys) else left - len(chosen) * self._row_bytes(name)

    def _rows_in(self, name: str, size_bytes: int) -> int:
        """How many rows surely fit into a size; a flush sends at least one."""
        return 0 if size_bytes < 0 else max(1, size_bytes // self._row_bytes(name))

    def _row_bytes(self, name: str) -> int:
        return payload_bytes(_MOST_BITS, self.views[name].dim) + _KEY_AND_HANDLE_BYTES

    def _pop_selected(
        self, name: str, selected: Bools, zeros: UInt64s, change: TouchedRows | None
    ) -> tuple[UInt64s, Rows]:
        """Remove the selected rows from those withheld; returns their keys and those of `zeros`, and the rows."""
        keys, self._withheld[name] = self._withheld[name].split(selected)
        keys = np.union1d(keys, zeros)
        return keys, self._rows_of(name, keys, change)

    def _rows_of(self, name: str, keys: UInt64s, change: TouchedRows | None) -> Rows:
        """The rows of `keys`, which ascend: from the commit's change if it holds them, else from the table."""
        if change is None or not len(change.keys):
            return self._tables[name].rows(keys)
        indices = np.minimum(np.searchsorted(change.keys, keys), len(change.keys) - 1)
        untouched = change.keys[indices] != keys
        rows = change.rows.take(indices)
        if untouched.any():
            rows[untouched] = self._tables[name].rows(keys[untouched])
        return rows

    def _send(self, name: str, keys: UInt64s, rows: Rows, removed: UInt64s) -> tuple[FieldDelta, ServedChange]:
        """Quantize rows at the precision they warrant, or as they were trained, and put them into the view."""
        view = self.views[name]
        bits, payload, handles = self._quantized(name, keys, rows)
        zeros = (bits == SKIP) & (handles == NO_HANDLE)
        if zeros.any():
            payload = _with_zeros(bits, payload, zeros, view.dim)
        sent = bits != SKIP
        keys, bits, handles = keys[sent], bits[sent], handles[sent]
        new = handles == NO_HANDLE
        handles[new] = self._assign_handles(name, int(new.sum()))
        differences, relative = view.differences(keys, bits, payload)
        view.put(keys, handles, bits, payload)
        change = ServedChange(keys, handles, bits, payload, removed)
        return _field_delta(view.dim, replace(change, payload=differences), new, relative), change

    def _quantized(self, name: str, keys: UInt64s, rows: Rows) -> tuple[UInt8s, UInt8s, UInt32s]:
        """(bits [n], payload of the rows not skipped, handles [n] of the keys in the view)."""
        weights, served_bits, handles = self.views[name].lookup(keys)
        served = ServedRows(weights, served_bits, self.views[name].exponents(keys))
        bits, payload = quantize_rows(rows, served, self._tables[name].rounding)
        return bits, payload, handles

    def _assign_handles(self, name: str, count: int) -> UInt32s:
        first = self._next_handles[name]
        assert first + count < NO_HANDLE, f"field {name} has no handles left"
        self._next_handles[name] = first + count
        return np.arange(first, first + count, dtype=np.uint32)

    def _scan_withheld(self, name: str) -> Withheld:
        """Compare every row with the view: the rows that sending would improve."""
        all_keys, parts = self._tables[name].keys(), []
        for start in range(0, len(all_keys), _CHUNK_ROWS):
            keys = all_keys[start : start + _CHUNK_ROWS]
            rows = self._tables[name].rows(keys)
            scored = self._score(name, keys, rows)
            differing = np.flatnonzero(scored.withheld)
            bits, _, _ = self._quantized(name, keys[differing], rows[differing])
            scored.withheld[differing[bits == SKIP]] = False
            parts.append(Withheld.empty().updated(scored))
        return Withheld.concatenated(parts)

    def _digests(self) -> dict[str, int]:
        return {name: view.digest() for name, view in self.views.items()}


def served_field_delta(view: ServedView, keys: UInt64s, new: Bools, removed: UInt64s) -> FieldDelta:
    """The rows of `keys` as `view` holds them, and tombstones. `new`: [n] bool, keys that serving does not hold yet."""
    handles, bits, payload = view.export(keys)
    absolute = np.zeros(len(keys), np.bool_)
    return _field_delta(view.dim, ServedChange(keys, handles, bits, payload, removed), new, absolute)


def _with_zeros(bits: UInt8s, payload: UInt8s, zeros: Bools, dim: int) -> UInt8s:
    """The payload with rows of zeros where `zeros` is true, in the order of `bits`, which receives their precision."""
    sent = bits != SKIP
    bits[zeros] = sent_precision(dim)[PRECISIONS[0]]
    added, _ = encode(np.zeros((np.count_nonzero(zeros), dim), np.float32), bits[zeros])
    positions = np.concatenate([np.flatnonzero(sent), np.flatnonzero(zeros)])
    order = np.argsort(positions, kind="stable")
    return reorder_payload(np.concatenate([payload, added]), bits[positions], order, dim)


def _field_delta(dim: int, change: ServedChange, new: Bools, relative: Bools) -> FieldDelta:
    """The change as part of a delta, which orders known rows before new ones.

    Of its m rows, those with `new` are unknown to serving, and the payloads of those with `relative` are differences.
    """
    order = np.argsort(new, kind="stable")
    known, fresh = np.split(order, [len(new) - np.count_nonzero(new)])
    payload, bits = change.payload, change.bits
    if len(known) and len(fresh):
        payload, bits = reorder_payload(payload, bits, order, dim), bits[order]
    return FieldDelta(
        dim=dim,
        handles=change.handles[known],
        new_keys=change.keys[fresh],
        new_handles=change.handles[fresh],
        bits=bits,
        payload=payload,
        removed=change.removed,
        relative=relative[known],
    )

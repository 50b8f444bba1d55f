"""The publisher: computes the realtime delta of one commit and maintains the view that serving holds.

What is withheld from serving is row − served view and nothing else (error feedback). In addition to the view it stores
only which keys are withheld, what sending each is worth, and a sample of what serving loses; all of it is a function of
rows, view and the price that fixes the steps. It performs no I/O; the trainer commits what it prepares.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.arrays.ascending import find_keys
from pipeline.arrays.per_field import run_per_field
from pipeline.arrays.types import Bools, Float32s, Float64s, UInt32s, UInt64s
from pipeline.configuration.config import Config
from pipeline.publish.field_delta import ServedChange, field_delta
from pipeline.publish.preview import Preview
from pipeline.publish.price.byte_price import Price
from pipeline.publish.price.dense_weights import DenseUpdate, PublishedDense, TrainedWeights
from pipeline.publish.price.loss_sample import MAX_ROWS, LossSample, price_of_loss, row_share, sampled_rows
from pipeline.publish.price.priced_rows import SKIP, RowScores, ServedRows
from pipeline.publish.price.rounded_rows import quantize_rows, score_sent
from pipeline.publish.price.withheld import ScoredRows, Withheld
from pipeline.versions.deltas.delta import Delta, FieldDelta, encode_delta, served_digest
from pipeline.versions.deltas.quantizer import decode, payload_bytes
from pipeline.versions.deltas.rounding import RowRounding
from pipeline.versions.deltas.served_view import NO_HANDLE, ServedView

Rows = npt.NDArray[Any]

_CHUNK_ROWS = 65_536
_FLUSH_SHARE = 2
"""A flush fills at most half a record: the rows that a commit sends anyway and the dense weights need room too."""
_MOST_BITS = 32
_KEY_AND_HANDLE_BYTES = 13


@dataclass(frozen=True)
class PublishSettings:
    """What decides deltas, of a configuration.

    Attributes:
        loss: the loss of serving that is allowed, relative to the trainer's.
        half_life_s: log time after which losses of rows have halved.
        flush_bytes: how much a flush may add to one delta, about: a log limits the size of a record.
    """

    loss: float
    half_life_s: float
    flush_bytes: int = 16 << 20

    @classmethod
    def of(cls, config: Config) -> "PublishSettings":
        """Those of a configuration."""
        publish, record_bytes = config.publish, config.logs.max_record_bytes
        return cls(publish.loss, config.train.half_life_s, record_bytes // _FLUSH_SHARE)


class RowSource(Protocol):
    """The part of a table that the publisher reads."""

    @property
    def rounding(self) -> RowRounding | None:
        """How training rounds its rows."""

    def keys(self) -> UInt64s:
        """[n] uint64, every key that has a row, ascending."""

    def rows(self, keys: UInt64s) -> Rows:
        """[n] structured, with `weights` and statistics of each key."""


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
class PreparedUpdate:
    """A delta and its effect on the served view, for the commit that makes both durable.

    Attributes:
        encoded: the exact bytes to publish.
        fields: by table, the change of the served view.
        next_handles: by table, the next handle to assign.
        served_digest: hex, of the view after this delta; the delta's `after`.
        complete: whether serving holds every row of the tables after this delta, and nothing is withheld.
        served_dense: the dense weights that serving holds after it, if the delta only changes them; else empty.
        price: of a byte, and the loss that it predicts of serving.
        withheld: by table, rows that sending would improve, after this delta.
    """

    delta: Delta
    encoded: bytes
    fields: Mapping[str, ServedChange]
    next_handles: Mapping[str, int]
    served_digest: str
    complete: bool
    served_dense: bytes = b""
    price: Price = field(default_factory=Price)
    withheld: Mapping[str, int] = field(default_factory=dict)


class Publisher:
    """Prepares the deltas of one shard. Not thread-safe.

    After `prepare` the view is ahead of the last commit until the caller has committed. If the commit fails, construct
    a new publisher from the restored version.
    """

    def __init__(
        self,
        settings: PublishSettings,
        tables: Mapping[str, RowSource],
        views: Mapping[str, ServedView],
        next_handles: Mapping[str, int] | None = None,
        dense: bytes = b"",
        price: Price | None = None,
        stored: Mapping[str, Iterable[tuple[UInt64s, Rows]]] | None = None,
    ) -> None:
        """Continue from what serving holds. Reads every row once, to find those withheld.

        Args:
            settings: the publish policy.
            tables: by table, the source of its rows.
            views: by table, what serving holds; the publisher modifies them.
            next_handles: by table; a missing table starts at 0.
            dense: the dense weights that serving holds.
            price: as of the last commit; by default the first one.
            stored: by table, all rows as of the last commit in pieces, keys [n] ascending from each to the next, and
                rows [n]; a missing table has none. Without it they are read of `tables`.
        """
        self.views = dict(views)
        self._settings, self._tables, self._price = settings, dict(tables), price or Price()
        self._next_handles = {name: (next_handles or {}).get(name, 0) for name in self.views}
        self._dense = PublishedDense(dense)
        self._served_digest = served_digest(self._digests(), dense)
        self._withheld: dict[str, Withheld] = {}
        self._sample: dict[str, LossSample] = {}
        self._scan(stored)

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

    def correct(self, measured: float, dense: float | None = None) -> None:
        """Correct the price after the loss of serving was measured as of the last commit, relative to the trainer's.

        `dense`: the loss by dense weights alone, if it was measured.
        """
        self._price = self._price.corrected(measured, self._settings.loss, dense)

    def prepare(
        self,
        versions: VersionRange,
        touched: Mapping[str, TouchedRows],
        dense: bytes | TrainedWeights,
        *,
        loss: float = 0.0,
        flush: bool = False,
        hold: bool = False,
    ) -> PreparedUpdate:
        """Prepare the realtime delta of one commit and apply it to the served view.

        Args:
            versions: the versions before and after the commit.
            touched: by table, what the commit changed.
            dense: the dense weights of the new version; bytes are served as they are.
            loss: the trainer's, summed over samples and decayed as the curvature of rows is; 0 to keep the price, and
                trained dense weights as they are served.
            flush: also send rows whatever their worth: every row that sending would improve or that serving
                does not hold. As many as `flush_bytes` allows; the next flush sends more.
            hold: send no rows and the dense weights that serving has, so that only removed keys change.
        """
        before = self._served_digest
        removed = run_per_field(lambda name: self._score_touched(name, touched.get(name)), self.views)
        at_s = versions.last_at_ms // 1000
        if loss:
            self._find_price(at_s, loss, dense)
        rows, left = self._take(at_s, touched, flush, hold)
        sent = run_per_field(lambda name: self._send(name, *rows[name], removed[name]), rows)
        fields = {name: delta for name, (delta, _) in sent.items()}
        changes = {name: change for name, (_, change) in sent.items()}
        digests, update = self._digests(), self._dense_after(dense, loss, flush, hold)
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
        if loss:
            estimate, share = (self._loss_of_serving(at_s) + update.loss) / loss, self._settings.loss
            dense_estimate = max(update.loss / loss, 0.0)
            self._price = self._price.estimated(max(estimate, 0.0), None if flush or hold else share, dense_estimate)
        withheld = {name: len(rows) for name, rows in sorted(self._withheld.items())}
        complete = flush and left >= 0 and not any(withheld.values())
        return PreparedUpdate(
            delta, encode_delta(delta), changes, dict(self._next_handles), self._served_digest, complete,
            b"" if isinstance(update.sent, bytes) else update.served, self._price, withheld,
        )  # fmt: skip

    def preview(self, at_s: int, dense: bytes | TrainedWeights, *, loss: float, flush: bool) -> Preview:
        """What serving would hold if `prepare` sent what is withheld now. Changes nothing.

        Args:
            at_s: log time.
            dense: the dense weights of the last commit.
            loss: the trainer's, as of `prepare`.
            flush: as of `prepare`.
        """
        held = self._price, dict(self._withheld), dict(self._sample)
        try:
            if loss:
                self._find_price(at_s, loss, dense)
            rows, _ = self._take(at_s, {}, flush, hold=False)
            sent = {name: (keys, self._sent_weights(name, keys, of_keys)) for name, (keys, of_keys) in rows.items()}
            update = PublishedDense(self._dense.served).update(dense, self._price, loss, flush=flush)
        finally:
            self._price, self._withheld, self._sample = held
        return Preview(self.views, sent, update.served)

    def _sent_weights(self, name: str, keys: UInt64s, rows: Rows) -> Float32s:
        """[n, dim] the weights of `rows` as they would be sent."""
        bits, payload = quantize_rows(rows, self._served(name, keys), self._tables[name].rounding, self._price.unit)
        return decode(payload, bits, self.views[name].dim)

    def _take(
        self, at_s: int, touched: Mapping[str, TouchedRows], flush: bool, hold: bool
    ) -> tuple[dict[str, tuple[UInt64s, Rows]], int]:
        """Remove the rows to send from those withheld. By table their keys and the rows; then the bytes that a flush
        has left, negative if too few."""
        selected, left = self._select(at_s, hold), self._settings.flush_bytes
        zeros = {name: np.empty(0, np.uint64) for name in self.views}
        if flush:
            for name in sorted(self.views):
                left = self._select_all(name, selected[name], left)
                zeros[name], left = self._unserved_zeros(name, left)
        rows = run_per_field(
            lambda name: self._pop_selected(name, selected[name], zeros[name], touched.get(name)), selected
        )
        return rows, left

    def _score_touched(self, name: str, change: TouchedRows | None) -> UInt64s:
        """Remove the removed keys and score the touched rows; returns the keys that serving has to remove."""
        if change is None:
            return np.empty(0, np.uint64)
        removed = np.sort(change.removed[self.views[name].bits(change.removed) > 0])
        self.views[name].remove(removed)
        gone, scores = np.unique(change.removed), self._score(name, change.keys, change.rows)
        scored = _withheld_of(change.keys, change.rows, scores)
        self._withheld[name] = self._withheld[name].without(gone).updated(scored)
        sampled = LossSample.of(change.keys, change.rows, scores, self._price.halvings)
        self._sample[name] = self._sample[name].without(gone).updated(sampled)
        return removed

    def _score(self, name: str, keys: UInt64s, rows: Rows) -> RowScores:
        """What sending each row is worth."""
        return score_sent(rows, self._served(name, keys), self._tables[name].rounding, self._price.unit)

    def _served(self, name: str, keys: UInt64s) -> ServedRows:
        weights, bits, _ = self.views[name].lookup(keys)
        return ServedRows(weights, bits, self.views[name].exponents(keys))

    def _dense_after(self, dense: bytes | TrainedWeights, loss: float, flush: bool, hold: bool) -> DenseUpdate:
        """What becomes of the dense weights. Trained ones need a loss to compare with, unless serving has none."""
        if hold or (self.served_dense and not loss and not isinstance(dense, bytes)):
            return self._dense.held(dense, self._price, loss)
        return self._dense.update(dense, self._price, loss, flush=flush)

    def _find_price(self, at_s: int, loss: float, dense: bytes | TrainedWeights) -> None:
        """The price at which serving has the loss allowed. Other steps change what sending any row is worth."""
        self._bound_sample()
        names, half_life_s = sorted(self._sample), self._settings.half_life_s
        missing = [self._sample[name].losses(at_s, half_life_s)[0] for name in names]
        shares: list[float | Float64s] = [row_share(self.views[name].dim) for name in names]
        if not isinstance(dense, bytes):
            part = math.ldexp(1.0, -self._price.halvings)
            missing.append(part * dense.blocks.missing(self._price.dense_scale * abs(loss)))
            shares.append(part * dense.blocks.shares)
        allowed = math.ldexp(self._price.allowed(self._settings.loss, loss), -self._price.halvings)
        self._set_price(self._price.at(price_of_loss(missing, shares, allowed)))

    def _set_price(self, price: Price) -> None:
        steps, self._price = self._price.for_steps, price
        if price.for_steps > steps:
            self._rescan()
        elif price.for_steps < steps:
            self._scan()

    def _bound_sample(self) -> None:
        while sum(len(rows) for rows in self._sample.values()) > MAX_ROWS:
            self._price = replace(self._price, halvings=self._price.halvings + 1)
            self._sample = {name: rows.halved(self._price.halvings) for name, rows in self._sample.items()}

    def _loss_of_serving(self, at_s: int) -> float:
        """The estimated loss by what serving holds, summed as the curvature of rows is."""
        half_life_s = self._settings.half_life_s
        errors = [self._sample[name].losses(at_s, half_life_s)[1].sum() for name in sorted(self._sample)]
        return math.ldexp(float(sum(errors)), self._price.halvings)

    def _select(self, at_s: int, hold: bool) -> dict[str, Bools]:
        """By table, [n] bool: the withheld rows that are worth more than the price of their bytes; none with `hold`."""
        if hold:
            return {name: np.zeros(len(rows), np.bool_) for name, rows in self._withheld.items()}
        per_byte, half_life_s = np.float32(self._price.per_byte), self._settings.half_life_s
        return {name: rows.worth_at(at_s, half_life_s)[1] > per_byte for name, rows in self._withheld.items()}

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
        indices, touched = find_keys(keys, change.keys)
        rows = change.rows.take(indices)
        if not touched.all():
            rows[~touched] = self._tables[name].rows(keys[~touched])
        return rows

    def _send(self, name: str, keys: UInt64s, rows: Rows, removed: UInt64s) -> tuple[FieldDelta, ServedChange]:
        """Quantize rows that improve what serving holds, or as they were trained, and put them into the view."""
        view, served = self.views[name], self._served(name, keys)
        bits, payload = quantize_rows(rows, served, self._tables[name].rounding, self._price.unit)
        assert (bits != SKIP).all(), f"a row of table {name} was sent that serving holds"
        handles = view.handles(keys)
        new = handles == NO_HANDLE
        handles[new] = self._assign_handles(name, int(new.sum()))
        differences, relative = view.differences(keys, bits, payload)
        view.put(keys, handles, bits, payload)
        self._sample_sent(name, keys, rows)
        change = ServedChange(keys, handles, bits, payload, removed)
        return field_delta(view.dim, replace(change, payload=differences), new, relative), change

    def _sample_sent(self, name: str, keys: UInt64s, rows: Rows) -> None:
        """Sampled rows that were sent: what serving holds of them now."""
        n = sampled_rows(keys, self._price.halvings)
        keys, rows = keys[:n], rows[:n]
        scores = self._score(name, keys, rows)
        self._sample[name] = self._sample[name].updated(LossSample.of(keys, rows, scores, self._price.halvings))

    def _assign_handles(self, name: str, count: int) -> UInt32s:
        first = self._next_handles[name]
        assert first + count < NO_HANDLE, f"field {name} has no handles left"
        self._next_handles[name] = first + count
        return np.arange(first, first + count, dtype=np.uint32)

    def _scan(self, stored: Mapping[str, Iterable[tuple[UInt64s, Rows]]] | None = None) -> None:
        """Compare every row with the view: the rows that sending would improve, and the sample."""
        for name in self.views:
            rows = stored.get(name, ()) if stored is not None else self._read(name, self._tables[name].keys())
            self._compare(name, rows)

    def _rescan(self) -> None:
        """The same after steps became coarser, reading the withheld and sampled rows alone.

        Grids of powers of two are nested: a row that finer steps bring no closer, coarser ones do not either.
        """
        for name in self.views:
            among = np.union1d(self._withheld[name].keys, self._sample[name].entries["key"])
            self._compare(name, self._read(name, among))

    def _read(self, name: str, keys: UInt64s) -> Iterator[tuple[UInt64s, Rows]]:
        """Rows of a table in pieces."""
        for start in range(0, len(keys), _CHUNK_ROWS):
            part = keys[start : start + _CHUNK_ROWS]
            yield part, self._tables[name].rows(part)

    def _compare(self, name: str, pieces: Iterable[tuple[UInt64s, Rows]]) -> None:
        """Find the withheld rows and the sample of a table among these, whose keys ascend: those sending improves."""
        parts, sampled = [], [LossSample.empty()]
        for keys, rows in pieces:
            scores = self._score(name, keys, rows)
            parts.append(Withheld.empty().updated(_withheld_of(keys, rows, scores)))
            sampled.append(LossSample.of(keys, rows, scores, self._price.halvings))
        self._withheld[name] = Withheld.concatenated(parts)
        self._sample[name] = LossSample(np.concatenate([part.entries for part in sampled]))

    def _digests(self) -> dict[str, int]:
        return {name: view.digest() for name, view in self.views.items()}


def _withheld_of(keys: UInt64s, rows: Rows, scores: RowScores) -> ScoredRows:
    """What sending rows is worth, and which of them it would improve."""
    per_byte = scores.worth / scores.cost_bytes
    return ScoredRows(keys, scores.worth, per_byte, rows["last_seen_s"].copy(), scores.improves)

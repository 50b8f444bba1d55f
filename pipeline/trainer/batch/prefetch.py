"""Prepares the next batch while the current one is learned: decode, features, unique keys, targets.

Only what does not depend on the values of rows is done here; values are read after the previous update.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.arrays.types import Float32s, Int32s, Int64s, UInt32s, UInt64s
from pipeline.configuration.model.labels import LabelConfig
from pipeline.errors import InputError, ModelError, RowError, UserCodeError
from pipeline.features.plan import FeaturePlan, Features
from pipeline.features.weights import no_weights
from pipeline.logs.events.sample_block import event_ages, impression_times, of_kind
from pipeline.model.loss.targets import Targets, targets_of
from pipeline.trainer.batch.batches import NO_END, Batch, BatchReader, SamplePosition
from pipeline.trainer.batch.held import HeldRows
from pipeline.trainer.batch.shuffled import ShuffledReader
from pipeline.trainer.batch.unique import Uniquer
from pipeline.trainer.items.source import ItemSource, SourceChange
from pipeline.trainer.validation.matured import LabelEvents

_BATCHES_FROM_DISK = 3
"""Batches that are prepared ahead if their rows may be on disk: a slow read delays none of them."""


@dataclass(frozen=True)
class TableBatch:
    """One table's keys in one batch: u distinct keys over all fields that read it."""

    keys: UInt64s
    """[u] distinct keys in order of first appearance, one field after the other."""
    counts: UInt32s
    """[u] occurrences of each key in the samples of the batch, at least 1."""
    drawn: int = 0
    """How many of the keys, the last, only drawn items have."""

    @property
    def own(self) -> int:
        """How many of the keys, the first, samples of the batch have."""
        return len(self.keys) - self.drawn


@dataclass(frozen=True)
class FieldBatch:
    """One field in one batch of n samples, then of drawn items: m occurrences of keys of its table."""

    inverse: Int32s
    """[m] occurrence → index into the `keys` of the table."""
    offsets: Int64s
    """[n + 1] sample → its occurrences."""
    weights: Float32s = field(default_factory=no_weights)
    """[m] of the occurrences, or none."""


@dataclass(frozen=True)
class PreparedBatch:
    """A batch and everything that can be computed before its rows are read."""

    batch: Batch
    tables: dict[str, TableBatch]
    fields: dict[str, FieldBatch]
    dense: Float32s
    """[rows, dense columns], of the n samples, then of drawn items."""
    targets: Targets
    items: SourceChange | None = None
    """What the batch changes in the source of items."""
    held: HeldRows | None = None
    """Its rows, if some rows are not in memory."""

    @property
    def shown_dense(self) -> Float32s:
        """[m, dense columns] of the samples that were shown: candidates do not move the statistics of dense inputs."""
        soft = self.targets.soft
        dense = self.dense[: len(self.batch)]
        return dense if soft is None else dense[soft[:, 1] == 0]

    @property
    def impression_at_ms(self) -> Int64s:
        """[n] each sample's impression time, ms."""
        return impression_times(self.batch.samples)

    @property
    def events(self) -> LabelEvents:
        """The events that decided the labels of the samples."""
        samples = self.batch.samples
        return LabelEvents(impression_times(samples), event_ages(samples), of_kind(samples, "compensation"))

    @property
    def rows(self) -> int:
        """The samples and the drawn items."""
        return len(self.dense)

    def own(self) -> "PreparedBatch":
        """The batch without drawn items."""
        n = len(self.batch)
        if self.rows == n:
            return self
        tables = {name: TableBatch(t.keys[: t.own], t.counts[: t.own]) for name, t in self.tables.items()}
        fields = {name: _first(each, n) for name, each in self.fields.items()}
        return replace(self, tables=tables, fields=fields, dense=self.dense[:n])


class InvalidBatchError(InputError):
    """A batch cannot be learned from: a label, weight or rate is outside its range, or a user's function fails."""

    def __init__(self, batch: Batch, problem: str, row: int | None) -> None:
        super().__init__(problem)
        self.batch = batch
        self.row = row
        """The row of the batch that causes it; None if there is no single one."""


class Prefetcher:
    """Returns prepared batches in log order and prepares the next ones ahead. One caller at a time.

    One ahead, or several if their rows are read from disk.
    """

    def __init__(
        self,
        reader: BatchReader | ShuffledReader,
        plan: FeaturePlan,
        labels: Sequence[LabelConfig],
        source: ItemSource | None = None,
        hold: Callable[[Mapping[str, UInt64s]], HeldRows] | None = None,
    ) -> None:
        """`source`: of the items of two towers as of the reader's start; the prefetcher advances it. `hold`: fetches
        the rows of a batch by the keys of each table, in the thread of the prefetcher, which raises what it raises."""
        self._reader, self._plan, self._labels, self._source, self._hold = reader, plan, labels, source, hold
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._depth = 1 if hold is None else _BATCHES_FROM_DISK
        self._ahead: deque[Future[PreparedBatch | None]] = deque()
        """Batches in log order; one that was not in the log yet is None, and a later one may be there all the same."""
        self._uniquer = Uniquer()

    def next(self, stop_offset: int) -> PreparedBatch | None:
        """The next batch below `stop_offset`; None if it is not in the log yet. Raises InvalidBatchError."""
        prepared = None
        while prepared is None and self._ahead:
            prepared = self._ahead.popleft().result()
        if prepared is None:
            prepared = self._worker.submit(self._prepare, stop_offset).result()
        while prepared and len(self._ahead) < self._depth:
            self._ahead.append(self._worker.submit(self._prepare, stop_offset))
        return prepared

    def next_if_ahead(self, stop_offset: int) -> PreparedBatch | None:
        """As `next` if a batch is being prepared already, else None; also None if it failed: `next` raises then."""
        if not self._ahead or self._ahead[0].exception() or self._ahead[0].result() is None:
            return None
        return self.next(stop_offset)

    def passed(self) -> SamplePosition | None:
        """As `BatchReader.passed`, after `next` has returned None."""
        return self._reader.passed

    def wait(self, wait_ms: int) -> int:
        """An offset below which there are records, as `BatchReader.wait`; a batch prepared ahead counts."""
        if any(ahead.exception() or ahead.result() for ahead in self._ahead):
            return NO_END
        return self._worker.submit(self._reader.wait, wait_ms).result()

    def close(self) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, stop_offset: int) -> PreparedBatch | None:
        batch = self._reader.next(stop_offset)
        if batch is None:
            return None
        try:
            at_ms = impression_times(batch.samples)
            features = self._plan.extract(batch.samples, at_ms)
            targets = targets_of(batch.samples, self._labels)
        except (UserCodeError, RowError) as failure:
            raise InvalidBatchError(batch, str(failure), failure.row) from None
        except ModelError as failure:
            raise InvalidBatchError(batch, str(failure), None) from None
        drawn, change, dense = None, None, features.dense
        if self._source is not None:
            found = self._source.next(batch.samples, at_ms, features)
            targets, drawn, change = replace(targets, batch_items=found.items), found.drawn, found.change
        if drawn is None:
            tables, fields = keys_by_table(self._uniquer, features, self._plan.fields_by_table)
        else:
            tables, fields = keys_with_drawn(self._uniquer, features, drawn, self._plan.fields_by_table)
            dense = np.concatenate([dense, drawn.dense])
        held = self._hold({name: table.keys for name, table in tables.items()}) if self._hold else None
        return PreparedBatch(batch, tables, fields, dense, targets, change, held)


def keys_with_drawn(
    uniquer: Uniquer, features: Features, drawn: Features, fields_by_table: Mapping[str, Sequence[str]]
) -> tuple[dict[str, TableBatch], dict[str, FieldBatch]]:
    """As `keys_by_table` of both, the keys that only drawn items have last."""
    tables, fields = {}, {}
    for table, names in fields_by_table.items():
        parts = [part.keys[name] for part in (features, drawn) for name in names]
        lengths = [len(each.keys) for each in parts]
        starts, own = np.cumsum([0, *lengths]), sum(lengths[: len(names)])
        keys, inverse, _ = uniquer.unique(np.concatenate([each.keys for each in parts]))
        counts = np.bincount(inverse[:own], minlength=len(keys)).astype(np.uint32)
        tables[table] = TableBatch(keys, np.maximum(counts, 1), int((counts == 0).sum()))
        for i, name in enumerate(names):
            pieces = [inverse[starts[j] : starts[j + 1]] for j in (i, i + len(names))]
            first, second = parts[i], parts[i + len(names)]
            offsets = np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]])
            weights = np.concatenate([first.weights, second.weights])
            fields[name] = FieldBatch(np.concatenate(pieces), offsets, weights)
    return tables, fields


def _first(field: FieldBatch, n: int) -> FieldBatch:
    """The field in the first n rows."""
    end = int(field.offsets[n])
    return FieldBatch(field.inverse[:end], field.offsets[: n + 1], field.weights[:end])


def keys_by_table(
    uniquer: Uniquer, features: Features, fields_by_table: Mapping[str, Sequence[str]]
) -> tuple[dict[str, TableBatch], dict[str, FieldBatch]]:
    """The distinct keys of each table, and where the occurrences of each field are among them."""
    tables, fields = {}, {}
    for table, names in fields_by_table.items():
        found = [features.keys[name] for name in names]
        occurrences = found[0].keys if len(found) == 1 else np.concatenate([each.keys for each in found])
        keys, inverse, counts = uniquer.unique(occurrences)
        tables[table], start = TableBatch(keys, counts), 0
        for name, each in zip(names, found, strict=True):
            fields[name] = FieldBatch(inverse[start : start + len(each.keys)], each.offsets, each.weights)
            start += len(each.keys)
    return tables, fields

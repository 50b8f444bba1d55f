"""Prepares the next batch while the current one is learned: decode, features, unique keys, targets.

Only what does not depend on the rows' values happens here; values are read after the previous update.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.arrays.block import Int64s, UInt64s
from pipeline.errors import InputError
from pipeline.features.plan import FeaturePlan
from pipeline.model.targets import Targets, targets_of
from pipeline.trainer.batch.batches import NO_END, Batch, BatchReader
from pipeline.trainer.batch.unique import Uniquer


@dataclass(frozen=True)
class FieldBatch:
    """One field's keys in one batch of n samples: m occurrences of u distinct keys."""

    keys: UInt64s
    """[u] distinct keys in order of first appearance."""
    inverse: npt.NDArray[np.int32]
    """[m] occurrence → index into `keys`."""
    counts: npt.NDArray[np.uint32]
    """[u] occurrences of each key."""
    offsets: Int64s
    """[n + 1] sample → its occurrences."""


@dataclass(frozen=True)
class PreparedBatch:
    """A batch and everything about it that can be known before its rows are read."""

    batch: Batch
    fields: dict[str, FieldBatch]
    dense: npt.NDArray[np.float32]
    """[n, dense columns]"""
    targets: Targets

    @property
    def impression_at_ms(self) -> Int64s:
        """[n] when each sample's impression was, ms."""
        return np.asarray(self.batch.samples.column("impression_at").to_numpy(zero_copy_only=False), np.int64)


class InvalidBatchError(InputError):
    """A batch cannot be learned from: a label, weight or rate is outside its range."""

    def __init__(self, batch: Batch, problem: str) -> None:
        super().__init__(problem)
        self.batch = batch


class Prefetcher:
    """Hands out prepared batches in log order, always working one ahead. One caller at a time."""

    def __init__(self, reader: BatchReader, plan: FeaturePlan, labels: tuple[str, ...]) -> None:
        self._reader, self._plan, self._labels = reader, plan, labels
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._ahead: Future[PreparedBatch | None] | None = None
        self._uniquer = Uniquer()

    def next(self, stop_offset: int) -> PreparedBatch | None:
        """The next batch below `stop_offset`; None where it is not in the log yet. Raises InvalidBatchError."""
        prepared = self._ahead.result() if self._ahead else None
        if prepared is None:
            prepared = self._worker.submit(self._prepare, stop_offset).result()
        self._ahead = self._worker.submit(self._prepare, stop_offset) if prepared else None
        return prepared

    def ahead(self, stop_offset: int) -> PreparedBatch | None:
        """As `next`, where a batch is being prepared already; None where there is none or it failed: `next` tells."""
        if self._ahead is None or self._ahead.exception() or self._ahead.result() is None:
            return None
        return self.next(stop_offset)

    def wait(self, wait_ms: int) -> int:
        """An offset up to which there are records, as `BatchReader.wait`: what was prepared already counts."""
        if self._ahead and (self._ahead.exception() or self._ahead.result()):
            return NO_END
        return self._worker.submit(self._reader.wait, wait_ms).result()

    def close(self) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, stop_offset: int) -> PreparedBatch | None:
        batch = self._reader.next(stop_offset)
        if batch is None:
            return None
        impression_at = batch.samples.column("impression_at").to_numpy(zero_copy_only=False)
        features = self._plan.extract(batch.samples, impression_at)
        unique = self._uniquer.unique
        fields = {name: FieldBatch(*unique(field.keys), offsets=field.offsets) for name, field in features.keys.items()}
        try:
            targets = targets_of(batch.samples, self._labels)
        except InputError as failure:
            raise InvalidBatchError(batch, str(failure)) from None
        return PreparedBatch(batch, fields, features.dense, targets)

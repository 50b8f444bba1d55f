"""Selections of rows from several Arrow batches: the Python interface of `native/batch/gather`.

A selection refers to rows by their places, so selecting, ordering and concatenating move eight bytes per row; columns
are copied once, by `gather`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import pipeline._native as _native
from pipeline.arrays.checks import require_array
from pipeline.errors import InputError

UInt64s = npt.NDArray[np.uint64]

_CHUNK_BITS = np.uint64(32)
_WORDS = {pa.int8(): 8, pa.float32(): 32, pa.int64(): 64, pa.uint64(): 64, pa.float64(): 64}
_WANTED = ", ".join(str(kind) for kind in _WORDS) + ", bool, string, binary or a list of these"


@dataclass(frozen=True)
class RowSelection:
    """n rows of batches, in order; a row may occur several times.

    Attributes:
        batches: batches of one schema, at least one.
        places: [n] uint64: index of the batch << 32 | row in the batch.
    """

    batches: Sequence[pa.RecordBatch]
    places: UInt64s

    def __len__(self) -> int:
        return len(self.places)

    @classmethod
    def of(cls, batch: pa.RecordBatch, rows: npt.NDArray[np.integer]) -> "RowSelection":
        """The rows of one batch at [n] `rows`."""
        return cls((batch,), rows.astype(np.uint64))

    @classmethod
    def concatenate(cls, parts: Sequence["RowSelection"]) -> "RowSelection":
        """Concatenate one or more selections."""
        batches: list[pa.RecordBatch] = []
        places = []
        for part in parts:
            places.append(part.places + (np.uint64(len(batches)) << _CHUNK_BITS))
            batches += part.batches
        return cls(batches, np.concatenate(places))

    def take(self, index: npt.NDArray[np.integer]) -> "RowSelection":
        """The selected rows at [m] `index`."""
        return RowSelection(self.batches, self.places[index])

    def gather(self) -> pa.RecordBatch:
        """Copy the selected rows into a new batch, [n].

        Raises:
            InputError: a place is outside the batches, schemas differ, a column has an unsupported type, offsets point
                outside their text, or a column would have more than 2 GiB of text.

        >>> a, b = pa.record_batch({"x": ["a", "b"]}), pa.record_batch({"x": ["c"]})
        >>> RowSelection((a, b), np.array([1 << 32, 1], np.uint64)).gather().column("x").to_pylist()
        ['c', 'b']
        """
        self._check()
        used, schema = self._without_unused(), self.batches[0].schema
        for batch in used.batches:
            if batch.schema != schema:
                raise InputError(f"batches: got {batch.schema}, wanted {schema} as the first has")
            batch.validate()  # checks buffer lengths; the native code checks offsets
        columns = [gather_array([b.column(i) for b in used.batches], used.places) for i in range(len(schema))]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _without_unused(self) -> "RowSelection":
        """The same rows without batches that have none: the cost per batch equals that of many rows."""
        numbers = (self.places >> _CHUNK_BITS).view(np.int64)
        used = np.bincount(numbers, minlength=len(self.batches)) > 0
        used[0] = True
        if used.all():
            return self
        shift = (np.cumsum(~used) << 32).view(np.uint64)
        return RowSelection([b for b, u in zip(self.batches, used, strict=True) if u], self.places - shift[numbers])

    def _check(self) -> None:
        require_array("places", self.places, np.uint64, ("n",))
        if not self.batches:
            raise InputError("batches: got none, wanted at least one")
        _check_places(self.places, [b.num_rows for b in self.batches])


def gather_array(chunks: Sequence[pa.Array], places: UInt64s) -> pa.Array:
    """The values at `places`, which must be valid; `RowSelection.gather` checks them.

    Args:
        chunks: arrays of one type.
        places: [n] uint64: index of the chunk << 32 | row in the chunk.

    Returns:
        [n] array of that type.
    """
    kind = chunks[0].type
    try:
        buffers, children = _gatherer(kind)(chunks, places)
        validity, nulls = _validity(chunks, places)
    except ValueError as failure:
        raise InputError(f"column of {kind} cannot be gathered: {failure}") from None
    return pa.Array.from_buffers(kind, len(places), [validity, *buffers], nulls, children=children)


_Parts = tuple[list[pa.Buffer], list[pa.Array]]


def _gatherer(kind: pa.DataType) -> Callable[[Sequence[pa.Array], UInt64s], _Parts]:
    if kind in _WORDS:
        return _gather_words
    if pa.types.is_boolean(kind):
        return _gather_booleans
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _gather_texts
    if pa.types.is_list(kind):
        return _gather_lists
    raise InputError(f"column: got {kind}, wanted {_WANTED}. hint: cast it")


def _gather_words(chunks: Sequence[pa.Array], places: UInt64s) -> _Parts:
    bits = _WORDS[chunks[0].type]
    word = np.dtype(f"u{bits // 8}")
    buffer, out = _allocate(len(places), word)
    views = [_view(c.buffers()[1], word)[c.offset : c.offset + len(c)] for c in chunks]
    getattr(_native, f"gather_words{bits}")(places, views, out)
    return [buffer], []


def _gather_booleans(chunks: Sequence[pa.Array], places: UInt64s) -> _Parts:
    buffer, _ = _gather_bits(chunks, 1, places)
    return [buffer], []


def _gather_texts(chunks: Sequence[pa.Array], places: UInt64s) -> _Parts:
    ranges, texts = [_offsets(c) for c in chunks], [_view(c.buffers()[2], np.uint8) for c in chunks]
    offsets_buffer, offsets = _gather_offsets(ranges, [len(t) for t in texts], places)
    buffer, out = _allocate(int(offsets[-1]), np.dtype(np.uint8))
    _native.gather_texts(places, ranges, texts, offsets, out)
    return [offsets_buffer, buffer], []


def _gather_lists(chunks: Sequence[pa.Array], places: UInt64s) -> _Parts:
    ranges, values = [_offsets(c) for c in chunks], [c.values for c in chunks]
    lengths = [len(v) for v in values]
    offsets_buffer, offsets = _gather_offsets(ranges, lengths, places)
    members = np.empty(int(offsets[-1]), np.uint64)
    _native.gather_members(places, ranges, np.array(lengths, np.uint64), members)
    return [offsets_buffer], [gather_array(values, members)]


def _validity(chunks: Sequence[pa.Array], places: UInt64s) -> tuple[pa.Buffer | None, int]:
    if all(c.buffers()[0] is None for c in chunks):
        return None, 0
    buffer, nulls = _gather_bits(chunks, 0, places)
    return (buffer, nulls) if nulls else (None, 0)


def _gather_bits(chunks: Sequence[pa.Array], number: int, places: UInt64s) -> tuple[pa.Buffer, int]:
    """Bits of buffer `number` of the chunks at `places`, and the number of zeros among them."""
    buffers = [c.buffers()[number] for c in chunks]
    bitmaps = [None if b is None else _view(b, np.uint8) for b in buffers]
    buffer, out = _allocate((len(places) + 7) // 8, np.dtype(np.uint8))
    zeros = _native.gather_bits(places, bitmaps, np.array([c.offset for c in chunks], np.uint64), out)
    return buffer, int(zeros)


def _gather_offsets(
    ranges: list[npt.NDArray[np.int32]], lengths: list[int], places: UInt64s
) -> tuple[pa.Buffer, npt.NDArray[np.int32]]:
    buffer, out = _allocate(len(places) + 1, np.dtype(np.int32))
    _native.gather_offsets(places, ranges, np.array(lengths, np.uint64), out)
    return buffer, out


def _offsets(array: pa.Array) -> npt.NDArray[np.int32]:
    offsets = _view(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    # An array without rows may have no offsets buffer.
    return offsets if len(array) else np.zeros(1, np.int32)


def _check_places(places: UInt64s, rows: list[int]) -> None:
    if not _native.places_fit(places, np.array(rows, np.uint64)):
        raise InputError(f"places: got one outside of {len(rows)} batches of {rows[:8]} rows")


def _allocate(length: int, dtype: np.dtype[Any]) -> tuple[pa.Buffer, npt.NDArray[Any]]:
    """A buffer from Arrow's pool, and a writable [length] array view of it."""
    buffer = pa.allocate_buffer(length * dtype.itemsize)
    return buffer, np.frombuffer(buffer, dtype) if length else np.empty(0, dtype)


def _view(buffer: pa.Buffer | None, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.frombuffer(buffer, dtype) if buffer is not None and buffer.size else np.empty(0, dtype)

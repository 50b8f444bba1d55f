"""Decodes the record batches of a fetch response into a run of records (`native/wire/record_batches`).

The batches are selected here: control batches end a transaction and have no records, and batches of aborted
transactions are skipped. Decompression is bounded (`decompression`); all other decoding is native.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import pipeline._native as _native
from pipeline.errors import DamagedError
from pipeline.logs.interface.record_run import RecordRun
from pipeline.logs.kafka.decompression import decompress

_CODEC, _TRANSACTIONAL, _CONTROL = 7, 16, 32
_NO_CODEC = 0


def decode_record_set(record_set: bytes, start: int, aborted: Iterable[tuple[int, int]] = ()) -> RecordRun:
    """The committed records from offset `start` on.

    Args:
        record_set: record batches of format 2, of which the last may be truncated.
        start: records below it are left out; the first batch may contain some.
        aborted: (producer id, first offset) of aborted transactions, as the broker lists them.

    Raises:
        DamagedError: for a checksum that does not match, an invalid batch, or a codec whose library is missing.
    """
    batches = _native.RecordBatches(record_set)
    bases, lasts = batches.base_offsets(), batches.last_offsets()
    if batches.wrong is not None:
        at = int(lasts[-1]) + 1 if len(batches) else start
        raise DamagedError(f"the batch after offset {at} {batches.wrong}. hint: restore the broker's replica")
    attributes = batches.attributes()
    chosen = _visible(bases, lasts, batches.producer_ids(), attributes, aborted)
    decompressed = _decompressed(batches, record_set, attributes, chosen)
    wrong, done, offsets, times, ends, values, header_ends, headers = batches.decode(chosen, decompressed, start)
    if wrong is not None:
        raise DamagedError(f"the batch at offset {bases[chosen[done]]} {wrong}. hint: restore the broker's replica")
    next_offset = max(start, int(lasts[-1]) + 1) if len(batches) else start
    return RecordRun(offsets, times, _binary(ends, values), _headers(header_ends, headers), next_offset)


def _visible(
    bases: npt.NDArray[np.int64],
    lasts: npt.NDArray[np.int64],
    producers: npt.NDArray[np.int64],
    attributes: npt.NDArray[np.uint16],
    aborted: Iterable[tuple[int, int]],
) -> list[int]:
    """Indices of the batches with committed records."""
    pending = sorted(aborted, key=lambda one: one[1], reverse=True)
    control = (attributes & _CONTROL) != 0
    if not pending:
        visible: list[int] = np.flatnonzero(~control).tolist()
        return visible
    aborting: set[int] = set()
    chosen = []
    for number in range(len(bases)):
        while pending and pending[-1][1] <= lasts[number]:
            aborting.add(pending.pop()[0])
        producer = int(producers[number])
        if control[number]:
            aborting.discard(producer)  # committed or aborted, the batches that follow are another transaction
        elif not (attributes[number] & _TRANSACTIONAL and producer in aborting):
            chosen.append(number)
    return chosen


def _decompressed(
    batches: Any, record_set: bytes, attributes: npt.NDArray[np.uint16], chosen: Sequence[int]
) -> list[bytes | None]:
    codecs = attributes & _CODEC
    if not codecs.any():
        return [None] * len(chosen)
    begins, ends, view = batches.begins(), batches.ends(), memoryview(record_set)
    return [
        None if codecs[n] == _NO_CODEC else decompress(int(codecs[n]), bytes(view[begins[n] : ends[n]])) for n in chosen
    ]


def _binary(ends: npt.NDArray[np.int32], values: npt.NDArray[np.uint8]) -> pa.BinaryArray:
    starts = np.concatenate([np.zeros(1, np.int32), ends])
    return pa.Array.from_buffers(pa.binary(), len(ends), [None, pa.py_buffer(starts), pa.py_buffer(values)])


def _headers(ends: npt.NDArray[np.int32], packed: npt.NDArray[np.uint8]) -> Sequence[Mapping[str, str]] | None:
    if not len(packed):
        return None
    bounds = np.concatenate([np.zeros(1, np.int32), ends])
    return LazyHeaders(bounds, packed)


class LazyHeaders(Sequence[Mapping[str, str]]):
    """Headers that are unpacked on access. Thread-safe."""

    def __init__(self, bounds: npt.NDArray[np.int32], packed: npt.NDArray[np.uint8]) -> None:
        self._bounds, self._packed = bounds, packed

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            begin, end, step = row.indices(len(self))
            assert step == 1, "slices of headers are contiguous"
            return LazyHeaders(self._bounds[begin : max(begin, end) + 1], self._packed)
        return _unpack_headers(self._packed[self._bounds[row] : self._bounds[row + 1]].tobytes())


def _unpack_headers(packed: bytes) -> Mapping[str, str]:
    """Of a repeated header the last; invalid UTF-8 is replaced. The native decoder has checked the lengths."""
    if not packed:
        return {}
    unread = iter(packed)
    number = partial(_read_varint, unread)
    found = {}
    for _ in range(number()):
        key = bytes(next(unread) for _ in range(number()))
        value = bytes(next(unread) for _ in range(max(number(), 0)))
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return found


def _read_varint(unread: Iterator[int]) -> int:
    value = shift = 0
    while True:
        byte = next(unread)
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)

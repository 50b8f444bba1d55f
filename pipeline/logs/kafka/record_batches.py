"""The bytes of a fetch response to columns: the Python face of `native/record_batches`.

Which batches count is decided here, a batch at a time: control batches end a transaction and hold no records for
anybody, those of aborted transactions are skipped. The client's own codecs decompress; all else is native.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from kafka import codec

import pipeline._native as _native
from pipeline.errors import DamagedError
from pipeline.logs.record_run import RecordRun

_CODEC, _TRANSACTIONAL, _CONTROL = 7, 16, 32
_PLAIN = 0
_INFLATE: dict[int, tuple[str, Callable[[], bool], Callable[[bytes], bytes]]] = {
    1: ("gzip", codec.has_gzip, codec.gzip_decode),
    2: ("snappy", codec.has_snappy, codec.snappy_decode),
    3: ("lz4", codec.has_lz4, codec.lz4_decode),
    4: ("zstd", codec.has_zstd, codec.zstd_decode),
}


def decode_record_set(record_set: bytes, start: int, aborted: Iterable[tuple[int, int]] = ()) -> RecordRun:
    """The records from offset `start` on that readers of committed records see.

    Args:
        record_set: whole record batches of format 2, the last one possibly cut off.
        start: records below it are left out, though a batch holds them.
        aborted: (producer id, first offset) of transactions that were aborted, as the broker lists them.

    Raises:
        DamagedError: a checksum that does not match, a batch that is none, or a codec whose library is missing.
    """
    batches = _native.RecordBatches(record_set)
    bases, lasts = batches.base_offsets(), batches.last_offsets()
    if batches.wrong is not None:
        at = int(lasts[-1]) + 1 if len(batches) else start
        raise DamagedError(f"the batch behind offset {at} {batches.wrong}. hint: restore the broker's replica")
    attributes = batches.attributes()
    chosen = _visible(bases, lasts, batches.producer_ids(), attributes, aborted)
    inflated = _inflated(batches, record_set, attributes, chosen)
    wrong, done, offsets, times, ends, values, header_ends, headers = batches.decode(chosen, inflated, start)
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
    """Numbers of the batches whose records count."""
    waiting = sorted(aborted, key=lambda one: one[1], reverse=True)
    control = (attributes & _CONTROL) != 0
    if not waiting:
        found: list[int] = np.flatnonzero(~control).tolist()
        return found
    undone: set[int] = set()
    chosen = []
    for number in range(len(bases)):
        while waiting and waiting[-1][1] <= lasts[number]:
            undone.add(waiting.pop()[0])
        producer = int(producers[number])
        if control[number]:
            undone.discard(producer)  # whichever way it ended: what follows is another transaction
        elif not (attributes[number] & _TRANSACTIONAL and producer in undone):
            chosen.append(number)
    return chosen


def _inflated(
    batches: Any, record_set: bytes, attributes: npt.NDArray[np.uint16], chosen: Sequence[int]
) -> list[bytes | None]:
    codecs = attributes & _CODEC
    if not codecs.any():
        return [None] * len(chosen)
    begins, ends, view = batches.begins(), batches.ends(), memoryview(record_set)
    return [None if codecs[n] == _PLAIN else _inflate(int(codecs[n]), bytes(view[begins[n] : ends[n]])) for n in chosen]


def _inflate(kind: int, body: bytes) -> bytes:
    if kind not in _INFLATE:
        raise DamagedError(f"a batch is compressed with codec {kind}, known are 1 to {max(_INFLATE)}")
    name, there, decode = _INFLATE[kind]
    if not there():
        raise DamagedError(f"a batch is compressed with {name}, whose library is missing. hint: pip install it")
    try:
        return bytes(decode(body))
    except Exception as failure:  # every codec has errors of its own for bytes that are none
        raise DamagedError(f"a batch is no {name}: {failure or type(failure).__name__}") from failure


def _binary(ends: npt.NDArray[np.int32], values: npt.NDArray[np.uint8]) -> pa.BinaryArray:
    starts = np.concatenate([np.zeros(1, np.int32), ends])
    return pa.Array.from_buffers(pa.binary(), len(ends), [None, pa.py_buffer(starts), pa.py_buffer(values)])


def _headers(ends: npt.NDArray[np.int32], packed: npt.NDArray[np.uint8]) -> Sequence[Mapping[str, str]] | None:
    if not len(packed):
        return None
    bounds = np.concatenate([np.zeros(1, np.int32), ends])
    return LazyHeaders(bounds, packed)


class LazyHeaders(Sequence[Mapping[str, str]]):
    """Headers that are unpacked when asked for. Thread-safe."""

    def __init__(self, bounds: npt.NDArray[np.int32], packed: npt.NDArray[np.uint8]) -> None:
        self._bounds, self._packed = bounds, packed

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            begin, end, step = row.indices(len(self))
            assert step == 1, "headers are cut in one piece"
            return LazyHeaders(self._bounds[begin : max(begin, end) + 1], self._packed)
        return _unpack_headers(self._packed[self._bounds[row] : self._bounds[row + 1]].tobytes())


def _unpack_headers(packed: bytes) -> Mapping[str, str]:
    """Of a header that is there twice the last; what is no UTF-8 is marked. The native side has checked the lengths."""
    if not packed:
        return {}
    take = iter(packed)
    number = partial(_take_number, take)
    found = {}
    for _ in range(number()):
        key = bytes(next(take) for _ in range(number()))
        value = bytes(next(take) for _ in range(max(number(), 0)))
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return found


def _take_number(take: Iterator[int]) -> int:
    value = shift = 0
    while True:
        byte = next(take)
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)

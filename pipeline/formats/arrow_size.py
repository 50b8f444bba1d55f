"""How much memory an Arrow IPC stream needs, before it is decompressed and before columns are converted.

Any process may append a record to an input topic. A compressed buffer begins with the length that it has decompressed
(int64; -1 for one that is not compressed), and Arrow reserves what it claims. Dictionaries, views and columns of nulls
are short however long the plain column is.

The messages are FlatBuffers (Message.fbs of Apache Arrow), verified by Arrow; three of their tables are read here.
"""

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.types import Int64s

MAX_BYTES = 1 << 30
"""Of one record's columns. The largest record has 32 MiB by default."""
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_WIDTH = 8
"""Bytes of the widest plain value: every number is converted to 64 bits."""


def decompressed_bytes(packed: bytes) -> int:
    """Bytes of all buffers of a stream, as they claim; nothing is decompressed.

    Raises pa.ArrowException, OSError, ValueError, EOFError or struct.error for bytes that are no stream.
    """
    return sum(_body_bytes(message) for message in _messages(packed))


def plain_bytes(column: pa.Array) -> int:
    """Bytes of a column as plain values of 64 bits, strings and lists; an estimate for other types."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _taken_bytes(column.dictionary, column.indices)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return _WIDTH * len(column) + _viewed_bytes(column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _WIDTH * len(column) + plain_bytes(column.values)
    return max(_WIDTH * len(column), int(column.nbytes))


def _viewed_bytes(column: pa.Array) -> int:
    """Bytes of the values of views, each of which has 16 bytes and begins with its length (int32)."""
    if not len(column):
        return 0
    views = np.frombuffer(column.buffers()[1], "<i4", 4 * (column.offset + len(column))).reshape(-1, 4)
    lengths = views[column.offset :, 0].astype(np.int64)
    valid = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), np.bool_)
    return int(lengths[valid].sum())


def _taken_bytes(values: pa.Array, indices: pa.Array) -> int:
    """Bytes of `values` taken at `indices`; each counts as much as the longest if its type has no length."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        lengths = pc.binary_length(values).take(indices)
        return _WIDTH * len(indices) + int(pc.sum(lengths).as_py() or 0)
    if pa.types.is_primitive(kind):
        return _WIDTH * len(indices)
    return len(indices) * plain_bytes(values)


def _messages(packed: bytes) -> Iterator[pa.ipc.Message]:
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(packed))
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


def _body_bytes(message: pa.ipc.Message) -> int:
    metadata = memoryview(message.metadata)
    root = _Table(metadata, struct.unpack_from("<I", metadata)[0])
    kind, batch = root.byte(1), root.table(2)
    if kind == _DICTIONARY_BATCH and batch is not None:
        batch = batch.table(1)
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH) or batch is None or not message.body:
        return 0
    buffers = batch.structs(2)
    if batch.table(3) is None:
        return int(buffers[:, 1].sum())
    return sum(_claimed(message.body, offset, length) for offset, length in buffers.tolist())


def _claimed(body: pa.Buffer, offset: int, length: int) -> int:
    """What a buffer of a compressed body has decompressed."""
    if length < _WIDTH or not 0 <= offset <= len(body) - _WIDTH:
        return 0  # empty, or Arrow refuses it
    (claimed,) = struct.unpack_from("<q", memoryview(body), offset)
    return length if claimed < 0 else int(claimed)


class _Table:
    """A FlatBuffers table at a position of `data`: its fields by number, through its vtable."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - struct.unpack_from("<i", data, at)[0]
        self._size = struct.unpack_from("<H", data, self._fields)[0]

    def byte(self, number: int) -> int:
        """A byte; 0 without the field."""
        place = self._place(number)
        return self._data[place] if place else 0

    def table(self, number: int) -> "_Table | None":
        """A table that the field refers to."""
        place = self._place(number)
        return _Table(self._data, self._target(place)) if place else None

    def structs(self, number: int) -> Int64s:
        """A vector of pairs of int64: [n, 2]."""
        place = self._place(number)
        if not place:
            return np.empty((0, 2), np.int64)
        at = self._target(place)
        (count,) = struct.unpack_from("<I", self._data, at)
        return np.frombuffer(self._data, "<i8", 2 * count, at + 4).reshape(-1, 2)

    def _place(self, number: int) -> int:
        slot = 4 + 2 * number
        if slot + 2 > self._size:
            return 0
        offset = struct.unpack_from("<H", self._data, self._fields + slot)[0]
        return self._at + offset if offset else 0

    def _target(self, place: int) -> int:
        return place + int(struct.unpack_from("<I", self._data, place)[0])

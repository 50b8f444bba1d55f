"""Named arrays as bytes: how versions store dense weights and deltas carry them.

A container of one or two sections. `arrays`: arrays one after another, C order, little-endian, unpadded. `blocks`:
float32 arrays as integers, in blocks (`served_weights`). Its header lists the name, dtype and shape of each array, in
one order, and the bits of the integers of those in blocks.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import Float32s, UInt8s
from pipeline.errors import ModelError
from pipeline.formats.container import Container, Kind, encode_container
from pipeline.versions.deltas.delta import DENSE_BLOCK
from pipeline.versions.deltas.quantizer import decode_rows, payload_bytes

DENSE = Kind(b"dens", "restore an earlier version, or publish again: springtide publish --level full")
BLOCK = DENSE_BLOCK
INTEGER_BITS = (8, 16)
_SECTION, _BLOCKS = "arrays", "blocks"
_DTYPE = re.compile(r"[<|][biuf][1248]")
_MOST_AXES, _MOST_NUMBERS = 32, 1 << 48

Arrays = Mapping[str, npt.NDArray[Any]]
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""By name: dtype and shape."""


_SERVED = ("variable/", "scaling/")
"""Names of what serving needs begin with one of these."""


class Entry(NamedTuple):
    """One array of a container.

    Attributes:
        bits: of its integers, 8 or 16; None for an array that is stored as it is.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bits: int | None = None

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def blocks(self) -> int:
        """How many blocks it takes."""
        return 0 if self.bits is None else -(-self.size // BLOCK)

    @property
    def bytes(self) -> int:
        """How many bytes it takes in its section."""
        if self.bits is not None:
            return self.blocks * payload_bytes(self.bits, BLOCK)
        return self.size * np.dtype(self.dtype).itemsize

    def listed(self) -> list[Any]:
        """The entry in a header."""
        return [self.name, self.dtype, list(self.shape), *([] if self.bits is None else [self.bits])]


def pack(arrays: Arrays) -> bytes:
    """The arrays as bytes; equal arrays in equal order give equal bytes."""
    stored = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    entries = [Entry(name, array.dtype.str, array.shape).listed() for name, array in stored.items()]
    return encode_container(DENSE, {"arrays": entries}, {_SECTION: b"".join(a.tobytes() for a in stored.values())})


def unpack(packed: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of `pack`; those in blocks as the float32 numbers that they stand for. Raises DamagedError."""
    contents = read_contents(packed)
    return {
        each.name: array_of(each, content) if each.bits is None else numbers_of(each, blocks_of(each, content))
        for each, content in zip(contents.entries, contents.parts, strict=True)
    }


class Contents(NamedTuple):
    """What a container holds.

    Attributes:
        entries: its arrays.
        parts: the bytes of each.
        whole: the arrays of the complete network, of which a part has some.
    """

    entries: tuple[Entry, ...]
    parts: tuple[bytes, ...]
    whole: tuple[Entry, ...]


def read_contents(packed: bytes) -> Contents:
    """Entries and bytes of a container, checked to fit each other. Raises DamagedError."""
    container = Container.of(packed, DENSE, name="dense weights")
    stored = container.section(_SECTION)
    blocks = container.section(_BLOCKS) if _BLOCKS in container else b""
    with container.parsing():
        entries = _entries(container.header["arrays"])
        whole = _entries(container.header["whole"]) if "whole" in container.header else entries
        if not set(entries) <= set(whole):
            raise ValueError("it has arrays that the complete network does not have")
        return Contents(entries, _parts(entries, stored, blocks), whole)


def write_contents(contents: Contents) -> bytes:
    """The container with these contents; equal contents give equal bytes."""
    sections: dict[str, bytes] = {_SECTION: b"", _BLOCKS: b""}
    for name, in_blocks in ((_SECTION, False), (_BLOCKS, True)):
        pairs = zip(contents.entries, contents.parts, strict=True)
        sections[name] = b"".join(part for entry, part in pairs if (entry.bits is not None) == in_blocks)
    header = {"arrays": [entry.listed() for entry in contents.entries]}
    if contents.whole != contents.entries:
        header["whole"] = [entry.listed() for entry in contents.whole]
    if all(entry.bits is None for entry in contents.entries):
        del sections[_BLOCKS]
    return encode_container(DENSE, header, sections)


def array_of(entry: Entry, content: bytes) -> npt.NDArray[Any]:
    """The array of an entry that is stored as it is."""
    return np.frombuffer(content, np.dtype(entry.dtype), entry.size).reshape(entry.shape)


def blocks_of(entry: Entry, content: bytes) -> UInt8s:
    """[blocks, bytes of one] uint8, the payloads of an entry's blocks."""
    assert entry.bits is not None
    return np.frombuffer(content, np.uint8).reshape(entry.blocks, payload_bytes(entry.bits, BLOCK))


def numbers_of(entry: Entry, blocks: UInt8s) -> Float32s:
    """The float32 array that an entry's blocks stand for: integers times a power of two."""
    return decode_rows(blocks, f"step{entry.bits}", BLOCK).reshape(-1)[: entry.size].reshape(entry.shape)


def serving_arrays(arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """What serving needs of the arrays of a trainer: not the state of its optimizer."""
    return {name: array for name, array in arrays.items() if name.startswith(_SERVED)}


def served_part(packed: bytes) -> bytes:
    """Of the weights of a version those that serving needs. Raises DamagedError."""
    return pack(serving_arrays(unpack(packed)))


def shapes_of(arrays: Arrays) -> Shapes:
    """The dtype and shape of each array."""
    return {name: (array.dtype.str, array.shape) for name, array in arrays.items()}


def check_shapes(arrays: Arrays, expected: Shapes) -> None:
    """Raise ModelError unless the arrays have the expected names, dtypes and shapes."""
    actual = shapes_of(arrays)
    if actual != expected:
        name = next(n for n in (*expected, *actual) if expected.get(n) != actual.get(n))
        got, wanted = actual.get(name, "nothing"), expected.get(name, "nothing")
        raise ModelError(f"weights have {got} as {name}, the model has {wanted}. hint: pass --migrate")


def _entries(listed: Sequence[Sequence[Any]]) -> tuple[Entry, ...]:
    """The entries of a header. Raises ValueError for those that `Entry.listed` does not give."""
    entries = []
    for name, dtype, shape, *bits in listed:
        # NumPy evaluates other spellings with Python's parser.
        if not isinstance(name, str) or not _DTYPE.fullmatch(dtype) or not _is_shape(shape):
            raise ValueError(f"array {name} of {dtype} {shape}")
        entry = Entry(name, dtype, tuple(shape), *bits)
        if bits and (type(entry.bits) is not int or entry.bits not in INTEGER_BITS or dtype != "<f4"):
            raise ValueError(f"array {name} of {dtype} in integers of {entry.bits} bits")
        entries.append(entry)
    if len({entry.name for entry in entries}) < len(entries):
        raise ValueError("an array is listed twice")
    return tuple(entries)


def _is_shape(shape: object) -> bool:
    """Whether NumPy has arrays of this shape: sizes beside a 0 count as well."""
    if not isinstance(shape, list) or len(shape) > _MOST_AXES or any(type(size) is not int for size in shape):
        return False
    return min(shape, default=0) >= 0 and math.prod(max(size, 1) for size in shape) <= _MOST_NUMBERS


def _parts(entries: Sequence[Entry], stored: bytes, blocks: bytes) -> tuple[bytes, ...]:
    """The bytes of each entry, one after another in the section it belongs to. Raises ValueError if they do not fit."""
    parts, ends = [], {False: 0, True: 0}
    for entry in entries:
        in_blocks = entry.bits is not None
        start = ends[in_blocks]
        ends[in_blocks] = start + entry.bytes
        parts.append((blocks if in_blocks else stored)[start : ends[in_blocks]])
    if (ends[False], ends[True]) != (len(stored), len(blocks)):
        raise ValueError(f"arrays end after {ends[False]} and {ends[True]} of {len(stored)} and {len(blocks)} bytes")
    return tuple(parts)

"""Named arrays as bytes: the form of dense weights in versions and deltas.

    magic "FRSHDNSE" | format version u32 | header bytes u32 | header | arrays | BLAKE2b-256 over everything before

The header is JSON, one [name, dtype, shape] per array; arrays follow in that order, C order, little-endian, unpadded.
"""

import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import DamagedError

MAGIC = b"FRSHDNSE"
VERSION = 1
_PREFIX = struct.Struct("<8sII")
_CHECKSUM_BYTES = 32
_DTYPE = re.compile(r"[<|][biuf][1248]")

Arrays = Mapping[str, npt.NDArray[Any]]


def pack(arrays: Arrays) -> bytes:
    """The arrays as bytes; equal arrays in equal order give equal bytes."""
    stored = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    entries = [[name, array.dtype.str, list(array.shape)] for name, array in stored.items()]
    header = json.dumps(entries, separators=(",", ":")).encode()
    body = b"".join([_PREFIX.pack(MAGIC, VERSION, len(header)), header, *(a.tobytes() for a in stored.values())])
    return body + _checksum(body)


def unpack(packed: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of `pack`. Raises DamagedError."""
    body, checksum = packed[:-_CHECKSUM_BYTES], packed[-_CHECKSUM_BYTES:]
    if len(body) < _PREFIX.size or body[: len(MAGIC)] != MAGIC:
        raise DamagedError(
            f"dense weights begin with {packed[:8]!r}, wanted {MAGIC!r}. hint: restore an earlier version"
        )
    if _checksum(body) != checksum:
        raise DamagedError(f"dense weights of {len(packed)} bytes do not match their checksum. hint: restore or heal")
    _, version, header_bytes = _PREFIX.unpack_from(body)
    if version != VERSION:
        raise DamagedError(f"dense weights have format {version}, this release reads {VERSION}")
    start = _PREFIX.size + header_bytes
    try:
        return _arrays_in(json.loads(body[_PREFIX.size : start]), memoryview(body)[start:])
    except (ValueError, TypeError, OverflowError, RecursionError) as failure:
        raise DamagedError(f"dense weights have a header that makes no sense: {failure}") from failure


def _arrays_in(entries: list[tuple[str, str, list[int]]], stored: memoryview) -> dict[str, npt.NDArray[Any]]:
    """The arrays listed, one after the other in `stored`. Raises as NumPy if `stored` does not hold them."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    start = 0
    for name, spelled, shape in entries:
        # NumPy evaluates other spellings with Python's parser.
        if not _DTYPE.fullmatch(spelled) or min(shape, default=0) < 0 or name in arrays:
            raise ValueError(f"array {name} of {spelled} {shape}")
        dtype, count = np.dtype(spelled), math.prod(shape)
        arrays[name] = np.frombuffer(stored, dtype, count, start).reshape(shape)
        start += count * dtype.itemsize
    if start != len(stored):
        raise ValueError(f"arrays end after {start} of {len(stored)} bytes")
    return arrays


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()

"""Named arrays as bytes: how versions store dense weights and deltas carry them.

A container of one section: the arrays one after another, C order, little-endian, unpadded. Its header lists the name,
dtype and shape of each.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.formats.container import Container, Kind, encode_container

DENSE = Kind(b"dens", "restore an earlier version, or publish again: springtide publish --level full")
_SECTION = "arrays"
_DTYPE = re.compile(r"[<|][biuf][1248]")

Arrays = Mapping[str, npt.NDArray[Any]]
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""By name: dtype and shape."""


def pack(arrays: Arrays) -> bytes:
    """The arrays as bytes; equal arrays in equal order give equal bytes."""
    stored = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    entries = [[name, array.dtype.str, list(array.shape)] for name, array in stored.items()]
    return encode_container(DENSE, {"arrays": entries}, {_SECTION: b"".join(a.tobytes() for a in stored.values())})


def unpack(packed: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of `pack`. Raises DamagedError."""
    container = Container.of(packed, DENSE, name="dense weights")
    stored = container.section(_SECTION)
    with container.parsing():
        return _arrays_in(container.header["arrays"], stored)


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


def _arrays_in(entries: list[tuple[str, str, list[int]]], stored: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays listed, one after another in `stored`. Raises what NumPy raises if they do not fit."""
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

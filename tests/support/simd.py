"""The SIMD level of the native core, which by default is the highest of the machine; for tests and benchmarks."""

from collections.abc import Iterator
from contextlib import contextmanager

import pipeline._native as _native

from pipeline.errors import InputError


def simd_levels() -> tuple[str, ...]:
    """The levels that this machine supports, lowest first: a prefix of `portable`, `avx2`, `avx512`, `vnni`."""
    return tuple(_native.simd_levels())


def simd_level() -> str:
    """The level in use."""
    return str(_native.simd_level())


@contextmanager
def forced_simd_level(level: str) -> Iterator[None]:
    """Use `level` in the `with` block, in every thread of the process. Raises InputError if this machine lacks it."""
    if level not in simd_levels():
        raise InputError(f"simd level: got {level!r}, wanted one this machine has: {', '.join(simd_levels())}")
    before = simd_level()
    _native.force_simd_level(level)
    try:
        yield
    finally:
        _native.force_simd_level(before)

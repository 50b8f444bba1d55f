"""Which vector instructions the native core uses: the Python face of `native/simd`.

The best level the machine has is chosen at start and is right for every use but two: tests that every level gives the
same bytes, and measuring what a level is worth.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pipeline._native as _native
from pipeline.errors import InputError


def simd_levels() -> tuple[str, ...]:
    """The levels this machine has, lowest first: the first of `portable`, `avx2`, `avx512`."""
    return tuple(_native.simd_levels())


def simd_level() -> str:
    """The level in use.

    >>> simd_level() in simd_levels()
    True
    """
    return str(_native.simd_level())


@contextmanager
def forced_simd_level(level: str) -> Iterator[None]:
    """Use another level inside a `with` block, in every thread of the process.

    >>> with forced_simd_level("portable"):
    ...     simd_level()
    'portable'

    Raises:
        InputError: a level that does not exist or that this machine lacks.
    """
    if level not in simd_levels():
        raise InputError(f"simd level: got {level!r}, wanted one this machine has: {', '.join(simd_levels())}")
    before = simd_level()
    _native.force_simd_level(level)
    try:
        yield
    finally:
        _native.force_simd_level(before)

"""Memory that a process frees stays with it.

A trainer needs the same megabytes for every batch and commit. Where they are returned to the system in between, the
kernel clears and maps every page again.
"""

import ctypes

import pyarrow as pa

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 30
_MAPPED_BYTES = 32 << 20
"""The largest that glibc allows: larger blocks are mapped and unmapped."""


def keep_freed_memory() -> None:
    """Have this process keep up to a gigabyte of what it frees, for new blocks of up to 32 MiB.

    Arrow's own pool returns its memory; the pool of the system's allocator takes its place.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # only glibc has it
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    pa.set_memory_pool(pa.system_memory_pool())

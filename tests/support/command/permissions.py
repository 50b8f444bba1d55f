"""Makes permission bits count for this thread although the tests may run as root."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION_3 = 0x20080522
_OVERRIDES = 0b1111
"""CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER."""


@contextmanager
def permissions_in_force() -> Iterator[None]:
    """Inside, this thread and those it starts may not write or read what the bits forbid; Linux only."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, before = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    inside = (ctypes.c_uint32 * 6)(*before)
    inside[0] &= ~_OVERRIDES
    assert libc.capset(header, inside) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0

"""Free ports on the loopback address for the servers of tests and benchmarks."""

import os

from pipeline.cluster.ports import port_is_free

_FIRST, _LAST = 16_384, 32_000
"""Below the ephemeral range, so no open client connection occupies one."""


def free_port_range(count: int) -> int:
    """The first of `count` consecutive free ports; the search starts at a place that depends on the process id."""
    places = list(range(_FIRST, _LAST - count, count))
    begin = os.getpid() % len(places)
    for first in places[begin:] + places[:begin]:
        if all(port_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError(f"no {count} consecutive ports are free from {_FIRST} to {_LAST}")

"""Ports on the loopback address: whether one is free, and some that are."""

import os
import socket

from pipeline.errors import ClusterError

_FIRST, _LAST = 16_384, 32_000
"""Below those that systems hand out to clients: none of them is taken by a connection that happens to be open."""


def port_is_free(port: int) -> bool:
    """Whether something could listen on `port` now."""
    with socket.socket() as tried:
        # As servers do: what only lingers of an ended connection is no obstacle.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that is free now; nothing keeps it so."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port: int = tried.getsockname()[1]
    return port


def free_port_range(count: int) -> int:
    """The first of `count` ports in a row that are free now; processes that ask at once begin to look apart.

    Raises:
        ClusterError: where there are none.
    """
    places = list(range(_FIRST, _LAST - count, count))
    begin = os.getpid() % len(places)
    for first in places[begin:] + places[:begin]:
        if all(port_is_free(port) for port in range(first, first + count)):
            return first
    raise ClusterError(f"no {count} ports in a row are free from {_FIRST} to {_LAST}. hint: end what listens there")

"""Ports on the loopback address: whether one is free, and one that is."""

import socket


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


def free_ports(count: int) -> list[int]:
    """`count` different ports that are free now; nothing keeps them so."""
    tried = [socket.socket() for _ in range(count)]
    try:
        for one in tried:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in tried]
    finally:
        for one in tried:
            one.close()

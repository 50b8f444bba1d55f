"""Checks and chooses TCP ports on the loopback address."""

import socket


def port_is_free(port: int) -> bool:
    """Whether a server could bind `port` now."""
    with socket.socket() as probe:
        # Servers set this too: connections in TIME_WAIT do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that is free now. It is not reserved."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port

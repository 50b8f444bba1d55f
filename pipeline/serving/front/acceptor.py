"""Accepts the connections of a listening socket, a few at a time and within a share of the event loop's time.

asyncio accepts in one turn of its loop as many connections as the backlog allows, and every connected client waits for
that. Here a flood of connections waits in the system, in the order of arrival, and a connected client waits for a few.
"""

import asyncio
import errno
import socket
from collections.abc import Callable

import structlog

from pipeline.process.clock import Clock
from pipeline.process.log_limit import LogLimit

BACKLOG = 1_024
"""Connections that wait in the system. It drops one more, whose client then tries again after a second."""
AT_ONCE = 4
"""Connections accepted before other clients are served."""
_SHARE = 0.25
"""The share of time for accepting connections, and for closing others to make room."""
_LONGEST_PAUSE_S = 0.1

logger = structlog.get_logger(__name__)


async def accept_connections(listening: socket.socket, accept: Callable[[socket.socket], None], clock: Clock) -> None:
    """Accept connections of a listening socket until cancelled or it is shut down; `accept` gets each, and must not
    raise."""
    listening.setblocking(False)
    loop, limit = asyncio.get_running_loop(), LogLimit(clock)
    while True:
        try:
            accepted = [(await loop.sock_accept(listening))[0]]
            began_s = clock.monotonic_s()
            accepted += _waiting(listening, AT_ONCE - 1)
        except ConnectionAbortedError:
            continue
        except OSError as failure:  # the process may open no more files, or has no memory
            if failure.errno == errno.EINVAL:
                return  # the replica stops: the socket does not listen any more
            if (suppressed := limit.allow()) is not None:
                logger.error("connection cannot be accepted", problem=str(failure), suppressed=suppressed)
            await asyncio.sleep(_LONGEST_PAUSE_S)
            continue
        for each in accepted:
            accept(each)
        await asyncio.sleep(min(_LONGEST_PAUSE_S, (clock.monotonic_s() - began_s) * (1 / _SHARE - 1)))


def _waiting(listening: socket.socket, at_most: int) -> list[socket.socket]:
    """Connections that can be accepted at once."""
    accepted: list[socket.socket] = []
    try:
        while len(accepted) < at_most:
            connection, _ = listening.accept()
            connection.setblocking(False)
            accepted.append(connection)
    except OSError:
        pass  # none waits, or the next attempt to accept one reports why it cannot
    return accepted

"""uvicorn's server with its own way to accept connections: see `acceptor` and `pending` for what asyncio's lacks."""

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress

import uvicorn

from pipeline.process.clock import Clock
from pipeline.serving.front.acceptor import accept_connections
from pipeline.serving.front.connection import Connection
from pipeline.serving.front.connections import Connections


class Server(uvicorn.Server):
    """Belongs to one event loop."""

    def __init__(
        self, config: uvicorn.Config, listening: socket.socket, connections: Connections, clock: Clock
    ) -> None:
        """Serve the clients of a listening socket."""
        super().__init__(config)
        self._listening, self._clients, self._clock = listening, connections, clock
        self._accepting: asyncio.Task[None] | None = None
        self._connecting: set[asyncio.Task[object]] = set()

    def stop(self) -> None:
        """Accept no more connections, and end after the requests in progress."""
        self.should_exit = True

    def abandon(self) -> None:
        """As `stop`, once the process that predicts has ended: the port is free at once for its successor."""
        if self._accepting:
            self._accepting.cancel()
        self._listening.close()
        self.should_exit = self.force_exit = True

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the handling of signals as it is."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        await super().startup(sockets=[])
        asyncio.get_running_loop().add_reader(self._clients.pending, self._read_pending)
        self._accepting = asyncio.create_task(accept_connections(self._listening, self._accept, self._clock))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, and close those there are."""
        if self._accepting:
            self._accepting.cancel()
            with suppress(asyncio.CancelledError):
                await self._accepting
        asyncio.get_running_loop().remove_reader(self._clients.pending)
        self._clients.pending.close()
        self._listening.close()
        await super().shutdown()

    def _accept(self, accepted: socket.socket) -> None:
        received = self._clients.accept(accepted)
        if received is not None:
            self._connect(accepted, received)

    def _read_pending(self) -> None:
        for connection, received in self._clients.pending.read():
            self._connect(connection, received)

    def _connect(self, connection: socket.socket, received: bytes) -> None:
        """Serve a connection from which `received` has been read."""
        task: asyncio.Task[object] = asyncio.create_task(
            asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(self._clients, self.config, self.server_state, received), connection
            )
        )
        self._connecting.add(task)
        task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[object]) -> None:
        self._connecting.discard(task)
        if not task.cancelled():
            task.exception()  # a client that has gone meanwhile is no failure of the server

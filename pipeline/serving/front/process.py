"""The front as a process of its own: hostile bytes never occupy the interpreter that predicts.

    python -P -m pipeline.serving.front.process SETTINGS

It inherits the listening socket and two channels to the process that started it, and ends with it.
"""

import asyncio
import gc
import signal
import socket
import subprocess
import sys

import structlog
import uvicorn

from pipeline.configuration.deployment.serving import Serving
from pipeline.configuration.section import Section
from pipeline.process.clock import Clock, SystemClock
from pipeline.serving.front.application import Application
from pipeline.serving.front.connections import Connections
from pipeline.serving.front.server import Server
from pipeline.serving.front.upstream import Upstream
from pipeline.serving.link.paths import Paths

STOP_S = 5
"""How long requests in progress may take once the front is to end."""


class FrontSettings(Section):
    """What the front needs of the configuration."""

    name: str
    """Of the model."""
    serving: Serving


class _Inherited(Section):
    """The argument of the process."""

    settings: FrontSettings
    files: tuple[int, int, int]
    """Descriptors of the listening socket, of the quick channel and of the bulk channel."""


def start_process(settings: FrontSettings, *sockets: socket.socket) -> "subprocess.Popen[bytes]":
    """Start the front on the listening socket and the two channels `sockets`, of which it has its own copies.

    Raises OSError.
    """
    listening, quick, bulk = (each.fileno() for each in sockets)
    files = (listening, quick, bulk)
    argument = _Inherited(settings=settings, files=files).model_dump_json()
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, argument],
        pass_fds=files, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip


async def run_front(settings: FrontSettings, listening: socket.socket, upstream: Upstream, clock: Clock) -> None:
    """Serve the clients of a listening socket until the other end of `upstream` stops it or ends."""
    connections = Connections(settings.serving, clock)
    application = Application(Paths(settings.name), connections, upstream, clock)

    async def each_second() -> None:
        application.send_counts()
        await connections.close_overdue()

    config = uvicorn.Config(
        application,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        log_level="critical",  # the application counts failures and logs them at a bounded rate
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[("server", "springtide")],
        h11_max_incomplete_event_size=settings.serving.max_header_bytes,
        callback_notify=each_second,
        timeout_notify=1,
        timeout_graceful_shutdown=STOP_S,
    )
    server = Server(config, listening, connections, clock)
    await upstream.connect(server.stop, server.abandon)
    try:
        await server.serve()
    finally:
        application.send_counts()
        upstream.close()


def main(argument: str) -> None:
    """Run the front of the process that started this one."""
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends with the process that started it
        signal.signal(number, signal.SIG_IGN)
    inherited = _Inherited.model_validate_json(argument)
    listening, quick, bulk = (socket.socket(fileno=number) for number in inherited.files)
    upstream = Upstream(quick, bulk, inherited.settings.serving.deadline_s)
    structlog.configure(processors=[structlog.processors.format_exc_info, upstream.log])
    gc.freeze()
    asyncio.run(run_front(inherited.settings, listening, upstream, SystemClock()))


if __name__ == "__main__":
    main(sys.argv[1])

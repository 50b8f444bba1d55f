"""The server of a front that lost the process that predicts."""

import asyncio
import socket

import uvicorn

from pipeline.configuration.deployment.serving import Serving
from pipeline.process.clock import SystemClock
from pipeline.serving.front.connections import Connections
from pipeline.serving.front.server import Server


async def _application(scope, receive, send):
    raise AssertionError("no request is sent")


async def _abandoned(listening: socket.socket) -> bool:
    """Whether the port is free before the event loop runs again."""
    clock = SystemClock()
    config = uvicorn.Config(_application, lifespan="off", log_config=None)
    config.load()
    server = Server(config, listening, Connections(Serving(), clock), clock)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    await asyncio.sleep(0)  # it waits for a connection
    port = listening.getsockname()[1]
    server.abandon()
    with socket.create_server(("127.0.0.1", port)):
        free = server.should_exit
    await server.shutdown()
    return free


def test_a_successor_can_listen_on_the_port_of_an_abandoned_front_at_once():
    assert asyncio.run(_abandoned(socket.create_server(("127.0.0.1", 0))))

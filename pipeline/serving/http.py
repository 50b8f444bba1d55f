"""HTTP server of a replica: predictions in the form of TensorFlow Serving's REST API, and Prometheus metrics.

    POST /v1/models/NAME:predict     {"instances": [{column: value, …}, …]} → {"predictions": [[p per label], …]}
    GET  /v1/models/NAME             the served version
    GET  /v1/models/NAME/metadata    its inputs and outputs
    GET  /metrics                    Prometheus text
    GET  /healthz, /readyz           200, or 503 with the reason; ready means that a version is served

Errors are {"error": text}: 400 for a wrong request, 404 and 405 for an unknown path or method, 408 for a slow client,
413 beyond a bound of `[serving]`, 500 if the model or the user's code fails, 503 before the first version and at full
load, 504 after the deadline. uvicorn is the server; `serving/rest` holds the application and the bounds.
"""

import asyncio
import gc
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from pipeline.configuration.config import Config
from pipeline.configuration.project import Project
from pipeline.errors import InputError, LogError
from pipeline.logs.interface.log import Log
from pipeline.process.clock import Clock
from pipeline.process.log_limit import LogLimit
from pipeline.serving.readings import replica_readings
from pipeline.serving.replica import Replica
from pipeline.serving.rest.acceptor import BACKLOG
from pipeline.serving.rest.api import RestApi
from pipeline.serving.rest.application import Application
from pipeline.serving.rest.connections import Connections
from pipeline.serving.rest.server import Server
from pipeline.telemetry import metrics, readers
from pipeline.telemetry.registry import Reading

_STOP_S = 5
_SWITCH_INTERVAL_S = 0.001
"""How long one Python thread may keep the others waiting."""
_LONGEST_RETRY_S = 1.0

logger = structlog.get_logger(__name__)


class ReplicaServer:
    """Serves HTTP requests in background threads inside its `with` block."""

    def __init__(self, replica: Replica, config: Config, clock: Clock) -> None:
        """Bind to the configured host and port; port 0 selects a free one. Raises InputError if the port is in use."""
        self._replica = replica
        self._socket = _listen(config.serving.host, config.serving.port)
        self.port = int(self._socket.getsockname()[1])
        self._application = Application(RestApi(replica, config, clock), config.serving, clock)
        self._connections = Connections(config.serving, self._application.receiving, clock)
        self._server = Server(self._uvicorn_config(config), self._socket, self._connections, clock)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def __enter__(self) -> "ReplicaServer":
        readers.register("replica", self._readings)
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        readers.unregister("replica")
        self._server.should_exit = True
        self._thread.join()
        self._application.close()

    def _uvicorn_config(self, config: Config) -> uvicorn.Config:
        return uvicorn.Config(
            self._application,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="critical",  # the application counts failures and logs them at a bounded rate
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=[("server", "springtide")],
            h11_max_incomplete_event_size=config.serving.max_header_bytes,
            callback_notify=self._connections.close_overdue,
            timeout_notify=1,
            timeout_graceful_shutdown=_STOP_S,
        )

    def _serve(self) -> None:
        asyncio.run(self._server.serve())

    def _readings(self) -> Iterator[Reading]:
        yield metrics.HTTP_CONNECTIONS.reading(len(self._connections))
        yield from replica_readings(self._replica)


def follow(
    replica: Replica,
    clock: Clock,
    poll_ms: int,
    stop: threading.Event,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Apply deltas as they arrive until `stop` is set; `on_ready` gets the first version that is served.

    A failed read is logged, at a bounded rate, and retried with growing pauses.
    """
    limit, retry_s = LogLimit(clock), poll_ms / 1000
    while not stop.is_set():
        try:
            replica.catch_up(wait_ms=poll_ms)
            retry_s = poll_ms / 1000
        except LogError as failure:
            if (suppressed := limit.allow()) is not None:
                logger.error("deltas cannot be read", problem=str(failure), suppressed=suppressed)
            clock.wait(retry_s)
            retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
        if on_ready and replica.ready:
            on_ready(replica.version)
            on_ready = None


def serve(
    project: Project,
    log: Log,
    stop: threading.Event,
    on_listening: Callable[[int, bool], None] | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve predictions and follow deltas until `stop` is set.

    Args:
        project: configuration, published files and user code.
        log: holds the deltas topic.
        stop: ends the replica.
        on_listening: gets the port and whether a version is served, once requests are accepted.
        on_ready: gets the first version, if there was none then.
    """
    replica = Replica.for_predictions(project, log)
    replica.catch_up()
    replica.warm_up()
    with _short_pauses(), ReplicaServer(replica, project.config, project.clock) as server:
        ready = replica.ready
        if on_listening:
            on_listening(server.port, ready)
        follow(replica, project.clock, project.config.serving.poll_ms, stop, None if ready else on_ready)


@contextmanager
def _short_pauses() -> Iterator[None]:
    """Inside, garbage collection and other threads hardly delay a response."""
    interval_s = sys.getswitchinterval()
    gc.collect()
    gc.freeze()  # a full collection then does not visit the objects of TensorFlow
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(interval_s)
        gc.unfreeze()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        dualstack = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=dualstack)
    except OSError as failure:
        raise InputError(f"cannot listen on {host}:{port}: {failure}. hint: set serving.host and port") from None

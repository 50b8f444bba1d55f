"""HTTP server of a replica: predictions in the form of TensorFlow Serving's REST API, and Prometheus metrics.

    POST /v1/models/NAME:predict     {"instances": [{column: value, …}, …]} → {"predictions": [[p per label], …]}
    POST /v1/models/NAME:recall      {"instances": [{column: value, …}, …], "k": 100} → {"recalled": [{"items": [name,
                                     …], "scores": [s, …]}, …], "version": v}, with `[recall]`
    GET  /v1/models/NAME             the served version
    GET  /v1/models/NAME/metadata    its inputs and outputs
    GET  /metrics                    Prometheus text
    GET  /healthz, /readyz           200, or 503 with the reason; ready means that a version is served

Errors are {"error": text}: 400 for a wrong request, 404 and 405 for an unknown path or method, 408 for a slow client,
413 beyond a bound of `[serving]`, 500 if the model or the user's code fails, 503 before the first version and at full
load, 504 after the deadline. The front, a process of its own, faces the network and keeps the bounds (`serving/front`);
this process gets complete requests from it (`serving/rest`).
"""

import gc
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import structlog

from pipeline.configuration.config import Config
from pipeline.configuration.project import Project
from pipeline.errors import InputError, LogError
from pipeline.logs.interface.log import Log
from pipeline.process.clock import Clock
from pipeline.process.log_limit import LogLimit
from pipeline.serving.front.acceptor import BACKLOG
from pipeline.serving.front.process import STOP_S, FrontSettings, start_process
from pipeline.serving.items.item_view import ItemView, Pause
from pipeline.serving.items.keep_fresh import keep_fresh
from pipeline.serving.readings import replica_readings
from pipeline.serving.replica import Replica
from pipeline.serving.rest.api import RestApi
from pipeline.serving.rest.service import Service
from pipeline.telemetry import metrics, readers
from pipeline.telemetry.registry import Reading

_RESTART_S = 1.0
_STARTED_EVERY_S = 0.1
_SWITCH_INTERVAL_S = 0.0002
"""How long one Python thread may keep the others waiting. A prediction gives up the interpreter a few dozen times."""
_LONGEST_RETRY_S = 1.0

logger = structlog.get_logger(__name__)


class Front(Protocol):
    """The front, once started; `subprocess.Popen` is one."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""

    def kill(self) -> None:
        """End it at once."""


StartFront = Callable[[FrontSettings, socket.socket, socket.socket, socket.socket], Front]
"""Starts a front on a listening socket and its two channels. Raises OSError."""


class ReplicaServer:
    """Serves HTTP requests in background threads, and a front in a process of its own, inside its `with` block."""

    def __init__(
        self,
        replica: Replica,
        config: Config,
        clock: Clock,
        start_front: StartFront = start_process,
        stop_s: float = 2 * STOP_S,
        items: ItemView | None = None,
    ) -> None:
        """Bind to the configured host and port; port 0 selects a free one. Raises InputError if the port is in use.

        A front that does not end within `stop_s` is killed.
        """
        self._replica, self._items = replica, items
        self._start_front, self._stop_s = start_front, stop_s
        self._settings = FrontSettings(name=config.name, serving=config.serving)
        self._socket = _listen(config.serving.host, config.serving.port)
        self.port = int(self._socket.getsockname()[1])
        self._service = Service(RestApi(replica, config, clock, items), config.serving, clock)
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._front: Front | None = None
        self._thread = threading.Thread(target=self._supervise, name="http", daemon=True)

    def __enter__(self) -> "ReplicaServer":
        readers.register("replica", self._readings)
        self._thread.start()
        while not self._service.started.wait(_STARTED_EVERY_S):
            if self._ended.is_set():
                self.__exit__()
                raise InputError("the process that accepts connections cannot start. hint: see its error above")
        return self

    def __exit__(self, *failure: object) -> None:
        readers.unregister("replica")
        self._stopping.set()
        with suppress(OSError):  # ends listening in the front too: a client that connects now is refused at once
            self._socket.shutdown(socket.SHUT_RDWR)
        self._service.stop()
        self._thread.join(self._stop_s)
        if self._thread.is_alive() and self._front is not None:
            self._front.kill()
        self._thread.join()
        self._service.close()
        self._socket.close()

    def giving_way(self) -> Pause:
        """A pause for one piece of work that gives way to small requests."""
        return self._service.giving_way()

    def _supervise(self) -> None:
        """Run a front, and another one if it ends by itself, until the server stops."""
        while True:
            try:
                code = self._run_front()
            except (OSError, RuntimeError, MemoryError) as failure:  # no process, no thread or no memory left
                logger.error("front cannot be started", problem=str(failure))
            else:
                if not self._stopping.is_set():
                    logger.error("front ended, another one is started", exit_code=code)
            self._ended.set()
            if self._stopping.wait(_RESTART_S):
                return

    def _run_front(self) -> int:
        """The exit code of a front, once it has ended."""
        (quick, its_quick), (bulk, its_bulk) = socket.socketpair(), socket.socketpair()
        with quick, bulk:
            with its_quick, its_bulk:
                self._front = self._start_front(self._settings, self._socket, its_quick, its_bulk)
            self._service.serve(quick, bulk)
        try:
            return self._front.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._front.kill()
            return self._front.wait()

    def _readings(self) -> Iterator[Reading]:
        yield metrics.HTTP_CONNECTIONS.reading(self._service.connections)
        yield from replica_readings(self._replica)
        if self._items is not None:
            yield from self._items.readings()


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
    # A replica of a part has one of the towers, or none.
    whole = project.config.serving.part is None
    items = ItemView(project, replica, log, patient=True) if whole and project.config.recall is not None else None
    with (
        _short_pauses(),
        ReplicaServer(replica, project.config, project.clock, items=items) as server,
        _kept_fresh(project, items, server, stop),
    ):
        ready = replica.ready
        if on_listening:
            on_listening(server.port, ready)
        follow(replica, project.clock, project.config.serving.poll_ms, stop, None if ready else on_ready)


@contextmanager
def _kept_fresh(
    project: Project, items: ItemView | None, server: ReplicaServer, stop: threading.Event
) -> Iterator[None]:
    """Inside, a thread embeds the items anew for new versions, until `stop` is set."""
    recall = project.config.recall
    if items is None or recall is None:
        yield
        return
    arguments = (items, project.clock, recall.refresh_s, stop, server.giving_way)
    refreshing = threading.Thread(target=keep_fresh, args=arguments, name="items", daemon=True)
    refreshing.start()
    yield
    refreshing.join()


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

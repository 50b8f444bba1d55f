"""The HTTP exporter: serves this process's metrics at `GET /metrics` for Prometheus. Thread-safe."""

import atexit
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.telemetry import readers
from pipeline.telemetry.discovery import TargetFile
from pipeline.telemetry.metrics import DISK_FREE, DISK_SIZE
from pipeline.telemetry.registry import REGISTRY, Reading

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PORTS = 16
"""Number of ports to try, from the configured one on: several processes share one configuration."""

_END_OF_PORTS = 65_536


@dataclass(frozen=True)
class _Exporter:
    port: int
    stop: Callable[[], None]


_lock = threading.Lock()
_exporter: _Exporter | None = None


def metrics_text(pause: Callable[[], None] = lambda: None) -> bytes:
    """All metrics of this process in Prometheus's text format; `pause` is called between two of them."""
    return bytes(generate_latest(cast(CollectorRegistry, _WithPauses(pause))))


class _WithPauses(Collector):
    """The registry, whose metrics are collected one after the other with a pause in between."""

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause

    def collect(self) -> Iterator[Metric]:
        for metric in REGISTRY.collect():
            yield metric
            self._pause()


def start_exporter(project: Project, process: str) -> int | None:
    """Serve `GET /metrics`; returns the port, or None if `[telemetry] port` is off.

    A process has one exporter: a second call changes nothing and returns the same port. The port is announced to
    Prometheus in the file `telemetry/PROCESS.json` of the state folder, which is removed at a normal exit.

    Args:
        project: supplies `[telemetry]` and the state folder.
        process: the process's name in Prometheus, such as `train`; unique in the state folder.

    Raises:
        InputError: every allowed port is in use.
    """
    global _exporter
    if project.config.telemetry.port is None:
        return None
    with _lock:
        if _exporter is None:
            readers.register("disk", lambda: _disk_readings(project.root))
            _exporter = _listen(project, process)
        return _exporter.port


def stop_exporter() -> None:
    """Close the exporter's port, if it is open; `start_exporter` may open another."""
    global _exporter
    with _lock:
        if _exporter is not None:
            atexit.unregister(_exporter.stop)
            _exporter.stop()
            readers.unregister("disk")
        _exporter = None


def _listen(project: Project, process: str) -> _Exporter:
    """Listen on the first free port. Raises InputError."""
    config = project.config.telemetry
    first = config.port or 0
    problem = ""
    for port in range(first, min(first + PORTS, _END_OF_PORTS) if first else 1):
        try:
            return _listen_at(project, process, port)
        except OSError as failure:
            problem = str(failure)
    raise InputError(
        f"cannot listen on {config.host}:{first} or the next {PORTS - 1} ports: {problem}. hint: set telemetry.port = 0"
    )


def _listen_at(project: Project, process: str, port: int) -> _Exporter:
    """Raises OSError if the port is in use."""
    server, thread = start_http_server(port, project.config.telemetry.host, REGISTRY)
    target = TargetFile(project, process, server.server_port)

    def stop() -> None:
        target.remove()  # first: the process may be killed before the server has closed
        server.shutdown()
        server.server_close()
        thread.join()

    atexit.register(stop)
    return _Exporter(server.server_port, stop)


def _disk_readings(folder: Path) -> list[Reading]:
    usage = shutil.disk_usage(folder)
    return [DISK_FREE.reading(usage.free), DISK_SIZE.reading(usage.total)]

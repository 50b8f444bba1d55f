"""HTTP server of a replica: predictions in the form of TensorFlow Serving's REST API, and Prometheus metrics.

    POST /v1/models/NAME:predict     {"instances": [{column: value, …}, …]} → {"predictions": [[p per label], …]}
    GET  /v1/models/NAME             the served version
    GET  /v1/models/NAME/metadata    its inputs and outputs
    GET  /metrics                    Prometheus text

Errors are {"error": text} with 400 for a wrong request, 404 for an unknown path or model, 503 before the first version.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import structlog

from pipeline.configuration.config import Config
from pipeline.configuration.project import Project
from pipeline.errors import InputError, LogError
from pipeline.logs.interface.log import Log
from pipeline.process.clock import Clock
from pipeline.serving.readings import replica_readings
from pipeline.serving.replica import Replica
from pipeline.telemetry import exporter, metrics, readers

_MAX_BODY_BYTES = 64 << 20
_JSON = "application/json"

logger = structlog.get_logger(__name__)


class Response(NamedTuple):
    """Status, content type and body of a response."""

    status: int
    content_type: str
    body: bytes


class RestApi:
    """Maps requests to responses, without any socket. Thread-safe."""

    def __init__(self, replica: Replica, config: Config, clock: Clock) -> None:
        self._replica, self._config, self._clock = replica, config, clock
        self._model = f"/v1/models/{config.name}"

    def get(self, path: str) -> Response:
        """The response to a GET of `path`."""
        if path == "/metrics":
            return Response(200, exporter.CONTENT_TYPE, exporter.metrics_text())
        if path == self._model:
            return _json(200, self._version_status())
        if path == f"{self._model}/metadata":
            return _json(200, self._metadata())
        return self._unknown("GET", path)

    def post(self, path: str, body: bytes) -> Response:
        """The response to a POST of `body` to `path`."""
        if path != f"{self._model}:predict":
            return self._unknown("POST", path)
        started_s = self._clock.monotonic_s()
        response = self._predict(body)
        metrics.PREDICT_REQUESTS.labels(str(response.status)).inc()
        metrics.PREDICT_SECONDS.observe(self._clock.monotonic_s() - started_s)
        return response

    def _predict(self, body: bytes) -> Response:
        try:
            instances = _instances(body)
            if not self._replica.ready:
                return _error(503, f"model {self._config.name} has no version yet. hint: is the trainer running?")
            probabilities, _ = self._replica.predict(instances)
        except InputError as failure:
            return _error(400, str(failure))
        return _json(200, {"predictions": probabilities.tolist()})

    def _version_status(self) -> dict[str, Any]:
        status = self._replica.status()
        state = "AVAILABLE" if status["ready"] else "START"
        version = str(status["shards"][0]["sequence"])
        ok = {"error_code": "OK", "error_message": ""}
        return {"model_version_status": [{"version": version, "state": state, "status": ok}], "springtide": status}

    def _metadata(self) -> dict[str, Any]:
        config, status = self._config, self._replica.status()
        inputs = {name: {"dtype": kind} for name, kind in {**config.events.impressions.columns, "at": "int"}.items()}
        outputs = {name: {"dtype": "DT_FLOAT"} for name in config.samples.labels}
        signature = {"inputs": inputs, "outputs": outputs, "method_name": "tensorflow/serving/predict"}
        return {
            "model_spec": {"name": config.name, "signature_name": "", "version": str(status["shards"][0]["sequence"])},
            "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
        }

    def _unknown(self, method: str, path: str) -> Response:
        known = f"{self._model}:predict, {self._model}, {self._model}/metadata, /metrics"
        return _error(404, f"{method} {path[:200]} is unknown. hint: {known}")


class ReplicaServer:
    """Serves HTTP requests in background threads inside its `with` block."""

    def __init__(self, replica: Replica, config: Config, clock: Clock) -> None:
        """Bind to the configured host and port; port 0 selects a free one. Raises InputError if the port is in use."""
        address, self._replica = (config.serving.host, config.serving.port), replica
        try:
            self._server = _Server(address, RestApi(replica, config, clock))
        except OSError as failure:
            raise InputError(f"cannot listen on {address[0]}:{address[1]}: {failure}. hint: set serving.port") from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="http", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> "ReplicaServer":
        readers.register("replica", lambda: replica_readings(self._replica))
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        readers.unregister("replica")
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def follow(replica: Replica, clock: Clock, poll_ms: int, stop: threading.Event) -> None:
    """Apply deltas as they arrive until `stop` is set; a failed read is logged and retried after `poll_ms`."""
    while not stop.is_set():
        try:
            replica.catch_up(wait_ms=poll_ms)
        except LogError as failure:
            logger.error("deltas cannot be read", problem=str(failure))
            clock.wait(poll_ms / 1000)


def serve(project: Project, log: Log, stop: threading.Event, on_ready: Callable[[int], None] | None = None) -> None:
    """Serve predictions and follow deltas until `stop` is set; `on_ready` gets the port once requests are accepted."""
    replica = Replica.for_predictions(project, log)
    replica.catch_up()
    with ReplicaServer(replica, project.config, project.clock) as server:
        if on_ready:
            on_ready(server.port)
        follow(replica, project.clock, project.config.serving.poll_ms, stop)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], rest: RestApi) -> None:
        self.rest = rest
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "springtide"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet
    server: _Server

    def do_GET(self) -> None:
        self._send(self.server.rest.get(self.path))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            self.close_connection = True
            self._send(
                _error(400, f"body has length {length or 'unknown'}, at most {_MAX_BODY_BYTES} bytes are accepted")
            )
            return
        self._send(self.server.rest.post(self.path, self.rfile.read(int(length))))

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("http", request=format % args)

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)
        self.wfile.flush()


def _instances(body: bytes) -> list[Any]:
    """The instances of a predict request. Raises InputError."""
    try:
        request = json.loads(body)
    except ValueError as failure:
        raise InputError(f"body is not json: {failure}") from None
    instances = request.get("instances") if isinstance(request, dict) else None
    if not isinstance(instances, list) or not instances:
        raise InputError('body has no instances. hint: {"instances": [{"column": value}]}')
    return instances


def _json(status: int, document: Any) -> Response:
    return Response(status, _JSON, json.dumps(document).encode())


def _error(status: int, text: str) -> Response:
    return _json(status, {"error": text})

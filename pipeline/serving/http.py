"""The HTTP face of a replica: TensorFlow Serving's REST form for predictions, and Prometheus metrics.

    POST /v1/models/NAME:predict     {"instances": [{column: value, …}, …]} → {"predictions": [[p per label], …]}
    GET  /v1/models/NAME             which version serves
    GET  /v1/models/NAME/metadata    its inputs and outputs
    GET  /metrics                    Prometheus text

Errors are {"error": text} with 400 for a wrong request, 404 for an unknown path or model, 503 before the first version.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple

import structlog

from pipeline.configuration.config import Config
from pipeline.configuration.project import Project
from pipeline.errors import InputError, LogError
from pipeline.logs.log import Log
from pipeline.process.clock import Clock
from pipeline.serving.readings import replica_readings
from pipeline.serving.replica import Replica
from pipeline.telemetry import metrics

_MOST_BODY_BYTES = 64 << 20
_JSON = "application/json"

_talk = structlog.get_logger(__name__)


class Answer(NamedTuple):
    """What a request gets."""

    status: int
    content_type: str
    body: bytes


class Rest:
    """Turns requests into answers; knows no socket. Thread-safe."""

    def __init__(self, replica: Replica, config: Config, clock: Clock) -> None:
        self._replica, self._config, self._clock = replica, config, clock
        self._model = f"/v1/models/{config.name}"

    def get(self, path: str) -> Answer:
        """Answer a GET of `path`."""
        if path == "/metrics":
            return Answer(200, metrics.CONTENT_TYPE, metrics.text())
        if path == self._model:
            return _json(200, self._version_status())
        if path == f"{self._model}/metadata":
            return _json(200, self._metadata())
        return self._unknown("GET", path)

    def post(self, path: str, body: bytes) -> Answer:
        """Answer a POST of `body` to `path`."""
        if path != f"{self._model}:predict":
            return self._unknown("POST", path)
        started_s = self._clock.monotonic_s()
        answer = self._predict(body)
        metrics.PREDICT_REQUESTS.labels(str(answer.status)).inc()
        metrics.PREDICT_SECONDS.observe(self._clock.monotonic_s() - started_s)
        return answer

    def _predict(self, body: bytes) -> Answer:
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
        fine = {"error_code": "OK", "error_message": ""}
        return {"model_version_status": [{"version": version, "state": state, "status": fine}], "springtide": status}

    def _metadata(self) -> dict[str, Any]:
        config, status = self._config, self._replica.status()
        inputs = {name: {"dtype": kind} for name, kind in {**config.events.impressions.columns, "at": "int"}.items()}
        outputs = {name: {"dtype": "DT_FLOAT"} for name in config.samples.labels}
        signature = {"inputs": inputs, "outputs": outputs, "method_name": "tensorflow/serving/predict"}
        return {
            "model_spec": {"name": config.name, "signature_name": "", "version": str(status["shards"][0]["sequence"])},
            "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
        }

    def _unknown(self, method: str, path: str) -> Answer:
        known = f"{self._model}:predict, {self._model}, {self._model}/metadata, /metrics"
        return _error(404, f"{method} {path[:200]} is unknown. hint: {known}")


class ReplicaServer:
    """Answers HTTP requests in threads of its own, from `with` to its end."""

    def __init__(self, replica: Replica, config: Config, clock: Clock) -> None:
        """Bind to the configured host and port; port 0 takes a free one. Raises InputError where it is taken."""
        address, self._replica = (config.serving.host, config.serving.port), replica
        try:
            self._server = _Server(address, Rest(replica, config, clock))
        except OSError as failure:
            raise InputError(f"cannot listen on {address[0]}:{address[1]}: {failure}. hint: set serving.port") from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="http", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> "ReplicaServer":
        metrics.watch("replica", lambda: replica_readings(self._replica))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        metrics.forget("replica")
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def follow(replica: Replica, clock: Clock, poll_ms: int, stop: threading.Event) -> None:
    """Apply deltas as they come until `stop` is set; a log that cannot be read is tried again."""
    while not stop.is_set():
        try:
            replica.catch_up(wait_ms=poll_ms)
        except LogError as failure:
            _talk.error("deltas cannot be read", problem=str(failure))
            clock.wait(poll_ms / 1000)


def serve(project: Project, log: Log, stop: threading.Event, on_ready: Callable[[int], None] | None = None) -> None:
    """Serve predictions and follow deltas until `stop` is set; `on_ready` is told the port once it answers."""
    replica = Replica.for_predictions(project, log)
    replica.catch_up()
    with ReplicaServer(replica, project.config, project.clock) as server:
        if on_ready:
            on_ready(server.port)
        follow(replica, project.clock, project.config.serving.poll_ms, stop)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], rest: Rest) -> None:
        self.rest = rest
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "springtide"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for head and body
    server: _Server

    def do_GET(self) -> None:
        self._send(self.server.rest.get(self.path))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MOST_BODY_BYTES:
            self.close_connection = True
            self._send(_error(400, f"body has length {length or 'unknown'}, at most {_MOST_BODY_BYTES} bytes are read"))
            return
        self._send(self.server.rest.post(self.path, self.rfile.read(int(length))))

    def log_message(self, format: str, *args: Any) -> None:
        _talk.debug("http", request=format % args)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)
        self.wfile.flush()


def _instances(body: bytes) -> list[Any]:
    """Raises InputError."""
    try:
        request = json.loads(body)
    except ValueError as failure:
        raise InputError(f"body is no json: {failure}") from None
    instances = request.get("instances") if isinstance(request, dict) else None
    if not isinstance(instances, list) or not instances:
        raise InputError('body has no instances. hint: {"instances": [{"column": value}]}')
    return instances


def _json(status: int, document: Any) -> Answer:
    return Answer(status, _JSON, json.dumps(document).encode())


def _error(status: int, text: str) -> Answer:
    return _json(status, {"error": text})

"""Paths of the replica, and the functions that compute their responses, without any socket."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import structlog

from pipeline.arrays.types import Float32s
from pipeline.configuration.config import Config
from pipeline.configuration.model.conditional import served_name
from pipeline.configuration.model.lists import empty_lists
from pipeline.errors import InputError, SpringtideError
from pipeline.process.clock import Clock
from pipeline.process.log_limit import LogLimit
from pipeline.serving.items.item_view import ItemView
from pipeline.serving.link.paths import METRICS, Paths
from pipeline.serving.link.response import Refusal, Response, error_response, json_response
from pipeline.serving.replica import Replica
from pipeline.serving.rest.instances_body import parse_instances
from pipeline.serving.rest.recall import recall_response
from pipeline.telemetry import exporter

Pause = Callable[[], None]
"""Called where a computation that is not urgent can give way to small predictions."""

_ROWS_AT_ONCE = 512

logger = structlog.get_logger(__name__)


class RestApi:
    """The REST API of TensorFlow Serving for one model. Thread-safe."""

    def __init__(self, replica: Replica, config: Config, clock: Clock, items: ItemView | None = None) -> None:
        """`items`: what recall requests find; None refuses them."""
        self._replica, self._config, self._items = replica, config, items
        self._log_limit = LogLimit(clock)
        paths = Paths(config.name)
        self._reads: dict[str, Callable[[Pause], Response]] = {
            paths.status: lambda _: self._version_status(),
            paths.metadata: lambda _: self._metadata(),
            METRICS: lambda pause: Response(200, exporter.CONTENT_TYPE, exporter.metrics_text(pause)),
        }

    def predict(self, body: bytes, pause: Pause) -> Response:
        """The response to a prediction request; `pause` is called between the steps of a large one."""
        return self._guarded(lambda: self._predict(body, pause))

    def recall(self, body: bytes) -> Response:
        """The response to a recall request."""
        return self._guarded(lambda: recall_response(body, self._items, self._config))

    def read(self, path: str, pause: Pause) -> Response:
        """The response to a GET of status, metadata or metrics; it may wait for the log, and calls `pause`."""
        return self._guarded(lambda: self._reads[path](pause))

    def check_ready(self) -> None:
        """Raise Refusal before the first version."""
        if not self._replica.ready:
            text = f"model {self._config.name} has no version yet. hint: is the trainer running?"
            raise Refusal(503, text, ("retry-after", "1"))

    def _predict(self, body: bytes, pause: Pause) -> Response:
        pieces = parse_instances(body, self._config.serving, pause)
        probabilities, _ = self._replica.predict_pieces(pieces)
        self._check_finite(probabilities, body)
        names, vectors = self._config.served_names, self._config.served_vectors
        named = vectors or not set(names) <= set(self._config.output_names)
        written = _Written(names, vectors) if named else None
        return Response(200, "application/json", _predictions(probabilities, written, pause))

    def _check_finite(self, probabilities: Float32s, body: bytes) -> None:
        """Raise Refusal, because NaN is no JSON; `body` is the request's."""
        invalid = np.argwhere(~np.isfinite(probabilities))
        if len(invalid):
            row, column = map(int, invalid[0])
            names, vectors = self._config.served_names, self._config.served_vectors
            name = served_name(names, vectors, column, probabilities.shape[1])
            text = f"the model's prediction of {name} for instance {row} is {probabilities[row, column]}, not a number"
            raise Refusal(500, f"{text}. hint: {self._cause(body, row)}")

    def _cause(self, body: bytes, row: int) -> str:
        """What may be the cause of a prediction for the instance `row` that is not a number."""
        config = self._config
        instance = next(islice(chain.from_iterable(parse_instances(body, config.serving, _no_pause)), row, None))
        if empty := empty_lists(instance, config.fields, config.events.impressions.columns):
            return f"the instance has no elements in {', '.join(empty)}; run: springtide config check"
        return "check the size of its dense inputs, then the weights of the model"

    def _guarded(self, compute: Callable[[], Response]) -> Response:
        """The response of `compute`; every failure becomes an error response."""
        try:
            return compute()
        except Refusal as refusal:
            return refusal.response
        except InputError as failure:
            return error_response(400, str(failure))
        except SpringtideError as failure:
            return self._failed(str(failure))
        except BaseException as failure:  # a function of the user may even call sys.exit
            return self._failed(f"{type(failure).__name__}: {failure}")

    def _failed(self, problem: str) -> Response:
        suppressed = self._log_limit.allow()
        if suppressed is not None:
            logger.error("request failed", problem=problem, suppressed=suppressed)
        return error_response(500, problem)

    def _version_status(self) -> Response:
        status = self._replica.status()
        state = "AVAILABLE" if status["ready"] else "START"
        version = str(status["shards"][0]["sequence"])
        ok = {"error_code": "OK", "error_message": ""}
        return json_response(
            200, {"model_version_status": [{"version": version, "state": state, "status": ok}], "springtide": status}
        )

    def _metadata(self) -> Response:
        config, status = self._config, self._replica.status()
        columns = {**config.events.impressions.columns, "at": "int"}
        read = columns if status["part"] is None else (*self._replica.load_predictor().columns, "at")
        inputs = {name: {"dtype": columns[name]} for name in read}
        outputs = {name: {"dtype": "DT_FLOAT"} for name in (*config.served_names, *config.served_vectors)}
        signature = {"inputs": inputs, "outputs": outputs, "method_name": "tensorflow/serving/predict"}
        spec: dict[str, Any] = {"name": config.name, "signature_name": ""}
        return json_response(
            200,
            {
                "model_spec": {**spec, "version": str(status["shards"][0]["sequence"])},
                "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
            },
        )


@dataclass(frozen=True)
class _Written:
    """Predictions as objects: a number for each name, then a list of numbers for each vector, all of one length."""

    names: Sequence[str]
    vectors: Sequence[str]

    def rows(self, rows: list[list[float]]) -> list[dict[str, Any]]:
        """The objects of some rows of predictions."""
        count = len(self.names)
        dim = (len(rows[0]) - count) // len(self.vectors) if rows and self.vectors else 0
        starts = {name: count + i * dim for i, name in enumerate(self.vectors)}
        return [
            dict(zip(self.names, row, strict=False)) | {n: row[start : start + dim] for n, start in starts.items()}
            for row in rows
        ]


def _predictions(probabilities: Float32s, objects: _Written | None, pause: Pause) -> bytes:
    """The body of a prediction, written some rows at a time: the encoder occupies the interpreter.

    A prediction is a list of values, or one of the `objects`.
    """
    parts = []
    for start in range(0, len(probabilities), _ROWS_AT_ONCE):
        if start:
            pause()
        rows = probabilities[start : start + _ROWS_AT_ONCE].tolist()
        written = rows if objects is None else objects.rows(rows)
        parts.append(json.dumps(written, allow_nan=False)[1:-1])
    return f'{{"predictions": [{", ".join(parts)}]}}'.encode()


def _no_pause() -> None:
    """Of a request that fails."""

"""A small model with a published version, a replica that serves it over HTTP, and raw requests to it."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.features.plan import FeaturePlan
from pipeline.model.dense import DenseModel
from pipeline.process.clock import SystemClock
from pipeline.publish.publisher import TouchedRows
from pipeline.serving.http import ReplicaServer
from pipeline.serving.replica import Replica
from tests.support.synthetic.trainer import DIMS, SyntheticTrainer, project_at
from tests.support.world.front_thread import FrontThread

MODEL = '''
"""A logistic model over the sum of all inputs."""

import keras


def build(inputs):
    joined = keras.layers.Concatenate()(list(inputs.values()))
    return keras.Model(inputs, keras.layers.Dense(1)(joined))
'''

INSTANCE = {"id": 1, "user": 7, "item": 3, "price": 2.5}
PREDICT = "/v1/models/model:predict"
WITHIN_S = 20


@dataclass
class ServedModel:
    """The parts of a served model."""

    trainer: SyntheticTrainer
    plan: FeaturePlan
    network: DenseModel
    replica: Replica
    server: ReplicaServer

    def commit_rows(self, value: float) -> None:
        """Commit rows of `value` for INSTANCE's keys, with the network's weights."""
        commit_rows(self.trainer, self.plan, self.network, value)


@contextmanager
def served_model(root: Path, model: str = MODEL, clock: Any = None, **sections: Any) -> Iterator[ServedModel]:
    """A trainer with rows for the keys of INSTANCE and one published commit, a replica that serves it, a server."""
    (root / "model.py").write_text(model)
    serving = {"port": 0, **sections.pop("serving", {})}
    project = replace(project_at(root, serving=serving, **sections), clock=SystemClock())
    trainer = SyntheticTrainer(project)
    plan, network = FeaturePlan(project.config, root), DenseModel(project.config, root)
    commit_rows(trainer, plan, network, 1.0)
    replica = Replica(project, trainer.log)
    replica.catch_up()
    replica.warm_up()
    chosen = clock or project.clock
    with ReplicaServer(replica, project.config, chosen, partial(FrontThread, chosen)) as server:
        yield ServedModel(trainer, plan, network, replica, server)
    trainer.close()


def commit_rows(trainer: SyntheticTrainer, plan: FeaturePlan, network: DenseModel, value: float) -> None:
    """Commit rows of `value` for INSTANCE's keys, with the network's weights."""
    batch, at_ms = plan.batch_of([INSTANCE], 0)
    touched = {}
    for name, found in plan.extract(batch, at_ms).keys.items():
        keys = np.unique(found.keys)
        for key in keys:
            trainer.tables[name].put(int(key), np.full(DIMS[name], value, np.float32), 1e6)
        touched[name] = TouchedRows(keys, trainer.tables[name].rows(keys), np.empty(0, np.uint64))
    trainer.random = _Fixed(network.serving_bytes())
    trainer.commit(touched=touched, flush=True)


def request(server: ReplicaServer, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """Status and content of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WITHIN_S)
    connection.request(method, path, body if body is None or isinstance(body, bytes) else json.dumps(body))
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def connect(server: ReplicaServer) -> socket.socket:
    """An open connection."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=WITHIN_S)


def received(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def exchange(server: ReplicaServer, sent: bytes) -> bytes:
    """What the server sends to a client that sends `sent` and then only reads."""
    with connect(server) as connection:
        connection.sendall(sent)
        return received(connection)


def post(body: bytes, *headers: bytes, close: bool = True) -> bytes:
    """The bytes of a prediction request."""
    lines = [f"POST {PREDICT} HTTP/1.1".encode(), b"Host: x", b"Content-Length: %d" % len(body), *headers]
    lines += [b"Connection: close"] if close else []
    return b"\r\n".join([*lines, b"", body])


class _Fixed:
    """Returns the network's weights when the synthetic trainer draws random dense bytes."""

    def __init__(self, dense: bytes) -> None:
        self.dense = dense

    def bytes(self, count: int) -> bytes:
        return self.dense

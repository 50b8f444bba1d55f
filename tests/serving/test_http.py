"""The HTTP server: TensorFlow Serving's REST API over a real model, and metrics."""

import http.client
import json
import threading
from dataclasses import replace

import numpy as np
import pytest

from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.process.clock import SystemClock
from pipeline.serving.http import ReplicaServer, follow, serve
from pipeline.serving.replica import Replica
from pipeline.versions.deltas.delta import encode_delta, served_digest
from tests.support.synthetic.trainer import DIMS, SyntheticTrainer, project_at
from tests.support.world.served_model import INSTANCE, MODEL, commit_rows, request, served_model


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A trainer with rows for the keys of INSTANCE and one published commit, a replica that serves it, a server."""
    with served_model(tmp_path_factory.mktemp("http")) as model:
        yield model.trainer, model.plan, model.network, model.replica, model.server


def predicted(server, instances):
    status, body = request(server, "POST", "/v1/models/model:predict", {"instances": instances})
    assert status == 200, body
    return json.loads(body)["predictions"]


def expected(network, user, item, price):
    columns = {"item": item, "user": user}
    parts = [np.full(dim, columns[name]) for name, dim in DIMS.items()]
    inputs = np.concatenate([*parts, [price]]).astype(np.float32)[None]
    return np.asarray(network.predict(inputs)).ravel()


def test_a_prediction_is_the_networks_output_for_the_served_rows(world):
    trainer, _, network, _, server = world
    row = trainer.publisher.views["user"].decode(trainer.tables["user"].keys())[0, 0]
    assert predicted(server, [INSTANCE])[0] == pytest.approx(expected(network, row, row, 2.5).tolist(), rel=1e-5)


def test_an_instance_of_unknown_keys_gets_a_prediction_of_zero_rows(world):
    _, _, network, _, server = world
    predictions = predicted(server, [{"user": 999, "item": 999, "price": 1.0}, INSTANCE])
    assert predictions[0] == pytest.approx(expected(network, 0, 0, 1.0).tolist(), rel=1e-5)
    assert predictions[0] != predictions[1]


def test_a_delta_changes_the_next_prediction(world):
    trainer, plan, network, replica, server = world
    before = predicted(server, [INSTANCE])
    commit_rows(trainer, plan, network, 3.0)
    replica.catch_up()
    assert predicted(server, [INSTANCE]) != before


def test_dense_weights_that_do_not_fit_the_model_are_refused_and_the_current_ones_stay(world):
    trainer, _, _, replica, server = world
    before = predicted(server, [INSTANCE])
    last = trainer.commits[-1].prepared.delta
    fields = {name: view.digest() for name, view in trainer.publisher.views.items()}
    empty = {name: replace_rows(change) for name, change in last.fields.items()}
    wrong = replace(
        last, from_sequence=last.to_sequence, to_sequence=last.to_sequence + 1, before=last.after, dense=b"nonsense",
        after=served_digest(fields, b"nonsense"), fields=empty,
    )  # fmt: skip
    trainer.log.append("deltas", 0, [encode_delta(wrong)])
    replica.catch_up()
    assert predicted(server, [INSTANCE]) == before
    assert "dense weights" in replica.status()["shards"][0]["problem"]


def replace_rows(change):
    return type(change).empty(change.dim)


def test_the_version_status_has_the_form_of_tensorflow_serving(world):
    _, _, _, replica, server = world
    status, body = request(server, "GET", "/v1/models/model")
    [version] = json.loads(body)["model_version_status"]
    assert status == 200
    assert version["state"] == "AVAILABLE"
    assert version["version"] == str(replica.status()["shards"][0]["sequence"])


def test_metadata_names_inputs_and_outputs(world):
    status, body = request(world[-1], "GET", "/v1/models/model/metadata")
    signature = json.loads(body)["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert status == 200
    assert set(signature["inputs"]) == {"id", "user", "item", "price", "at"}
    assert set(signature["outputs"]) == {"label"}


def test_metrics_count_predictions_and_show_the_version(world):
    predicted(world[-1], [INSTANCE])
    status, body = request(world[-1], "GET", "/metrics")
    text = body.decode()
    assert status == 200
    assert 'springtide_predict_requests_total{status="200"}' in text
    assert 'springtide_served_sequence{shard="0"}' in text
    assert 'springtide_served_rows{shard="0",table="user"} 1.0' in text


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", "not json"),
        (b"[]", "no instances"),
        (b'{"instances": []}', "no instances"),
        (b'{"instances": [3]}', "instance 0"),
        (b'{"instances": [{"colour": 1}]}', "colour"),
        (b'{"instances": [{"user": "seven"}]}', "seven"),
    ],
)
def test_an_invalid_request_is_refused_with_the_reason(world, body, problem):
    status, content = request(world[-1], "POST", "/v1/models/model:predict", body)
    assert status == 400
    assert problem in json.loads(content)["error"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/models/other"), ("POST", "/v1/models/other:predict"), ("GET", "/")]
)
def test_an_unknown_path_is_not_found(world, method, path):
    status, content = request(world[-1], method, path, b"{}" if method == "POST" else None)
    assert status == 404
    assert "unknown" in json.loads(content)["error"]


def test_a_request_without_a_length_is_refused(world):
    connection = http.client.HTTPConnection("127.0.0.1", world[-1].port, timeout=10)
    connection.putrequest("POST", "/v1/models/model:predict")
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()


def test_before_the_first_version_predictions_are_refused(world, tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    project = replace(project_at(tmp_path, serving={"port": 0}), clock=SystemClock())
    log = SqliteLog(project.logs, project.clock)
    with ReplicaServer(Replica(project, log), project.config, project.clock) as server:
        status, content = request(server, "POST", "/v1/models/model:predict", {"instances": [INSTANCE]})
    log.close()
    assert status == 503
    assert "no version yet" in json.loads(content)["error"]


def test_serving_follows_deltas_until_it_is_stopped(world):
    trainer, *_ = world
    stop, ready, ports = threading.Event(), threading.Event(), []

    def on_listening(port, _):
        ports.append(port)
        ready.set()

    thread = threading.Thread(target=serve, args=(trainer.project, trainer.log, stop, on_listening))
    thread.start()
    assert ready.wait(30)
    server = type("Address", (), {"port": ports[0]})
    status, _ = request(server, "GET", "/v1/models/model")
    stop.set()
    thread.join(10)
    assert status == 200
    assert not thread.is_alive()


def test_following_applies_deltas_appended_meanwhile(tmp_path):
    trainer = SyntheticTrainer(replace(project_at(tmp_path), clock=SystemClock()))
    replica, stop = Replica(trainer.project, trainer.log), threading.Event()
    thread = threading.Thread(target=follow, args=(replica, trainer.project.clock, 1, stop))
    thread.start()
    trainer.run(5)
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + 10
    while replica.version != "g0/s0-of-1/5" and clock.monotonic_s() < deadline_s:
        clock.wait(0.005)
    stop.set()
    thread.join()
    assert replica.digest() == trainer.publisher.served_digest
    trainer.close()

"""A replica of a part of the model: what it holds, that it predicts the bits of the whole one, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.features.plan import FeaturePlan
from pipeline.model.dense import DenseModel
from pipeline.model.identity import serving_digest
from pipeline.serving.http import ReplicaServer
from pipeline.serving.replica import Replica
from pipeline.versions.deltas.delta import encode_delta
from tests.support.shop.two_rankers import CASCADE, LABELS
from tests.support.synthetic.trainer import SyntheticTrainer, project_at
from tests.support.world.served_model import INSTANCE, PREDICT, commit_rows, request

PARTS = [{"name": "pre", "labels": ["coarse"]}, {"name": "all", "labels": ["coarse", "click"]}]


def serving(project, part):
    config = project.config
    return replace(
        project, config=config.model_copy(update={"serving": config.serving.model_copy(update={"part": part})})
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A trainer of a cascade with two commits; what computes its features and outputs."""
    root = tmp_path_factory.mktemp("cascade")
    (root / "model.py").write_text(CASCADE)
    project = project_at(root, labels=LABELS, parts=PARTS, serving={"port": 0})
    trainer = SyntheticTrainer(project)
    plan, network = FeaturePlan(project.config, root), DenseModel(project.config, root)
    trainer.model = {"digest": serving_digest(project.config, plan, network)}
    commit_rows(trainer, plan, network, 1.0)
    network.try_step()
    commit_rows(trainer, plan, network, 2.0)
    yield trainer, plan, network
    trainer.close()


def replica_of(trainer, part=None) -> Replica:
    replica = Replica.for_predictions(serving(trainer.project, part), trainer.log)
    replica.catch_up()
    return replica


@pytest.fixture(scope="module")
def replicas(world):
    """The replica of the whole model, and that of the part `pre`."""
    return replica_of(world[0]), replica_of(world[0], "pre")


def test_a_part_predicts_the_bits_of_the_whole_model_from_its_own_columns(replicas):
    whole, part = replicas
    for count in (1, 3, 8, 100):
        instances = [INSTANCE | {"item": 3 + i % 2} for i in range(count)]
        wanted, version = whole.predict(instances)
        found, same = part.predict([{"item": instance["item"]} for instance in instances])
        assert found.tobytes() == np.ascontiguousarray(wanted[:, 1:]).tobytes()
        assert version == same == "g0/s0-of-1/2"
    assert len({*wanted[:, 1].tolist()}) == 2


def test_a_part_holds_the_rows_and_weights_it_reads_under_the_digest_of_the_whole(replicas):
    whole, part = replicas
    (shard,) = part.status()["shards"]
    assert shard["rows"] == {"item": 1}
    assert part.status()["part"] == "pre"
    assert whole.status()["part"] is None
    assert part.export("item").equals(whole.export("item"))
    with pytest.raises(InputError, match="table user does not exist"):
        part.export("user")
    assert part.digest() == whole.digest() == shard["digest"]


def test_the_labels_of_a_part_are_served_in_its_order(world, replicas):
    both = replica_of(world[0], "all")
    wanted, _ = replicas[0].predict([INSTANCE])
    found, _ = both.predict([INSTANCE])
    assert found.tobytes() == np.ascontiguousarray(wanted[:, ::-1]).tobytes()
    assert both.status()["shards"][0]["rows"] == {"user": 1, "item": 1}


def test_http_serves_predictions_metadata_and_metrics_of_the_part(world, replicas):
    project = serving(world[0].project, "pre")
    with ReplicaServer(replicas[1], project.config, project.clock) as server:
        body = {"instances": [{"item": 3}, INSTANCE]}
        status, content = request(server, "POST", PREDICT, body)
        assert status == 200
        one, two = json.loads(content)["predictions"]
        assert one == two
        assert len(one) == 1
        _, content = request(server, "GET", "/v1/models/model/metadata")
        signature = json.loads(content)["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert (list(signature["inputs"]), list(signature["outputs"])) == (["item", "at"], ["coarse"])
        _, content = request(server, "GET", "/metrics")
        assert 'springtide_served_part{part="pre"} 1.0' in content.decode()
        assert 'table="user"' not in content.decode()
        status, content = request(server, "POST", PREDICT, {"instances": [{"itm": 3}]})
        assert status == 400
        assert "instance 0 has column itm" in content.decode()


def test_a_part_follows_later_deltas_and_refuses_wrong_ones(world):
    trainer, plan, network = world
    part = replica_of(trainer, "pre")
    before, _ = part.predict([INSTANCE])
    last = trainer.commits[-1].prepared.delta
    fields = {name: type(change).empty(change.dim) for name, change in last.fields.items()}
    step = {"from_sequence": last.to_sequence, "to_sequence": last.to_sequence + 1, "before": last.after}
    wrong_table = replace(last, **step, fields=fields, digests=last.digests | {"user": 1})
    foreign = replace(last, **step, fields=fields, model={"digest": "ab"})
    trainer.log.append("deltas", 0, [encode_delta(wrong_table), encode_delta(foreign)])
    part.catch_up()
    (shard,) = part.status()["shards"]
    assert (shard["refused"], shard["sequence"]) == ({"unfit": 2}, 2)
    assert part.predict([INSTANCE])[0].tobytes() == before.tobytes()
    commit_rows(trainer, plan, network, 3.0)
    part.catch_up()
    assert part.status()["shards"][0]["sequence"] == 3
    assert part.predict([INSTANCE])[0].tobytes() != before.tobytes()

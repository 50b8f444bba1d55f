"""A loss over the list of a request through the trainer: restarts, scores, and the served output."""

import copy
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.serving.replica import Replica
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples, train

ROWS = 400


def shop_of(root: Path) -> Project:
    document = copy.deepcopy(WRITTEN)
    document["events"]["impressions"]["columns"]["request"] = "int"
    document["samples"] = {"policy": "close"}
    document["publish"]["loss"] = 1e-9
    document["labels"] = [{"name": "label", "loss": "softmax", "list_column": "request"}]
    return make_project(root, document)


def requests() -> pa.RecordBatch:
    """Samples in requests of five, which no batch of 64 holds whole at its end."""
    return make_samples(1, ROWS).append_column("request", pa.array(np.arange(ROWS) // 5))


def test_trainer_that_is_restarted_at_every_commit_ends_with_the_same_model_and_serves_its_outputs(tmp_path):
    straight, restarted = shop_of(tmp_path / "straight"), shop_of(tmp_path / "restarted")
    log = open_log(straight)
    append_samples(log, straight, requests())
    digest = train(straight, log)
    log.close()
    log, store = open_log(restarted), VersionStore(restarted)
    append_samples(log, restarted, requests())
    for end in range(1, 5):
        trainer = TrainerShard(restarted, log, store, 0)
        trainer.train(end, threading.Event())
        total = trainer.status()["validation"]["label"]["total"]
        trainer.close()
    assert store.ledger.version(store.current(0)).digest == digest
    assert (total["samples"], total["calibration"], total["rmse"]) == (ROWS, None, None)
    assert 0 < total["loss"] < 1
    replica = Replica.for_predictions(restarted, log)
    replica.catch_up()
    instances = requests().select(["user", "item", "tags", "request"]).to_pylist()
    scores, clicked = replica.predict(instances)[0][:, 0], requests().column("label").to_numpy()
    assert scores.min() < 0 or scores.max() > 1
    assert scores[clicked == 1].mean() > scores[clicked == 0].mean()

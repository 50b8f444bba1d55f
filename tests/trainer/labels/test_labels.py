"""Labels with losses of their own through the trainer: validation, status, restarts, and the served prediction."""

import copy
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.project import Project
from pipeline.errors import HaltedError, MigrationError
from pipeline.logs.open import open_log
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import MODEL, WRITTEN, append_samples, make_project, make_samples, train

LABELS = [{"name": "label"}, {"name": "watch", "loss": "squared", "range": [0, 100]}]


def shop_of(root: Path, labels: list[dict] = LABELS) -> Project:
    document = copy.deepcopy(WRITTEN)
    document["events"]["clicks"]["columns"]["watch"] = "float"
    return make_project(root, document | {"labels": labels}, MODEL.replace("Dense(1)", "Dense(2)"))


def watched(rows: int, missing: int = 0) -> pa.RecordBatch:
    """Samples whose clicks watched three units each; the first `missing` samples do not observe it."""
    samples = make_samples(1, rows)
    watch = 3 * samples.column("label").to_numpy().astype(np.float32)
    return samples.append_column("watch", pa.array(watch, pa.float32(), mask=np.arange(rows) < missing))


def trained(project: Project, samples: pa.RecordBatch) -> tuple[str, dict]:
    """The digest and the status after training on the samples."""
    log = open_log(project)
    append_samples(log, project, samples)
    digest = train(project, log)
    store = VersionStore(project)
    trainer = TrainerShard(project, log, store, 0)
    status = trainer.status()
    trainer.close()
    store.close()
    log.close()
    return digest, status


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> tuple[str, dict]:
    return trained(shop_of(tmp_path_factory.mktemp("straight")), watched(1_000, missing=100))


def test_each_label_is_validated_by_its_loss(straight):
    validation = straight[1]["validation"]
    click, watch = validation["label"]["total"], validation["watch"]["total"]
    assert click["samples"] == 1_000
    assert 0 < click["normalized_entropy"] < 1.5
    assert (watch["samples"], watch["weight"]) == (900, 900)
    assert watch["observed"] == pytest.approx(3 * watch["positives"])
    assert 0.5 < watch["calibration"] < 1.5
    assert watch["rmse"] == pytest.approx(np.sqrt(watch["loss"]), rel=1e-5)


def test_trainer_that_is_restarted_at_every_commit_ends_with_the_same_model_and_scores(tmp_path, straight):
    project = shop_of(tmp_path)
    log, store = open_log(project), VersionStore(project)
    append_samples(log, project, watched(1_000, missing=100))
    for end in range(1, 11):
        trainer = TrainerShard(project, log, store, 0)
        trainer.train(end, threading.Event())
        status = trainer.status()
        trainer.close()
    assert store.ledger.version(store.current(0)).digest == straight[0]
    assert status["validation"] == straight[1]["validation"]


def test_value_that_explodes_the_loss_halts_the_shard_and_names_the_sample(tmp_path):
    project = shop_of(tmp_path)
    samples = watched(64)
    watch = samples.column("watch").to_numpy().copy()
    watch[7] = 1e6
    samples = samples.set_column(samples.schema.get_field_index("watch"), "watch", pa.array(watch))
    with pytest.raises(HaltedError, match=r"limit 50.* by sample 7 of the batch"):
        trained(project, samples)


def test_another_loss_needs_a_migration_and_starts_the_scores_anew(tmp_path):
    trained(shop_of(tmp_path), watched(200))
    changed = shop_of(tmp_path, [LABELS[0], {"name": "watch", "loss": "huber"}])
    log, store = open_log(changed), VersionStore(changed)
    with pytest.raises(MigrationError, match="labels changed"):
        TrainerShard(changed, log, store, 0)
    trainer = TrainerShard(changed, log, store, 0, migrate=True)
    assert trainer.status()["validation"]["watch"]["total"]["samples"] == 0
    assert trainer.status()["validation"]["label"]["total"]["samples"] == 200
    trainer.close()

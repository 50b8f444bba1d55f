"""The network's own losses are a metric of the trainer."""

import threading

import pytest

from pipeline.logs.open import open_log
from pipeline.telemetry import metrics
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import MODEL, append_samples, make_project, make_samples


def penalty_of(trainer):
    [value] = [reading.value for reading in trainer.readings() if reading.metric is metrics.TRAIN_PENALTY]
    return value


@pytest.mark.parametrize("regulariser", ["None", "keras.regularizers.L2(0.5)"])
def test_the_penalty_of_the_latest_batch_is_exported(tmp_path, regulariser):
    project = make_project(
        tmp_path, model=MODEL.replace('"relu")', f'"relu", kernel_regularizer={regulariser}, name="hidden")')
    )
    log = open_log(project)
    append_samples(log, project, make_samples(1, 64))
    trainer = TrainerShard(project, log, VersionStore(project), 0)
    try:
        before = penalty_of(trainer)
        trainer.train(log.end_offset("samples", 0), threading.Event())
        after = penalty_of(trainer)
        assert before == 0
        assert (after > 0.1) == (regulariser != "None")
    finally:
        trainer.close()
        log.close()

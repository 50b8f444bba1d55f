"""Foreign and damaged records in the deltas topic: writers, replicas and rollbacks skip them."""

import numpy as np
import pytest

from pipeline.errors import DamagedError
from pipeline.publish.delta_topic import DeltaWriter
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.serving.replica import Replica
from pipeline.versions.deltas.delta_version import DeltaVersion, holds_delta
from pipeline.versions.state import version_path
from tests.support.synthetic.trainer import SyntheticTrainer, project_at

HEADERS = [
    {},
    {"generation": "abc", "sequence": "1"},
    {"generation": "0"},
    {"generation": "0", "sequence": "²"},
    {"generation": "0", "sequence": "9" * 5000},
    {"generation": "-1", "sequence": "1"},
    {"generation": "9", "sequence": "9"},
    {"level": "full", "generation": "0", "sequence": "1000000"},
]
VALUES = [b"", b"hello", b"\x00garbage" * 9, b"FRSH" + b"\xff" * 100, b"{" * 5000]


@pytest.fixture
def trainer(tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path))
    trainer.log.create_topic("samples", 1)
    trainer.run(3)
    yield trainer
    trainer.close()


def pollute(trainer):
    for headers in HEADERS:
        trainer.log.append("deltas", 0, VALUES, headers=headers)


def encoded(trainer):
    return [commit.prepared.encoded for commit in trainer.commits]


def assert_served(trainer, replica):
    replica.catch_up()
    assert replica.version == str(trainer.store.current(0))
    assert replica.digest() == trainer.store.ledger.version(trainer.store.current(0)).served_digest


def test_a_writer_finds_its_last_delta_behind_foreign_records(trainer):
    pollute(trainer)
    writer = DeltaWriter(trainer.project, trainer.log, 0)
    assert writer.append_missing(encoded(trainer)) == 0
    trainer.commit(publish=False)
    pollute(trainer)
    trainer.delta_writer = DeltaWriter(trainer.project, trainer.log, 0)
    assert trainer.delta_writer.append_missing(encoded(trainer)[-1:]) == 1
    assert_served(trainer, Replica(trainer.project, trainer.log))


def test_replicas_old_and_new_pass_over_foreign_records_and_count_them(trainer):
    old = Replica(trainer.project, trainer.log)
    old.catch_up()
    pollute(trainer)
    trainer.run(2)
    new = Replica(trainer.project, trainer.log)
    for replica in (old, new):
        assert_served(trainer, replica)
        (shard,) = replica.status()["shards"]
        assert sum(shard["refused"].values()) >= len(HEADERS)
        assert shard["lag_records"] == 0


@pytest.mark.parametrize("at", ["beginning", "end"])
def test_a_rollback_passes_over_foreign_records(trainer, at):
    if at == "beginning":
        pollute(trainer)
        trainer.run(2)
    replica = Replica(trainer.project, trainer.log)
    replica.catch_up()
    if at == "end":
        pollute(trainer)
    roll_back(trainer.project, trainer.log, plan_rollback(trainer.project, trainer.log, to=trainer.commits[1].id))
    assert_served(trainer, replica)
    assert_served(trainer, Replica(trainer.project, trainer.log))


def damage_version(trainer, id):
    path = trainer.project.versions / version_path(id, trainer.epoch)
    path.write_bytes(b"")


def test_a_rollback_that_needs_the_topic_reads_it_around_foreign_records(trainer):
    pollute(trainer)
    trainer.run(3)
    damage_version(trainer, trainer.commits[-1].id)
    replica = Replica(trainer.project, trainer.log)
    replica.catch_up()
    roll_back(trainer.project, trainer.log, plan_rollback(trainer.project, trainer.log, to=trainer.commits[2].id))
    assert_served(trainer, replica)


def test_a_rollback_that_needs_a_delta_that_is_missing_changes_nothing(trainer):
    trainer.commit(publish=False)
    trainer.log.append("deltas", 0, [b"hello"], headers={"generation": "0", "sequence": "4"})
    trainer.run(2)
    damage_version(trainer, trainer.commits[-1].id)
    current, epoch = trainer.store.current(0), trainer.store.ledger.epoch(0)
    plan = plan_rollback(trainer.project, trainer.log, to=trainer.commits[1].id)
    with pytest.raises(DamagedError):
        roll_back(trainer.project, trainer.log, plan)
    assert (trainer.store.current(0), trainer.store.ledger.epoch(0)) == (current, epoch)
    assert trainer.store.ledger.generation() == 0
    assert trainer.store.ledger.unfinished_rollbacks() == []


@pytest.mark.parametrize("sequence", [1, 2, 3, 4])
def test_a_position_is_found_wherever_it_lies(trainer, sequence):
    pollute(trainer)
    assert holds_delta(trainer.log, "deltas", 0, DeltaVersion(0, sequence)) == (sequence < 4)


def test_an_empty_partition_holds_nothing(tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path))
    assert not holds_delta(trainer.log, "deltas", 0, DeltaVersion(0, 1))
    assert np.sum(trainer.log.end_offset("deltas", 0)) == 0
    trainer.close()

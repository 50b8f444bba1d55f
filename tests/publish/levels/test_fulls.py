"""A full carries every row: the delta of its version sends what was withheld, in parts that fit a record of the log."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.publish.publisher import Publisher, PublishSettings, TouchedRows
from pipeline.serving.replica import Replica
from pipeline.versions.deltas.published_files import read_published
from pipeline.versions.deltas.served_view import ServedView
from tests.support.synthetic.trainer import DIMS, SyntheticTrainer, project_at

NONE = np.empty(0, np.uint64)


@pytest.fixture
def trainer(tmp_path):
    """A trainer that withholds most rows."""
    trainer = SyntheticTrainer(project_at(tmp_path, publish={"loss": 0.1}))
    trainer.commit(touched=trainer.change(200, 0))
    yield trainer
    trainer.close()


def limited(trainer, flush_bytes):
    views = {name: ServedView(dim) for name, dim in DIMS.items()}
    settings = replace(PublishSettings.of(trainer.project.config), flush_bytes=flush_bytes)
    trainer.publisher = Publisher(settings, trainer.tables, views)


def served_keys(trainer):
    return {name: view.keys().tolist() for name, view in trainer.publisher.views.items()}


def table_keys(trainer):
    return {name: table.keys().tolist() for name, table in trainer.tables.items()}


def test_after_a_flush_serving_holds_every_row(trainer):
    assert served_keys(trainer) != table_keys(trainer)
    assert trainer.commit(flush=True).prepared.complete
    assert served_keys(trainer) == table_keys(trainer)


def test_a_row_of_zeros_is_served_as_zeros_after_a_flush(trainer):
    keys = np.array([500, 7, 900], np.uint64)
    for key, weight in zip(keys, (0.0, 0.5, 0.0), strict=True):
        trainer.tables["user"].put(int(key), np.full(DIMS["user"], weight, np.float32), 1e8)
    touched = TouchedRows(np.sort(keys), trainer.tables["user"].rows(np.sort(keys)), NONE)
    trainer.commit(touched={"user": touched})
    assert trainer.publisher.views["user"].bits(keys)[[0, 2]].tolist() == [0, 0]
    assert trainer.commit(touched={}, flush=True).prepared.complete
    served = trainer.publisher.views["user"]
    assert served.bits(keys).min() > 0
    assert np.allclose(served.decode(keys), [[0.0] * 16, [0.5] * 16, [0.0] * 16], atol=0.05)
    replica = Replica(trainer.project, trainer.log)
    replica.catch_up()
    assert replica.digest() == trainer.commits[-1].prepared.served_digest


@pytest.mark.parametrize("flush_bytes", [1, 100, 1_000])
def test_a_flush_that_does_not_fit_one_record_continues_with_the_next_commits(trainer, flush_bytes):
    limited(trainer, flush_bytes)
    sizes = []
    while not sizes or not trainer.commits[-1].prepared.complete:
        commit = trainer.commit(touched={}, flush=True, publish=False)
        fields = commit.prepared.delta.fields.values()
        sizes.append(sum(len(field.payload) + 13 * len(field) for field in fields))
        assert len(sizes) < 500
    assert served_keys(trainer) == table_keys(trainer)
    assert len(sizes) > 3


def test_a_commit_without_a_flush_is_never_complete(trainer):
    assert not trainer.commit(touched={}).prepared.complete


def test_no_full_is_published_before_every_row_is_sent(trainer):
    assert trainer.levels.schedule.full_due(60_000)
    assert [m.level for m in trainer.levels.publish_due(60_000, complete=False)] == ["incremental"]
    trainer.commit(touched={}, flush=True)
    (manifest,) = trainer.levels.publish_due(10**9, complete=True)
    assert (manifest.level, manifest.rows) == ("full", sum(len(keys) for keys in table_keys(trainer).values()))


def test_a_replica_that_starts_from_the_full_ends_like_one_that_followed_every_delta(trainer):
    follower = Replica(trainer.project, trainer.log)
    follower.catch_up()
    trainer.run(3)
    trainer.commit(flush=True)
    manifest = trainer.levels.publish_full()
    file = trainer.project.published / f"{manifest.place}.json"
    assert len(read_published(file, manifest)[0].fields["user"]) == len(trainer.tables["user"].keys())
    trainer.log.trim("deltas", 0, trainer.log.end_offset("deltas", 0) - 1)
    newcomer = Replica(trainer.project, trainer.log)
    newcomer.catch_up()
    follower.catch_up()
    assert newcomer.version == follower.version == str(trainer.commits[-1].id)
    trainer.run(2)
    for replica in (newcomer, follower):
        replica.catch_up()
        assert replica.version == str(trainer.commits[-1].id)
        assert replica.digest() == trainer.commits[-1].prepared.served_digest


def test_a_generation_without_a_file_and_a_dropped_delta_make_a_full_due(trainer):
    schedule = trainer.levels.schedule
    trainer.levels.publish_full()
    assert not schedule.full_due(trainer.commits[-1].id.sequence * 60_000)
    assert schedule.on_command("incremental") is None
    trainer.run(2)
    assert schedule.on_command("incremental") == "incremental"
    lineage = trainer.store.lineage(0)
    trainer.store.ledger.published.set("full", lineage[0].id, "elsewhere")
    assert not schedule.needs_full()

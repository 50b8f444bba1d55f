"""The replica: every path to a version gives the same bytes, invalid deltas are refused, readers see one version."""

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.publish.delta_topic import delta_headers
from pipeline.publish.levels.level_publisher import LevelPublisher
from pipeline.publish.publisher import TouchedRows
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.serving.export import served_table
from pipeline.serving.replica import Replica
from pipeline.versions.deltas.delta import FieldDelta, decode_delta, encode_delta
from pipeline.versions.deltas.published_files import delta_manifest_files
from pipeline.versions.deltas.served_view import build_served_view
from tests.support.synthetic.trainer import DIMS, SyntheticTrainer, project_at
from tests.support.world.stored_paths import path_of

NONE = np.empty(0, np.uint64)


@pytest.fixture
def trainer(tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path / "trainer"))
    yield trainer
    trainer.close()


@pytest.fixture
def make_replica(trainer, tmp_path):
    """Creates a replica over a topic of given records, with or without the trainer's files; returns it and its log."""
    logs = []

    def make(records=(), *, files=False, **sections):
        project = project_at(tmp_path / f"replica-{len(logs)}", **sections)
        log = SqliteLog(project.logs, project.clock)
        logs.append(log)
        if files:
            shutil.copytree(path_of(trainer.project.published), path_of(project.published))
        replica = Replica(project, log)
        for encoded in records:
            log.append("deltas", 0, [encoded])
        return replica, log

    yield make
    for log in logs:
        log.close()


def encoded(trainer):
    return [commit.prepared.encoded for commit in trainer.commits]


def assert_equal_to(trainer, replica):
    assert replica.digest() == trainer.publisher.served_digest
    for name, view in trainer.publisher.views.items():
        assert replica.export(name).equals(served_table([view]))


def refused(replica, shard=0):
    return replica.status()["shards"][shard]["refused"]


def problem(replica, shard=0):
    return replica.status()["shards"][shard]["problem"]


@pytest.mark.parametrize("seed", range(4))
def test_every_path_to_a_version_gives_the_same_bytes(tmp_path, seed):
    trainer = SyntheticTrainer(project_at(tmp_path), seed=seed)
    random = np.random.default_rng(seed)
    live = Replica(trainer.project, trainer.log)
    for _ in range(15):
        trainer.commit(flush=random.random() < 0.1)
        if random.random() < 0.7:
            live.catch_up()
        if random.random() < 0.4:
            trainer.levels.publish_incremental()
        if random.random() < 0.15:
            trainer.levels.publish_full()
    live.catch_up()
    assert_equal_to(trainer, live)
    late = Replica(trainer.project, trainer.log)
    late.catch_up()
    assert_equal_to(trainer, late)
    trainer.log.trim("deltas", 0, trainer.log.end_offset("deltas", 0))
    trainer.levels.publish_incremental()
    from_files = Replica(trainer.project, trainer.log)
    from_files.catch_up()
    assert_equal_to(trainer, from_files)
    trainer.close()


def test_an_incremental_applies_to_any_version_in_its_range(trainer, make_replica):
    trainer.run(8)
    trainer.levels.publish_incremental()
    for applied in range(9):
        replica, log = make_replica(encoded(trainer)[:applied])
        replica.catch_up()
        shutil.copytree(path_of(trainer.project.published), path_of(replica._project.published))
        trainer_last = encoded(trainer)[-1]
        log.append("deltas", 0, [trainer_last])  # a gap, or a repetition
        replica.catch_up()
        assert_equal_to(trainer, replica)


def test_a_fresh_replica_serves_nothing(make_replica):
    replica, _ = make_replica()
    assert replica.catch_up() == 0
    assert not replica.ready
    assert replica.version == "g0/s0-of-1/0"


def test_a_repeated_delta_is_skipped_without_a_refusal(trainer, make_replica):
    trainer.run(3)
    one, two, three = encoded(trainer)
    replica, _ = make_replica([one, one, two, three, two, three])
    assert replica.catch_up() == 3
    assert_equal_to(trainer, replica)
    assert refused(replica) == {}


def test_a_gap_without_files_keeps_the_last_good_version_and_is_reported(trainer, make_replica):
    trainer.run(4)
    one, two, _, four = encoded(trainer)
    replica, _ = make_replica([one, two, four])
    replica.catch_up()
    assert replica.version == "g0/s0-of-1/2"
    assert replica.digest() == trainer.commits[1].prepared.served_digest
    assert refused(replica) == {"gap": 1}
    assert "offset 2" in problem(replica)
    assert "0/3..0/4" in problem(replica)


def test_a_gap_is_closed_once_a_file_covers_it(trainer, make_replica):
    trainer.run(4)
    one, two, _, four = encoded(trainer)
    replica, log = make_replica([one, two, four])
    replica.catch_up()
    trainer.levels.publish_incremental()
    shutil.copytree(path_of(trainer.project.published), path_of(replica._project.published))
    assert replica.catch_up() == 1
    assert_equal_to(trainer, replica)
    assert problem(replica) is None
    trainer.commit()
    log.append("deltas", 0, encoded(trainer)[-1:])
    assert replica.catch_up() == 1
    assert_equal_to(trainer, replica)


def test_a_gap_is_closed_by_a_full_and_the_deltas_after_it_in_the_topic(trainer, make_replica):
    trainer.run(3)
    trainer.levels.publish_full()
    trainer.run(2)
    replica, _ = make_replica([encoded(trainer)[0], *encoded(trainer)[3:]], files=True)
    replica.catch_up()
    assert_equal_to(trainer, replica)


def test_reordered_deltas_are_refused_and_applied_in_order_later(trainer, make_replica):
    trainer.run(4)
    one, two, three, four = encoded(trainer)
    replica, _ = make_replica([one, three, two, four])
    assert replica.catch_up() == 4
    assert_equal_to(trainer, replica)
    assert refused(replica) == {"gap": 1}


def test_a_damaged_delta_is_reported_and_the_last_good_version_stays_in_service(trainer, make_replica):
    trainer.run(3)
    one, two, _ = encoded(trainer)
    bad = bytearray(two)
    bad[len(bad) // 2] ^= 1
    replica, _ = make_replica([one, bytes(bad)])
    replica.catch_up()
    assert replica.digest() == trainer.commits[0].prepared.served_digest
    assert refused(replica) == {"damaged": 1}
    assert "offset 1" in problem(replica)


def test_a_few_bytes_that_announce_too_many_rows_are_refused_before_they_are_decoded(trainer, make_replica):
    trainer.run(1)
    delta, dim, n = trainer.commits[0].prepared.delta, DIMS["user"], (1 << 20) // (7 + 2 * DIMS["user"]) + 1
    rows = FieldDelta(
        dim, np.arange(n, dtype=np.uint32), NONE, np.empty(0, np.uint32), np.full(n, 16, np.uint8),
        np.zeros(n * (1 + 2 * dim), np.uint8), NONE, np.ones(n, np.bool_),
    )  # fmt: skip
    hostile = encode_delta(replace(delta, fields={**delta.fields, "user": rows}))
    assert len(hostile) < 1 << 16
    replica, _ = make_replica([hostile, *encoded(trainer)], serving={"max_delta_bytes": 1 << 20})
    replica.catch_up()
    assert_equal_to(trainer, replica)
    assert refused(replica) == {"damaged": 1}


def test_a_damaged_delta_is_replaced_by_files(trainer, make_replica):
    trainer.run(3)
    trainer.levels.publish_incremental()
    one, two, three = encoded(trainer)
    replica, _ = make_replica([one, two[:-1], three])
    replica.catch_up()
    shutil.copytree(path_of(trainer.project.published), path_of(replica._project.published))
    replica.catch_up()
    assert_equal_to(trainer, replica)


def test_a_delta_of_another_shard_is_foreign(trainer, make_replica):
    trainer.run(1)
    foreign = encode_delta(replace(trainer.commits[0].prepared.delta, shards=2))
    replica, _ = make_replica([foreign])
    replica.catch_up()
    assert refused(replica) == {"unfit": 1}
    assert "foreign" in problem(replica)


def test_a_delta_of_another_model_is_foreign(trainer):
    trainer.run(1)
    replica = Replica(trainer.project, trainer.log, model_digest="another")
    replica.catch_up()
    assert not replica.ready
    assert "of model" in problem(replica)


def test_a_delta_with_an_unknown_field_or_dim_is_refused(trainer, make_replica):
    trainer.run(1)
    delta = trainer.commits[0].prepared.delta
    fields = {"who": delta.fields["user"], "item": delta.fields["item"]}
    renamed = replace(delta, fields=fields, digests={"who": 0, "item": 0})
    resized = replace(delta, fields={"user": replace(delta.fields["item"])})
    replica, _ = make_replica([encode_delta(renamed), encode_delta(resized)])
    replica.catch_up()
    assert refused(replica) == {"unfit": 2}


def test_a_delta_of_another_trainer_is_refused_before_it_changes_anything(trainer, make_replica, tmp_path):
    trainer.run(2)
    other = SyntheticTrainer(project_at(tmp_path / "other"), seed=7)
    other.run(3)
    replica, _ = make_replica([*encoded(trainer), encoded(other)[2]])
    replica.catch_up()
    other.close()
    assert_equal_to(trainer, replica)
    assert "another trainer" in problem(replica)


def test_a_delta_that_does_not_produce_its_digest_changes_nothing(trainer, make_replica):
    trainer.run(2)
    first, second = (commit.prepared for commit in trainer.commits)
    tampered = encode_delta(replace(second.delta, dense=b"tampered"))
    replica, _ = make_replica([first.encoded, tampered])
    replica.catch_up()
    assert replica.digest() == first.served_digest
    assert "would result in" in problem(replica)


def test_different_content_under_an_applied_name_is_refused(trainer, make_replica):
    trainer.run(3)
    other = encode_delta(replace(trainer.commits[1].prepared.delta, first_at_ms=1))
    replica, log = make_replica(encoded(trainer))
    replica.catch_up()
    log.append("deltas", 0, [other])
    replica.catch_up()
    assert_equal_to(trainer, replica)
    assert refused(replica) == {"unfit": 1}
    assert "two trainers" in problem(replica)


def test_a_delta_with_an_unknown_handle_is_refused(trainer, make_replica):
    trainer.commit(touched=trainer.change(60, 0))
    trainer.commit(touched=trainer.change(60, 0), flush=True)
    delta = trainer.commits[1].prepared.delta
    change = delta.fields["user"]
    strange = replace(change, handles=change.handles + np.uint32(10_000))
    replica, _ = make_replica(
        [encoded(trainer)[0], encode_delta(replace(delta, fields={**delta.fields, "user": strange}))]
    )
    replica.catch_up()
    assert replica.digest() == trainer.commits[0].prepared.served_digest
    assert "unknown here" in problem(replica)


def test_a_damaged_file_is_skipped_for_an_earlier_one(trainer, make_replica):
    trainer.run(2)
    trainer.levels.publish_full()
    trainer.run(2)
    trainer.levels.publish_full()
    replica, _ = make_replica(files=True)
    latest = path_of(replica._project.published) / "g0/s0-of-1/full-0-4.delta"
    latest.write_bytes(latest.read_bytes()[:100])
    replica.catch_up()
    assert replica.digest() == trainer.commits[1].prepared.served_digest
    assert refused(replica) == {"file": 1}


def test_a_damaged_manifest_is_skipped_and_counted_once(trainer, make_replica):
    trainer.run(2)
    trainer.levels.publish_full()
    replica, log = make_replica(files=True)
    path_of(delta_manifest_files(replica._project.published, 0, 1)[0]).write_text("{")
    replica.catch_up()
    log.append("deltas", 0, encoded(trainer)[1:])
    replica.catch_up()
    replica.catch_up()
    assert not replica.ready
    assert refused(replica)["file"] == 1


def test_a_replica_behind_the_begin_offset_of_the_topic_continues_from_files(trainer):
    replica = Replica(trainer.project, trainer.log)
    trainer.run(2)
    replica.catch_up()
    trainer.run(3)
    trainer.levels.publish_incremental()
    trainer.log.trim("deltas", 0, trainer.log.end_offset("deltas", 0))
    replica.catch_up()
    assert_equal_to(trainer, replica)


def test_a_restarted_writer_appends_only_missing_deltas(trainer):
    trainer.run(2)
    trainer.commit(publish=False)
    assert trainer.delta_writer.append_missing(encoded(trainer)) == 1
    assert trainer.delta_writer.append_missing(encoded(trainer)) == 0
    replica = Replica(trainer.project, trainer.log)
    replica.catch_up()
    assert_equal_to(trainer, replica)


def rolled_back(trainer, to):
    """Roll the synthetic trainer back to its commit number `to`; returns the target's views."""
    target = trainer.commits[to].id
    trainer.log.create_topic("samples", 1)
    plan = plan_rollback(trainer.project, trainer.log, to=target)
    views = {name: build_served_view(entries) for name, entries in trainer.store.served(target).items()}
    roll_back(trainer.project, trainer.log, plan)
    return views


def test_after_a_rollback_the_export_equals_the_targets_view(trainer):
    trainer.run(6)
    replica = Replica(trainer.project, trainer.log)
    replica.catch_up()
    views = rolled_back(trainer, 2)
    assert replica.catch_up() == 1
    assert replica.version == "g1/s0-of-1/4"
    for name, view in views.items():
        assert replica.export(name).equals(served_table([view]))
    assert replica.digest() == trainer.commits[2].prepared.served_digest


def test_a_reverse_delta_applies_to_any_version_since_the_target(trainer, make_replica):
    trainer.run(6)
    rolled_back(trainer, 2)
    reverse = trainer.log.read("deltas", 0, 6, ReadLimits())[0].value
    for applied in (3, 4, 5, 6):
        replica, _ = make_replica([*encoded(trainer)[:applied], reverse])
        replica.catch_up()
        assert replica.digest() == trainer.commits[2].prepared.served_digest
        assert refused(replica) == {}


def test_a_reverse_delta_is_applied_once_the_replica_reaches_the_target(trainer, make_replica):
    trainer.run(6)
    rolled_back(trainer, 2)
    reverse = trainer.log.read("deltas", 0, 6, ReadLimits())[0].value
    replica, log = make_replica([*encoded(trainer)[:2], reverse])
    replica.catch_up()
    assert replica.version == "g0/s0-of-1/2"
    log.append("deltas", 0, [encoded(trainer)[2]])
    replica.catch_up()
    assert replica.version == "g1/s0-of-1/4"


def test_deltas_of_an_older_generation_are_refused(trainer, make_replica):
    trainer.run(4)
    rolled_back(trainer, 1)
    reverse = trainer.log.read("deltas", 0, 4, ReadLimits())[0].value
    replica, log = make_replica([*encoded(trainer)[:3], reverse])
    replica.catch_up()
    log.append("deltas", 0, [encoded(trainer)[3]])
    replica.catch_up()
    assert replica.digest() == trainer.commits[1].prepared.served_digest
    assert "older generation" in problem(replica)


def test_the_first_file_of_a_new_generation_is_a_full(trainer):
    trainer.run(3)
    trainer.levels.publish_incremental()
    rolled_back(trainer, 1)
    levels = LevelPublisher(trainer.project, trainer.store, trainer.hooks, 0)
    manifest = levels.publish_incremental()
    assert (manifest.level, manifest.generation) == ("full", 1)
    trainer.log.trim("deltas", 0, trainer.log.end_offset("deltas", 0))
    replica = Replica(trainer.project, trainer.log)
    replica.catch_up()
    assert replica.digest() == trainer.commits[1].prepared.served_digest


def test_readers_never_see_a_partial_version(trainer):
    """Every commit sets all rows to one number: a reader that sees two numbers has seen a partial version."""
    replica, keys = Replica(trainer.project, trainer.log), np.arange(1, 200, dtype=np.uint64)
    stop, mixed, seen = threading.Event(), [], set()

    def read_rows():
        return np.concatenate([replica.lookup(name, keys).ravel() for name in DIMS]), replica.version

    def read():
        while not stop.is_set():
            with replica.reading():
                values, version = read_rows()
            seen.add(version)
            if len(np.unique(values)) > 1:
                mixed.append(version)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 40):
            for name, table in trainer.tables.items():
                for key in keys:
                    table.put(int(key), np.full(DIMS[name], float(number), np.float32), 1e6)
            trainer.commit(
                touched={name: TouchedRows(keys, trainer.tables[name].rows(keys), NONE) for name in DIMS}, flush=True
            )
            replica.catch_up()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert mixed == []
    assert len(seen) > 5


def test_one_replica_serves_two_shards(tmp_path):
    project = project_at(tmp_path, logs={"shards": 2})
    trainers = [SyntheticTrainer(project, seed=shard, shard=shard, keys=60) for shard in range(2)]
    for trainer in trainers:
        trainer.run(4)
    replica = Replica(project, trainers[0].log)
    replica.catch_up()
    assert replica.version == "g0/s0-of-2/4+g0/s1-of-2/4"
    for shard, trainer in enumerate(trainers):
        assert replica.digest(shard) == trainer.publisher.served_digest
    first, second = (trainer.publisher.views["user"] for trainer in trainers)
    both = np.intersect1d(first.keys(), second.keys())
    only = np.setdiff1d(second.keys(), first.keys())
    assert np.array_equal(replica.lookup("user", both), first.decode(both))
    assert np.array_equal(replica.lookup("user", only), second.decode(only))
    assert len(replica.export("user")) == len(first) + len(second)
    for trainer in trainers:
        trainer.close()


def test_a_delta_of_tombstones_only_removes_their_rows(trainer):
    trainer.commit(touched=trainer.change(30, 0), flush=True)
    removed = trainer.tables["user"].keys()[:2]
    for key in removed:
        del trainer.tables["user"].stored[int(key)]
    trainer.commit(touched={"user": TouchedRows(NONE, trainer.tables["user"].rows(NONE), removed)})
    assert len(trainer.commits[1].prepared.delta.fields["user"]) == 0
    replica = Replica(trainer.project, trainer.log)
    replica.catch_up()
    assert_equal_to(trainer, replica)
    assert not replica.lookup("user", removed).any()


def test_a_key_without_a_row_gives_zeros(trainer):
    trainer.run(1)
    replica = Replica(trainer.project, trainer.log)
    replica.catch_up()
    assert not replica.lookup("user", np.array([10**9], np.uint64)).any()


def test_headers_carry_the_version_of_a_delta(trainer):
    trainer.run(2)
    record = trainer.log.read("deltas", 0, 1)[0]
    assert record.headers == delta_headers(decode_delta(record.value))
    assert record.headers["sequence"] == "2"

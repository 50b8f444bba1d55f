"""Full snapshots carry every row of the tables, by schedule and on command, and training does not notice."""

import threading

import pytest

from pipeline.errors import MigrationError, VersionError
from pipeline.logs.open import open_log
from pipeline.publish.levels.full_request import FullRequest
from pipeline.serving.replica import Replica
from pipeline.trainer.commit.full_on_command import publish_full
from pipeline.trainer.run.shard_session import ShardSession
from pipeline.versions.deltas.delta import decode_delta
from pipeline.versions.deltas.published_files import delta_manifests, read_published
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import WRITTEN, append_samples, current_digest, make_project, make_samples, train

ROWS = 600


def shop_at(root, **publish):
    written = {**WRITTEN, "publish": {**WRITTEN["publish"], "loss": 0.1, **publish}}
    project = make_project(root, written)
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    return project, log


@pytest.fixture
def learned(tmp_path):
    project, log = shop_at(tmp_path / "learned")
    train(project, log)
    yield project, log
    log.close()


def rows_by_field(store, id):
    return {name: change.keys.tolist() for name, change in store.restore(id).fields.items()}


def rows_in_file(file, manifest):
    delta, _ = read_published(file, manifest)
    return {name: sorted(field.new_keys.tolist()) for name, field in delta.fields.items()}


def assert_every_row(project, manifest):
    id = VersionId(manifest.generation, manifest.shard, manifest.shards, manifest.to_sequence)
    file = project.published / f"{manifest.place}.json"
    assert rows_in_file(file, manifest) == rows_by_field(VersionStore(project), id)


def test_a_full_of_served_rows_carries_what_every_replica_holds(tmp_path):
    project, log = shop_at(tmp_path, full_every_s=200.0, incremental_every_s=60.0, full_rows="served", loss=0.0001)
    train(project, log)
    store = VersionStore(project)
    fulls = {m.to_sequence: (file, m) for file, m in delta_manifests(project.published, 0, 1) if m.level == "full"}
    assert len(fulls) > 1
    rows = []
    for sequence, (file, manifest) in sorted(fulls.items()):
        id = VersionId(0, 0, 1, sequence)
        held = {name: entries.keys.tolist() for name, entries in store.served(id).items()}
        assert rows_in_file(file, manifest) == held
        sent = sum(len(field) for field in decode_delta(store.delta(id)).fields.values())
        rows.append((sent, manifest.rows, sum(map(len, rows_by_field(store, id).values()))))
    sent, held, every = rows[-1]
    assert 0 < sent < held < every
    follower = Replica(project, log)
    follower.catch_up()
    log.trim("deltas", 0, log.end_offset("deltas", 0) - 1)
    newcomer = Replica(project, log)
    newcomer.catch_up()
    assert newcomer.version == follower.version == str(store.current(0))
    assert newcomer.digest() == follower.digest() == store.ledger.version(store.current(0)).served_digest


def test_every_full_that_is_due_carries_every_row(tmp_path):
    project, log = shop_at(tmp_path, full_every_s=200.0, incremental_every_s=60.0)
    train(project, log)
    fulls = [m for _, m in delta_manifests(project.published, 0, 1) if m.level == "full"]
    assert len(fulls) > 1
    for manifest in fulls:
        assert_every_row(project, manifest)
    follower = Replica(project, log)
    follower.catch_up()
    store = VersionStore(project)
    assert follower.digest() == store.ledger.version(store.current(0)).served_digest


def test_a_full_on_command_carries_every_row_and_training_continues_as_if_it_had_not_been(learned, tmp_path):
    project, log = learned
    store = VersionStore(project)
    before, follower = store.current(0), Replica(project, log)
    follower.catch_up()
    manifest = publish_full(project, log, store, 0)
    assert manifest.to_sequence == before.sequence + 1
    assert_every_row(project, manifest)
    assert store.ledger.version(store.current(0)).digest == store.ledger.version(before).digest
    follower.catch_up()
    newcomer = Replica(project, log)
    newcomer.catch_up()
    assert newcomer.digest() == follower.digest() == manifest.after
    assert publish_full(project, log, store, 0) == manifest
    append_samples(log, project, make_samples(1, 300, first=ROWS))
    continued = train(project, log)
    other, other_log = shop_at(tmp_path / "other")
    append_samples(other_log, other, make_samples(1, 300, first=ROWS))
    assert train(other, other_log) == continued
    follower.catch_up()
    assert follower.digest() == store.ledger.version(store.current(0)).served_digest


def test_a_running_trainer_publishes_the_full_on_request(learned):
    project, log = learned
    store = VersionStore(project)
    session, published = ShardSession(project, log, VersionStore(project), 0), []
    session.opened()
    digest = current_digest(store)
    command = threading.Thread(target=lambda: published.append(publish_full(project, log, store, 0)))
    command.start()
    while not published:
        session.train(threading.Event(), log.end_offset("samples", 0))
    command.join()
    session.close()
    assert_every_row(project, published[0])
    assert current_digest(store) == digest
    assert not FullRequest(project, 0).pending()


def test_a_shard_without_a_version_has_no_full(tmp_path):
    project, log = shop_at(tmp_path)
    with pytest.raises(VersionError, match="has no version yet"):
        publish_full(project, log, VersionStore(project), 0)


def test_a_changed_field_is_named_before_anything_is_written(learned):
    project, log = learned
    fields = [{**WRITTEN["fields"][0], "dim": 8}, *WRITTEN["fields"][1:]]
    changed = make_project(project.root, {**WRITTEN, "fields": fields})
    store = VersionStore(project)
    before = store.current(0)
    with pytest.raises(MigrationError, match="table user of version"):
        publish_full(changed, log, store, 0)
    assert store.current(0) == before

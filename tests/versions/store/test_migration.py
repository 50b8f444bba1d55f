"""Moving the state of a project: the ledger of the release before becomes a topic, and nothing it held is forgotten."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from pipeline.errors import DamagedError, VersionError
from pipeline.versions.ledger.quarantine import ANY_TIME_MS, Quarantine, Selection
from pipeline.versions.store.migration import migrate, plan_migration
from pipeline.versions.store.version_store import VersionStore
from tests.support.synthetic.commits import World, project_in
from tests.support.world.stored_paths import path_of

_TABLES = """
CREATE TABLE shard (shard, shards, epoch, generation, sequence);
CREATE TABLE version (shard, generation, sequence, shards, parent_generation, parent_sequence, epoch, path, file_digest,
    touched_path, touched_digest, "offset", "row", first_at_ms, last_at_ms, digest, served_digest, size_bytes,
    rows_touched, samples_seen, committed_at_ms, full, pinned);
CREATE TABLE change_file (path, shard, shards, generation, sequence, after_generation, after_sequence, size_bytes,
    digest);
CREATE TABLE quarantine (id, reason, from_ms, to_ms, shard, from_offset, from_row, to_offset, to_row, added_at_ms,
    removed_at_ms, selection);
CREATE TABLE halted (id, shard, reason, batch_file, at_ms, cleared_at_ms);
CREATE TABLE rollback (id, generation, state, shards, quarantine, document, audit, begun_at_ms);
CREATE TABLE published (level, shard, shards, generation, sequence, path, at_ms);
PRAGMA user_version = 5;
"""
"""What the release before wrote, without its checksums."""


def insert(connection, table, **values):
    names = ", ".join(f'"{name}"' for name in values)
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})", [*values.values()])


def write_former(store, path, halted=None):
    """The ledger of a store with one shard as the release before would have written it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_TABLES)
        current = store.current(0)
        insert(
            connection, "shard", shard=0, shards=1, epoch=store.ledger.epoch(0), generation=current.generation,
            sequence=current.sequence,
        )  # fmt: skip
        for version in store.versions(0):
            plain = {**vars(version)}
            id, parent = plain.pop("id"), plain.pop("parent")
            insert(
                connection, "version", shard=0, shards=1, generation=id.generation, sequence=id.sequence,
                parent_generation=parent and parent.generation, parent_sequence=parent and parent.sequence, **plain,
            )  # fmt: skip
        for file in store.ledger.change_files(0).files():
            after = file.after
            insert(
                connection, "change_file", path=file.path, shard=0, shards=1, generation=file.upto.generation,
                sequence=file.upto.sequence, after_generation=after and after.generation,
                after_sequence=after and after.sequence, size_bytes=file.file.size_bytes, digest=file.file.digest,
            )  # fmt: skip
        for entry in store.ledger.quarantines.all():
            times, ends = entry.times_ms or (None, None), entry.positions or ((None, None), (None, None))
            insert(
                connection, "quarantine", id=entry.id, reason=entry.reason, from_ms=times[0], to_ms=times[1],
                shard=entry.shard, from_offset=ends[0][0], from_row=ends[0][1], to_offset=ends[1][0],
                to_row=ends[1][1], added_at_ms=entry.added_at_ms, removed_at_ms=entry.removed_at_ms,
                selection=entry.selection and json.dumps(entry.selection.describe()),
            )  # fmt: skip
        if halted:
            insert(connection, "halted", id=1, shard=0, reason=halted, batch_file="b.parquet", at_ms=7)
        pointer = store.ledger.published.latest("full", 0)
        insert(
            connection, "published", level="full", shard=0, shards=1, generation=pointer.id.generation,
            sequence=pointer.id.sequence, path=pointer.path, at_ms=pointer.at_ms,
        )  # fmt: skip
        connection.commit()


@pytest.fixture
def project(tmp_path):
    return project_in(tmp_path)


@pytest.fixture
def before(project):
    """What a project held whose ledger is that of the release before."""
    store = VersionStore(project)
    world = World(store)
    ids = [world.commit(full=number == 3) for number in range(6)]
    store.ledger.pin(ids[1])
    store.ledger.published.set("full", ids[4], "a-full")
    store.ledger.quarantines.add(Quarantine(0, "bots", times_ms=(100, 200)))
    store.ledger.quarantines.add(Quarantine(0, "nan", positions=((5, 2), (7, 1)), shard=0))
    store.ledger.quarantines.add(Quarantine(0, "farm", ANY_TIME_MS, selection=Selection(where="a = 1")))
    store.ledger.quarantines.remove(1)
    project.versions.mkdir(exist_ok=True)
    write_former(store, project.versions / "ledger.sqlite", halted="loss nan")
    held = held_by(store)
    store.close()
    shutil.rmtree(project.logs / "ledger")
    shutil.rmtree(path_of(project.version_files) / "ledger")
    return held


def held_by(store):
    chains = {version.id: [file.path for file in store.ledger.chain(version.id)] for version in store.versions(0)}
    pointer = store.ledger.published.latest("full", 0)
    return store.current(0), store.versions(0), chains, store.ledger.quarantines.all(), pointer, store.ledger.epoch(0)


def test_a_ledger_of_the_release_before_is_refused_until_it_was_moved(project, before):
    with pytest.raises(VersionError, match=r"ledger\.sqlite is the ledger of a release before\. run: .* migrate-state"):
        VersionStore(project)
    assert plan_migration(project).ledger == str(project.versions / "ledger.sqlite")
    assert migrate(project).files == ()
    with closing(VersionStore(project)) as store:
        assert held_by(store) == before
        assert store.ledger.halts.get(0).reason == "loss nan"
        assert store.ledger.halts.clear(0)
    assert migrate(project).ledger is None


def test_training_goes_on_after_the_move(project, before):
    migrate(project)
    with closing(VersionStore(project)) as store:
        world = World(store)
        world.restart()
        assert world.epoch > before[5]
        assert world.commit().sequence == before[0].sequence + 1


def test_a_move_that_was_interrupted_is_repeated(project, before):
    former = project.versions / "ledger.sqlite"
    content = former.read_bytes()
    migrate(project)
    former.write_bytes(content)  # as if it had ended before the file was renamed
    migrate(project)
    with closing(VersionStore(project)) as store:
        assert held_by(store) == before


def test_a_topic_that_holds_another_ledger_is_not_replaced(project, before):
    former = project.versions / "ledger.sqlite"
    content = former.read_bytes()
    migrate(project)
    with closing(VersionStore(project)) as store:
        store.ledger.quarantines.add(Quarantine(0, "new", times_ms=(100, 200)))
    former.write_bytes(content)
    with pytest.raises(VersionError, match="partition 1 holds another ledger already"):
        migrate(project)


@pytest.mark.parametrize(("statement", "problem"), [("PRAGMA user_version = 4", "has format 4, wanted 5")])
def test_a_ledger_that_cannot_be_read_is_named(project, before, statement, problem):
    with closing(sqlite3.connect(project.versions / "ledger.sqlite")) as connection:
        connection.execute(statement)
    with pytest.raises(DamagedError, match=problem):
        migrate(project)
    (project.versions / "ledger.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(DamagedError, match=r"ledger\.sqlite cannot be read: file is not a database"):
        migrate(project)

"""A lost or damaged ledger is restored from its backup and the version files: nothing it held is forgotten."""

import shutil

import pytest

from pipeline.errors import DamagedError, VersionError
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.store.restore_ledger import restore_ledger
from pipeline.versions.store.version_store import VersionStore
from tests.support.synthetic.commits import World, project_in
from tests.support.world.lost_ledger import lose_ledger
from tests.support.world.stored_paths import path_of


@pytest.fixture
def project(tmp_path):
    return project_in(tmp_path, retention={"newest": 1, "all_s": 60, "ten_minutes_s": 3600})


def lose(store, content=None):
    """Close the store and lose its ledger; `content` is what is found in its place."""
    store.close()
    lose_ledger(path_of(store.folder).parent / "logs", content)


def test_versions_committed_after_the_backup_are_found_again(project):
    store = VersionStore(project)
    world = World(store)
    ids = [world.commit(), world.commit()]
    store.ledger.quarantines.add(Quarantine(0, "bots", times_ms=(100, 200)))
    ids += [world.commit(full=True), world.commit()]
    lineage, expected = store.lineage(0), world.expected[ids[-1]]
    lose(store)
    restored = restore_ledger(project)
    assert (restored.current, restored.versions_found, restored.quarantines) == ((str(ids[-1]),), 4, 1)
    again = VersionStore(project)
    assert again.lineage(0) == lineage
    assert again.ledger.quarantines.active(0).ids() == [1]
    later = World(again)
    later.restart()
    assert (later.rows, later.served) == expected
    assert later.epoch > world.epoch
    later.commit()
    again.close()


@pytest.mark.parametrize("content", [None, b"", b"not a database " * 1_000])
def test_whatever_lies_in_its_place_is_replaced(project, content):
    store = VersionStore(project)
    id = World(store).commit()
    lose(store, content)
    restored = restore_ledger(project)
    assert restored.current == (str(id),)


def test_what_retention_dropped_stays_dropped(project):
    store = VersionStore(project)
    world = World(store, step_ms=100_000)
    for i in range(20):
        world.commit(full=i % 7 == 3)
    store.retain(0, world.at_ms)
    kept = store.versions(0)
    assert len(kept) < 20
    lose(store)
    restore_ledger(project)
    again = VersionStore(project)
    assert again.versions(0) == kept
    again.close()


def test_a_version_whose_commit_was_interrupted_is_adopted_once(project):
    store = VersionStore(project)
    world = World(store)
    world.commit()
    staged = world.build()
    store.stage(staged)
    world.restart()
    committed = world.commit()
    assert committed == staged.id
    digest = store.ledger.version(committed).digest
    lose(store)
    assert restore_ledger(project).current == (str(committed),)
    again = VersionStore(project)
    assert again.ledger.version(committed).digest == digest
    again.close()


def test_an_intact_ledger_is_not_replaced(project):
    store = VersionStore(project)
    World(store).commit()
    store.close()
    with pytest.raises(VersionError, match="is intact"):
        restore_ledger(project)


def test_a_missing_or_damaged_backup_is_named(project):
    store = VersionStore(project)
    World(store).commit()
    lose(store)
    backup = path_of(store.folder) / "ledger" / "1.backup"
    content = bytearray(backup.read_bytes())
    content[len(content) // 2] ^= 1
    backup.write_bytes(content)
    with pytest.raises(DamagedError, match=r"1\.backup is damaged: .*restore the file from a copy"):
        restore_ledger(project)
    backup.unlink()
    with pytest.raises(DamagedError, match=r"the backup \S+1\.backup is missing"):
        restore_ledger(project)


def test_a_ledger_that_lacks_what_its_backup_has_is_named_until_it_is_restored(project, tmp_path):
    store = VersionStore(project)
    world = World(store)
    world.commit()
    store.close()
    topic = path_of(store.folder).parent / "logs" / "ledger"
    shutil.copytree(topic, tmp_path / "older")
    again = VersionStore(project)
    again.ledger.quarantines.add(Quarantine(0, "bots", times_ms=(100, 200)))
    again.close()
    shutil.rmtree(topic)
    shutil.copytree(tmp_path / "older", topic)
    with pytest.raises(DamagedError, match=r"ledger, partition 1 has lost records: .* its backup at 1.*restore-ledger"):
        VersionStore(project)
    assert restore_ledger(project).quarantines == 1
    VersionStore(project).close()

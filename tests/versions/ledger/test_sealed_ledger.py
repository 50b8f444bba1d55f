"""A ledger that is not as it was written is refused when it is opened, whatever was changed in it."""

import shutil
import sqlite3

import pytest
from structlog.testing import capture_logs

from pipeline.errors import DamagedError, SpringtideError, VersionError
from pipeline.formats.sqlite_file import row_checksum
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.store.restore_ledger import restore_ledger
from pipeline.versions.store.version_store import VersionStore
from tests.support.manual_clock import ManualClock
from tests.support.synthetic.commits import World, project_in
from tests.support.world.stored_paths import path_of


@pytest.fixture
def path(tmp_path):
    """The file of a ledger with rows in most tables."""
    store = VersionStore(project_in(tmp_path))
    world = World(store)
    ids = [world.commit() for _ in range(3)]
    store.ledger.quarantines.add(Quarantine(0, "bots", times_ms=(100, 200)))
    store.ledger.halts.set(0, "nan", "halted/5.parquet")
    store.ledger.published.set("full", ids[1], "a")
    store.ledger.published.set("full", ids[1], "b")
    store.close()
    return path_of(store.folder) / "ledger.sqlite"


def open_ledger(path):
    Ledger(path, ManualClock()).close()


def edit(path, statement, *, knowing=lambda *values: 7):
    """Change the file as a program would that defines another `row_checksum`."""
    connection = sqlite3.connect(path)
    connection.create_function("row_checksum", -1, knowing, deterministic=True)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_ledger_as_written_opens(path):
    open_ledger(path)


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("UPDATE shard SET sequence = 2", "shard"),
        ("UPDATE version SET full = 1 WHERE sequence = 2", "version"),
        ("UPDATE quarantine SET to_ms = 101", "quarantine"),
        ("UPDATE quarantine SET removed_at_ms = 5", "quarantine"),
        ("UPDATE halted SET cleared_at_ms = 5", "halted"),
        ("UPDATE published SET level = 'incremental'", "published"),
        ("UPDATE version SET file_digest = (SELECT file_digest FROM version WHERE sequence = 1)", "version"),
    ],
)
def test_an_edited_row_is_named(path, statement, table):
    edit(path, statement)
    with pytest.raises(DamagedError, match=rf"ledger\.sqlite is damaged: row .* of table {table} .*restore-ledger"):
        open_ledger(path)


@pytest.mark.parametrize("table", ["version", "quarantine", "halted", "published", "shard"])
def test_a_missing_row_is_named(path, table):
    connection = sqlite3.connect(path)
    connection.execute(f"DROP TRIGGER {table}_delete")
    connection.execute(
        f"DELETE FROM {table} WHERE rowid = 1" if table in ("quarantine", "halted") else f"DELETE FROM {table}"
    )
    connection.execute(
        f"CREATE TRIGGER {table}_delete AFTER DELETE ON {table} BEGIN UPDATE seal SET rows = rows - 1, "
        f"checksums = checksums - OLD.checksum WHERE name = '{table}'; END"
    )
    connection.commit()
    connection.close()
    with pytest.raises(DamagedError, match=rf"table {table} has \d rows with checksum .*, its seal has"):
        open_ledger(path)


def test_a_program_without_the_checksum_cannot_edit_a_row(path):
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.OperationalError, match="row_checksum"):
        connection.execute("UPDATE quarantine SET to_ms = 101")
    connection.close()
    open_ledger(path)


def test_a_changed_definition_is_named(path):
    edit(path, "DROP TRIGGER version_update")
    with pytest.raises(DamagedError, match="its definition of version_update is not as created"):
        open_ledger(path)


def test_a_definition_that_is_no_utf8_is_named(path):
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE quarantine", b"CREATE TABLE quar\xe1ntine", 1))
    with pytest.raises(DamagedError, match=r"ledger\.sqlite is damaged"):
        open_ledger(path)


def test_a_changed_seal_is_named(path):
    edit(path, "UPDATE seal SET rows = 4 WHERE name = 'version'")
    with pytest.raises(DamagedError, match="table version has 3 rows"):
        open_ledger(path)


def test_rows_written_by_a_second_process_are_sealed_too(path):
    ledger = Ledger(path, ManualClock())
    ledger.quarantines.add(Quarantine(0, "more", times_ms=(300, 400)))
    ledger.quarantines.remove(1)
    ledger.halts.clear(0)
    ledger.published.remove_before(ledger.current(0))
    ledger.raise_epoch(0, 1)
    ledger.close()
    open_ledger(path)


@pytest.mark.parametrize("left", [0, 1, 99, 4096, 20_000])
def test_a_ledger_cut_at_any_length_is_named(path, left):
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DamagedError, match=r"ledger\.sqlite"):
        open_ledger(path)


def test_a_folder_or_a_read_only_file_in_place_of_the_ledger_is_named(path):
    path.unlink()
    path.mkdir()
    with pytest.raises(SpringtideError, match=r"ledger\.sqlite cannot be"):
        open_ledger(path)


def test_checksums_distinguish_types_order_and_number():
    rows = [("t", 1, 2), ("t", 2, 1), ("t", "1", 2), ("t", 1, 2, None), ("t", 1.0, 2), ("t", b"1", 2), ("t", None, 2)]
    assert len({row_checksum(*row) for row in rows}) == len(rows)


def test_a_missing_ledger_beside_version_files_is_refused(path):
    for part in ("", "-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)
    with pytest.raises(
        DamagedError, match=r"is missing, but 3 version files lie beside it, .*run: springtide restore-l"
    ):
        open_ledger(path)
    assert not path.exists()


def test_an_emptied_ledger_beside_version_files_is_refused(path):
    path.write_bytes(b"")
    with pytest.raises(DamagedError, match=r"is empty, but 3 version files lie beside it"):
        open_ledger(path)


def test_a_new_folder_gets_a_new_ledger_and_its_backup(tmp_path):
    open_ledger(tmp_path / "new" / "ledger.sqlite")
    assert (tmp_path / "new" / "ledger.backup").exists()


def test_a_ledger_of_the_release_before_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("PRAGMA user_version=1")
    connection.close()
    with pytest.raises(VersionError, match=r"has format 1, wanted 5\. hint: use the release that wrote it"):
        open_ledger(tmp_path / "ledger.sqlite")


@pytest.mark.parametrize("part", ["begin", "end"])
def test_a_flipped_bit_in_what_a_kill_left_beside_the_ledger_is_named_or_a_warning(tmp_path, part):
    alive = Ledger(tmp_path / "alive.sqlite", ManualClock())
    for number in range(4):
        alive.quarantines.add(Quarantine(0, "bots", times_ms=(number, number + 1)))
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"alive.sqlite{suffix}", tmp_path / f"ledger.sqlite{suffix}")
    alive.close()
    wal = tmp_path / "ledger.sqlite-wal"
    content = bytearray(wal.read_bytes())
    content[32 + 24 if part == "begin" else -1] ^= 1
    wal.write_bytes(content)
    if part == "begin":
        with pytest.raises(DamagedError, match=r"ledger\.sqlite-wal is damaged: frame 0 .* restore-ledger"):
            Ledger(tmp_path / "ledger.sqlite", ManualClock())
        return
    (tmp_path / "ledger.backup").unlink()
    with capture_logs() as logged:
        left = Ledger(tmp_path / "ledger.sqlite", ManualClock())
    assert [entry["file"] for entry in logged] == [str(wal)]
    assert len(left.quarantines.all()) == 3
    left.close()


def test_a_ledger_that_lacks_what_its_backup_has_is_named_until_it_is_restored(path):
    older = path.with_name("older")
    shutil.copy(path, older)
    ledger = Ledger(path, ManualClock())
    ledger.quarantines.add(Quarantine(0, "more bots", times_ms=(300, 400)))
    ledger.close()
    shutil.copy(older, path)
    for _ in range(2):
        with pytest.raises(DamagedError, match=r"has lost transactions: it has 1 quarantines, its backup 2\. hint"):
            open_ledger(path)
    project = project_in(path.parents[2])
    assert restore_ledger(project).quarantines == 2
    open_ledger(path)


def test_a_ledger_without_a_usable_backup_opens(path):
    backup = path.with_name("ledger.backup")
    backup.write_bytes(backup.read_bytes()[:-1])
    open_ledger(path)
    backup.unlink()
    open_ledger(path)

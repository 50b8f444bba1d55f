"""Sealed tables: a file that is not as it was written is named when it is opened."""

import sqlite3
from contextlib import closing

import pytest

from pipeline.errors import DamagedError, VersionError
from pipeline.formats.sealed_database import Database
from pipeline.formats.sealed_tables import Schema, Table, define_checksum

SCHEMA = Schema(3, (Table("word", ("id INTEGER PRIMARY KEY", "text TEXT NOT NULL")),))


@pytest.fixture
def path(tmp_path):
    """A file with two words."""
    with closing(Database(tmp_path / "words.sqlite", SCHEMA, "delete it")) as written, written.transaction() as rows:
        rows.executemany("INSERT INTO word (text) VALUES (?)", [("a",), ("b",)])
    return tmp_path / "words.sqlite"


def edit(path, *statements, checksums=True):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if checksums:
            define_checksum(connection)
        for statement in statements:
            connection.execute(statement)


def words(path):
    with closing(Database(path, SCHEMA, "delete it")) as opened:
        return [row["text"] for row in opened.read("SELECT text FROM word ORDER BY id")]


def test_a_file_as_written_opens(path):
    assert words(path) == ["a", "b"]


def test_rows_of_a_second_process_are_sealed_too(path):
    edit(path, "INSERT INTO word (text) VALUES ('c')")
    assert words(path) == ["a", "b", "c"]


def delete_then_fail(opened):
    with opened.transaction() as rows:
        rows.execute("DELETE FROM word")
        raise KeyError


def test_a_transaction_that_fails_changes_nothing(path):
    with closing(Database(path, SCHEMA, "delete it")) as opened, pytest.raises(KeyError):
        delete_then_fail(opened)
    assert words(path) == ["a", "b"]


def test_a_program_without_the_checksum_cannot_edit_a_row(path):
    with pytest.raises(sqlite3.OperationalError, match="row_checksum"):
        edit(path, "UPDATE word SET text = 'x'", checksums=False)


@pytest.mark.parametrize("statement", ["DELETE FROM seal", "UPDATE seal SET rows = 3", "UPDATE seal SET checksums = 0"])
def test_a_changed_seal_is_named(path, statement):
    edit(path, statement)
    with pytest.raises(DamagedError, match=r"words\.sqlite is damaged: table word has 2 rows .*hint: delete it"):
        words(path)


def test_a_missing_row_is_named(path):
    edit(path, "DROP TRIGGER word_delete")
    with pytest.raises(DamagedError, match=r"words\.sqlite"):
        words(path)


def test_a_file_of_another_format_is_refused(path):
    edit(path, "PRAGMA user_version = 9")
    with pytest.raises(VersionError, match="has format 9, wanted 3"):
        words(path)


@pytest.mark.parametrize("length", [99, 4096])
def test_a_file_cut_at_any_length_is_named(path, length):
    path.write_bytes(path.read_bytes()[:length])
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with pytest.raises(DamagedError, match=r"words\.sqlite"):
        words(path)

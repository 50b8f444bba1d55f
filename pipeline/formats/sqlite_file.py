"""What the SQLite files of a project share: checks that SQLite does not make, and names for what it reports.

SQLite stores no checksums. The format of a file is therefore compared with what this release creates, to the letter,
and rows carry a CRC-32 of their own (`row_checksum`).
"""

import sqlite3
import zlib
from functools import cache
from pathlib import Path

from pipeline.errors import DamagedError

_NOT_DAMAGE = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_PROTOCOL,
}  # fmt: skip
_WANTED = {"journal_mode": "wal", "auto_vacuum": 0, "encoding": "UTF-8"}


def row_checksum(*values: object) -> int:
    """CRC-32 of a row's values: of their number, types and contents. The first value should name the table.

    >>> row_checksum("shard", 0, None) == row_checksum("shard", 0, "None")
    False
    """
    crc = len(values)
    for value in values:
        if isinstance(value, bytes):
            crc = zlib.crc32(value, zlib.crc32(b"%d bytes" % len(value), crc))
        else:
            crc = zlib.crc32(repr(value).encode("utf-8", "surrogatepass"), crc)
    return crc


def error_code(failure: sqlite3.Error) -> int:
    """SQLite's primary error code; 0 for an error of Python's module."""
    return getattr(failure, "sqlite_errorcode", 0) & 0xFF


def is_damage(failure: sqlite3.Error) -> bool:
    """Whether the contents of the file caused the error. All statements are fixed, so an invalid one shows damage.

    >>> is_damage(sqlite3.OperationalError("Could not decode to UTF-8 column 'path'"))
    True
    """
    return not isinstance(failure, sqlite3.ProgrammingError) and error_code(failure) not in _NOT_DAMAGE


def check_form(connection: sqlite3.Connection, path: Path, schema: str, fix: str) -> None:
    """Compare the file's settings and tables with those that `schema` creates. Raises DamagedError, sqlite3.Error.

    Args:
        connection: to the file at `path`.
        path: for messages.
        schema: the statements that created it.
        fix: what an operator does about a damaged file, for messages.
    """
    for setting, wanted in _WANTED.items():
        (got,) = connection.execute(f"PRAGMA {setting}").fetchone()
        if got != wanted:
            raise DamagedError(f"{path} is damaged: its {setting} is {got!r}, wanted {wanted!r}. hint: {fix}")
    found, expected = _definitions(connection), _definitions_of(schema)
    if found != expected:
        names = sorted(str(name) for _, name, _, _ in found ^ expected)
        raise DamagedError(f"{path} is damaged: its definition of {names[0]} is not as created. hint: {fix}")


@cache
def _definitions_of(schema: str) -> frozenset[tuple[object, ...]]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.create_function("row_checksum", -1, row_checksum, deterministic=True)
        connection.executescript(schema)
        return _definitions(connection)
    finally:
        connection.close()


def _definitions(connection: sqlite3.Connection) -> frozenset[tuple[object, ...]]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    return frozenset(tuple(row) for row in rows)

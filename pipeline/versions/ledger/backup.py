"""The backup of the ledger: one container beside it, replaced after every change but commits and epochs.

Version files describe themselves, so commits after the backup are found again (`store/restore_ledger.py`). Quarantines,
generations, halts, published pointers and what retention dropped exist nowhere else. A ledger that has fewer of them
than its backup has lost transactions: it is an older copy, or the end of its write-ahead log was damaged.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError
from pipeline.files.folder import local_file
from pipeline.formats.container import Container, Kind, write_container

BACKUP_NAME = "ledger.backup"
_NEVER_REMOVED = {
    "quarantines": "SELECT count(*) FROM quarantine",
    "removed quarantines": "SELECT count(removed_at_ms) FROM quarantine",
    "halts": "SELECT count(*) FROM halted",
    "cleared halts": "SELECT count(cleared_at_ms) FROM halted",
    "rollbacks": "SELECT count(*) FROM rollback",
    "generations": "SELECT count(*) FROM generation",
}
"""What a ledger only gets more of."""
_ROLLBACK_JOURNAL = b"\x01\x01"
"""Bytes 18 and 19 of a SQLite file without a write-ahead log, which a file in memory cannot have."""
_BACKUP = Kind(b"ledg", "restore ledger.sqlite from a copy of the folder")


def write_backup(folder: Path, content: bytes) -> None:
    """Replace the backup in the versions folder by `content`, a complete ledger file. Raises VersionError."""
    write_container(local_file(folder / BACKUP_NAME), _BACKUP, {}, {"ledger": content})


def read_backup(folder: Path) -> bytes:
    """The ledger file in the backup. Raises DamagedError."""
    path = folder / BACKUP_NAME
    try:
        with Container.open(local_file(path), _BACKUP) as backup:
            return backup.section("ledger")
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing. hint: {_BACKUP.fix}") from None


def counts_in_backup(folder: Path) -> Mapping[str, int]:
    """How many of each kind of entry the backup has; nothing if it is missing or damaged.

    Call it before `fewer_than`: other processes change the ledger first.
    """
    try:
        content = read_backup(folder)
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.deserialize(content[:18] + _ROLLBACK_JOURNAL + content[20:])
            return _counts(lambda query: connection.execute(query).fetchall())
    except (DamagedError, sqlite3.Error):
        return {}


def fewer_than(counts: Mapping[str, int], read: Callable[[str], Sequence[Any]]) -> str | None:
    """What the ledger that `read` queries has fewer of than its backup had; None if nothing."""
    found = _counts(read)
    return next(
        (f"{found[kind]} {kind}, its backup {count}" for kind, count in counts.items() if found[kind] < count), None
    )


def _counts(read: Callable[[str], Sequence[Any]]) -> Mapping[str, int]:
    return {kind: int(read(query)[0][0]) for kind, query in _NEVER_REMOVED.items()}

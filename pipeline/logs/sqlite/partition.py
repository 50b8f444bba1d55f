"""One partition of the embedded log: one SQLite file, and all statements on it.

Table `partition` holds one row: log_id, number, epoch, begin_offset, end_offset, last_appended_at_ms. Table `records`
holds offset, appended_at_ms, checksum, headers (JSON, empty for none) and value. WAL with `synchronous=FULL`: a
completed append survives a power cut. One connection writes and one reads, each with a lock, so a read does not wait
for this process's fsync. Thread-safe, also with other processes on the same file.
"""

import itertools
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError, FencedError, LogError, LogReplacedError, SpringtideError
from pipeline.formats.checksum import checksum, headers_text
from pipeline.logs.interface.checks import check_start, check_trim
from pipeline.logs.interface.log import Fence, Headers, ReadLimits, Record

BUSY_TIMEOUT_S = 60.0
_TABLES = """
CREATE TABLE partition (
    log_id TEXT NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL,
    begin_offset INTEGER NOT NULL, end_offset INTEGER NOT NULL, last_appended_at_ms INTEGER NOT NULL);
CREATE TABLE records (
    offset INTEGER PRIMARY KEY, appended_at_ms INTEGER NOT NULL, checksum INTEGER NOT NULL,
    headers TEXT NOT NULL, value BLOB NOT NULL);
"""


def create_partition(path: Path, log_id: str, number: int) -> None:
    """Create the file of an empty partition."""
    with _log_errors(str(path)):
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            # Values have tens of kilobytes and more: larger pages make shorter overflow chains.
            connection.execute("PRAGMA page_size=16384")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_TABLES)
            connection.execute("INSERT INTO partition VALUES (?, ?, 0, 0, 0, 0)", (log_id, number))
        finally:
            connection.close()


class Partition:
    """An open partition file; `name` is `topic/number`, for error messages."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.identity = _identity(path)
        """Device and inode: a topic that is deleted and created again has another file at the same path."""
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        with _log_errors(name):
            self._writer = _connect(path)
            self._reader = _connect(path)
        self.log_id = str(self._state("log_id"))

    def replaced(self) -> bool:
        """Whether the file at this path was deleted or is another one."""
        return _identity(self.path) != self.identity

    def begin_offset(self) -> int:
        return int(self._state("begin_offset"))

    def end_offset(self) -> int:
        return int(self._state("end_offset"))

    def offset_at(self, at_ms: int) -> int:
        """The first offset appended at or after `at_ms`, by binary search: append times never decrease."""
        with self._reading() as connection:
            low, high = connection.execute("SELECT begin_offset, end_offset FROM partition").fetchone()
            while low < high:
                middle = (low + high) // 2
                (found,) = connection.execute(
                    "SELECT appended_at_ms FROM records WHERE offset = ?", (middle,)
                ).fetchone()
                low, high = (middle + 1, high) if found < at_ms else (low, middle)
            return int(low)

    def read(self, start: int, limits: ReadLimits) -> list[Record]:
        """Records from `start` on. Raises OffsetError and DamagedError."""
        with self._reading() as connection:
            begin, end = connection.execute("SELECT begin_offset, end_offset FROM partition").fetchone()
            check_start(self.name, start, begin, end)
            rows = connection.execute(
                "SELECT offset, appended_at_ms, checksum, headers, value FROM records"
                " WHERE offset >= ? ORDER BY offset LIMIT ?",
                (start, limits.records),
            )
            return self._records(rows, limits.max_bytes)

    def append(self, values: Sequence[bytes], headers: Sequence[Headers], now_ms: int, fence: Fence | None) -> int:
        """Append, and check the fence, in one transaction; returns the first offset."""
        with self._writing() as connection:
            epoch, first, last_ms = connection.execute(
                "SELECT epoch, end_offset, last_appended_at_ms FROM partition"
            ).fetchone()
            if fence is not None and fence.epoch != epoch:
                raise FencedError(
                    f"writer of {self.name} is fenced: the current epoch is {epoch}, this writer's is {fence.epoch}. "
                    "hint: another process writes this partition now, stop this one"
                )
            at_ms = max(now_ms, last_ms)
            records = zip(itertools.count(first), map(headers_text, headers), values, strict=False)
            connection.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
                ((o, at_ms, checksum(o, at_ms, text, v), text, v) for o, text, v in records),
            )
            connection.execute(
                "UPDATE partition SET end_offset = ?, last_appended_at_ms = ?", (first + len(values), at_ms)
            )
            return int(first)

    def raise_epoch(self) -> int:
        """Raise the epoch and return it."""
        with self._writing() as connection:
            (epoch,) = connection.execute("UPDATE partition SET epoch = epoch + 1 RETURNING epoch").fetchall()[0]
            return int(epoch)

    def trim(self, before: int) -> None:
        """Remove the records below `before`. Raises OffsetError beyond the end."""
        with self._writing() as connection:
            begin, end = connection.execute("SELECT begin_offset, end_offset FROM partition").fetchone()
            check_trim(self.name, before, end)
            if before > begin:
                connection.execute("DELETE FROM records WHERE offset < ?", (before,))
                connection.execute("UPDATE partition SET begin_offset = ?", (before,))

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()

    def _records(self, rows: Iterator[tuple[int, int, int, str, bytes]], max_bytes: int) -> list[Record]:
        records: list[Record] = []
        total = 0
        for offset, at_ms, stored, text, value in rows:
            total += len(value)
            if records and total > max_bytes:
                break
            if checksum(offset, at_ms, text, value) != stored:
                raise DamagedError(
                    f"record {self.name}/{offset} does not match its checksum. hint: restore {self.path} from a copy"
                )
            records.append(Record(offset, at_ms, value, json.loads(text) if text else {}))
        return records

    def _state(self, column: str) -> Any:
        with self._reading() as connection:
            row = connection.execute(f"SELECT {column} FROM partition").fetchone()
            if row is None:
                raise DamagedError(
                    f"partition {self.name} has no row in its table partition. hint: restore {self.path} from a copy"
                )
            return row[0]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        # One transaction, so that offsets and records are consistent while other processes append or trim.
        with self._read_lock, _log_errors(self.name), _transaction(self._reader, "BEGIN"):
            yield self._reader

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock, _log_errors(self.name), _transaction(self._writer, "BEGIN IMMEDIATE"):
            if self.replaced():
                raise LogReplacedError(
                    f"topic of partition {self.name} was deleted. hint: choose a start offset in the new topic"
                )
            yield self._writer


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _log_errors(name: str) -> Iterator[None]:
    """Raise errors of this package instead of SQLite's."""
    try:
        yield
    except sqlite3.Error as failure:
        raise as_log_error(name, failure) from failure


def as_log_error(name: str, failure: sqlite3.Error) -> SpringtideError:
    """The error of this package for an error of SQLite; it names the partition."""
    code = getattr(failure, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return LogError(
            f"partition {name} cannot be written or read: {failure}. "
            "hint: free space on its disk, then run again; nothing was partially written"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "no such table" in str(failure):
        return DamagedError(
            f"partition {name} is damaged: {failure}. hint: restore its file from a copy, or delete the topic"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LogError(f"partition {name} was locked for {BUSY_TIMEOUT_S:.0f} s. hint: find the process with the lock")
    return LogError(f"partition {name} cannot be used: {failure}. hint: check that its file exists and is writable")


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"  # a missing file is an error and must not be created
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA journal_size_limit=67108864")
    return connection


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino

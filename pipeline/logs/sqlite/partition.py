"""One partition of the embedded log: one SQLite file, and all statements on it.

Table `partition` holds one row: log_id, number, epoch, begin_offset, end_offset, last_appended_at_ms and a checksum of
these. Table `records` holds offset, appended_at_ms, checksum, headers (JSON, empty for none), value and key (null for
none). Offsets have no gaps, so a record that is missing is damage like one that does not match its checksum; for the
same reason nothing is compacted: all records of a key stay. WAL with `synchronous=FULL`: a
completed append survives a power cut. One connection writes and one reads, each with a lock, so a read does not wait
for this process's fsync. Thread-safe, also with other processes on the same file.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import DamagedError, FencedError, LogError, LogReplacedError, SpringtideError
from pipeline.formats.checksum import checksum, headers_text
from pipeline.formats.sqlite_file import check_form, error_code, is_damage, row_checksum
from pipeline.formats.sqlite_wal import check_wal
from pipeline.logs.interface.checks import check_start, check_trim
from pipeline.logs.interface.log import Fence, NewRecord, ReadLimits, Record

BUSY_TIMEOUT_S = 60.0
_CLOCK_CORRECTED_MS = 3_600_000
_FORMAT = 4
_FIX = "restore the file from a copy, or delete the topic"
_TABLES = """
CREATE TABLE partition (
    log_id TEXT NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL,
    begin_offset INTEGER NOT NULL, end_offset INTEGER NOT NULL, last_appended_at_ms INTEGER NOT NULL,
    checksum INTEGER NOT NULL);
CREATE TABLE records (
    offset INTEGER PRIMARY KEY, appended_at_ms INTEGER NOT NULL, checksum INTEGER NOT NULL,
    headers TEXT NOT NULL, value BLOB NOT NULL, key BLOB);
"""


def _append_time_ms(now_ms: int, last_ms: int) -> int:
    """The append time: never before the last one, unless the clock was set back by an hour or more.

    Such a clock was wrong before; its times must not decide for good which events are of the future.

    >>> _append_time_ms(5, 9), _append_time_ms(5, 5 + 3_600_000)
    (9, 5)
    """
    return now_ms if last_ms - now_ms >= _CLOCK_CORRECTED_MS else max(now_ms, last_ms)


def create_partition(path: Path, log_id: str, number: int) -> None:
    """Create the file of an empty partition."""
    with _log_errors(str(path)):
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            # Values have tens of kilobytes and more: larger pages make shorter overflow chains.
            connection.execute("PRAGMA page_size=16384")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_TABLES)
            _State(log_id, number).insert(connection)
            connection.execute(f"PRAGMA user_version={_FORMAT}")
        finally:
            connection.close()


class _State(NamedTuple):
    """The row of table `partition`, without its checksum."""

    log_id: str
    number: int
    epoch: int = 0
    begin: int = 0
    end: int = 0
    last_appended_at_ms: int = 0

    @property
    def checksum(self) -> int:
        return row_checksum("partition", *self)

    def insert(self, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO partition VALUES (?, ?, ?, ?, ?, ?, ?)", (*self, self.checksum))

    def store(self, connection: sqlite3.Connection) -> None:
        """Replace the row."""
        connection.execute(
            "UPDATE partition SET epoch = ?, begin_offset = ?, end_offset = ?, last_appended_at_ms = ?, checksum = ?",
            (*self[2:], self.checksum),
        )


class Partition:
    """An open partition file; `name` is `topic/number`, for error messages."""

    def __init__(self, path: Path, name: str) -> None:
        """Open the file. Raises LogError, and DamagedError if it is not as it was written."""
        self.path, self.name = path, name
        self.file_id = _file_id(path)
        """Device and inode: a topic that is deleted and created again has another file at the same path."""
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        check_wal(path, _FIX)
        with _log_errors(name, path):
            self._reader = _connect(path)
            try:
                _check_format(self._reader, path)
                with self._reading() as connection:
                    state = self._checked(connection)
                self._writer = _connect(path)
            except BaseException:
                self._reader.close()
                raise
        self.log_id, self.number = state.log_id, state.number

    def replaced(self) -> bool:
        """Whether the file at this path was deleted or is another one."""
        return _file_id(self.path) != self.file_id

    def begin_offset(self) -> int:
        with self._reading() as connection:
            return self._state(connection).begin

    def end_offset(self) -> int:
        with self._reading() as connection:
            return self._state(connection).end

    def offset_at(self, at_ms: int) -> int:
        """The first offset appended at or after `at_ms`, by binary search.

        Behind records of a clock that was set back by an hour or more it may be the first of these.
        """
        with self._reading() as connection:
            state = self._state(connection)
            low, high = state.begin, state.end
            while low < high:
                middle = (low + high) // 2
                (record,) = self._records(connection, middle, state.end, ReadLimits(records=1))
                low, high = (middle + 1, high) if record.appended_at_ms < at_ms else (low, middle)
            return low

    def read(self, start: int, limits: ReadLimits) -> list[Record]:
        """Records from `start` on. Raises OffsetError and DamagedError."""
        with self._reading() as connection:
            state = self._state(connection)
            check_start(self.name, start, state.begin, state.end)
            return self._records(connection, start, state.end, limits)

    def append(self, records: Sequence[NewRecord], now_ms: int, fence: Fence | None) -> int:
        """Append, and check the fence, in one transaction; returns the first offset."""
        with self._writing() as connection:
            state = self._state(connection)
            if fence is not None and fence.epoch != state.epoch:
                raise FencedError(
                    f"writer of {self.name} is fenced: the current epoch is {state.epoch}, this writer's is "
                    f"{fence.epoch}. hint: another process writes this partition now, stop this one"
                )
            at_ms = _append_time_ms(now_ms, state.last_appended_at_ms)
            rows = ((o, headers_text(new.headers), new.value, new.key) for o, new in enumerate(records, state.end))
            connection.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
                ((o, at_ms, checksum(o, at_ms, text, value, key), text, value, key) for o, text, value, key in rows),
            )
            state._replace(end=state.end + len(records), last_appended_at_ms=at_ms).store(connection)
            return state.end

    def raise_epoch(self) -> int:
        """Raise the epoch and return it."""
        with self._writing() as connection:
            state = self._state(connection)
            state._replace(epoch=state.epoch + 1).store(connection)
            return state.epoch + 1

    def trim(self, before: int) -> None:
        """Remove the records below `before`. Raises OffsetError beyond the end."""
        with self._writing() as connection:
            state = self._state(connection)
            check_trim(self.name, before, state.end)
            if before > state.begin:
                connection.execute("DELETE FROM records WHERE offset < ?", (before,))
                state._replace(begin=before).store(connection)

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()

    def _records(self, connection: sqlite3.Connection, start: int, end: int, limits: ReadLimits) -> list[Record]:
        """The records from `start` on, of which none below `end` may be missing."""
        rows = connection.execute(
            "SELECT offset, appended_at_ms, checksum, headers, value, key FROM records"
            " WHERE offset >= ? ORDER BY offset LIMIT ?",
            (start, limits.records),
        )
        records: list[Record] = []
        total, expected = 0, start
        for offset, at_ms, stored, text, value, key in rows:
            if offset != expected:
                raise self._damaged(f"record {self.name}/{expected} is missing, the next one found is {offset}")
            damaged = type(value) is not bytes or type(key) not in (bytes, type(None))
            if damaged or checksum(offset, at_ms, text, value, key) != stored:
                raise self._damaged(f"record {self.name}/{offset} does not match its checksum")
            total += len(value)
            if records and total > limits.max_bytes:
                return records
            records.append(Record(offset, at_ms, value, json.loads(text) if text else {}, key))
            expected += 1
        if expected != end and len(records) < limits.records:
            raise self._damaged(f"record {self.name}/{expected} is missing, the partition ends at {end}")
        return records

    def _state(self, connection: sqlite3.Connection) -> _State:
        """The partition's row. Raises DamagedError."""
        rows = connection.execute("SELECT * FROM partition").fetchall()
        if len(rows) != 1:
            raise self._damaged(f"partition {self.name} has {len(rows)} rows in its table partition, wanted 1")
        *values, stored = rows[0]
        state = _State(*values)
        if state.checksum != stored:
            raise self._damaged(f"the row of partition {self.name} does not match its checksum: {tuple(state)}")
        return state

    def _checked(self, connection: sqlite3.Connection) -> _State:
        """The partition's row, compared with the first and the last record."""
        state = self._state(connection)
        first, last = connection.execute("SELECT min(offset), max(offset) FROM records").fetchone()
        found = (state.begin, state.begin) if first is None and state.begin == state.end else (first, (last or 0) + 1)
        if found != (state.begin, state.end):
            raise self._damaged(
                f"partition {self.name} has records {first}..{last}, its row says {state.begin}..{state.end - 1}"
            )
        return state

    def _damaged(self, problem: str) -> DamagedError:
        return DamagedError(f"{problem}. hint: restore {self.path} from a copy, or delete the topic")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        # One transaction, so that offsets and records are consistent while other processes append or trim.
        with self._read_lock, _log_errors(self.name, self.path), _transaction(self._reader, "BEGIN"):
            yield self._reader

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock, _log_errors(self.name, self.path), _transaction(self._writer, "BEGIN IMMEDIATE"):
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
def _log_errors(name: str, path: Path | None = None) -> Iterator[None]:
    """Raise errors of this package instead of SQLite's."""
    try:
        yield
    except sqlite3.Error as failure:
        raise as_log_error(name, failure, path) from failure
    except UnicodeDecodeError as failure:  # of an error message that quotes a damaged definition
        raise DamagedError(f"partition {name} is damaged: {failure}. hint: {_FIX}") from failure


def as_log_error(name: str, failure: sqlite3.Error, path: Path | None = None) -> SpringtideError:
    """The error of this package for an error of SQLite; it names the partition, and its file if that is the problem."""
    code = error_code(failure)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return LogError(
            f"partition {name} cannot be written or read: {failure}. "
            "hint: free space on its disk, then run again; nothing was partially written"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LogError(f"partition {name} was locked for {BUSY_TIMEOUT_S:.0f} s. hint: find the process with the lock")
    if is_damage(failure):
        return DamagedError(f"partition {name} is damaged: {failure}. hint: {_FIX}")
    file = "its file" if path is None else str(path)
    return LogError(f"partition {name} cannot be used: {failure}. hint: check that {file} and its folder are writable")


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"  # a missing file is an error and must not be created
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA journal_size_limit=67108864")
    return connection


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    (stored,) = connection.execute("PRAGMA user_version").fetchone()
    if stored != _FORMAT:
        raise DamagedError(
            f"{path} has format {stored}, wanted {_FORMAT}. "
            "hint: use the release that wrote it, or begin with a new folder of logs"
        )
    check_form(connection, path, _TABLES, _FIX)


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino

"""A durable SQLite file shared by several processes: short write transactions, reads that do not block.

With write-ahead logging readers continue during a write; with `synchronous=FULL` a commit survives a power failure. The
tables are sealed (`sealed_tables.py`): a file that is not as it was written is an error when it is opened.
"""

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError, VersionError
from pipeline.formats.sealed_tables import Schema, define_checksum
from pipeline.formats.sqlite_file import is_damage
from pipeline.formats.sqlite_wal import check_wal

BUSY_TIMEOUT_S = 30.0


class Database:
    """One connection to one file. Thread-safe: a lock serialises threads. Must not be used across a fork."""

    def __init__(self, path: Path, schema: Schema, fix: str) -> None:
        """Open the file and check every row, or create it.

        Args:
            path: the file.
            schema: its tables.
            fix: what an operator does about a damaged file, for messages.

        Raises:
            DamagedError: something in the file is not as it was written.
            VersionError: the file cannot be opened, or has another format.
        """
        self.path, self._fix = path, fix
        self._lock = threading.RLock()
        check_wal(path, fix)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.OperationalError) as failure:
            raise VersionError(f"{path} cannot be opened: {failure}. hint: check the folder's permissions") from None
        try:
            with self._named_errors():
                self._prepare(schema)
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """An atomic write that holds the file's write lock from the start. Any exception rolls it back."""
        with self._lock, self._named_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def read(self, query: str, parameters: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        """Rows of one query, without the write lock."""
        with self._lock, self._named_errors():
            return self._connection.execute(query, parameters).fetchall()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _prepare(self, schema: Schema) -> None:
        define_checksum(self._connection)
        stored = self._schema_version()
        if stored == 0:
            self._create(schema)
        elif stored != schema.version:
            raise VersionError(
                f"{self.path} has format {stored}, wanted {schema.version}. hint: use the release that wrote it"
            )
        with self._snapshot():
            schema.check(self._connection, self.path, self._fix)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA synchronous=FULL")

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        with open(f"{self.path}.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Inside, all reads see one state of the file."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    def _schema_version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _create(self, schema: Schema) -> None:
        """Create the tables once. A change of journal mode does not wait for locks, so a file lock orders creators."""
        with self._file_lock():
            if self._schema_version() != 0:
                return
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {schema.statements} PRAGMA user_version={schema.version}; COMMIT;"
            )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raise SQLite's errors as errors of this package that name the file and the remedy."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # a bug of this package, not damage
        except UnicodeDecodeError as failure:  # of an error message that quotes a damaged definition
            raise DamagedError(f"{self.path} is damaged: {failure}. hint: {self._fix}") from None
        except sqlite3.Error as failure:
            if is_damage(failure):
                raise DamagedError(f"{self.path} is damaged: {failure}. hint: {self._fix}") from None
            raise VersionError(
                f"{self.path} cannot be used: {failure}. hint: make room on its disk and check its permissions; "
                "if it is locked, end the process that holds the lock"
            ) from None

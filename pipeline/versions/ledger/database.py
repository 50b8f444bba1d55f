"""A durable SQLite file shared by several processes: short write transactions, reads that do not block.

With write-ahead logging readers continue during a write; with `synchronous=FULL` a commit survives a power failure.
"""

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError, VersionError

BUSY_TIMEOUT_S = 30.0


class Database:
    """One connection to one file. Thread-safe: a lock serialises threads. Must not be used across a fork."""

    def __init__(self, path: Path, schema: str, schema_version: int) -> None:
        """Open the file, or create it. Raises DamagedError, VersionError."""
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.OperationalError) as failure:
            raise VersionError(f"{path} cannot be opened: {failure}. hint: check the folder's permissions") from None
        self._connection.row_factory = sqlite3.Row
        with self._named_errors():
            stored = self._schema_version()
            if stored == 0:
                self._create(schema, schema_version)
            elif stored != schema_version:
                raise VersionError(
                    f"{path} has format {stored}, wanted {schema_version}. hint: use the release that wrote it"
                )
            self._connection.execute("PRAGMA synchronous=FULL")

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

    def _schema_version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _create(self, schema: str, schema_version: int) -> None:
        """Create the tables once. A change of journal mode does not wait for locks, so a file lock orders creators."""
        with open(f"{self.path}.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._schema_version() == 0:
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.executescript(
                    f"BEGIN IMMEDIATE; {schema}; PRAGMA user_version={schema_version}; COMMIT;"
                )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raise SQLite's errors as errors of this package that name the file and the remedy."""
        try:
            yield
        except sqlite3.OperationalError as failure:
            raise VersionError(
                f"{self.path} cannot be used: {failure}. "
                "hint: make room on its disk; if it is locked, end the process that holds the lock"
            ) from None
        except sqlite3.IntegrityError:
            raise  # a bug of this package, not damage
        except sqlite3.DatabaseError as failure:
            raise DamagedError(f"{self.path} is damaged: {failure}. hint: restore it from a backup") from None

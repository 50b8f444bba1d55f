"""A small durable SQLite file that several processes share: short write transactions, reads that never wait.

Write-ahead logging lets readers go on beside a writer; with `synchronous=FULL` a commit survives a power cut.
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
    """One connection to one file. Thread-safe: threads take turns. Not to be used across a fork."""

    def __init__(self, path: Path, schema: str, schema_version: int) -> None:
        """Open the file, making it where there is none. Raises DamagedError, VersionError."""
        self.path = path
        self._turn = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.OperationalError) as failure:
            raise VersionError(f"{path} cannot be opened: {failure}. hint: check the folder's rights") from None
        self._connection.row_factory = sqlite3.Row
        with self._named_errors():
            found = self._schema_version()
            if found == 0:
                self._create(schema, schema_version)
            elif found != schema_version:
                raise VersionError(
                    f"{path} has format {found}, wanted {schema_version}. hint: use the release that wrote it"
                )
            self._connection.execute("PRAGMA synchronous=FULL")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, holding the file's write lock from the start. Any exception undoes it."""
        with self._turn, self._named_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def read(self, query: str, parameters: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        """Rows of one query, taking no write lock."""
        with self._turn, self._named_errors():
            return self._connection.execute(query, parameters).fetchall()

    def close(self) -> None:
        with self._turn:
            self._connection.close()

    def _schema_version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _create(self, schema: str, schema_version: int) -> None:
        """Make the tables once. Changing the journal does not wait for a lock, so a file lock orders two that start."""
        with open(f"{self.path}.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._schema_version() == 0:
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.executescript(
                    f"BEGIN IMMEDIATE; {schema}; PRAGMA user_version={schema_version}; COMMIT;"
                )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """SQLite's errors as ours, naming the file and the way out."""
        try:
            yield
        except sqlite3.OperationalError as failure:
            raise VersionError(
                f"{self.path} cannot be used: {failure}. hint: make room on its disk; if it is locked, end who holds it"
            ) from None
        except sqlite3.IntegrityError:
            raise  # our own bug: never dress it up as damage
        except sqlite3.DatabaseError as failure:
            raise DamagedError(f"{self.path} is damaged: {failure}. hint: restore it from a backup") from None

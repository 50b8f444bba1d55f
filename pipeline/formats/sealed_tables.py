"""Tables whose rows carry checksums that SQLite computes with every change, and a seal over the rows of each table.

A row's column `checksum` shows that a value changed; the table `seal` holds, by table, how many rows there are and the
sum of their checksums, and so shows that a row is missing or too many. A program that does not define the function
`row_checksum`, such as SQLite's shell, can read the tables and cannot change them.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import DamagedError
from pipeline.formats.sqlite_file import check_form, row_checksum

_SEAL = "CREATE TABLE seal (name TEXT PRIMARY KEY, rows INTEGER NOT NULL, checksums INTEGER NOT NULL) WITHOUT ROWID;"


@dataclass(frozen=True)
class Table:
    """A table: its name, the definitions of its columns, and the constraint after them.

    The constraint of a table with a key of several columns ends in a clause WITHOUT ROWID.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...] = ()

    @property
    def checksum(self) -> str:
        """The expression of a row's checksum."""
        names = ", ".join(column.split()[0] for column in self.columns)
        return f"row_checksum('{self.name}', {names})"

    @property
    def statements(self) -> str:
        """Creates the table with its seal."""
        checksum = f"checksum INTEGER NOT NULL GENERATED ALWAYS AS ({self.checksum}) STORED"
        key = f", PRIMARY KEY ({', '.join(self.key)})" if self.key else ""
        rows = f"CREATE TABLE {self.name} ({', '.join(self.columns)}, {checksum}{key})"
        return "\n".join(
            [
                f"{rows}{' WITHOUT ROWID' if self.key else ''};",
                f"INSERT INTO seal VALUES ('{self.name}', 0, 0);",
                self._trigger("INSERT", "rows = rows + 1, checksums = checksums + NEW.checksum"),
                self._trigger("UPDATE", "checksums = checksums - OLD.checksum + NEW.checksum"),
                self._trigger("DELETE", "rows = rows - 1, checksums = checksums - OLD.checksum"),
            ]
        )

    def _trigger(self, event: str, change: str) -> str:
        # Not fired for the row that INSERT OR REPLACE deletes: use ON CONFLICT DO UPDATE.
        return (
            f"CREATE TRIGGER {self.name}_{event.lower()} AFTER {event} ON {self.name} "
            f"BEGIN UPDATE seal SET {change} WHERE name = '{self.name}'; END;"
        )


@dataclass(frozen=True)
class Schema:
    """The tables of a database file, its indexes as statements, and the version of all that."""

    version: int
    tables: Sequence[Table]
    indexes: str = ""

    @cached_property
    def statements(self) -> str:
        """Creates everything in an empty file."""
        return "\n".join([_SEAL, *(table.statements for table in self.tables), self.indexes])

    def check(self, connection: sqlite3.Connection, path: Path, fix: str) -> None:
        """Compare every row with its checksum and every table with its seal. Raises DamagedError, sqlite3.Error."""
        check_form(connection, path, self.statements, fix)
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        problems = [] if found == "ok" else [found]
        seals = {name: (rows, checksums) for name, rows, checksums in connection.execute("SELECT * FROM seal")}
        for table in self.tables:
            problems += _problems(connection, table, seals.pop(table.name, None))
        problems += [f"it has a seal of {name}" for name in seals]
        if problems:
            raise DamagedError(f"{path} is damaged: {problems[0]}. hint: {fix}")


def define_checksum(connection: sqlite3.Connection) -> None:
    """Let statements of the connection change sealed tables."""
    connection.create_function("row_checksum", -1, row_checksum, deterministic=True)


def _problems(connection: sqlite3.Connection, table: Table, seal: tuple[int, int] | None) -> list[str]:
    rows, checksums, damaged = connection.execute(
        f"SELECT count(*), coalesce(sum(checksum), 0), coalesce(sum(checksum IS NOT {table.checksum}), 0) "
        f"FROM {table.name}"
    ).fetchone()
    if damaged:
        first = connection.execute(
            f"SELECT * FROM {table.name} WHERE checksum IS NOT {table.checksum} LIMIT 1"
        ).fetchone()
        return [f"row {tuple(first)[:3]} of table {table.name} does not match its checksum"]
    if seal != (rows, checksums):
        return [f"table {table.name} has {rows} rows with checksum {checksums}, its seal has {seal}"]
    return []

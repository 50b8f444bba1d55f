"""Reads rows by key as of one version, from the files of its chain: the newest file that has an entry decides.

A file stays open as long as it is read from, so that a merge may delete it meanwhile.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.arrays.types import Int64s, UInt8s, UInt64s
from pipeline.errors import DamagedError
from pipeline.formats.container import Container
from pipeline.versions.ledger.change_files import ChangeFile
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.runs.key_filter import KeyFilter
from pipeline.versions.runs.sorted_run import REMOVAL, VALUE, decode_run
from pipeline.versions.runs.stored_run import StoredRun, filter_of, merged_pieces
from pipeline.versions.state import VersionId
from pipeline.versions.store.files import FIX, MERGED, VERSION
from pipeline.versions.store.listed_files import require_listed

_ATTEMPTS = 3


class _Rows(NamedTuple):
    """The rows of one table in one file."""

    run: StoredRun
    filter: KeyFilter


@dataclass(frozen=True)
class _OpenFile:
    listed: ChangeFile
    tables: Mapping[str, _Rows]

    @classmethod
    def open(cls, folder: Path, listed: ChangeFile, tables: Sequence[str]) -> "_OpenFile":
        """Raises FileNotFoundError, DamagedError."""
        file = Container.held(folder / listed.path, VERSION, MERGED)
        require_listed(file, f"version {listed.upto}", listed.file.digest)
        names = {table: f"fields/{table}/rows" for table in tables}
        return cls(listed, {table: _open_rows(file, name) for table, name in names.items() if name in file})

    def find(self, table: str, keys: UInt64s, width: int) -> tuple[Int64s, UInt8s, UInt8s]:
        """Places of the `keys`, which ascend, that pass the filter; their entries and values, as `find_values`.

        Raises DamagedError.
        """
        run, filter = self.tables[table]
        try:
            with run.parsing():
                passed = np.flatnonzero(filter.may_contain(keys))
            return passed, *run.find(keys[passed], width)
        except DamagedError as failure:
            versions = f"{self.listed.after or 'the first'} to {self.listed.upto}"
            raise DamagedError(f"{failure}. it holds rows of versions {versions}") from None


def _open_rows(file: Container, name: str) -> _Rows:
    return _Rows(StoredRun.open(file, name), KeyFilter(file.array(filter_of(name), np.uint8)))


class RowReader:
    """Rows of one shard's tables as of one version at a time. Thread-safe."""

    def __init__(self, folder: Path, ledger: Ledger, row_bytes: Mapping[str, int]) -> None:
        """`row_bytes`: by table, the bytes of a packed row."""
        self._folder, self._ledger, self._row_bytes = folder, ledger, dict(row_bytes)
        self._renewing = threading.Lock()
        self._files: tuple[_OpenFile, ...] = ()
        self.version: VersionId | None = None
        """The version that is read."""

    def renew(self, version: VersionId | None = None) -> None:
        """Read as of `version` from now on, or the same version from the files that it now consists of.

        Raises DamagedError if a file is missing or is not the one that the ledger lists.
        """
        with self._renewing:
            version = version or self.version
            if version is None:
                return
            opened = {file.listed.path: file for file in self._files}
            for attempt in range(_ATTEMPTS):
                try:
                    chain = self._ledger.chain(version)
                    files = [opened.get(each.path) or self._open(each) for each in reversed(chain)]
                    break
                except FileNotFoundError as failure:  # retention deleted it after the ledger was read
                    if attempt + 1 == _ATTEMPTS:
                        missing = f"{failure.filename}, which version {version} needs, is missing. hint: {FIX}"
                        raise DamagedError(missing) from None
            self._files, self.version = tuple(files), version

    def rows(self, table: str, keys: UInt64s) -> UInt8s:
        """[n, row bytes] of `keys` [n] uint64, which all have a row in the version.

        Blocks are read in the order of keys, which is that of their places in a file.

        Raises DamagedError if a file is damaged, or a key has no row; the message names file and versions.
        """
        order = np.argsort(keys)
        wanted, rows = keys[order], np.empty((len(keys), self._row_bytes[table]), np.uint8)
        left = np.arange(len(keys))
        for file in self._files:
            if not len(left):
                break
            if table not in file.tables:
                continue
            passed, entries, values = file.find(table, wanted[left], rows.shape[1])
            found = entries == VALUE
            rows[order[left[passed[found]]]] = values[found]
            if (entries == REMOVAL).any():
                key = int(wanted[left[passed[entries == REMOVAL][0]]])
                raise self._without_row(table, key, f"{file.listed.path} has its removal")
            left = np.delete(left, passed[found])
        if len(left):
            raise self._without_row(table, int(wanted[left[0]]), "none of its files has one")
        return rows

    def pieces(self, table: str) -> Iterator[tuple[UInt64s, UInt8s]]:
        """All rows of a table in pieces of about 32 MiB: keys [n] uint64 ascending, and rows [n, row bytes].

        Raises DamagedError.
        """
        runs = [file.tables[table].run for file in reversed(self._files) if table in file.tables]
        for piece in merged_pieces(runs, keep_removed=False):
            rows = decode_run(piece, [self._row_bytes[table]])
            yield rows.keys, rows.columns[0]

    def _open(self, listed: ChangeFile) -> _OpenFile:
        return _OpenFile.open(self._folder, listed, list(self._row_bytes))

    def _without_row(self, table: str, key: int, where: str) -> DamagedError:
        return DamagedError(
            f"key {key} of table {table} should have a row in version {self.version}, {where}. hint: {FIX}"
        )

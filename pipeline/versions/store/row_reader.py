"""Reads rows by key as of one version, from the files of its chain: the newest file that has an entry decides.

A file stays open as long as it is read from, so that a merge may delete it meanwhile.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.arrays.types import UInt8s, UInt64s
from pipeline.errors import DamagedError
from pipeline.formats.container import Container
from pipeline.versions.ledger.change_files import ChangeFile
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.runs.stored_run import StoredRun
from pipeline.versions.state import VersionId
from pipeline.versions.store.files import FIX, MERGED, VERSION
from pipeline.versions.store.listed_files import require_listed

_ATTEMPTS = 3


@dataclass(frozen=True)
class _OpenFile:
    listed: ChangeFile
    runs: Mapping[str, StoredRun]
    """By table, its rows."""

    @classmethod
    def open(cls, folder: Path, listed: ChangeFile, tables: Sequence[str]) -> "_OpenFile":
        """Raises FileNotFoundError, DamagedError."""
        file = Container.held(folder / listed.path, VERSION, MERGED)
        require_listed(file, f"version {listed.upto}", listed.file.digest)
        names = {table: f"fields/{table}/rows" for table in tables}
        return cls(listed, {table: StoredRun.open(file, name) for table, name in names.items() if name in file})

    def entries(self, table: str, keys: UInt64s, width: int) -> tuple[UInt64s, UInt64s, UInt8s]:
        """Keys with a row, removed keys, and the rows, of blocks that may hold `keys`. Raises DamagedError."""
        try:
            found = self.runs[table].entries(keys, width)
        except DamagedError as failure:
            versions = f"{self.listed.after or 'the first'} to {self.listed.upto}"
            raise DamagedError(f"{failure}. it holds rows of versions {versions}") from None
        return found.keys, found.removed, found.columns[0]


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
            if table not in file.runs:
                continue
            present, removed, packed = file.entries(table, wanted[left], rows.shape[1])
            places, found = _find(wanted[left], present)
            rows[order[left[found]]] = packed[places[found]]
            gone = _find(wanted[left], removed)[1]
            if gone.any():
                raise self._without_row(table, int(wanted[left[gone][0]]), file.listed.path)
            left = left[~found]
        if len(left):
            raise self._without_row(table, int(wanted[left[0]]), None)
        return rows

    def _open(self, listed: ChangeFile) -> _OpenFile:
        return _OpenFile.open(self._folder, listed, list(self._row_bytes))

    def _without_row(self, table: str, key: int, path: str | None) -> DamagedError:
        where = "none of its files has one" if path is None else f"{path} has its removal"
        return DamagedError(
            f"key {key} of table {table} should have a row in version {self.version}, {where}. hint: {FIX}"
        )


def _find(wanted: UInt64s, keys: UInt64s) -> tuple[np.ndarray, np.ndarray]:
    """[w] the place of each wanted key in `keys`, which ascend, and whether it is there."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return places, keys[places] == wanted

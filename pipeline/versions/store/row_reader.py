"""Reads rows by key as of one version, from the files of its chain: the newest file that has an entry decides.

A file stays open as long as it is read from, so that a merge may delete it meanwhile.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import UInt8s, UInt64s
from pipeline.errors import DamagedError
from pipeline.files.interface import StoredFolder
from pipeline.formats.container import Container
from pipeline.versions.ledger.change_files import ChangeFile
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.runs.run_files import DamagedFileError, RunFile, RunFiles
from pipeline.versions.runs.sorted_run import REMOVAL, VALUE, decode_run
from pipeline.versions.runs.stored_run import merged_pieces
from pipeline.versions.state import VersionId
from pipeline.versions.store.files import FIX, MERGED, VERSION
from pipeline.versions.store.listed_files import require_listed

_ATTEMPTS = 3


@dataclass(frozen=True)
class _OpenFile:
    listed: ChangeFile
    tables: Mapping[str, RunFile]
    """By table, its rows; a table that a migration added later is not in all files."""

    @classmethod
    def open(cls, folder: StoredFolder, listed: ChangeFile, tables: Iterable[str]) -> "_OpenFile":
        """Raises FileNotFoundError, DamagedError."""
        file = Container.held(folder / listed.path, VERSION, MERGED)
        require_listed(file, f"version {listed.upto}", listed.file.digest)
        names = {table: f"fields/{table}/rows" for table in tables}
        return cls(listed, {table: RunFile.open(file, name) for table, name in names.items() if name in file})


@dataclass(frozen=True)
class _Chain:
    """The files of a version, newest first, and by table those with rows of it."""

    version: VersionId | None
    files: Sequence[_OpenFile]
    having: Mapping[str, Sequence[_OpenFile]]
    runs: Mapping[str, RunFiles]


class RowReader:
    """Rows of one shard's tables as of one version at a time. Thread-safe."""

    def __init__(self, folder: StoredFolder, ledger: Ledger, row_bytes: Mapping[str, int]) -> None:
        """`row_bytes`: by table, the bytes of a packed row."""
        self._folder, self._ledger, self._row_bytes = folder, ledger, dict(row_bytes)
        self._renewing = threading.Lock()
        self._chain = _Chain(None, [], {}, {})

    @property
    def version(self) -> VersionId | None:
        """The version that is read."""
        return self._chain.version

    def renew(self, version: VersionId | None = None) -> None:
        """Read as of `version` from now on, or the same version from the files that it now consists of.

        Raises DamagedError if a file is missing or is not the one that the ledger lists.
        """
        with self._renewing:
            version = version or self.version
            for attempt in range(_ATTEMPTS):
                if version is None:
                    return
                try:
                    self._chain = self._opened(version)
                    return
                except FileNotFoundError as failure:  # retention deleted it after the ledger was read
                    if attempt + 1 == _ATTEMPTS:
                        missing = f"{failure.filename}, which version {version} needs, is missing. hint: {FIX}"
                        raise DamagedError(missing) from None

    def rows(self, table: str, keys: UInt64s) -> UInt8s:
        """[n, row bytes] of `keys` [n] uint64, which all have a row in the version.

        Blocks are read in the order of keys, which is that of their places in a file.

        Raises DamagedError if a file is damaged, or a key has no row; the message names file and versions.
        """
        chain, order = self._chain, np.argsort(keys)
        if not len(keys):
            return np.empty((0, self._row_bytes[table]), np.uint8)
        having, wanted = chain.having[table], keys[order]
        try:
            found = chain.runs[table].find(wanted, self._row_bytes[table])
        except DamagedFileError as failure:
            file = having[failure.number].listed
            versions = f"{file.after or 'the first'} to {file.upto}"
            raise DamagedError(f"{failure}. it holds rows of versions {versions}") from None
        wrong = np.flatnonzero(found.entries != VALUE)
        if len(wrong):
            at, where = int(wrong[0]), "none of its files has one"
            if found.entries[at] == REMOVAL:
                where = f"{having[int(found.files[at])].listed.path} has its removal"
            raise self._without_row(table, int(wanted[at]), where)
        rows = np.empty_like(found.values)
        rows[order] = found.values
        return rows

    def about(self, table: str) -> int:
        """About how many rows a table has, at most: the entries of its files; nothing is read."""
        entries = (file.tables[table].run.blocks["entries"] for file in self._chain.having[table])
        return sum(int(each.sum(dtype=np.int64)) for each in entries)

    def pieces(self, table: str) -> Iterator[tuple[UInt64s, UInt8s]]:
        """All rows of a table in pieces of about 32 MiB: keys [n] uint64 ascending, and rows [n, row bytes].

        Raises DamagedError.
        """
        runs = [file.tables[table].run for file in reversed(self._chain.having[table])]
        for piece in merged_pieces(runs, keep_removed=False):
            rows = decode_run(piece, [self._row_bytes[table]])
            yield rows.keys, rows.columns[0]

    def _opened(self, version: VersionId) -> _Chain:
        """The files of `version`, of which those that are open stay open. Raises FileNotFoundError, DamagedError."""
        open = {file.listed.path: file for file in self._chain.files}
        listed, tables = self._ledger.chain(version)[::-1], list(self._row_bytes)
        files = [open.get(each.path) or _OpenFile.open(self._folder, each, tables) for each in listed]
        having = {table: [file for file in files if table in file.tables] for table in tables}
        runs = {table: RunFiles([file.tables[table] for file in having[table]]) for table in tables}
        return _Chain(version, files, having, runs)

    def _without_row(self, table: str, key: int, where: str) -> DamagedError:
        return DamagedError(
            f"key {key} of table {table} should have a row in version {self.version}, {where}. hint: {FIX}"
        )

"""Reads rows by key as of one version, from the files of its chain: the newest file that has an entry decides.

A file stays open as long as it is read from, so that a merge may delete it meanwhile.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.arrays.types import UInt8s, UInt64s
from pipeline.errors import DamagedError, InputError
from pipeline.files.interface import StoredFolder
from pipeline.formats.container import Container
from pipeline.versions.ledger.change_files import ChangeFile
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.runs.run_files import DamagedFileError, RunFile, RunFiles
from pipeline.versions.runs.sorted_run import REMOVAL, VALUE, SortedRun, decode_run
from pipeline.versions.runs.stored_run import StoredRun, damage_named, merged_pieces, ranges_of
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
        return self.reading(table)(keys)

    def reading(self, table: str) -> Callable[[UInt64s], UInt8s]:
        """As `rows` of a table, of the version that is read now, whatever `renew` does later."""
        return partial(self._rows, self._chain, table)

    def _rows(self, chain: _Chain, table: str, keys: UInt64s) -> UInt8s:
        order = np.argsort(keys)
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
            raise DamagedError(
                f"key {wanted[at]} of table {table} should have a row in version {chain.version}, {where}. hint: {FIX}"
            )
        rows = np.empty_like(found.values)
        rows[order] = found.values
        return rows

    def pieces(self, table: str) -> Iterator[tuple[UInt64s, UInt8s]]:
        """All rows of a table in pieces of about 32 MiB: keys [n] uint64 ascending, and rows [n, row bytes].

        Raises DamagedError.
        """
        for piece in merged_pieces(self._runs(table), keep_removed=False):
            rows = decode_run(piece, [self._row_bytes[table]])
            yield rows.keys, rows.columns[0]

    def restore(self, table: str, take: Callable[[Sequence[SortedRun], int, int], None]) -> None:
        """Call `take(runs, first, last)` for consecutive ranges of keys: the runs, oldest first, merged are all rows.

        The runs of a range take about 32 MiB; those of the next one are read meanwhile. Raises DamagedError, also for
        an InputError of `take`.
        """
        runs = self._runs(table)
        ranges = ranges_of(runs) if runs else iter(())
        with ThreadPoolExecutor(1, thread_name_prefix="restore") as worker:

            def read_next() -> tuple[int, int, Future[list[SortedRun]]] | None:
                found = next(ranges, None)
                return found and (*found, worker.submit(lambda: [run.read(*found) for run in runs]))

            ahead = read_next()
            while ahead is not None:
                (first, last, reading), ahead = ahead, read_next()
                parts = reading.result()
                try:
                    with damage_named(runs, parts):
                        take(parts, first, last)
                except InputError as failure:
                    names = ", ".join(run.file.name for run in runs)
                    raise DamagedError(f"table {table} in {names} is damaged: {failure}. hint: {FIX}") from None

    def largest(self, table: str) -> int:
        """Entries of the file with most of a table: about how many rows it has; nothing is read."""
        return max((int(run.blocks["entries"].sum(dtype=np.int64)) for run in self._runs(table)), default=0)

    def close(self) -> None:
        """Let the files go: nothing is read after it."""
        self._chain = _Chain(None, [], {}, {})

    def _runs(self, table: str) -> list[StoredRun]:
        """The runs of a table, oldest first."""
        return [file.tables[table].run for file in reversed(self._chain.having[table])]

    def _opened(self, version: VersionId) -> _Chain:
        """The files of `version`, of which those that are open stay open. Raises FileNotFoundError, DamagedError."""
        open = {file.listed.path: file for file in self._chain.files}
        listed, tables = self._ledger.chain(version)[::-1], list(self._row_bytes)
        files = [open.get(each.path) or _OpenFile.open(self._folder, each, tables) for each in listed]
        having = {table: [file for file in files if table in file.tables] for table in tables}
        runs = {table: RunFiles([file.tables[table] for file in having[table]]) for table in tables}
        return _Chain(version, files, having, runs)

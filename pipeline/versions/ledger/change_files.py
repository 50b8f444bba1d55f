"""Files of changes: which files together hold the state of a version.

A version's own file holds what changed since its parent; a merged file holds what a range of versions changed. Every
version is restored from a chain of such files, in which each begins where the one before ends. A longer file is
preferred, so the chain is short, whatever the number of versions.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.errors import DamagedError
from pipeline.formats.container import WrittenFile
from pipeline.versions.state import VersionId


@dataclass(frozen=True)
class ChangeFile:
    """A file that holds what the versions after `after`, up to and including `upto`, changed.

    Attributes:
        after: None if the file holds everything there is at `upto`.
        path: relative to the versions folder.
        file: its size and the checksum it ends with.
    """

    after: VersionId | None
    upto: VersionId
    path: str
    file: WrittenFile


class ChangeFiles:
    """The files of changes of one shard."""

    def __init__(self, files: Iterable[ChangeFile]) -> None:
        self._by_end: dict[VersionId, list[ChangeFile]] = defaultdict(list)
        for file in files:
            self._by_end[file.upto].append(file)

    def chain(self, id: VersionId) -> list[ChangeFile]:
        """The files whose changes, one after another, make the state of `id`. Raises DamagedError."""
        chain: list[ChangeFile] = []
        at: VersionId | None = id
        while at is not None:
            if at not in self._by_end:
                raise DamagedError(f"version {id} needs {at}, which the ledger lacks. hint: restore the ledger")
            chain.append(min(self._by_end[at], key=_begin))
            at = chain[-1].after
        return chain[::-1]

    def files(self) -> list[ChangeFile]:
        """All files, in no particular order."""
        return [file for files in self._by_end.values() for file in files]

    def unneeded(self, ids: Iterable[VersionId]) -> list[ChangeFile]:
        """The files that are in the chain of none of `ids`. Raises DamagedError."""
        needed: set[str] = set()
        for id in ids:
            for file in reversed(self.chain(id)):
                if file.path in needed:
                    break  # and with it all before
                needed.add(file.path)
        return [file for file in self.files() if file.path not in needed]


def _begin(file: ChangeFile) -> int:
    return file.after.sequence if file.after else 0

"""Files that the ledger lists, read only if they are the ones it lists.

A file in the place of another one matches its own checksums. The ledger therefore holds the checksum that each file
ends with, which covers every byte of it.
"""

from collections.abc import Callable
from typing import TypeVar

from pipeline.arrays.types import UInt64s
from pipeline.errors import DamagedError
from pipeline.files.interface import StoredFile, StoredFolder
from pipeline.formats.container import Container
from pipeline.versions.state import VersionSummary
from pipeline.versions.store.files import FIX, TOUCHED, VERSION, read_touched

_Content = TypeVar("_Content")


def read_version(folder: StoredFolder, version: VersionSummary, reader: Callable[[StoredFile], _Content]) -> _Content:
    """Read a version's file below `folder` with `reader`.

    Raises FileNotFoundError, and DamagedError if it is not the file that was committed.
    """
    stored = folder / version.path
    _require(stored, f"version {version.id}", version.file_digest)
    return reader(stored)


def read_touched_by(folder: StoredFolder, version: VersionSummary) -> list[dict[str, UInt64s]]:
    """By table, the served keys that a version and the dropped ones before it touched. Raises as `read_version`."""
    return [*read_bridge(folder, version), read_version(folder, version, read_touched)]


def read_bridge(folder: StoredFolder, version: VersionSummary) -> list[dict[str, UInt64s]]:
    """By table, the served keys that the dropped versions before it touched. Raises as `read_version`."""
    if version.touched_path is None:
        return []
    stored = folder / version.touched_path
    _require(stored, f"keys touched before version {version.id}", version.touched_digest)
    return [read_touched(stored)]


def require_listed(file: Container, what: str, wanted: str | None) -> None:
    """Raise DamagedError unless the file ends with the checksum that the ledger holds of `what`."""
    if file.digest == wanted:
        return
    got = "keys touched by dropped versions" if file.kind is TOUCHED else f"version {file.header.get('id')}"
    raise DamagedError(
        f"{file.name} holds {got} with checksum {file.digest[:12]}, the ledger has {what} with "
        f"{str(wanted)[:12]} there. hint: {FIX}"
    )


def _require(stored: StoredFile, what: str, wanted: str | None) -> None:
    with Container.open(stored, VERSION, TOUCHED) as file:
        require_listed(file, what, wanted)

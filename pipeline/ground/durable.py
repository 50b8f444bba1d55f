"""Files that are whole or not there: written under a temporary name, fsynced, renamed, the folder fsynced.

Everything durable beside the logs and the ledger is written here, so a full disk is told in one way.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.ground.errors import VersionError


def write_whole(path: Path, chunks: Sequence[bytes | memoryview]) -> None:
    """Write `chunks` as the file `path`, in place of one that may be there; durable when this returns.

    Raises:
        VersionError: where it cannot be written (a full disk, for one). Then nothing new is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.temporary")
    try:
        _make_folder(path.parent)
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as failure:
        temporary.unlink(missing_ok=True)
        raise VersionError(
            f"{path} cannot be written: {failure.strerror or failure}. hint: make room on its disk, then start again"
        ) from None


def _make_folder(folder: Path) -> None:
    """Make `folder` and those above it, each durable."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Atomic writes: a file is written under a temporary name, fsynced and renamed, and the folder is fsynced.

All durable files except the logs and the ledger are written here, so a full disk always raises the same error.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import VersionError

_numbers = itertools.count()
"""Threads of one process may write the same file at once."""


def write_atomically(path: Path, chunks: Sequence[bytes | memoryview]) -> None:
    """Write `chunks` to `path`, replacing an existing file; durable on return.

    Raises:
        VersionError: the file cannot be written, because the disk is full for example. Nothing new is left then.
    """
    file = AtomicFile(path)
    for chunk in chunks:
        file.write(chunk)
    file.complete()


class AtomicFile:
    """A file under a temporary name until `complete` renames it or `discard` removes it. Not thread-safe.

    Methods raise VersionError if the disk is full, for example; the temporary file is removed then.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._temporary = path, path.with_name(f".{path.name}.{os.getpid()}{next(_numbers):06d}.temporary")
        with self._disk_errors():
            _make_folder(path.parent)
            self._file = self._temporary.open("wb")

    def write(self, chunk: bytes | memoryview) -> None:
        """Append `chunk`."""
        with self._disk_errors():
            self._file.write(chunk)

    def sync(self) -> None:
        """Flush written data to the disk, so that `complete` waits less."""
        with self._disk_errors():
            self._file.flush()
            os.fdatasync(self._file.fileno())

    def complete(self) -> None:
        """Rename the file to its path, replacing an existing file; durable on return."""
        with self._disk_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._path)
            sync_folder(self._path.parent)

    def discard(self) -> None:
        """Remove the temporary file, if it was not completed."""
        with suppress(OSError):  # closing may fail to flush to a full disk
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as failure:
            if hasattr(self, "_file"):
                self.discard()
            reason = failure.strerror or failure
            raise VersionError(
                f"{self._path} cannot be written: {reason}. hint: make room on its disk, then start again"
            ) from None


def _make_folder(folder: Path) -> None:
    """Create `folder` and missing parents durably."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

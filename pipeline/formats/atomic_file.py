"""Files that are whole or not there: written under a temporary name, fsynced, renamed, the folder fsynced.

Everything durable beside the logs and the ledger is written here, so a full disk is told in one way.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import VersionError


def write_atomically(path: Path, chunks: Sequence[bytes | memoryview]) -> None:
    """Write `chunks` as the file `path`, in place of one that may be there; durable when this returns.

    Raises:
        VersionError: where it cannot be written (a full disk, for one). Then nothing new is left.
    """
    file = AtomicFile(path)
    for chunk in chunks:
        file.write(chunk)
    file.complete()


class AtomicFile:
    """A file on its way: under a temporary name until `complete`, gone after `discard`. For one thread at a time.

    Every method raises VersionError where the disk does not do it (a full one, for one). Then nothing new is left.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._temporary = path, path.with_name(f".{path.name}.{os.getpid()}.temporary")
        with self._named_errors():
            _make_folder(path.parent)
            self._file = self._temporary.open("wb")

    def write(self, chunk: bytes | memoryview, at: int | None = None) -> None:
        """Write at an offset and go on from behind it; None goes on from where the last write ended."""
        with self._named_errors():
            if at is not None:
                self._file.seek(at)
            self._file.write(chunk)

    def sync(self) -> None:
        """Have the disk take what was written, so that `complete` need not wait for it."""
        with self._named_errors():
            self._file.flush()
            os.fdatasync(self._file.fileno())

    def complete(self) -> None:
        """Give the file its name, in place of one that may be there; durable when this returns."""
        with self._named_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._path)
            sync_folder(self._path.parent)

    def discard(self) -> None:
        """Leave nothing behind; a file that was kept stays."""
        with suppress(OSError):  # what does not fit the disk is dropped with the rest
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
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
    """Make `folder` and those above it, each durable."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

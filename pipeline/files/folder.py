"""Files in a local folder."""

import os
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DamagedError
from pipeline.files.atomic_file import AtomicFile
from pipeline.files.interface import ListedFile, NewFile, OpenFile, StoredFile


@dataclass(frozen=True)
class FolderFiles:
    """The files below `root`; see `Files` for the contract. Thread-safe, and safe with other processes."""

    root: Path

    def create(self, name: str) -> NewFile:
        return AtomicFile(self.root / name)

    def open(self, name: str) -> OpenFile:
        path = self.root / name
        if path.is_dir():
            raise DamagedError(f"{path} is a folder, wanted a file. hint: move it away")
        return LocalFile(path)

    def describe(self, name: str) -> ListedFile:
        found = (self.root / name).stat()
        return ListedFile(name, found.st_size, found.st_mtime_ns)

    def list(self, folder: str) -> Iterator[ListedFile]:
        for path in (self.root / folder).rglob("*"):
            if path.is_file():
                with suppress(FileNotFoundError):  # deleted meanwhile
                    yield self.describe(path.relative_to(self.root).as_posix())

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def local(self, name: str) -> Path:
        return self.root / name

    def address(self, name: str) -> str:
        return str(self.root / name)


class LocalFile:
    """A local file, open for reading also after it was deleted; see `OpenFile`. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError."""
        self.descriptor: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self.descriptor).st_size
        self._closing = weakref.finalize(self, os.close, self.descriptor)

    def read(self, offset: int, length: int) -> bytearray | memoryview:
        assert self.descriptor is not None, "the file is closed"
        content, done = bytearray(length), 0
        while done < length:  # one call reads at most 2 GB
            count = os.preadv(self.descriptor, [memoryview(content)[done:]], offset + done)
            if not count:
                return content[:done]
            done += count
        return content

    def close(self) -> None:
        self.descriptor = None
        self._closing()


def local_file(path: Path) -> StoredFile:
    """The file at `path`, which is named from the root of the file system on."""
    path = path.absolute()
    return StoredFile(FolderFiles(Path(path.anchor)), path.relative_to(path.anchor).as_posix())

"""Files under names: put whole, read a range, list, delete. A folder and an object store keep the same contract.

A file is complete or absent: its contents appear under the name at once, and the last put wins. A name is a relative
path in ASCII, such as `versions/g0/s0-of-1/000000000001.1.version`. Nothing is renamed, appended to or locked.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import DamagedError


@dataclass(frozen=True)
class ListedFile:
    """A file without its contents: its name, its size, and when it was put (wall time of the store)."""

    name: str
    size_bytes: int
    modified_at_ns: int


class NewFile(Protocol):
    """A file that appears under its name at `complete`. Not thread-safe. Methods raise VersionError."""

    def write(self, chunk: bytes | memoryview) -> None:
        """Append `chunk`."""
        ...

    def sync(self) -> None:
        """Have what was written stored soon, so that `complete` waits less."""
        ...

    def complete(self) -> None:
        """Make the file visible, replacing an existing one; durable on return."""
        ...

    def discard(self) -> None:
        """Leave nothing of it, unless it was completed."""
        ...


class OpenFile(Protocol):
    """A file that is being read. Thread-safe.

    Attributes:
        size_bytes: its size.
        descriptor: of a local file, for native code; None if the file is elsewhere.
    """

    size_bytes: int
    descriptor: int | None

    def read(self, offset: int, length: int) -> bytearray | memoryview:
        """`length` bytes from `offset` on, fewer at the end of the file. Raises FilesError."""
        ...

    def close(self) -> None:
        """Read no more. A file that nothing refers to any more is closed."""
        ...


class Files(Protocol):
    """Files under names. Thread-safe.

    A missing file raises FileNotFoundError, a store that is out of reach, or refuses, FilesError.
    """

    def create(self, name: str) -> NewFile:
        """Begin a file. Raises VersionError."""
        ...

    def open(self, name: str) -> OpenFile:
        """Open a file for reading."""
        ...

    def describe(self, name: str) -> ListedFile:
        """A file without its contents."""
        ...

    def list(self, folder: str) -> Iterator[ListedFile]:
        """The files below `folder`, in no order; in a local folder also temporary ones that a crash left behind."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file; one that does not exist is no error."""
        ...

    def local(self, name: str) -> Path:
        """The path of a complete copy on this machine: the file itself, or one that was fetched.

        For names whose contents never change. The copy may be deleted later: open it at once. A missing file may also
        be noticed then.
        """
        ...

    def address(self, name: str) -> str:
        """Where the file is, for messages: a path or a URL."""
        ...


@dataclass(frozen=True)
class StoredFile:
    """One file of `files`, existing or not. Methods raise as those of `Files`."""

    files: Files
    name: str

    def __str__(self) -> str:
        return self.files.address(self.name)

    @property
    def base(self) -> str:
        """The last part of its name."""
        return self.name.rpartition("/")[2]

    def beside(self, base: str) -> "StoredFile":
        """The file `base` in the same folder."""
        return StoredFile(self.files, self.name.removesuffix(self.base) + base)

    def create(self) -> NewFile:
        return self.files.create(self.name)

    def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Put the file whole; durable on return. Raises VersionError."""
        file = self.create()
        try:
            for chunk in chunks:
                file.write(chunk)
            file.complete()
        finally:
            file.discard()

    @contextmanager
    def open(self) -> Iterator[OpenFile]:
        """The file, open inside."""
        file = self.files.open(self.name)
        try:
            yield file
        finally:
            file.close()

    def read(self, limit: int | None = None) -> bytes:
        """Its contents. With `limit`, a larger one raises DamagedError."""
        with self.open() as file:
            if limit is not None and file.size_bytes > limit:
                raise DamagedError(f"{self} has {file.size_bytes} bytes, wanted at most {limit}. hint: remove it")
            return bytes(file.read(0, file.size_bytes))

    def describe(self) -> ListedFile:
        return self.files.describe(self.name)

    def delete(self) -> None:
        self.files.delete(self.name)

    def local(self) -> Path:
        return self.files.local(self.name)


@dataclass(frozen=True)
class StoredFolder:
    """The files of `files` whose names begin with `path` and a slash."""

    files: Files
    path: str

    def __str__(self) -> str:
        return self.files.address(self.path)

    def __truediv__(self, name: str) -> StoredFile:
        return StoredFile(self.files, f"{self.path}/{name}")

    def folder(self, name: str) -> "StoredFolder":
        """A folder in it."""
        return StoredFolder(self.files, f"{self.path}/{name}")

    def list(self) -> Iterator[tuple[str, StoredFile]]:
        """The files below it, each with its name below it. Raises FilesError."""
        for listed in self.files.list(self.path):
            yield listed.name.removeprefix(f"{self.path}/"), StoredFile(self.files, listed.name)

"""Complete copies of files of an object store on the disk of this machine, within a budget.

A copy is fetched under a temporary name and renamed, so an existing one is complete. The contents of a name never
change, so a copy is never stale. Copies that were not used for longest are deleted; one that is open stays readable.
"""

import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from pipeline.errors import FilesError
from pipeline.files.interface import OpenFile

_PIECE_BYTES = 16 << 20
_PIECES_AT_ONCE = 4


class LocalCopies:
    """Copies in `folder`, of at most `budget_bytes` together unless a single file is larger. Thread-safe.

    Processes may share the folder: each deletes what exceeds the budget when it adds a copy.
    """

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self._folder, self._budget_bytes = folder, budget_bytes
        self._lock = Lock()
        self._fetching: dict[str, Lock] = {}

    def get(self, name: str, open: Callable[[], OpenFile]) -> Path:
        """The path of the copy of `name`, fetched from `open()` if there is none. Raises FilesError."""
        path = self._folder / name
        with self._lock:
            fetching = self._fetching.setdefault(name, Lock())
        with fetching:  # one thread fetches, the others wait for its copy
            if path.exists():
                os.utime(path)
            else:
                self._fetch(path, open())
        return path

    def remove(self, name: str) -> None:
        """Delete the copy of a file that is deleted."""
        (self._folder / name).unlink(missing_ok=True)
        with self._lock:
            self._fetching.pop(name, None)

    def _fetch(self, path: Path, file: OpenFile) -> None:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.temporary")
        try:
            self._make_room(file.size_bytes)
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as copy, ThreadPoolExecutor(_PIECES_AT_ONCE) as pieces:
                copy.truncate(file.size_bytes)
                offsets = range(0, file.size_bytes, _PIECE_BYTES)
                list(pieces.map(lambda offset: _copy_piece(copy.fileno(), file, offset), offsets))
            temporary.replace(path)
        except OSError as failure:
            raise FilesError(
                f"{path}, a local copy, cannot be written: {failure.strerror}. hint: make room on its disk, or lower "
                "files.copies_bytes"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)
            file.close()

    def _make_room(self, size_bytes: int) -> None:
        """Delete copies that were not used for longest, so that `size_bytes` more are within the budget."""
        copies = []
        for path in self._folder.rglob("*"):
            if path.is_file():
                state = path.stat()
                copies.append((state.st_mtime_ns, state.st_size, path))
        excess = sum(size for _, size, _ in copies) + size_bytes - self._budget_bytes
        for _, size, path in sorted(copies):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size


def _copy_piece(descriptor: int, file: OpenFile, offset: int) -> None:
    piece = memoryview(file.read(offset, _PIECE_BYTES))
    while piece:
        done = os.pwrite(descriptor, piece, offset)
        piece, offset = piece[done:], offset + done

"""Unique names for processes of one kind on one machine: `samples-HOST-0`, `samples-HOST-1`, …

A process locks the first free name. The kernel releases the lock when the process ends in any way, so a replacement
gets the name of the process it replaces, and files under names without a lock belong to ended processes.
"""

import fcntl
import itertools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path


class ProcessName:
    """A name that this process holds until `release`. Not for use across a fork."""

    def __init__(self, folder: Path, kind: str) -> None:
        """Lock the first free name of `kind` on this machine. Raises OSError if the file system has no locks."""
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            self.name = f"{kind}-{socket.gethostname()}-{number}"
            lock = _try_lock(_lock_path(folder, self.name))
            if lock is not None:
                self._lock = lock
                return

    def release(self) -> None:
        """Release the name."""
        self._lock.close()


@contextmanager
def abandoned_names(folder: Path, kind: str) -> Iterator[list[str]]:
    """Names of `kind` on this machine whose processes have ended; they stay locked inside the `with` block."""
    pattern = _lock_path(folder, f"{kind}-{socket.gethostname()}-[0-9]*").name
    tried = [(path, _try_lock(path)) for path in sorted(folder.glob(pattern))]
    locks = {path: lock for path, lock in tried if lock is not None}
    try:
        yield [path.name.removeprefix(".").removesuffix(".lock") for path in locks]
    finally:
        for lock in locks.values():
            lock.close()


def _lock_path(folder: Path, name: str) -> Path:
    return folder / f".{name}.lock"


def _try_lock(path: Path) -> FileIO | None:
    """The file, locked until it is closed; None if another process has locked it."""
    file = FileIO(path, "a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file

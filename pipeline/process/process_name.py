"""Names for processes of one kind, of which several run on a machine: `samples-HOST-0`, `samples-HOST-1`, …

A process takes the first name that nobody holds and keeps it until it ends, however it ends: the kernel gives the lock
back. Who follows a dead process so bears its name, and what a dead one left under a name can be told from the living's.
"""

import fcntl
import itertools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path


class ProcessName:
    """A name that is held from here on. Not for use over a fork."""

    def __init__(self, folder: Path, kind: str) -> None:
        """Take the first name of `kind` on this machine that is free. Raises OSError where `folder` knows no locks."""
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            self.name = f"{kind}-{socket.gethostname()}-{number}"
            lock = _try_lock(_lock_of(folder, self.name))
            if lock is not None:
                self._lock = lock
                return

    def release(self) -> None:
        """Give the name back."""
        self._lock.close()


@contextmanager
def abandoned_names(folder: Path, kind: str) -> Iterator[list[str]]:
    """Names of `kind` on this machine whose holders are gone; nobody takes one while this lasts."""
    with_locks = [(path, _try_lock(path)) for path in sorted(folder.glob(_lock_of(folder, _any(kind)).name))]
    free = {path: lock for path, lock in with_locks if lock is not None}
    try:
        yield [path.name.removeprefix(".").removesuffix(".lock") for path in free]
    finally:
        for lock in free.values():
            lock.close()


def _any(kind: str) -> str:
    return f"{kind}-{socket.gethostname()}-[0-9]*"


def _lock_of(folder: Path, name: str) -> Path:
    return folder / f".{name}.lock"


def _try_lock(path: Path) -> FileIO | None:
    """The file, locked until it is closed; None where another process holds it."""
    file = FileIO(path, "a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file

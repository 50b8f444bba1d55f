"""An operator's request that a running trainer publishes a full snapshot, and the lock that shows whether one runs.

A command cannot publish while a trainer runs: it has neither the trainer's tables nor its fence. It leaves a request
file, which the trainer removes once the full is published. Without a running trainer the command takes the shard's lock
and publishes itself; a trainer that starts meanwhile waits.
"""

import fcntl
from types import TracebackType
from typing import IO, Self

from pipeline.configuration.project import Project
from pipeline.files.atomic_file import write_atomically


class FullRequest:
    """The request of one shard; a file, so that it survives restarts."""

    def __init__(self, project: Project, shard: int) -> None:
        self._path = project.publish_requests / f"shard-{shard}.full"

    def pending(self) -> bool:
        """Whether a full was requested and is not published yet."""
        return self._path.exists()

    def make(self) -> None:
        """Request a full."""
        write_atomically(self._path, [b""])

    def remove(self) -> None:
        """The full is published."""
        self._path.unlink(missing_ok=True)


class TrainerLock:
    """The lock of one shard: shared by its trainers, exclusive for a command. The system releases it after a kill."""

    def __init__(self, project: Project, shard: int) -> None:
        self._path = project.publish_requests / f"shard-{shard}.trainer"
        self._file: IO[bytes] | None = None

    def acquire_shared(self) -> None:
        """Hold the lock as a trainer; waits while a command holds it."""
        self._open(fcntl.LOCK_SH)

    def acquire_alone(self) -> bool:
        """Hold the lock as a command; false if a trainer holds it."""
        try:
            self._open(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _open(self, operation: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab")
        fcntl.flock(self._file, operation)

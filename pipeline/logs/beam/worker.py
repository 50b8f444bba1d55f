"""What one process holds for the jobs it runs: a project, its log, and the live objects of the job's steps.

Beam pickles a step's DoFn and may rebuild it at any time. A DoFn therefore carries a `LogHandle` only. The registry
below is the one place where a handle leads to live objects; it belongs to this module.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.configuration.project import Project
from pipeline.errors import SpringtideError
from pipeline.logs.interface.log import Log
from pipeline.logs.open import open_log

T = TypeVar("T")


class Worker:
    """The project, its log and the objects that steps share between bundles. Thread-safe.

    Attributes:
        project: the project.
        log: its log, open in this process.
        failure: the first error that a step reported. Beam passes on an error's text only.
    """

    def __init__(self, project: Project, log: Log) -> None:
        self.project, self.log = project, log
        self.failure: SpringtideError | None = None
        self._lock = threading.RLock()
        self._objects: dict[str, Any] = {}

    def get(self, name: str, create: Callable[[Project, Log], T]) -> T:
        """The object called `name`, created from project and log at its first use."""
        with self._lock:
            if name not in self._objects:
                self._objects[name] = create(self.project, self.log)
            found: T = self._objects[name]
            return found

    def created(self, name: str) -> Any | None:
        """The object called `name`; None before its first use."""
        return self._objects.get(name)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Record the error that ends this block as `failure`."""
        try:
            yield
        except SpringtideError as failure:
            self.failure = self.failure or failure
            raise


@dataclass(frozen=True)
class LogHandle:
    """Names a worker of this process: a registered one, or the one that opens the project's own log. Can be pickled.

    Attributes:
        root: the project's folder.
        registration: number of the registration; 0 for the project's own log.
    """

    root: str
    registration: int = 0

    def worker(self) -> Worker:
        """The worker, created at its first use in a process."""
        with _lock:
            if self not in _workers:
                project = Project.open(Path(self.root))
                _workers[self] = Worker(project, open_log(project))
            return _workers[self]

    def created(self, name: str) -> Any | None:
        """The worker's object called `name`; None if this process has no such worker or object."""
        worker = _workers.get(self)
        return None if worker is None else worker.created(name)


_lock = threading.Lock()
_workers: dict[LogHandle, Worker] = {}
_registrations = itertools.count(1)


def register(project: Project, log: Log) -> LogHandle:
    """A handle for a project and a log that are open in this process; end it with `release`."""
    handle = LogHandle(str(project.root), next(_registrations))
    _workers[handle] = Worker(project, log)
    return handle


def release(handle: LogHandle) -> None:
    """Remove a registered worker. Project and log stay open."""
    _workers.pop(handle, None)

"""A replica that follows in a separate process and records when each version became visible (CLOCK_MONOTONIC)."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.serving.http import follow
from pipeline.serving.replica import Replica

Opener = Callable[[Path], Project]
Seen = list[tuple[str, float]]
"""Versions as named by the replica, each with the time in seconds at which it became visible."""

_END_WITHIN_S = 30.0


class WatchedReplica(Replica):
    """Records when a version became visible."""

    seen: Seen

    def catch_up(self, wait_ms: int = 0) -> int:
        before, applied = self.version, super().catch_up(wait_ms)
        if self.version != before:
            self.seen.append((self.version, time.monotonic()))
        return applied


class Watched(AbstractContextManager["Watched"]):
    """The process; it is following when constructed, as `springtide replica` does."""

    def __init__(self, folder: Path, opener: Opener) -> None:
        """`opener` opens the project in `folder`; it must be picklable."""
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        self._process = context.Process(target=_follow, args=(folder, opener, child))
        self._process.start()
        assert self._pipe.recv() == "following"

    def seen(self) -> Seen:
        """The versions served so far, in order."""
        self._pipe.send("seen")
        found: Seen = self._pipe.recv()
        return found

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.send("end")
        self._process.join(_END_WITHIN_S)


def _follow(folder: Path, opener: Opener, pipe: Connection) -> None:
    project, stop = opener(folder), threading.Event()
    replica = WatchedReplica(project, open_log(project))
    replica.seen = []
    replica.load_predictor()
    following = threading.Thread(target=follow, args=(replica, project.clock, project.config.serving.poll_ms, stop))
    following.start()
    pipe.send("following")
    while pipe.recv() == "seen":
        pipe.send(replica.seen)
    stop.set()
    following.join()

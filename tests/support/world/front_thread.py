"""The front of a replica as a thread of the test, so that it can have a manual clock."""

import asyncio
import socket
import subprocess
import threading

from pipeline.process.clock import Clock
from pipeline.serving.front.process import FrontSettings, run_front
from pipeline.serving.front.upstream import Upstream


class FrontThread:
    """Has the methods of the process."""

    def __init__(self, clock: Clock, settings: FrontSettings, *sockets: socket.socket) -> None:
        listening, quick, bulk = (each.dup() for each in sockets)
        upstream = Upstream(quick, bulk, settings.serving.deadline_s)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(run_front(settings, listening, upstream, clock)), daemon=True
        )
        self._thread.start()

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired("front", timeout or 0.0)
        return 0

    def kill(self) -> None:
        """A thread cannot be killed."""

"""An executable as a hook: runs once per notice, with the notice on its stdin.

It runs in a process group of its own, which is killed at the deadline. Its stdout is discarded; of its stderr only the
end is kept, however much it writes.
"""

import os
import selectors
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from pipeline.configuration.model.training import HookDelivery
from pipeline.process.clock import Clock
from pipeline.publish.hooks.hook_queue import Failure

_TAIL_BYTES = 500
_CHUNK_BYTES = 65_536
_TICK_S = 0.05
_LAST_READS = 16
"""A process that the executable leaves behind may write for ever."""


class Executable:
    """Delivers notices to one program. One thread at a time."""

    def __init__(self, root: Path, program: str, delivery: HookDelivery, clock: Clock) -> None:
        self.name = program
        self._root, self._path, self._delivery, self._clock = root, root / program, delivery, clock

    def send(self, encoded: bytes) -> Failure | None:
        """Run the program with the notice; returns why it failed."""
        with tempfile.TemporaryFile() as notice:  # a file: the program need not read it
            notice.write(encoded)
            notice.seek(0)
            try:
                process = subprocess.Popen(
                    [self._path], stdin=notice, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                    cwd=self._root, start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError) as failure:
                return Failure(f"{self._path} cannot be run: {failure}", final=True)
            assert process.stderr is not None
            with process.stderr as stderr:
                tail = self._read_until_exit(process, stderr)
            if process.poll() is None:
                _kill_group(process)
                return Failure(f"killed: it did not end within {self._delivery.timeout_s:g} s")
        return _verdict(process.returncode, tail)

    def _read_until_exit(self, process: subprocess.Popen[bytes], stderr: IO[bytes]) -> bytes:
        """Read stderr until the process has ended or the deadline has passed; returns the end of what it wrote."""
        deadline_s, tail = self._clock.monotonic_s() + self._delivery.timeout_s, b""
        with selectors.DefaultSelector() as selector:
            selector.register(stderr, selectors.EVENT_READ)
            while process.poll() is None and self._clock.monotonic_s() < deadline_s:
                if not selector.get_map():
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_TICK_S)
                elif selector.select(_TICK_S):
                    part = os.read(stderr.fileno(), _CHUNK_BYTES)
                    tail = (tail + part)[-_TAIL_BYTES:]
                    if not part:
                        selector.unregister(stderr)
            reads = 0
            while reads < _LAST_READS and selector.get_map() and selector.select(0):
                part, reads = os.read(stderr.fileno(), _CHUNK_BYTES), reads + 1
                if not part:
                    break
                tail = (tail + part)[-_TAIL_BYTES:]
        return tail


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _verdict(code: int, tail: bytes) -> Failure | None:
    if code == 0:
        return None
    ended = f"killed by signal {-code}" if code < 0 else f"ended with {code}"
    text = " ".join("".join(c if c.isprintable() else " " for c in tail.decode(errors="replace")).split())
    return Failure(f"{ended}: {text}" if text else ended)

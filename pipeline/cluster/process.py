"""One supervised process: its own session, a log, and a record that is never mistaken for somebody else's process.

The record `run/NAME.json` holds the pid with the start of its process (ticks since boot, and which boot): a pid that
the system gave to another process since counts as absent, and is never killed. What a process starts itself inherits
a mark in its environment, the cluster's folder, by which `strays` finds what is left over. Reads /proc: Linux only.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.ground.clock import Clock
from pipeline.ground.config import environment_with
from pipeline.ground.errors import ClusterError

MARK = "FRESHET_CLUSTER"
_LOOK_EVERY_S = 0.05
_KILL_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Running:
    """A process as it was started; `port` is where it listens."""

    pid: int
    start_ticks: int
    boot: str
    started_at_ms: int
    port: int


@dataclass(frozen=True)
class Process:
    """The one process called `name` of the cluster in `folder`. Not thread-safe: one supervisor at a time."""

    name: str
    folder: Path
    clock: Clock

    @property
    def record(self) -> Path:
        return self.folder / "run" / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """What it logs; it turns this file over itself."""
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def talk(self) -> Path:
        """Its stdout and stderr: what went wrong before logging began."""
        return self.folder / "logs" / f"{self.name}.out"

    def running(self) -> Running | None:
        """The process if it lives; None too where its pid belongs to another one by now."""
        try:
            found = Running(**json.loads(self.record.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        alive = found.boot == _boot() and found.start_ticks == _start_ticks(found.pid)
        return found if alive else None

    def start(self, command: Sequence[str], port: int) -> Running:
        """Start `command`, which will listen on `port`. The process must not run."""
        for path in (self.record, self.log):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self.talk.open("wb") as talk:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=talk,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment_with(**{MARK: str(self.folder)}),
            )
        ticks = _start_ticks(child.pid)
        started = Running(child.pid, ticks or 0, _boot(), self.clock.now_ms(), port)
        self._write(started)
        return started

    def stop(self, grace_s: float) -> None:
        """End it: SIGTERM, and after `grace_s` SIGKILL. Returns when it is gone; nothing to do where it is absent."""
        self._end(signal.SIGTERM, grace_s)
        self.kill()
        self.record.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL, to this process alone. Returns when it is gone."""
        if not self._end(signal.SIGKILL, _KILL_PATIENCE_S):
            raise ClusterError(f"{self.name} does not end after SIGKILL. hint: its disk may hang, see dmesg")

    def last_words(self) -> str:
        """The last line that tells of an error, or the last line, in its log and talk."""
        lines = [line for path in (self.log, self.talk) for line in _tail(path)]
        telling = [line for line in lines if "ERROR" in line or "Exception" in line or "FATAL" in line]
        return (telling or lines or ["it said nothing"])[-1].strip()

    def _end(self, signal_number: int, patience_s: float) -> bool:
        """Send a signal and wait; whether it is gone."""
        found = self.running()
        if found is None:
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal_number)
        deadline = self.clock.monotonic_s() + patience_s
        while self.running():
            if self.clock.monotonic_s() > deadline:
                return False
            self.clock.wait(_LOOK_EVERY_S)
        return True

    def _write(self, started: Running) -> None:
        making = self.record.with_suffix(".making")
        making.write_text(json.dumps(asdict(started)), encoding="utf-8")
        making.replace(self.record)


def strays(folder: Path) -> list[int]:
    """Pids of living processes that descend from the cluster in `folder`, its own ones and their children."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0") and _start_ticks(int(entry.name)) is not None:
                found.append(int(entry.name))
    return sorted(found)


def _start_ticks(pid: int) -> int | None:
    """When a living process began; None for one that is gone, or dead and not yet collected."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name before it may hold spaces and brackets. Fields from here: state 0, threads 17, start 19.
    fields = told.rpartition(")")[2].split()
    # A dead first thread among living ones is not the end: they still hold the process's ports.
    dead = fields[0] in "ZX" and int(fields[17]) <= 1
    return None if dead else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _tail(path: Path, lines: int = 200) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []

"""One supervised process: its own session, a log, and a record that is never mistaken for somebody else's process.

The record `run/NAME.json` holds the pid with the start of its process (ticks since boot, and which boot): a pid that
the system gave to another process since counts as absent, and is never killed. What a process starts itself inherits
a mark in its environment, the cluster's folder: `descendants` finds by it what is left over; and its temporary files
lie in that folder's `tmp`. Reads /proc: Linux only.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.configuration.config import environment_with
from pipeline.errors import ClusterError
from pipeline.process.clock import Clock

MARK = "SPRINGTIDE_CLUSTER"
_LOOK_EVERY_S = 0.05
_KILL_PATIENCE_S = 10.0
_TELLING = re.compile("ERROR|FATAL|Exception|Error:")


@dataclass(frozen=True)
class Running:
    """A process as it was started; `port` is where it listens, `log_bytes` where in its log it began."""

    pid: int
    start_ticks: int
    boot: str
    started_at_ms: int
    port: int
    log_bytes: int


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
        found = self._recorded()
        seen = _look(found.pid) if found and found.boot == _boot() else None
        if found is None or seen is None or seen.start_ticks != found.start_ticks:
            return None
        if seen.dead:
            # Only what is surely ours is collected: another child's end is for whoever waits for it.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(found.pid, os.WNOHANG)
            return None
        return found

    def start(self, command: Sequence[str], port: int) -> Running:
        """Start `command`, which will listen on `port`. The process must not run."""
        temporary = self.folder / "tmp"
        for made in (self.record.parent, self.log.parent, temporary):
            made.mkdir(parents=True, exist_ok=True)
        log_bytes = self.log.stat().st_size if self.log.exists() else 0
        with self.talk.open("wb") as talk:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=talk,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment_with(**{MARK: str(self.folder), "TMPDIR": str(temporary)}),
            )
        seen = _look(child.pid)
        ticks = seen.start_ticks if seen else 0
        started = Running(child.pid, ticks, _boot(), self.clock.now_ms(), port, log_bytes)
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
        """The last line since its start that tells of an error, or the last line, in its log and talk."""
        found = self._recorded()
        lines = _lines(self.log, found.log_bytes if found else 0) + _lines(self.talk, 0)
        telling = [line for line in lines if _TELLING.search(line)]
        return (telling or lines or ["it said nothing"])[-1].strip()

    def _recorded(self) -> Running | None:
        """What the record says, whether it still lives or not."""
        try:
            return Running(**json.loads(self.record.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

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


def descendants(folder: Path) -> list[int]:
    """Pids of living processes that descend from the cluster in `folder`, its own ones and their children."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return sorted(found)


class _Seen(NamedTuple):
    """What the system says of a pid."""

    start_ticks: int
    dead: bool


def _look(pid: int) -> _Seen | None:
    """What is known of a pid; None where it has no process, living or dead."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name before it may hold spaces and brackets. Fields from here: state 0, threads 17, start 19.
    fields = told.rpartition(")")[2].split()
    # A dead first thread among living ones is not the end: they still hold the process's ports.
    return _Seen(int(fields[19]), dead=fields[0] in "ZX" and int(fields[17]) <= 1)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _lines(path: Path, from_byte: int) -> list[str]:
    """Lines from a byte on; all of them where the file was turned over since."""
    try:
        said = path.read_bytes()
    except FileNotFoundError:
        return []
    return said[from_byte if from_byte <= len(said) else 0 :].decode(errors="replace").splitlines()

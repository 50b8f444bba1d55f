"""One supervised process: its own session, a log, and a record that never matches another process.

The record `run/NAME.json` holds the process id together with the start time and the boot: a process id that the system
has reused since is treated as absent and never signalled. Every process inherits the cluster's folder in its
environment, by which `descendants` finds leftover children; its temporary files are in the folder's `tmp`. Linux only.
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

import psutil

from pipeline.configuration.environment import child_environment
from pipeline.errors import ClusterError, DamagedError
from pipeline.formats.sealed_json import SealedJson
from pipeline.process.clock import Clock

FOLDER_VARIABLE = "SPRINGTIDE_CLUSTER"
RECORD = SealedJson("process", 1, "run: springtide cluster down")
"""A damaged record is none: what still runs is found by its environment."""
_POLL_EVERY_S = 0.05
_KILL_TIMEOUT_S = 10.0
_ERROR_LINE = re.compile("ERROR|FATAL|Exception|Error:")


@dataclass(frozen=True)
class ProcessRecord:
    """A started process.

    Attributes:
        pid: its process id.
        start_ticks: clock ticks from the boot to its start.
        boot: id of the boot.
        started_at_ms: wall time of the start.
        port: the port it listens on.
        log_bytes: size of its log at the start.
    """

    pid: int
    start_ticks: int
    boot: str
    started_at_ms: int
    port: int
    log_bytes: int


@dataclass(frozen=True)
class Process:
    """The process called `name` of the cluster in `folder`. Not thread-safe: one supervisor at a time."""

    name: str
    folder: Path
    clock: Clock

    @property
    def record(self) -> Path:
        return self.folder / "run" / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """Its log, which it rotates itself."""
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def output(self) -> Path:
        """Its stdout and stderr: errors from before logging began."""
        return self.folder / "logs" / f"{self.name}.out"

    def running(self) -> ProcessRecord | None:
        """The record of the process while it runs; None if its process id belongs to another process."""
        record = self._read_record()
        return record if record and record.boot == _boot_id() and _runs(record) else None

    def start(self, command: Sequence[str], port: int) -> ProcessRecord:
        """Start `command`, which will listen on `port`. The process must not run."""
        temporary = self.folder / "tmp"
        for folder in (self.record.parent, self.log.parent, temporary):
            folder.mkdir(parents=True, exist_ok=True)
        log_bytes = self.log.stat().st_size if self.log.exists() else 0
        with self.output.open("wb") as output:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=child_environment(**{FOLDER_VARIABLE: str(self.folder), "TMPDIR": str(temporary)}),
            )
        ticks = _start_ticks(psutil.Process(child.pid))
        started = ProcessRecord(child.pid, ticks, _boot_id(), self.clock.now_ms(), port, log_bytes)
        self._write(started)
        return started

    def stop(self, timeout_s: float) -> None:
        """Send SIGTERM, and SIGKILL after `timeout_s`. Returns once the process has ended, at once if it is absent."""
        self._signal(signal.SIGTERM, timeout_s)
        self.kill()
        self.record.unlink(missing_ok=True)

    def kill(self) -> None:
        """Send SIGKILL to this process alone. Returns once it has ended."""
        if not self._signal(signal.SIGKILL, _KILL_TIMEOUT_S):
            raise ClusterError(f"{self.name} does not end after SIGKILL. hint: its disk may hang, see dmesg")

    def last_error(self) -> str:
        """The last error line since the start in its log and output, or the last line if none reports an error."""
        record = self._read_record()
        lines = _lines(self.log, record.log_bytes if record else 0) + _lines(self.output, 0)
        errors = [line for line in lines if _ERROR_LINE.search(line)]
        return (errors or lines or ["no output"])[-1].strip()

    def _read_record(self) -> ProcessRecord | None:
        """The last record, whether the process still runs or not; None without one that is as it was written."""
        try:
            content = self.record.read_bytes()
            document = json.loads(content)
            if "format" in document:
                document = RECORD.decode(content, self.record)
            return ProcessRecord(**document)  # of an earlier release, without a checksum
        except (FileNotFoundError, ValueError, TypeError, DamagedError):
            return None

    def _signal(self, number: int, timeout_s: float) -> bool:
        """Send a signal and wait; whether the process has ended."""
        record = self.running()
        if record is None:
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)
        deadline = self.clock.monotonic_s() + timeout_s
        while self.running():
            if self.clock.monotonic_s() > deadline:
                return False
            self.clock.wait(_POLL_EVERY_S)
        return True

    def _write(self, started: ProcessRecord) -> None:
        temporary = self.record.with_suffix(".making")
        temporary.write_bytes(RECORD.encode(asdict(started)))
        temporary.replace(self.record)


def descendants(folder: Path) -> list[int]:
    """Process ids of the living processes of the cluster in `folder` and of everything they started."""
    return sorted(process.pid for process in _descendants(folder))


def kill_descendants(folder: Path, clock: Clock) -> None:
    """Send SIGKILL to the processes of `descendants`. Returns once they have ended.

    Raises:
        ClusterError: if one of them does not end.
    """
    deadline = clock.monotonic_s() + _KILL_TIMEOUT_S
    left: set[psutil.Process] = set()
    # One that is ending has no environment any more, but still has its ports: it is remembered.
    while left := {process for process in left | _descendants(folder) if _alive(process)}:
        if clock.monotonic_s() > deadline:
            pids = ", ".join(str(process.pid) for process in left)
            raise ClusterError(f"process {pids} does not end after SIGKILL. hint: its disk may hang, see dmesg")
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        clock.wait(_POLL_EVERY_S)


def _descendants(folder: Path) -> set[psutil.Process]:
    living = psutil.process_iter(["pid", "environ"])
    return {process for process in living if (process.info["environ"] or {}).get(FOLDER_VARIABLE) == str(folder)}


def _runs(record: ProcessRecord) -> bool:
    """Whether the recorded process exists and has not exited."""
    try:
        process = psutil.Process(record.pid)
        return _start_ticks(process) == record.start_ticks and _alive(process)
    except psutil.NoSuchProcess:
        return False


def _alive(process: psutil.Process) -> bool:
    """Whether the process has not exited. A zombie with living threads has not: they still occupy its ports."""
    try:
        ended = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return process.is_running() and not (ended and process.num_threads() <= 1)
    except psutil.NoSuchProcess:
        return False


def _start_ticks(process: psutil.Process) -> int:
    """Clock ticks from the boot to the start of the process. Unlike `create_time` they are immune to clock changes."""
    since_boot_s: float = process.create_time() - psutil.boot_time()
    return round(since_boot_s * os.sysconf("SC_CLK_TCK"))


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _lines(path: Path, start: int) -> list[str]:
    """The lines from byte `start`; all lines if the file has been rotated since."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return content[start if start <= len(content) else 0 :].decode(errors="replace").splitlines()

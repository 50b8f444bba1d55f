"""A running project: its processes, how they are killed, and how an operator restores them by runbook commands."""

import json
import os
import signal
import sqlite3
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.process import descendants
from pipeline.configuration.project import Project
from tests.support.command.fork_server import ForkedCommand

REPO = Path(__file__).parents[2]
_JOB_OF = {"worker": "samples", "trainer": "train"}
_TASKMANAGER = "taskmanager-1"
_PROCESS_OF = {"taskmanager": _TASKMANAGER, "jobmanager": "jobmanager", "kafka": "kafka"}
_WRITES_AT = {"worker": "samples.before_append", "trainer": "trainer.before_commit"}
"""Crash points between the check of the fence and the write."""
_STOPS_AT_PASS = 5
_APPEARS_WITHIN_S = 120.0
_POLL_EVERY_S = 0.1
_RESPONSE_WITHIN_S = 5.0
_TRANSACTION_WITHIN_S = 3.0


class Site:
    """A cluster with both jobs of a project, and a replica. Not thread-safe."""

    def __init__(self, cluster: LocalCluster, project: Project) -> None:
        self.cluster, self.project, self._clock = cluster, project, project.clock
        self._replica: ForkedCommand | None = None
        self._replica_port = 0
        self.submissions = 0

    def open(self) -> None:
        """Start the jobs and the replica."""
        self._begin_replica()
        self._submit()
        self._wait_for_replica()

    def close(self) -> None:
        """End the replica and stop the jobs; the cluster keeps running."""
        if self._replica is not None:
            self._replica.terminate()
            self._replica.wait()
        self._springtide("stop")

    def kill(self, victim: str) -> list[int]:
        """`kill -9`; returns the ids of the killed processes."""
        if victim in _PROCESS_OF:
            name = _PROCESS_OF[victim]
            pid = self.cluster.running()[name].pid
            self.cluster.kill(name)
            return [pid]
        if victim == "replica":
            assert self._replica is not None
            self._replica.kill()
            self._replica.wait()
            return [self._replica.pid]
        pids = self.wait_for(lambda: self.workers(_JOB_OF[victim]), f"no {victim} process was found")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    def restore(self, victim: str) -> None:
        """Restore it as an operator would; Flink itself restarts workers."""
        if victim == "replica":
            self._begin_replica()
            self._wait_for_replica()
        elif victim in _PROCESS_OF:
            self.cluster.up()
        if victim == "jobmanager":
            self._submit()

    def freeze(self, victim: str) -> int:
        """Stop the job's worker between check and write, and start another; returns the stopped one's process id."""
        self.cluster.kill(_TASKMANAGER)
        with patch.dict(os.environ, SPRINGTIDE_CRASH_AT=f"{_WRITES_AT[victim]}:{_STOPS_AT_PASS}:stop"):
            self.cluster.up()
        frozen: int = self.wait_for_stopped(_JOB_OF[victim])
        self.cluster.kill(_TASKMANAGER)
        self.cluster.up()
        return frozen

    def wait_for_stopped(self, job: str) -> int:
        """The process id of the job's worker that has stopped at a crash point.

        If another thread of it is inside a transaction, no other worker could take over; it is continued to its next
        stop.
        """
        while True:
            (stopped,) = self.wait_for(
                lambda: [pid for pid in self.workers(job) if is_stopped(pid)], f"no worker of {job} stopped"
            )
            if not any(is_locked(database) for database in self.project.versions.glob("*.sqlite")):
                return int(stopped)
            os.kill(stopped, signal.SIGCONT)

    def thaw(self, frozen: int) -> None:
        """Continue it; returns once it has noticed that it is fenced and has ended."""

        def ended() -> bool:
            with suppress(ProcessLookupError):
                os.kill(frozen, signal.SIGCONT)
            return not psutil.pid_exists(frozen)

        self.wait_for(ended, f"zombie {frozen} still runs")

    def begin_rollback(self, range_ms: tuple[int, int], crash_at: str | None = None) -> ForkedCommand:
        """Start a rollback to before a range of bad data, with a quarantine of that range."""
        first, last = range_ms
        with patch.dict(os.environ, {"SPRINGTIDE_CRASH_AT": crash_at} if crash_at else {}):
            return self._begin("rollback", "--before", str(first), "--quarantine", f"{first}..{last}")

    def finish_rollback(self) -> dict[str, Any]:
        """Finish an unfinished rollback; returns its report."""
        (done,) = self._springtide("rollback", "--finish")["finished"]
        return dict(done)

    def result_of(self, process: ForkedCommand, command: str) -> Any:
        """The JSON result of a started command; it must succeed."""
        out, _ = process.communicate()
        assert process.returncode == 0, f"springtide {command}: {out}{self._stderr_file(command).read_text()[-2000:]}"
        return json.loads(out)

    def replica_status(self) -> dict[str, Any] | None:
        """The status that the replica reports; None while it is unavailable."""
        address = f"http://127.0.0.1:{self._replica_port}/v1/models/{self.project.config.name}"
        try:
            with urllib.request.urlopen(address, timeout=_RESPONSE_WITHIN_S) as response:
                found: dict[str, Any] = json.load(response)["springtide"]
                return found
        except (OSError, ValueError):
            return None

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs as in `springtide status`."""
        rows: list[dict[str, Any]] = self._springtide("status")["jobs"]
        return rows

    def wait_for(self, condition: Callable[[], Any], problem: str) -> Any:
        """The first true value of `condition`. Raises AssertionError with `problem` after a timeout."""
        ends_s = self._clock.monotonic_s() + _APPEARS_WITHIN_S
        while not (found := condition()):
            assert self._clock.monotonic_s() < ends_s, f"{problem}: {self.jobs()}"
            self._clock.wait(_POLL_EVERY_S)
        return found

    def workers(self, job: str) -> list[int]:
        """Process ids of a job's Python workers, recognised by their log files."""
        folder, found = self.project.state / "flink" / "workers" / job, []
        for pid in descendants(self.cluster.folder):
            with suppress(OSError):
                if Path(os.readlink(f"/proc/{pid}/fd/1")).parent == folder:
                    found.append(pid)
        return found

    def _submit(self) -> None:
        self._springtide("run", "all", "--runner", "flink")
        self.submissions += 1

    def _begin_replica(self) -> None:
        self._replica = self._begin("replica")

    def _wait_for_replica(self) -> None:
        assert self._replica is not None
        assert self._replica.stdout is not None
        line = self._replica.stdout.readline()
        assert line, f"the replica ended: {self._stderr_file('replica').read_text()[-2000:]}"
        self._replica_port = json.loads(line)["port"]

    def _springtide(self, *arguments: str) -> Any:
        return self.result_of(self._begin(*arguments), arguments[0])

    def _begin(self, *arguments: str) -> ForkedCommand:
        command = [*arguments, "--project", str(self.project.root), "--json"]
        return ForkedCommand(command, REPO, dict(os.environ), self._stderr_file(arguments[0]))

    def _stderr_file(self, command: str) -> Path:
        return self.project.root / f"{command}.err"


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, as after SIGSTOP."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def is_locked(database: Path) -> bool:
    """Whether a process holds the database's write lock for longer than a transaction takes."""
    connection = sqlite3.connect(database, timeout=_TRANSACTION_WITHIN_S, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        return False
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()

"""All that runs, how it is killed, and how an operator brings it back: with the commands of the runbooks alone."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
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

REPO = Path(__file__).parents[2]
_JOB_OF = {"worker": "samples", "trainer": "train"}
_TASKMANAGER = "taskmanager-1"
_PROCESS_OF = {"taskmanager": _TASKMANAGER, "jobmanager": "jobmanager", "kafka": "kafka"}
_WRITES_AT = {"worker": "samples.before_append", "trainer": "trainer.before_commit"}
"""Between check and write."""
_STOPS_AT_PASS = 5
_APPEARS_WITHIN_S = 120.0
_LOOK_EVERY_S = 0.1
_ANSWER_WITHIN_S = 5.0
_TRANSACTION_WITHIN_S = 3.0


class Site:
    """A cluster with both jobs of a project, and a replica beside it. One operator at a time."""

    def __init__(self, cluster: LocalCluster, project: Project) -> None:
        self.cluster, self.project, self._clock = cluster, project, project.clock
        self._replica: subprocess.Popen[str] | None = None
        self._replica_port = 0
        self.submissions = 0

    def open(self) -> None:
        """Start the jobs and, beside them, the replica."""
        self._begin_replica()
        self._submit()
        self._wait_for_replica()

    def close(self) -> None:
        """End the replica and stop the jobs; the cluster stays."""
        if self._replica is not None:
            self._replica.terminate()
            self._replica.wait()
        self._springtide("stop")

    def kill(self, victim: str) -> list[int]:
        """`kill -9`; the processes that were hit."""
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
        pids = self.wait_for(lambda: self.workers(_JOB_OF[victim]), f"no {victim} appears")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    def restore(self, victim: str) -> None:
        """What an operator does about it; a worker is Flink's own business."""
        if victim == "replica":
            self._begin_replica()
            self._wait_for_replica()
        elif victim in _PROCESS_OF:
            self.cluster.up()
        if victim == "jobmanager":
            self._submit()

    def freeze(self, victim: str) -> int:
        """Have the worker of a job stop between check and write, and another take over; who stands still."""
        self.cluster.kill(_TASKMANAGER)
        with patch.dict(os.environ, SPRINGTIDE_CRASH_AT=f"{_WRITES_AT[victim]}:{_STOPS_AT_PASS}:stop"):
            self.cluster.up()
        frozen: int = self.wait_for_stopped(_JOB_OF[victim])
        self.cluster.kill(_TASKMANAGER)
        self.cluster.up()
        return frozen

    def wait_for_stopped(self, job: str) -> int:
        """The worker of the job that has stopped at a point.

        Another thread of it may be amid a transaction then, and nobody could take over before an operator ends it. That
        is no zombie: it goes on to its next stop.
        """
        while True:
            (stopped,) = self.wait_for(lambda: [pid for pid in self.workers(job) if is_stopped(pid)], f"no {job} stops")
            if not any(is_held(database) for database in self.project.versions.glob("*.sqlite")):
                return int(stopped)
            os.kill(stopped, signal.SIGCONT)

    def thaw(self, frozen: int) -> None:
        """Continue it; returns once it has seen that its time is over."""

        def gone() -> bool:
            with suppress(ProcessLookupError):
                os.kill(frozen, signal.SIGCONT)
            return not psutil.pid_exists(frozen)

        self.wait_for(gone, "a zombie lives on")

    def begin_rollback(self, span_ms: tuple[int, int], crash_at: str | None = None) -> "subprocess.Popen[str]":
        """Begin to undo what was learned of a span of bad data, and to keep it from being learned again."""
        first, last = span_ms
        with patch.dict(os.environ, {"SPRINGTIDE_CRASH_AT": crash_at} if crash_at else {}):
            return self._begin("rollback", "--before", str(first), "--quarantine", f"{first}..{last}")

    def finish_rollback(self) -> dict[str, Any]:
        """Bring one that was interrupted to its end."""
        (done,) = self._springtide("rollback", "--finish")["finished"]
        return dict(done)

    def answer_of(self, process: "subprocess.Popen[str]", command: str) -> Any:
        """What a command that was begun says in the end; it must succeed."""
        out, _ = process.communicate()
        assert process.returncode == 0, f"springtide {command}: {out}{self._talk(command).read_text()[-2000:]}"
        return json.loads(out)

    def replica_status(self) -> dict[str, Any] | None:
        """What the replica says of itself; None where it does not answer."""
        address = f"http://127.0.0.1:{self._replica_port}/v1/models/{self.project.config.name}"
        try:
            with urllib.request.urlopen(address, timeout=_ANSWER_WITHIN_S) as answer:
                found: dict[str, Any] = json.load(answer)["springtide"]
                return found
        except (OSError, ValueError):
            return None

    def jobs(self) -> list[dict[str, Any]]:
        """As `springtide status` shows them."""
        rows: list[dict[str, Any]] = self._springtide("status")["jobs"]
        return rows

    def wait_for(self, looked: Callable[[], Any], problem: str) -> Any:
        """The first answer that is true."""
        ends_s = self._clock.monotonic_s() + _APPEARS_WITHIN_S
        while not (found := looked()):
            assert self._clock.monotonic_s() < ends_s, f"{problem}: {self.jobs()}"
            self._clock.wait(_LOOK_EVERY_S)
        return found

    def workers(self, job: str) -> list[int]:
        """Process ids of the Python workers of a job: by the file each of them logs to."""
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
        assert line, f"the replica ended: {self._talk('replica').read_text()[-2000:]}"
        self._replica_port = json.loads(line)["port"]

    def _springtide(self, *arguments: str) -> Any:
        return self.answer_of(self._begin(*arguments), arguments[0])

    def _begin(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "pipeline.cli.main", *arguments, "--project", str(self.project.root), "--json"]
        with self._talk(arguments[0]).open("ab") as talk:
            return subprocess.Popen(
                command, cwd=REPO, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=talk
            )

    def _talk(self, command: str) -> Path:
        return self.project.root / f"{command}.err"


def is_stopped(pid: int) -> bool:
    """Whether a process stands still, as after SIGSTOP."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def is_held(database: Path) -> bool:
    """Whether somebody holds the file's write lock and does not let go."""
    connection = sqlite3.connect(database, timeout=_TRANSACTION_WITHIN_S, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        return False
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()

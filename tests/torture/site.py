"""All that runs, how it is killed, and how an operator brings it back: with the commands of the runbooks alone."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.process import descendants
from pipeline.ground.project import Project

REPO = Path(__file__).parents[2]
_JOB_OF = {"worker": "samples", "trainer": "train"}
_PROCESS_OF = {"taskmanager": "taskmanager-1", "jobmanager": "jobmanager", "kafka": "kafka"}
_APPEARS_WITHIN_S = 90.0
_LOOK_EVERY_S = 0.1
_ANSWER_WITHIN_S = 5.0


class Site:
    """A cluster with both jobs of a project, and a replica beside it. One operator at a time."""

    def __init__(self, cluster: LocalCluster, project: Project) -> None:
        self.cluster, self.project, self._clock = cluster, project, project.clock
        self._replica: subprocess.Popen[str] | None = None
        self._replica_port = 0
        self.submissions = 0

    def open(self) -> None:
        """Start the jobs and the replica."""
        self._submit()
        self._start_replica()

    def close(self) -> None:
        """End the replica and stop the jobs; the cluster stays."""
        if self._replica is not None:
            self._replica.terminate()
            self._replica.wait()
        self._freshet("stop")

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
        pids = self._wait_for_workers(_JOB_OF[victim])
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    def restore(self, victim: str) -> None:
        """What an operator does about it; a worker is Flink's own business."""
        if victim == "replica":
            self._start_replica()
        elif victim in _PROCESS_OF:
            self.cluster.up()
        if victim == "jobmanager":
            self._submit()

    def replica_status(self) -> dict[str, Any] | None:
        """What the replica says of itself; None where it does not answer."""
        address = f"http://127.0.0.1:{self._replica_port}/v1/models/{self.project.config.name}"
        try:
            with urllib.request.urlopen(address, timeout=_ANSWER_WITHIN_S) as answer:
                found: dict[str, Any] = json.load(answer)["freshet"]
                return found
        except (OSError, ValueError):
            return None

    def jobs(self) -> list[dict[str, Any]]:
        """As `freshet status` shows them."""
        rows: list[dict[str, Any]] = self._freshet("status")["jobs"]
        return rows

    def _submit(self) -> None:
        self._freshet("run", "all", "--runner", "flink")
        self.submissions += 1

    def _start_replica(self) -> None:
        self._replica = self._begin("replica")
        assert self._replica.stdout is not None
        line = self._replica.stdout.readline()
        assert line, f"the replica ended: {self._talk('replica').read_text()[-2000:]}"
        self._replica_port = json.loads(line)["port"]

    def _wait_for_workers(self, job: str) -> list[int]:
        ends_s = self._clock.monotonic_s() + _APPEARS_WITHIN_S
        while not (found := self._workers(job)):
            assert self._clock.monotonic_s() < ends_s, f"no worker of job {job} appears: {self.jobs()}"
            self._clock.wait(_LOOK_EVERY_S)
        return found

    def _workers(self, job: str) -> list[int]:
        """Process ids of the Python workers of a job: by the file each of them logs to."""
        folder, found = self.project.state / "flink" / "workers" / job, []
        for pid in descendants(self.cluster.folder):
            with suppress(OSError):
                if Path(os.readlink(f"/proc/{pid}/fd/1")).parent == folder:
                    found.append(pid)
        return found

    def _freshet(self, *arguments: str) -> Any:
        process = self._begin(*arguments)
        out, _ = process.communicate()
        assert process.returncode == 0, f"freshet {' '.join(arguments)}: {self._talk(arguments[0]).read_text()[-2000:]}"
        return json.loads(out)

    def _begin(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "pipeline.cli.main", *arguments, "--project", str(self.project.root), "--json"]
        with self._talk(arguments[0]).open("ab") as talk:
            return subprocess.Popen(
                command, cwd=REPO, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=talk
            )

    def _talk(self, command: str) -> Path:
        return self.project.root / f"{command}.err"

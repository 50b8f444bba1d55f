"""The cluster in one folder: up, down, status, and each of its processes by name.

    cluster = LocalCluster(Cluster(kafka_port=19092), Path("/somewhere/cluster"))
    cluster.up()                    # starts what is absent, returns when all answer
    cluster.kill("taskmanager-1")   # as a crash would; nothing restarts it
    cluster.up()                    # starts what is absent: the TaskManager
    cluster.down(wipe=True)

Processes are called `kafka`, `jobmanager` and `taskmanager-1`, `taskmanager-2`, … Nothing watches them between two
calls: who wants them restarted calls `up` again. A JobManager that ends takes its jobs with it; they are submitted
again from a savepoint, a retained checkpoint or the logs.
"""

import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pipeline.cluster.base_jar import write_base_jar
from pipeline.cluster.flink import (
    jobmanager_answers,
    jobmanager_command,
    taskmanager_command,
    taskmanager_registered,
)
from pipeline.cluster.jars import Engine, jars_folder, resolve_jars
from pipeline.cluster.kafka import broker_answers, broker_command
from pipeline.cluster.plan import ports_of, process_names, taskmanager_number, to_start, to_stop
from pipeline.cluster.ports import free_port, port_is_free
from pipeline.cluster.process import Process, Running, descendants
from pipeline.configuration.config import Cluster, cache_folder
from pipeline.configuration.project import Project
from pipeline.errors import ClusterError, InputError
from pipeline.process.clock import Clock, SystemClock

_READY_PATIENCE_S = 90.0
_LOOK_EVERY_S = 0.1
_GRACE_S = 10.0
_KEPT = ("kafka", "flink", "logs")
_PASSING = ("run", "tmp")


class LocalCluster:
    """A broker and a Flink cluster as `settings` say, in `folder`. Not thread-safe; processes take turns."""

    def __init__(
        self, settings: Cluster, folder: Path, clock: Clock | None = None, say: Callable[[str], None] | None = None
    ) -> None:
        self.settings = settings
        self.folder = folder.absolute()
        self.names = process_names(settings.taskmanagers)
        self._clock = clock or SystemClock()
        self._say = say or (lambda _: None)

    @classmethod
    def of(cls, project: Project, say: Callable[[str], None] | None = None) -> "LocalCluster":
        """The cluster that a project's `[cluster]` describes."""
        return cls(project.config.cluster, project.cluster, project.clock, say)

    @property
    def bootstrap(self) -> str:
        """Where Kafka's clients begin."""
        return f"127.0.0.1:{self.settings.kafka_port}"

    @property
    def rest_url(self) -> str:
        """Flink's REST interface and web page."""
        return f"http://127.0.0.1:{self.settings.flink_rest_port}"

    @property
    def base_jar(self) -> Path:
        """What `--flink_job_server_jar` wants; there once the JobManager was started."""
        return self.folder / "flink" / "base.jar"

    def plan_up(self, names: Iterable[str] = ()) -> list[str]:
        """What `up` would start now. Raises as `up` does where names or ports don't fit."""
        wanted = tuple(names) or self.names
        for name in wanted:
            if name not in self.names:
                raise InputError(f"process {name} does not exist. known: {', '.join(self.names)}")
        return to_start(self.settings, wanted, self.running())

    def up(self, names: Iterable[str] = ()) -> list[str]:
        """Start what is absent of `names` (of none: of all), and wait until all of them answer; what was started.

        The first time, Maven fetches the jars: half a minute or more.

        Raises:
            InputError: for a name that the settings do not give.
            ClusterError: where Java, a jar or a port is not to be had, or a process ends before it answers.
        """
        wanted = tuple(names) or self.names
        with self._alone():
            absent = self.plan_up(wanted)
            for name in absent:
                self._say(f"starting {name}")
                self._start(name)
            for name in wanted:
                self.wait_ready(name)
        return absent

    def plan_down(self) -> list[str]:
        """What `down` would end now, in its order."""
        return to_stop(self.running())

    def down(self, wipe: bool = False) -> list[str]:
        """End everything, the last started first; with `wipe` delete data and logs too. What was ended."""
        if not self.folder.is_dir():
            return []
        with self._alone():
            running = self.plan_down()
            for name in running:
                self._say(f"ending {name}")
                self.stop(name)
            self._end_descendants()
            for part in (*_PASSING, *(_KEPT if wipe else ())):
                shutil.rmtree(self.folder / part, ignore_errors=True)
            if wipe:
                # What somebody else put there stays.
                with contextlib.suppress(OSError):
                    self.folder.rmdir()
        return running

    def start(self, name: str) -> None:
        """Start one process if it is absent, and wait until it answers."""
        self.up([name])

    def stop(self, name: str) -> None:
        """End one process as an operator would: SIGTERM, later SIGKILL."""
        self.process(name).stop(_GRACE_S)

    def kill(self, name: str) -> None:
        """SIGKILL one process, and nothing that it started."""
        self.process(name).kill()

    def restart(self, name: str) -> None:
        """Stop one process and start it."""
        self.stop(name)
        self.start(name)

    def process(self, name: str) -> Process:
        """The process called `name`, whether it lives or not. Raises InputError for a name nobody ever used."""
        if name not in (*self.names, *self._on_record()):
            raise InputError(f"process {name} does not exist. known: {', '.join(self.names)}")
        return Process(name, self.folder, self._clock)

    def running(self) -> dict[str, Running]:
        """The processes that live, in the order they are started in."""
        names = dict.fromkeys((*self.names, *self._on_record()))
        found = {name: Process(name, self.folder, self._clock).running() for name in names}
        return {name: process for name, process in found.items() if process}

    def answers(self, name: str) -> bool:
        """Whether the process lives and does its work."""
        process = self.process(name).running()
        if process is None:
            return False
        if name == "kafka":
            return broker_answers(process.port)
        if name == "jobmanager":
            return jobmanager_answers(process.port)
        return taskmanager_registered(self.settings.flink_rest_port, taskmanager_number(name), process.port)

    def wait_ready(self, name: str) -> None:
        """Return once the process answers. Raises ClusterError where it ends, or is silent for too long."""
        process = self.process(name)
        deadline = self._clock.monotonic_s() + _READY_PATIENCE_S
        while not self.answers(name):
            if process.running() is None:
                raise ClusterError(f"{name} has ended: {process.last_words()}. hint: see {process.log}")
            if self._clock.monotonic_s() > deadline:
                raise ClusterError(f"{name} does not answer after {_READY_PATIENCE_S:.0f} s. hint: see {process.log}")
            self._clock.wait(_LOOK_EVERY_S)

    def _start(self, name: str) -> None:
        ports = ports_of(self.settings, name)
        for port in ports:
            if not port_is_free(port):
                raise ClusterError(f"port {port}, which {name} needs, is taken. hint: change it in [cluster]")
        main_port = free_port() if name.startswith("taskmanager-") else ports[0]
        self.process(name).start(self._command(name, main_port), main_port)

    def _command(self, name: str, port: int) -> list[str]:
        jars = self._jars("kafka" if name == "kafka" else "flink")
        if name == "kafka":
            return broker_command(self.settings, self.folder, jars)
        if name != "jobmanager":
            return taskmanager_command(self.settings, self.folder, jars, taskmanager_number(name), port)
        command = jobmanager_command(self.settings, self.folder, jars)
        write_base_jar(jars, self.base_jar)
        return command

    def _jars(self, engine: Engine) -> Path:
        if not jars_folder(engine, self.settings.versions, cache_folder()).is_dir():
            self._say(f"Maven fetches the jars of {engine}, this once")
        return resolve_jars(engine, self.settings.versions, cache_folder())

    def _end_descendants(self) -> None:
        """End what the processes started and left behind: workers that were stopped or hang."""
        for pid in descendants(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _on_record(self) -> list[str]:
        """Names that were started since the last `down`, those too that the settings name no more."""
        return sorted(path.stem for path in (self.folder / "run").glob("*.json"))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One supervisor at a time: a second one waits."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

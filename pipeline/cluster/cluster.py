"""Starts and stops a local cluster, whose data, settings and logs are in one folder.

    cluster = LocalCluster(Cluster(kafka_port=19092), Path("/somewhere/cluster"))
    cluster.up()                    # starts absent processes, returns when all are ready
    cluster.kill("taskmanager-1")   # as in a crash; it is not restarted
    cluster.up()                    # starts the TaskManager again
    cluster.down(wipe=True)

Processes are named `kafka`, `jobmanager`, `taskmanager-1`, `taskmanager-2`, …; `store`, an S3 server, is started only
if it is named. There is no watchdog: call `up` again to
restart them. Jobs end with their JobManager and have to be submitted again.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pipeline.cluster.flink import jobmanager_command, jobmanager_ready, taskmanager_command, taskmanager_registered
from pipeline.cluster.java.base_jar import write_base_jar
from pipeline.cluster.java.jars import Engine, jars_folder, resolve_jars
from pipeline.cluster.kafka import broker_command, broker_ready
from pipeline.cluster.plan import STORE, ports_of, process_names, taskmanager_number, to_start, to_stop
from pipeline.cluster.ports import free_port, port_is_free
from pipeline.cluster.process import Process, ProcessRecord, kill_descendants
from pipeline.cluster.store import store_command, store_ready
from pipeline.configuration.deployment.services import Cluster
from pipeline.configuration.environment import cache_folder
from pipeline.configuration.project import Project
from pipeline.errors import ClusterError, InputError
from pipeline.process.clock import Clock, SystemClock

_READY_TIMEOUT_S = 90.0
_POLL_EVERY_S = 0.1
_STOP_TIMEOUT_S = 10.0
_RETAINED_FOLDERS = ("kafka", "flink", STORE, "logs")
_TEMPORARY_FOLDERS = ("run", "tmp")


class LocalCluster:
    """A broker and a Flink cluster with `settings` in `folder`. Not thread-safe; a lock excludes other supervisors.

    Progress messages go to `report`.
    """

    def __init__(
        self, settings: Cluster, folder: Path, clock: Clock | None = None, report: Callable[[str], None] | None = None
    ) -> None:
        self.settings = settings
        self.folder = folder.absolute()
        self.names = process_names(settings.taskmanagers)
        self._clock = clock or SystemClock()
        self._report = report or (lambda _: None)

    @classmethod
    def of(cls, project: Project, report: Callable[[str], None] | None = None) -> "LocalCluster":
        """The cluster that the project's table `[cluster]` configures."""
        return cls(project.config.cluster, project.cluster, project.clock, report)

    @property
    def bootstrap(self) -> str:
        """Bootstrap address of the broker."""
        return f"127.0.0.1:{self.settings.kafka_port}"

    @property
    def rest_url(self) -> str:
        """Address of Flink's REST interface and web page."""
        return f"http://127.0.0.1:{self.settings.flink_rest_port}"

    @property
    def base_jar(self) -> Path:
        """The jar for Beam's option `--flink_job_server_jar`. Starting the JobManager writes it."""
        return self.folder / "flink" / "base.jar"

    def plan_up(self, names: Iterable[str] = ()) -> list[str]:
        """The processes that `up` would start now. Raises InputError and ClusterError as `up` does."""
        wanted, known = tuple(names) or self.names, (*self.names, STORE)
        for name in wanted:
            if name not in known:
                raise InputError(f"process {name} does not exist. known: {', '.join(known)}")
        return to_start(self.settings, wanted, self.running())

    def up(self, names: Iterable[str] = ()) -> list[str]:
        """Start the absent ones of `names` (default: all processes) and wait until all are ready; returns the started.

        The first start downloads the jars with Maven, which takes half a minute or more.

        Raises:
            InputError: if a name is not in the settings.
            ClusterError: if Java, a jar or a port is not available, or a process ends before it is ready.
        """
        wanted = tuple(names) or self.names
        with self._locked():
            absent = self.plan_up(wanted)
            for name in absent:
                self._report(f"starting {name}")
                self._start(name)
            for name in wanted:
                self.wait_ready(name)
        return absent

    def plan_down(self) -> list[str]:
        """The processes that `down` would stop now, in order."""
        return to_stop(self.running())

    def down(self, wipe: bool = False) -> list[str]:
        """Stop all processes in reverse order; with `wipe` also delete data and logs. Returns the stopped processes."""
        if not self.folder.is_dir():
            return []
        with self._locked():
            running = self.plan_down()
            for name in running:
                self._report(f"stopping {name}")
                self.stop(name)
            kill_descendants(self.folder, self._clock)  # suspended or hanging workers
            for part in (*_TEMPORARY_FOLDERS, *(_RETAINED_FOLDERS if wipe else ())):
                shutil.rmtree(self.folder / part, ignore_errors=True)
            if wipe:
                # Files of others in the folder stay.
                with contextlib.suppress(OSError):
                    self.folder.rmdir()
        return running

    def start(self, name: str) -> None:
        """Start one process if it is absent, and wait until it is ready."""
        self.up([name])

    def stop(self, name: str) -> None:
        """Stop one process with SIGTERM, after a timeout with SIGKILL."""
        self.process(name).stop(_STOP_TIMEOUT_S)

    def kill(self, name: str) -> None:
        """Send SIGKILL to one process but not to its children."""
        self.process(name).kill()

    def restart(self, name: str) -> None:
        """Stop one process and start it."""
        self.stop(name)
        self.start(name)

    def process(self, name: str) -> Process:
        """The process called `name`, running or not. Raises InputError for an unknown name."""
        if name not in (*self.names, STORE, *self._recorded_names()):
            raise InputError(f"process {name} does not exist. known: {', '.join((*self.names, STORE))}")
        return Process(name, self.folder, self._clock)

    def running(self) -> dict[str, ProcessRecord]:
        """The running processes, in start order."""
        names = dict.fromkeys((*self.names, *self._recorded_names()))
        records = {name: Process(name, self.folder, self._clock).running() for name in names}
        return {name: record for name, record in records.items() if record}

    def ready(self, name: str) -> bool:
        """Whether the process runs and responds to requests."""
        process = self.process(name).running()
        if process is None:
            return False
        if name == "kafka":
            return broker_ready(process.port)
        if name == STORE:
            return store_ready(process.port)
        if name == "jobmanager":
            return jobmanager_ready(process.port)
        return taskmanager_registered(self.settings.flink_rest_port, taskmanager_number(name), process.port)

    def wait_ready(self, name: str) -> None:
        """Return once the process is ready. Raises ClusterError if it ends or the timeout passes."""
        process = self.process(name)
        deadline = self._clock.monotonic_s() + _READY_TIMEOUT_S
        while not self.ready(name):
            if process.running() is None:
                raise ClusterError(f"{name} has ended: {process.last_error()}. hint: see {process.log}")
            if self._clock.monotonic_s() > deadline:
                raise ClusterError(f"{name} is not ready after {_READY_TIMEOUT_S:.0f} s. hint: see {process.log}")
            self._clock.wait(_POLL_EVERY_S)

    def _start(self, name: str) -> None:
        ports = ports_of(self.settings, name)
        for port in ports:
            if not port_is_free(port):
                raise ClusterError(f"port {port}, which {name} needs, is already in use. hint: change it in [cluster]")
        main_port = free_port() if name.startswith("taskmanager-") else ports[0]
        self.process(name).start(self._command(name, main_port), main_port)

    def _command(self, name: str, port: int) -> list[str]:
        if name == "kafka":
            return broker_command(self.settings, self.folder, self._jars("kafka"))
        if name == STORE:
            return store_command(self.settings, self.folder, self._jars("store"))
        jars = self._jars("flink")
        if name != "jobmanager":
            return taskmanager_command(self.settings, self.folder, jars, taskmanager_number(name), port)
        command = jobmanager_command(self.settings, self.folder, jars)
        write_base_jar(jars, self.base_jar)
        return command

    def _jars(self, engine: Engine) -> Path:
        if not jars_folder(engine, self.settings.versions, cache_folder()).is_dir():
            self._report(f"downloading the jars of {engine} with Maven (only once)")
        return resolve_jars(engine, self.settings.versions, cache_folder())

    def _recorded_names(self) -> list[str]:
        """Names of the processes started since the last `down`, including those no longer in the settings."""
        return sorted(path.stem for path in (self.folder / "run").glob("*.json"))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock, waiting for other supervisors."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

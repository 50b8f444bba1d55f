"""The cluster in one folder: up, down, status, and each of its processes by name.

    cluster = LocalCluster(Cluster(kafka_port=19092), Path("/somewhere/cluster"))
    cluster.up()                    # starts what is absent, returns when all answer
    cluster.kill("taskmanager-1")   # as a crash would; nothing restarts it
    cluster.up()                    # starts what is absent: the TaskManager
    cluster.down(wipe=True)

Processes are called `kafka`, `jobmanager` and `taskmanager-1`, `taskmanager-2`, … Nothing supervises them between two
calls: whoever wants them restarted calls `up` again. JobManagers keep no jobs over their own end.
"""

import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.cluster.jars import Engine, resolve_jars
from pipeline.cluster.kafka import broker_answers, prepare_kafka
from pipeline.cluster.ports import port_is_free
from pipeline.cluster.process import Process, strays
from pipeline.ground.clock import Clock, SystemClock
from pipeline.ground.config import Cluster, cache_folder
from pipeline.ground.errors import ClusterError, InputError

_READY_PATIENCE_S = 90.0
_LOOK_EVERY_S = 0.1
_GRACE_S = 10.0
_KEPT = ("kafka", "flink", "logs")
_PASSING = ("run", "tmp")


class LocalCluster:
    """A broker and a Flink cluster as `settings` say, in `folder`. Not thread-safe."""

    def __init__(self, settings: Cluster, folder: Path, clock: Clock | None = None, cache: Path | None = None) -> None:
        self.settings = settings
        self.folder = folder.absolute()
        self._clock = clock or SystemClock()
        self._cache = cache or cache_folder()
        workers = tuple(f"taskmanager-{i}" for i in range(1, settings.taskmanagers + 1))
        self.names = ("kafka", "jobmanager", *workers)

    @property
    def bootstrap(self) -> str:
        """Where Kafka's clients begin."""
        return f"127.0.0.1:{self.settings.kafka_port}"

    def up(self, names: Iterable[str] = ()) -> list[str]:
        """Start what is absent of `names` (of none: of all), and wait until all of them answer; what was started.

        The first time, Maven fetches the jars: half a minute or more.

        Raises:
            ClusterError: where Java, a jar or a port is not to be had, or a process ends before it answers.
        """
        wanted = tuple(names) or self.names
        with self._alone():
            absent = [name for name in wanted if not self.process(name).running()]
            for name in absent:
                self._start(name)
            for name in wanted:
                self.wait_ready(name)
        return absent

    def down(self, wipe: bool = False) -> list[str]:
        """End everything in order, the last started first; with `wipe` delete data and logs too. What was ended."""
        with self._alone():
            running = [name for name in reversed(self._on_record()) if self.process(name).running()]
            for name in running:
                self.process(name).stop(_GRACE_S)
            for pid in strays(self.folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for part in (*_PASSING, *(_KEPT if wipe else ())):
            shutil.rmtree(self.folder / part, ignore_errors=True)
        if wipe:
            with contextlib.suppress(OSError):
                self.folder.rmdir()
        return running

    def start(self, name: str) -> None:
        """Start one process and wait until it answers."""
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
        """The process called `name`. Raises InputError for a name that the settings do not give."""
        if name not in self.names and name not in self._on_record():
            raise InputError(f"process {name} does not exist. known: {', '.join(self.names)}")
        return Process(name, self.folder, self._clock)

    def ready(self, name: str) -> bool:
        """Whether the process answers."""
        return broker_answers(self.settings.kafka_port)

    def wait_ready(self, name: str) -> None:
        """Return once the process answers. Raises ClusterError where it ends, or is silent for too long."""
        process = self.process(name)
        deadline = self._clock.monotonic_s() + _READY_PATIENCE_S
        while not self.ready(name):
            if process.running() is None:
                raise ClusterError(f"{name} has ended: {process.last_words()}. hint: see {process.log}")
            if self._clock.monotonic_s() > deadline:
                raise ClusterError(f"{name} does not answer after {_READY_PATIENCE_S:.0f} s. hint: see {process.log}")
            self._clock.wait(_LOOK_EVERY_S)

    def _start(self, name: str) -> None:
        engine: Engine = "kafka" if name == "kafka" else "flink"
        jars = resolve_jars(engine, self.settings.versions, self._cache)
        port = self.settings.kafka_port
        for needed in (self.settings.kafka_port, self.settings.kafka_controller_port):
            if not port_is_free(needed):
                raise ClusterError(f"port {needed}, which {name} needs, is taken. hint: change it in [cluster]")
        self.process(name).start(prepare_kafka(self.settings, self.folder, jars), port)

    def _on_record(self) -> tuple[str, ...]:
        """Names that were started at some time, in the order of starting them all."""
        found = {path.stem for path in (self.folder / "run").glob("*.json")}
        return (*self.names, *sorted(found.difference(self.names)))

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

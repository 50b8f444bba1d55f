"""A separate broker with additional settings, which override those of `springtide cluster`."""

from contextlib import contextmanager

from pipeline.cluster.java.jars import resolve_jars
from pipeline.cluster.kafka import broker_command, broker_ready
from pipeline.cluster.process import Process
from pipeline.configuration.deployment.services import Cluster
from pipeline.configuration.environment import cache_folder
from pipeline.process.clock import SystemClock
from tests.support.command.ports import free_port_range

_WITHIN_S = 60.0


@contextmanager
def own_broker(folder, more):
    """A broker with the additional settings `more`; it is killed after the block."""
    made = OwnBroker(folder, free_port_range(2))
    try:
        made.start(more)
        yield made
    finally:
        made.kill()


class OwnBroker:
    """One process and its folder."""

    def __init__(self, folder, port):
        """The broker listens on `port`, the controller on the next port."""
        self.port = port
        self.folder, self._clock = folder, SystemClock()
        self._settings = Cluster(kafka_port=self.port, kafka_controller_port=self.port + 1, kafka_heap_mb=256)
        self.process = Process("kafka", folder, self._clock)

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    @property
    def data(self):
        return self.folder / "kafka" / "data"

    def start(self, more):
        """Start it with the additional settings `more`; returns once it is ready."""
        command = broker_command(self._settings, self.folder, resolve_jars("kafka", {}, cache_folder()))
        with (self.folder / "kafka" / "server.properties").open("a", encoding="utf-8") as file:
            file.writelines(f"{name}={value}\n" for name, value in more.items())
        self.process.start(command, self.port)
        ends_s = self._clock.monotonic_s() + _WITHIN_S
        while not broker_ready(self.port):
            starting = self.process.running() is not None and self._clock.monotonic_s() < ends_s
            assert starting, self.process.last_error()
            self._clock.wait(0.1)

    def kill(self):
        self.process.kill()

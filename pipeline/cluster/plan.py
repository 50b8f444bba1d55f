"""What `up` and `down` will do: pure functions of the settings and of what runs."""

from collections.abc import Mapping, Sequence

from pipeline.cluster.process import Running
from pipeline.configuration.config import Cluster
from pipeline.errors import ClusterError


def process_names(taskmanagers: int) -> tuple[str, ...]:
    """All processes of a cluster, in the order they are started in.

    >>> process_names(2)
    ('kafka', 'jobmanager', 'taskmanager-1', 'taskmanager-2')
    """
    return ("kafka", "jobmanager", *(f"taskmanager-{i}" for i in range(1, taskmanagers + 1)))


def ports_of(settings: Cluster, name: str) -> tuple[int, ...]:
    """The ports that the settings give to a process, the one it is asked at first; a TaskManager chooses its own."""
    if name == "kafka":
        return settings.kafka_port, settings.kafka_controller_port
    metrics = () if settings.flink_metrics_port is None else (settings.flink_metrics_port,)
    if name == "jobmanager":
        return settings.flink_rest_port, settings.flink_rpc_port, *metrics
    return tuple(port + taskmanager_number(name) for port in metrics)


def taskmanager_number(name: str) -> int:
    """The i of `taskmanager-i`."""
    return int(name.removeprefix("taskmanager-"))


def to_start(settings: Cluster, wanted: Sequence[str], running: Mapping[str, Running]) -> list[str]:
    """Which of `wanted` are absent, in the order to start them.

    Raises:
        ClusterError: where one runs on another port than the settings say: they were changed while it ran.
    """
    for name in ("kafka", "jobmanager"):
        port = ports_of(settings, name)[0]
        if name in wanted and name in running and running[name].port != port:
            raise ClusterError(
                f"{name} runs on port {running[name].port}, the settings say {port}. run: springtide cluster down"
            )
    return [name for name in wanted if name not in running]


def to_stop(running: Mapping[str, Running]) -> list[str]:
    """All that run, TaskManagers before their JobManager, the broker last: what feeds another outlives it."""
    rank = {"kafka": 2, "jobmanager": 1}
    return sorted(running, key=lambda name: (rank.get(name, 0), name))

"""Plans `up` and `down`: pure functions of the settings and the running processes."""

from collections.abc import Mapping, Sequence

from pipeline.cluster.process import ProcessRecord
from pipeline.configuration.deployment.services import Cluster
from pipeline.errors import ClusterError


def process_names(taskmanagers: int) -> tuple[str, ...]:
    """All processes of a cluster, in start order.

    >>> process_names(2)
    ('kafka', 'jobmanager', 'taskmanager-1', 'taskmanager-2')
    """
    return ("kafka", "jobmanager", *(f"taskmanager-{i}" for i in range(1, taskmanagers + 1)))


STORE = "store"
"""The process that is started only on request."""


def ports_of(settings: Cluster, name: str) -> tuple[int, ...]:
    """The configured ports of a process, its main port first; a TaskManager chooses its main port."""
    if name == "kafka":
        return settings.kafka_port, settings.kafka_controller_port
    if name == STORE:
        return (settings.store_port,)
    metrics = () if settings.flink_metrics_port is None else (settings.flink_metrics_port,)
    if name == "jobmanager":
        return settings.flink_rest_port, settings.flink_rpc_port, *metrics
    return tuple(port + taskmanager_number(name) for port in metrics)


def taskmanager_number(name: str) -> int:
    """The i of `taskmanager-i`."""
    return int(name.removeprefix("taskmanager-"))


def to_start(settings: Cluster, wanted: Sequence[str], running: Mapping[str, ProcessRecord]) -> list[str]:
    """The absent ones of `wanted`, in start order.

    Raises:
        ClusterError: if one runs on another port than configured, because the settings changed while it ran.
    """
    for name in ("kafka", "jobmanager", STORE):
        port = ports_of(settings, name)[0]
        if name in wanted and name in running and running[name].port != port:
            raise ClusterError(
                f"{name} runs on port {running[name].port}, configured is {port}. run: springtide cluster down"
            )
    return [name for name in wanted if name not in running]


def to_stop(running: Mapping[str, ProcessRecord]) -> list[str]:
    """All running processes, TaskManagers before their JobManager, then servers: clients stop before them."""
    rank = {STORE: 3, "kafka": 2, "jobmanager": 1}
    return sorted(running, key=lambda name: (rank.get(name, 0), name))

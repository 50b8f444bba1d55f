"""The status of a local cluster: its processes, the broker, Flink's slots and jobs. Read-only."""

from typing import Any

from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.flink import read_flink
from pipeline.process.clock import Clock


def cluster_status(cluster: LocalCluster, clock: Clock) -> dict[str, Any]:
    """All configured and all running processes, and the state of Kafka and Flink.

    A process is `running` if it is ready, `unresponsive` if it runs but is not ready, else `absent`.
    """
    names = dict.fromkeys((*cluster.names, *cluster.running()))
    processes = [_process(cluster, name, clock) for name in names]
    return {
        "up": all(process["state"] == "running" for process in processes),
        "folder": str(cluster.folder),
        "processes": processes,
        "kafka": {"available": cluster.ready("kafka"), "bootstrap": cluster.bootstrap},
        "flink": _flink(cluster),
    }


def _process(cluster: LocalCluster, name: str, clock: Clock) -> dict[str, Any]:
    process = cluster.process(name)
    record = process.running()
    row: dict[str, Any] = {"name": name, "state": "absent", "pid": None, "port": None, "uptime_s": None}
    if record:
        state = "running" if cluster.ready(name) else "unresponsive"
        uptime_s = (clock.now_ms() - record.started_at_ms) // 1000
        row |= {"state": state, "pid": record.pid, "port": record.port, "uptime_s": uptime_s}
    return row | {"log": str(process.log)}


def _flink(cluster: LocalCluster) -> dict[str, Any]:
    port = cluster.settings.flink_rest_port
    overview = read_flink(port, "/overview") if cluster.ready("jobmanager") else None
    row: dict[str, Any] = {"available": overview is not None, "rest_url": cluster.rest_url}
    if overview is None:
        return row | {"slots": 0, "free_slots": 0, "jobs": []}
    listed = read_flink(port, "/jobs/overview") or {"jobs": []}
    jobs = [
        {"id": job["jid"], "name": job["name"], "state": job["state"], "uptime_s": job["duration"] // 1000}
        for job in listed["jobs"]
    ]
    return row | {"slots": overview["slots-total"], "free_slots": overview["slots-available"], "jobs": jobs}

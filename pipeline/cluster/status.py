"""How a cluster stands, for people and machines: its processes, the broker, the slots and the jobs. Changes nothing."""

from typing import Any

from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.flink import ask_flink
from pipeline.process.clock import Clock


def cluster_standing(cluster: LocalCluster, clock: Clock) -> dict[str, Any]:
    """Every process of the settings and whoever runs besides, then what Kafka and Flink answer.

    A process is `running` where it answers, `silent` where it lives and does not, else `absent`.
    """
    names = dict.fromkeys((*cluster.names, *cluster.running()))
    processes = [_process(cluster, name, clock) for name in names]
    return {
        "up": all(process["state"] == "running" for process in processes),
        "folder": str(cluster.folder),
        "processes": processes,
        "kafka": {"answers": cluster.answers("kafka"), "bootstrap": cluster.bootstrap},
        "flink": _flink(cluster),
    }


def _process(cluster: LocalCluster, name: str, clock: Clock) -> dict[str, Any]:
    process = cluster.process(name)
    found = process.running()
    row: dict[str, Any] = {"name": name, "state": "absent", "pid": None, "port": None, "uptime_s": None}
    if found:
        state = "running" if cluster.answers(name) else "silent"
        uptime_s = (clock.now_ms() - found.started_at_ms) // 1000
        row |= {"state": state, "pid": found.pid, "port": found.port, "uptime_s": uptime_s}
    return row | {"log": str(process.log)}


def _flink(cluster: LocalCluster) -> dict[str, Any]:
    port = cluster.settings.flink_rest_port
    overview = ask_flink(port, "/overview") if cluster.answers("jobmanager") else None
    row: dict[str, Any] = {"answers": overview is not None, "rest_url": cluster.rest_url}
    if overview is None:
        return row | {"slots": 0, "free_slots": 0, "jobs": []}
    listed = ask_flink(port, "/jobs/overview") or {"jobs": []}
    jobs = [
        {"id": job["jid"], "name": job["name"], "state": job["state"], "uptime_s": job["duration"] // 1000}
        for job in listed["jobs"]
    ]
    return row | {"slots": overview["slots-total"], "free_slots": overview["slots-available"], "jobs": jobs}

"""Recovery of Flink SQL's interval join: from `kill -9` of its TaskManager until it joins later events.

The TaskManager is killed once a checkpoint of all events is complete, and is restarted immediately, as by a supervisor.
Heap state of a million impressions needs about a gigabyte; RocksDB's state is on disk.
"""

from collections.abc import Callable
from contextlib import closing
from typing import Any

from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.flink_rest import FlinkRest
from pipeline.configuration.project import Project
from pipeline.flink.jobs import cancel, last_checkpoint
from pipeline.logs.open import connect_kafka
from pipeline.process.clock import SystemClock
from tests.benchmarks.harness.stopwatch import Stopwatch
from tests.benchmarks.live.flink import until
from tests.benchmarks.live.flink_kafka import sql_topic, submit_sql
from tests.benchmarks.peers.flink import flink_kafka_join
from tests.benchmarks.peers.flink.flink_kafka_join import Backend, SqlSamples
from tests.benchmarks.peers.flink.schema_registry import serve_schemas

_WITHIN_S = 600.0


def measure(
    project: Project, cluster: LocalCluster, backend: Backend, joined: int, append_later: Callable[[], int]
) -> dict[str, Any]:
    """Seconds from the kill of the TaskManager until the job has joined a click that was appended after it.

    The project's topics contain `joined` clicks on impressions that are in the window; `append_later` appends a few
    more of both and returns the number of clicks.
    """
    flink, clock = FlinkRest(cluster.rest_url), SystemClock()
    # A restarted job requests the schemas again.
    with closing(connect_kafka(project)) as log, serve_schemas(flink_kafka_join.schemas(project, log)) as registry:
        counter = SqlSamples(log, sql_topic(backend))
        with Stopwatch() as caught_up:
            job = submit_sql(project, log, cluster, registry, backend, "at-least-once")
            until(lambda: counter.poll() >= joined, _WITHIN_S)
        state_bytes = _checkpointed(flink, job, clock.now_ms())
        assert counter.poll() == joined, "one sample per click"
        cluster.kill("taskmanager-1")
        with Stopwatch() as recovered:
            more = append_later()
            cluster.start("taskmanager-1")
            until(lambda: counter.poll() > joined, _WITHIN_S)
        until(lambda: counter.poll() >= joined + more, _WITHIN_S)
        assert counter.poll() == joined + more, "the checkpoint held every event before the kill"
        cancel(flink, job, clock)
    seconds = {"caught_up_s": caught_up.seconds, "recovered_s": recovered.seconds}
    return {"backend": backend, "state_bytes": state_bytes, **seconds}


def _checkpointed(flink: FlinkRest, job: str, since_ms: int) -> int:
    """Wait for a checkpoint that began after `since_ms`; its bytes."""

    def bytes_of_one() -> int:
        found = last_checkpoint(flink, job)
        return found.size_bytes if found and found.at_ms > since_ms else 0

    until(bytes_of_one, _WITHIN_S)
    return bytes_of_one()

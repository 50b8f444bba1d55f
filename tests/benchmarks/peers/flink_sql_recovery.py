"""Recovery of Flink SQL's interval join: from `kill -9` of its TaskManager until it joins what came after.

python -m tests.benchmarks.peers.flink_sql_recovery --rows 2000000 --backend rocksdb

The TaskManager is killed while the join holds `rows` impressions and a checkpoint of all of them is complete, and is
started again at once, as a supervisor would. Heap state of a million impressions wants about a gigabyte of
`--taskmanager-mb`; RocksDB's lies on the disk. Needs Java and Maven. Prints one JSON object.
"""

import argparse
import json
import signal
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

from pipeline.cluster.cluster import LocalCluster
from pipeline.flink.jobs import last_checkpoint
from pipeline.flink.rest import FlinkRest
from pipeline.ground.clock import SystemClock
from pipeline.logs.open import connect_kafka, open_log
from tests.benchmarks.events_on_kafka import after_all, append_single
from tests.benchmarks.flink import until
from tests.benchmarks.flink_kafka import TASKMANAGER_MB, local_cluster, project_on, sql_topic, submit_sql
from tests.benchmarks.join import SPAN_S, events_of
from tests.benchmarks.peers import flink_kafka_join
from tests.benchmarks.peers.flink_kafka_join import Backend, SqlSaid
from tests.benchmarks.peers.schema_registry import serve_schemas
from tests.benchmarks.stopwatch import Stopwatch

_WITHIN_S = 300.0


def main() -> None:
    """Measure once, print, and end the cluster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--backend", choices=get_args(Backend), default="rocksdb")
    parser.add_argument("--taskmanager-mb", type=int, default=TASKMANAGER_MB)
    chosen = parser.parse_args()
    # So that a `timeout` ends the cluster too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="freshet-flink-") as folder:
        cluster = local_cluster(Path(folder) / "cluster", chosen.taskmanager_mb)
        try:
            cluster.up()
            print(json.dumps(recovery(Path(folder), cluster, chosen.rows, chosen.backend)))
        finally:
            cluster.down(wipe=True)


def recovery(folder: Path, cluster: LocalCluster, rows: int, backend: Backend) -> dict[str, Any]:
    """Seconds from the death of the TaskManager until the job has joined a click that came after it.

    The window is four times the events' span: all `rows` impressions are held.
    """
    project = project_on(cluster, folder / "held", "held.", SPAN_S * 4)
    shown, clicks = events_of(rows)
    with closing(open_log(project)) as log:
        append_single(project, log, {"impressions": shown, "clicks": clicks})
    # A job that starts again asks the registry again.
    with closing(connect_kafka(project)) as log, serve_schemas(flink_kafka_join.schemas(project, log)) as registry:
        job = submit_sql(project, log, cluster, registry, backend, "at-least-once")
        said = SqlSaid(log, sql_topic(backend))
        until(lambda: said.look() >= clicks.num_rows, _WITHIN_S)
        state_bytes = _checkpointed(cluster, job)
        assert said.look() == clicks.num_rows, "one sample for every click"
        cluster.kill("taskmanager-1")
        with Stopwatch() as recovered:
            append_single(project, log, {"impressions": after_all(shown, [-1]), "clicks": after_all(clicks, [-1])})
            cluster.start("taskmanager-1")
            until(lambda: said.look() > clicks.num_rows, _WITHIN_S)
        assert said.look() == clicks.num_rows + 1, "the checkpoint held every event before the kill"
    return {"backend": backend, "held": rows, "state_bytes": state_bytes, "recovered_s": recovered.seconds}


def _checkpointed(cluster: LocalCluster, job: str) -> int:
    """Wait for a checkpoint that begins from now on; its bytes."""
    flink, clock = FlinkRest(cluster.rest_url), SystemClock()
    now_ms = clock.now_ms()

    def bytes_of_one() -> int:
        found = last_checkpoint(flink, job)
        return found.size_bytes if found and found.at_ms > now_ms else 0

    until(bytes_of_one, _WITHIN_S)
    return bytes_of_one()


if __name__ == "__main__":
    main()

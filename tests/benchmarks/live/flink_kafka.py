"""The join on Flink from Kafka to the samples topic, compared with Flink SQL's interval join over the same topics.

python -m tests.benchmarks.live.flink_kafka --rows 1000000
python -m tests.benchmarks.live.flink_kafka --rows 1000000 --backend rocksdb --guarantee exactly-once

One broker, one TaskManager, one run, two partitions: ours (exactly once, one Python worker), then Flink SQL (two
subtasks) with each state backend, each from the topics' beginnings with a checkpoint every 2 s; the events are
appended beforehand, one per record. Ours is also measured over packed records, which only it can read. All must emit
equally many samples and positives; ours also emits compensations. `peers/flink/flink_kafka_join.py` lists the peer's
limits.

Requires Java and Maven. Prints one JSON object, and each run's figures on stderr when it ends. A rate is the number of
events divided by the seconds from the first sample to the last; `_from_submission` counts from the submission, and
`_per_core_s` divides by the processor seconds of the cluster (broker, JobManager, TaskManager, worker), which excludes
other load. `times_*` is our rate divided by the peer's. Below a million rows ours may emit everything in one or two
bundles, and only `_from_submission` is meaningful.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, get_args

import psutil
import pyarrow.compute as pc

from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.flink_rest import FlinkRest
from pipeline.cluster.process import descendants
from pipeline.configuration.deployment.services import Cluster
from pipeline.configuration.project import Project
from pipeline.flink.jobs import cancel
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.interface.log import Log
from pipeline.logs.kafka.kafka_log import KafkaLog
from pipeline.logs.open import connect_kafka, open_log
from pipeline.process.clock import SystemClock
from tests.benchmarks import peers
from tests.benchmarks.harness.report import machine
from tests.benchmarks.harness.stopwatch import Stopwatch
from tests.benchmarks.live.flink import project_in, submit_join, until
from tests.benchmarks.load.events_on_kafka import append_packed, append_single, ended_events
from tests.benchmarks.peers.flink import flink_kafka_join
from tests.benchmarks.peers.flink.flink_kafka_join import Backend, Guarantee, SqlJoin, SqlSamples
from tests.benchmarks.peers.flink.schema_registry import serve_schemas
from tests.benchmarks.stages.join import SPAN_S
from tests.support.command.ports import free_port_range

WINDOW_S = SPAN_S // 20
TASKMANAGER_MB = 1536
_WITHIN_S = 300.0
_LEAST_CPU_S = 0.01
"""The resolution of the system's processor times."""
_LOGS = '[logs]\nengine = "kafka"\nbootstrap = "{bootstrap}"\nprefix = "{prefix}"\npartitions = 2\n'
"""Two partitions, so that each of the peer's two subtasks has one; our shard reads both."""


class SampleCounter(Protocol):
    """Counts the samples that a join emits."""

    samples: int
    positives: int
    compensations: int

    def poll(self) -> int:
        """Read the new records; returns the number of samples so far, without compensations."""


@dataclass(frozen=True)
class Run:
    """The times of a job, in seconds since its submission, and its output.

    Attributes:
        submitted_s, first_s, last_s: when the submission returned, when the first and the last sample could be read.
        first_samples: number of samples at the first successful poll.
        cpu_s: processor seconds of the cluster's processes between those two samples.
        samples, positives, compensations: numbers; compensations are not counted as samples.
    """

    submitted_s: float
    first_s: float
    last_s: float
    first_samples: int
    cpu_s: float
    samples: int
    positives: int
    compensations: int

    def figures(self, name: str, events: int) -> dict[str, float]:
        """The figures under `name`; samples of the first poll were emitted before it and are not counted."""
        counted = events * (1 - self.first_samples / self.samples)
        return {
            f"{name}_events_per_s": counted / (self.last_s - self.first_s),
            f"{name}_events_per_s_from_submission": events / self.last_s,
            f"{name}_events_per_core_s": counted / max(self.cpu_s, _LEAST_CPU_S),
            f"{name}_submitted_s": self.submitted_s,
            f"{name}_first_sample_s": self.first_s,
        }


def main() -> None:
    """Measure once, print, and end the cluster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--backend", action="append", choices=get_args(Backend))
    parser.add_argument("--guarantee", choices=get_args(Guarantee), default="at-least-once")
    chosen = parser.parse_args()
    # `timeout` then ends the cluster too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="springtide-flink-") as folder:
        cluster = local_cluster(Path(folder) / "cluster")
        try:
            cluster.up()
            backends = chosen.backend or get_args(Backend)
            found = measure(Path(folder), cluster, chosen.rows, backends, chosen.guarantee)
            print(json.dumps(found))
        finally:
            cluster.down(wipe=True)


def local_cluster(folder: Path, taskmanager_mb: int = TASKMANAGER_MB) -> LocalCluster:
    """A broker, a JobManager and a TaskManager with memory for both backends."""
    ports = ("kafka_port", "kafka_controller_port", "flink_rest_port", "flink_rpc_port")
    first = free_port_range(len(ports))
    chosen = {name: first + number for number, name in enumerate(ports)}
    return LocalCluster(Cluster(**chosen, taskmanager_mb=taskmanager_mb, state_backend="rocksdb"), folder)


def measure(
    folder: Path, cluster: LocalCluster, rows: int, backends: Iterable[Backend], guarantee: Guarantee
) -> dict[str, Any]:
    """All figures, by name."""
    events = ended_events(rows)
    total = sum(batch.num_rows for batch in events.values())
    single, packed = (project_on(cluster, folder / name, f"{name}.", WINDOW_S) for name in ("single", "packed"))
    for project, append in ((single, append_single), (packed, append_packed)):
        with closing(open_log(project)) as log:
            append(project, log, events)
    joins = {"ours": partial(run_ours, single, cluster, rows), "ours_packed": partial(run_ours, packed, cluster, rows)}
    for backend in backends:
        joins[f"flink_sql_{backend}"] = partial(run_sql, single, cluster, rows, backend, guarantee)
    runs = {name: _printed(name, run(), total) for name, run in joins.items()}
    _check(runs.values(), rows)
    figures: dict[str, Any] = {"machine": machine(), "events": total, "guarantee": guarantee}
    figures |= {"samples": rows, "positives": runs["ours"].positives, "compensations": runs["ours"].compensations}
    for name, run in runs.items():
        figures |= run.figures(name, total)
    for name in (f"flink_sql_{backend}" for backend in backends):
        for what in ("events_per_s", "events_per_s_from_submission", "events_per_core_s"):
            peer = figures[f"{name}_{what}"]
            figures[f"times_{name}_{what}"] = figures[f"ours_{what}"] / peer if peer else None
    return figures


def project_on(cluster: LocalCluster, root: Path, prefix: str, window_s: float) -> Project:
    """The project of the join's benchmark with its topics on the cluster's broker."""
    return project_in(root, window_s, _LOGS.format(bootstrap=cluster.bootstrap, prefix=prefix))


def run_ours(project: Project, cluster: LocalCluster, samples: int) -> Run:
    """Submit our join, wait for its samples, and end it."""
    start = partial(submit_join, project, cluster, project.root.name)
    with closing(open_log(project)) as log:
        return _timed(start, OurSamples(log), cluster, samples)


def run_sql(project: Project, cluster: LocalCluster, samples: int, backend: Backend, guarantee: Guarantee) -> Run:
    """Submit Flink SQL's join over the project's topics, wait for its samples, and end it."""
    with closing(connect_kafka(project)) as log, serve_schemas(flink_kafka_join.schemas(project, log)) as registry:
        start = partial(submit_sql, project, log, cluster, registry, backend, guarantee)
        return _timed(start, SqlSamples(log, sql_topic(backend)), cluster, samples)


def submit_sql(
    project: Project, log: KafkaLog, cluster: LocalCluster, registry: str, backend: Backend, guarantee: Guarantee
) -> str:
    """Start Flink SQL's join over the project's topics into `sql_topic(backend)`; returns Flink's id of the job."""
    log.create_topic(sql_topic(backend), 1)
    join = SqlJoin.of(project, sql_topic(backend), registry, backend, guarantee)
    return flink_kafka_join.submit(cluster, Path(os.environ.get(peers.FOLDER) or peers.DEFAULT_FOLDER), join)


def sql_topic(backend: Backend) -> str:
    """The topic of the peer's samples."""
    return f"sql-{backend}"


def _timed(start: Callable[[], str], counter: SampleCounter, cluster: LocalCluster, samples: int) -> Run:
    with Stopwatch() as submitted:
        job = start()
    try:
        with Stopwatch() as first:
            until(lambda: counter.poll() > 0, _WITHIN_S)
        before_s, first_samples = cpu_seconds(cluster), counter.samples
        with Stopwatch() as rest:
            until(lambda: counter.poll() >= samples, _WITHIN_S)
        cpu_s = cpu_seconds(cluster) - before_s
    finally:
        cancel(FlinkRest(cluster.rest_url), job, SystemClock())
    first_s = submitted.seconds + first.seconds
    last_s = first_s + rest.seconds
    seconds = submitted.seconds, first_s, last_s
    return Run(*seconds, first_samples, cpu_s, counter.samples, counter.positives, counter.compensations)


def cpu_seconds(cluster: LocalCluster) -> float:
    """Processor time that the cluster's processes and their workers have taken so far."""
    times = [psutil.Process(pid).cpu_times() for pid in descendants(cluster.folder)]
    return float(sum(time.user + time.system for time in times))


class OurSamples:
    """Counts our samples in partition 0; each record is read once."""

    def __init__(self, log: Log) -> None:
        self._log, self._at = log, 0
        self.samples = self.positives = self.compensations = 0

    def poll(self) -> int:
        """Read the new records; returns the number of samples so far, without compensations."""
        while records := self._log.read("samples", 0, self._at):
            self._at = records[-1].offset + 1
            for record in records:
                kinds = decode_sample_block(record.value).batch.column("kind")
                counts = {kind: pc.sum(pc.equal(kinds, kind)).as_py() or 0 for kind in ("positive", "negative")}
                self.samples += sum(counts.values())
                self.positives += counts["positive"]
                self.compensations += len(kinds) - sum(counts.values())
        return self.samples


def _printed(name: str, run: Run, events: int) -> Run:
    """Print the figures of a run immediately, because a later run may time out; returns the run."""
    counts = {"samples": run.samples, "positives": run.positives}
    print(json.dumps(run.figures(name, events) | counts), file=sys.stderr, flush=True)
    return run


def _check(runs: Iterable[Run], rows: int) -> None:
    counts = {(run.samples, run.positives) for run in runs}
    assert len(counts) == 1, f"samples and positives differ: {counts}"
    assert {samples for samples, _ in counts} == {rows}, f"{rows} impressions gave {counts}"


if __name__ == "__main__":
    main()

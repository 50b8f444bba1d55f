"""Rates and start of the join on a real Flink and of the join in process, over the same embedded log.

python -m tests.benchmarks.live.flink --rows 2000000

Requires Java and Maven. Prints one JSON object: events per second on Flink, from the first sample to the last and from
submission, and in process; seconds from submission to the first sample.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.cluster.cluster import LocalCluster
from pipeline.configuration.deployment.services import Cluster
from pipeline.configuration.project import Project
from pipeline.flink.options import Submission
from pipeline.flink.submit import submit
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.interface.log import Log
from pipeline.logs.open import open_log
from pipeline.samples.run import on_flink
from pipeline.samples.run.in_process import run_samples
from tests.benchmarks.harness.stopwatch import Stopwatch
from tests.benchmarks.stages.join import SPAN_S, fill
from tests.support.command.ports import free_port_range

_POLL_EVERY_S = 0.02
_WITHIN_S = 120.0
_FORM = """name = "join"
[events]
key = ["id"]
disorder_s = 1.0
[events.impressions.columns]
id = "int"
user = "string"
item = "string"
position = "int"
price = "float"
[events.clicks.columns]
id = "int"
[samples]
window_s = {window}
horizon_s = {window}
key_retention_s = 0.0
[[fields]]
name = "user"
columns = ["user"]
"""


def main() -> None:
    """Measure once, print, and end the cluster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    chosen = parser.parse_args()
    # `timeout` then ends the cluster too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="springtide-flink-") as folder:
        cluster = started_cluster(Path(folder) / "cluster")
        try:
            print(json.dumps(rates(Path(folder), cluster, chosen.rows)))
        finally:
            cluster.down(wipe=True)


def started_cluster(folder: Path) -> LocalCluster:
    """A Flink cluster of one TaskManager, without Kafka."""
    first = free_port_range(4)
    settings = Cluster(
        kafka_port=first, kafka_controller_port=first + 1, flink_rest_port=first + 2, flink_rpc_port=first + 3
    )
    cluster = LocalCluster(settings, folder)
    cluster.up(["jobmanager", "taskmanager-1"])
    return cluster


def rates(folder: Path, cluster: LocalCluster, rows: int) -> dict[str, float]:
    """The join's rate on Flink and in process, over the same events."""
    project, reference = project_in(folder / "live", SPAN_S / 20), project_in(folder / "reference", SPAN_S / 20)
    log = open_log(project)
    events = fill(project, log, rows)
    shutil.copytree(project.logs, reference.logs)
    with Stopwatch() as in_process:
        wanted = sum(run_samples(reference, open_log(reference), until_end=True).samples.values())
    counter = SampleCounter(log)
    with Stopwatch() as all_of_it:
        with Stopwatch() as submitted:
            submit_join(project, cluster, "rates")
        with Stopwatch() as first:
            until(lambda: counter.rows() > 0)
        with Stopwatch() as rest:
            until(lambda: counter.rows() >= wanted)
    assert counter.rows() == wanted
    return {
        "events": events,
        "in_process_events_per_s": events / in_process.seconds,
        "flink_events_per_s": events / rest.seconds,
        "flink_events_per_s_from_submission": events / all_of_it.seconds,
        "submitted_s": submitted.seconds,
        "first_sample_s": submitted.seconds + first.seconds,
    }


def project_in(root: Path, window_s: float, logs: str = "") -> Project:
    """The project of the join's benchmark, in a folder that a worker can open; `logs` is its table [logs]."""
    root.mkdir()
    (root / "springtide.toml").write_text(_FORM.format(window=window_s) + logs, encoding="utf-8")
    return Project.open(root)


def submit_join(project: Project, cluster: LocalCluster, name: str) -> str:
    """Submit the project's join to the cluster as job `name`; returns Flink's id."""
    worker = str(Path(sys.executable).parent / "springtide-worker")
    folder = (project.state / "flink").as_uri()
    logs = project.state / "flink" / "workers"
    job = Submission(
        name, cluster.rest_url, cluster.base_jar, worker, 1, 2.0, 10, folder, logs, project.root, "samples"
    )
    return submit(job, lambda pipeline: on_flink.build(pipeline, project))


class SampleCounter:
    """Counts the samples of partition 0; each record is read once."""

    def __init__(self, log: Log) -> None:
        self._log, self._at, self._rows = log, 0, 0

    def rows(self) -> int:
        """Read the new records; returns the number of samples so far."""
        while records := self._log.read("samples", 0, self._at):
            self._rows += sum(decode_sample_block(record.value).batch.num_rows for record in records)
            self._at = records[-1].offset + 1
        return self._rows


def until(reached: Callable[[], object], within_s: float = _WITHIN_S) -> None:
    """Poll until `reached()` is true. Raises AssertionError after `within_s`."""
    ends_s = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < ends_s, f"not reached after {within_s:.0f} s"
        time.sleep(_POLL_EVERY_S)


if __name__ == "__main__":
    main()

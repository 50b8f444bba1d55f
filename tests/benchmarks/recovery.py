"""Recovery of the live join on a real Flink: from `kill -9` until the join is back at the head of the log.

python -m tests.benchmarks.recovery --rows 10000000 --victim worker
python -m tests.benchmarks.recovery --rows 10000000 --victim taskmanager --at-once

The victim is killed while the join holds `rows` impressions: once its state has been kept at the end of the log, or
with `--at-once` right after it has caught up with all of them. A TaskManager is started again at once, as a supervisor
would; a worker is Flink's business. Back is who has joined clicks on impressions that came after the kill.

Needs Java and Maven. Prints one JSON object. Its times are seconds since the kill, each stage after the one before: the
loss was noticed, the TaskManager registered, a worker process was there, all tasks ran, the shard was open with its
state loaded, the first click on what came later was joined.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cluster.cluster import LocalCluster
from pipeline.flink.jobs import live_jobs
from pipeline.flink.rest import FlinkRest
from pipeline.flink.submit import submit
from pipeline.ground.project import Project
from pipeline.ingest.ingest import EventTarget
from pipeline.logs.log import Log
from pipeline.logs.open import open_log
from pipeline.samples import live_job
from pipeline.samples.live import starts
from tests.benchmarks.flink import Said, project_in, started_cluster, submission, until
from tests.benchmarks.join import SPAN_S, events_of
from tests.benchmarks.stopwatch import Stopwatch
from tests.benchmarks.stream import in_records

_WITHIN_S = 240.0
_VICTIMS = ("worker", "taskmanager")


def main() -> None:
    """Measure once, print, and end the cluster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--victim", choices=_VICTIMS, default="worker")
    parser.add_argument("--at-once", action="store_true", help="kill right after catching up")
    chosen = parser.parse_args()
    # So that a `timeout` ends the cluster too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="freshet-recovery-") as folder:
        cluster = started_cluster(Path(folder) / "cluster")
        try:
            held = Held(Path(folder), cluster, chosen.rows)
            caught_up = held.catch_up(settled=not chosen.at_once)
            found = held.strike(chosen.victim)
        finally:
            cluster.down(wipe=True)
    print(json.dumps({"victim": chosen.victim, "at_once": chosen.at_once, **caught_up, **found}))


class Held:
    """A live join that holds many impressions, and what is known of it from outside."""

    def __init__(self, folder: Path, cluster: LocalCluster, rows: int) -> None:
        self._cluster, self._rows = cluster, rows
        self._project = project_in(folder / "held", SPAN_S * 4)
        self._log = open_log(self._project)
        self._shown, self._clicks = events_of(rows)
        self._said = Said(self._log)
        self._flink, self._job = FlinkRest(cluster.rest_url), "held"

    def catch_up(self, *, settled: bool) -> dict[str, float]:
        """Join all there is from the beginning; `settled`: return only once the state at the end has been kept."""
        append(self._project, self._log, self._shown, self._clicks)
        with Stopwatch() as watch:
            submit(
                submission(self._project, self._cluster, self._job),
                lambda pipeline: live_job.build(pipeline, self._project),
            )
            until(lambda: self._said.rows() >= self._clicks.num_rows, _WITHIN_S)
        ends = {topic: self._log.end_offset(topic, 0) for topic in ("impressions", "clicks")}
        if settled:
            until(lambda: all(r.start == ends[r.topic] for r in starts(self._project, self._log)), _WITHIN_S)
        return {"held": self._rows, "caught_up_s": watch.seconds, "state_bytes": self._state_bytes()}

    def strike(self, victim: str) -> dict[str, float]:
        """Kill, append, and wait until what was appended is joined; when each stage on the way was reached."""
        before = set(workers(self._cluster))
        stages = self._stages(before, victim)
        began_s = time.monotonic()
        if victim == "worker":
            for pid in before:
                os.kill(pid, signal.SIGKILL)
        else:
            self._cluster.kill("taskmanager-1")
            threading.Thread(target=self._cluster.up, args=(["taskmanager-1"],)).start()
        append(self._project, self._log, *_later(self._shown, self._rows))
        return timeline(began_s, stages)

    def _stages(self, before: set[int], victim: str) -> dict[str, Callable[[], bool]]:
        """What happens one after the other, and how it is seen that it has."""
        started = {"taskmanager_s": lambda: self._cluster.answers("taskmanager-1")}

        def anew() -> set[int]:
            return set(workers(self._cluster)) - before

        return {
            # A worker is started again only by who has noticed; Flink may be quicker than what it tells.
            "noticed_s": lambda: self._vertices() != {"RUNNING"} or bool(anew()),
            **(started if victim == "taskmanager" else {}),
            "worker_s": lambda: bool(anew()),
            "tasks_s": lambda: self._vertices() == {"RUNNING"},
            "opened_s": lambda: self._opened(anew()),
            "recovered_s": lambda: self._said.rows() > self._clicks.num_rows,
        }

    def _vertices(self) -> set[str]:
        """The states that the job's tasks are in."""
        id = live_jobs(self._flink, [self._job])[self._job]
        return {vertex["status"] for vertex in self._flink.get(f"/jobs/{id}")["vertices"]}

    def _opened(self, pids: set[int]) -> bool:
        """Whether one of these workers has loaded the join's state."""
        logs = [path for pid in pids for path in (self._project.state / "flink" / "workers").glob(f"*-{pid}.log")]
        return any("join shard is open" in log.read_text(encoding="utf-8", errors="replace") for log in logs)

    def _state_bytes(self) -> int:
        return sum(f.stat().st_size for f in self._project.join_state.glob("live-0-*/*"))


def timeline(began_s: float, stages: Mapping[str, Callable[[], bool]]) -> dict[str, float]:
    """Seconds from `began_s` until each of the stages was reached, one after the other."""
    found = {}
    for stage, reached in stages.items():
        until(reached, _WITHIN_S)
        found[stage] = time.monotonic() - began_s
        print(stage, round(found[stage], 2), file=sys.stderr, flush=True)
    return found


def workers(cluster: LocalCluster) -> list[int]:
    """Process ids of the Python workers that the TaskManager has started."""
    running = cluster.running().get("taskmanager-1")
    if running is None:
        return []
    found = []
    for path in Path(f"/proc/{running.pid}/task").glob("*/children"):
        # A thread may end while it is looked at.
        with suppress(OSError):
            found += [int(pid) for pid in path.read_text().split()]
    return found


def append(project: Project, log: Log, shown: pa.RecordBatch, clicks: pa.RecordBatch) -> None:
    """Append impressions and clicks, packed into records."""
    for kind, batch in (("impressions", shown), ("clicks", clicks)):
        target = EventTarget(project, log, kind)
        for part in in_records(batch):
            target.append(part)


def _later(shown: pa.RecordBatch, rows: int) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """A hundred impressions more, under new ids, long after the span, and a click on each."""
    few = shown.slice(0, 100)
    at, id = pc.add(few.column("at"), 2 * SPAN_S * 1000), pc.add(few.column("id"), rows)
    moved = {"at": at, "id": id}
    more = pa.RecordBatch.from_pydict({name: moved.get(name, few.column(name)) for name in few.schema.names})
    return more, pa.RecordBatch.from_pydict({"at": pc.add(at, 1_000), "id": id})


if __name__ == "__main__":
    main()

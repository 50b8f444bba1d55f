"""Recovery of the join on Flink and of Flink SQL's: from `kill -9` until it is at the head of the log again.

python -m tests.benchmarks.live.recovery --rows 10000000
python -m tests.benchmarks.live.recovery --rows 10000000 --victim taskmanager --at-once --alone

One cluster and one run: the events are appended beforehand, one per record, and the window is four times their
duration, so all impressions are held. A victim is killed once the join's state is stored at the end of the log; with
`--at-once` the first one right after the catch-up. Then the TaskManager of Flink SQL's join is killed on the same
cluster, while the join holds `--peer-rows`: catching up with ten million takes it more than 15 minutes. A TaskManager
is restarted immediately, as by a supervisor; Flink restarts workers. Recovery ends when a click on an impression
appended after the kill is joined.

Requires Java and Maven. Prints one JSON object. Its times are seconds since the kill until each stage: the loss is
noticed, the TaskManager is registered, a worker process exists, all tasks run, the shard is open with its state loaded,
the first later click is joined.
"""

import argparse
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import psutil

from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.flink_rest import FlinkRest
from pipeline.flink.jobs import active_jobs, cancel
from pipeline.logs.open import open_log
from pipeline.process.clock import SystemClock
from pipeline.samples.run.start_offsets import followed_ranges
from tests.benchmarks.harness.report import machine
from tests.benchmarks.harness.stopwatch import Stopwatch
from tests.benchmarks.live.flink import submit_join, until
from tests.benchmarks.live.flink_kafka import TASKMANAGER_MB, OurSamples, local_cluster, project_on
from tests.benchmarks.load.events_on_kafka import Events, after_all, append_single
from tests.benchmarks.peers.flink import flink_sql_recovery
from tests.benchmarks.peers.flink.flink_kafka_join import Backend
from tests.benchmarks.stages.join import SPAN_S, events_of

_WITHIN_S = 300.0
_VICTIMS = ("worker", "taskmanager")
_LATER = 16
"""Impressions, each with a click, that are appended after a kill: every partition gets some."""


def main() -> None:
    """Measure once, print, and end the cluster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--victim", choices=_VICTIMS, action="append", help="may be repeated; default: both")
    parser.add_argument("--at-once", action="store_true", help="kill the first victim right after catching up")
    parser.add_argument("--backend", choices=get_args(Backend), default="rocksdb", help="of Flink SQL's state")
    parser.add_argument(
        "--peer-rows", type=int, default=2_000_000, help="impressions Flink SQL holds, no more than ours"
    )
    parser.add_argument("--alone", action="store_true", help="without Flink SQL")
    parser.add_argument("--taskmanager-mb", type=int, default=TASKMANAGER_MB)
    chosen = parser.parse_args()
    # `timeout` then ends the cluster too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="springtide-recovery-") as folder:
        cluster = local_cluster(Path(folder) / "cluster", chosen.taskmanager_mb)
        try:
            cluster.up()
            victims = chosen.victim or _VICTIMS
            found = ours(Path(folder), cluster, chosen.rows, victims, at_once=chosen.at_once)
            if not chosen.alone:
                rows = min(chosen.rows, chosen.peer_rows)
                found["flink_sql"] = flink_sql(Path(folder), cluster, rows, chosen.backend)
            print(json.dumps(found))
        finally:
            cluster.down(wipe=True)


def ours(
    folder: Path, cluster: LocalCluster, rows: int, victims: Sequence[str], *, at_once: bool = False
) -> dict[str, Any]:
    """Our figures, by victim."""
    live = LiveJoin(folder, cluster, "ours", rows)
    figures: dict[str, Any] = {"machine": machine(), "held": rows, "at_once": at_once, "caught_up_s": live.catch_up()}
    for victim in victims:
        if victim != victims[0] or not at_once:
            live.settle()
        figures[victim] = live.recover(victim)
    figures["state_bytes"] = live.state_bytes()
    live.cancel()
    live.close()
    return figures


def flink_sql(folder: Path, cluster: LocalCluster, rows: int, backend: Backend) -> dict[str, Any]:
    """Figures of Flink SQL."""
    live = LiveJoin(folder, cluster, "peer", rows)
    measured = flink_sql_recovery.measure(live.project, cluster, backend, live.joined, live.append_later)
    live.close()
    return {"held": rows, **measured}


class LiveJoin:
    """A running join that holds many impressions, observed from outside.

    Attributes:
        joined: number of clicks whose impressions are held.
    """

    def __init__(self, folder: Path, cluster: LocalCluster, name: str, rows: int) -> None:
        """Append the events to separate topics; nothing reads them yet."""
        self.project = project_on(cluster, folder / name, f"{name}.", SPAN_S * 4)
        self._cluster, self._log = cluster, open_log(self.project)
        shown, clicks = events_of(rows)
        append_single(self.project, self._log, {"impressions": shown, "clicks": clicks})
        self._first: Events = {"impressions": shown.slice(0, 1), "clicks": clicks.slice(0, 1)}
        self._ids = itertools.count(-1, -1)
        self.joined = clicks.num_rows
        self._counter, self._flink, self._job = OurSamples(self._log), FlinkRest(cluster.rest_url), name

    def catch_up(self) -> float:
        """Join all events from the beginning; returns the seconds from submission."""
        with Stopwatch() as watch:
            submit_join(self.project, self._cluster, self._job)
            until(lambda: self._counter.poll() >= self.joined, _WITHIN_S)
        return watch.seconds

    def settle(self) -> None:
        """Return once the state at the end of the log is stored."""
        of_inputs = [(r.topic, r.partition) for r in followed_ranges(self.project, self._log)]
        ends = {at: self._log.end_offset(*at) for at in of_inputs}
        until(
            lambda: all(r.start == ends[r.topic, r.partition] for r in followed_ranges(self.project, self._log)),
            _WITHIN_S,
        )

    def recover(self, victim: str) -> dict[str, float]:
        """Kill, append, and wait until the new events are joined; returns the time of each stage."""
        before = set(workers(self._cluster))
        stages = self._stages(before, victim, self.joined)
        began_s = time.monotonic()
        if victim == "worker":
            for pid in before:
                os.kill(pid, signal.SIGKILL)
        else:
            self._cluster.kill("taskmanager-1")
            threading.Thread(target=self._cluster.up, args=(["taskmanager-1"],)).start()
        self.append_later()
        found = timeline(began_s, stages)
        until(lambda: self._counter.poll() >= self.joined)
        assert self._counter.poll() == self.joined, "one sample per click"
        return found

    def append_later(self) -> int:
        """Append a few impressions long after all others, and a click on each; returns their number."""
        ids = list(itertools.islice(self._ids, _LATER))
        append_single(self.project, self._log, {kind: after_all(one, ids) for kind, one in self._first.items()})
        self.joined += len(ids)
        return len(ids)

    def state_bytes(self) -> int:
        """Size of the join's state on disk."""
        return sum(f.stat().st_size for f in self.project.join_state.glob("live-0-*/*"))

    def cancel(self) -> None:
        """Cancel the job; its topics remain."""
        cancel(self._flink, active_jobs(self._flink, [self._job])[self._job], SystemClock())

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _stages(self, before: set[int], victim: str, joined: int) -> dict[str, Callable[[], bool]]:
        """The stages of a recovery in order, and the condition for each."""
        started = {"taskmanager_s": lambda: self._cluster.ready("taskmanager-1")}

        def new_workers() -> set[int]:
            return set(workers(self._cluster)) - before

        return {
            # A restarted worker proves that the loss was noticed; Flink's REST API may lag behind.
            "noticed_s": lambda: self._vertices() != {"RUNNING"} or bool(new_workers()),
            **(started if victim == "taskmanager" else {}),
            "worker_s": lambda: bool(new_workers()),
            "tasks_s": lambda: self._vertices() == {"RUNNING"},
            "opened_s": lambda: self._opened(new_workers()),
            "recovered_s": lambda: self._counter.poll() > joined,
        }

    def _vertices(self) -> set[str]:
        """The states that the job's tasks are in."""
        id = active_jobs(self._flink, [self._job])[self._job]
        return {vertex["status"] for vertex in self._flink.get(f"/jobs/{id}")["vertices"]}

    def _opened(self, pids: set[int]) -> bool:
        """Whether one of these workers has loaded the join's state."""
        logs = [path for pid in pids for path in (self.project.state / "flink" / "workers").glob(f"*-{pid}.log")]
        return any("join shard opened" in log.read_text(encoding="utf-8", errors="replace") for log in logs)


def timeline(began_s: float, stages: Mapping[str, Callable[[], bool]]) -> dict[str, float]:
    """Seconds from `began_s` until each of the stages was reached."""
    found = {}
    for stage, reached in stages.items():
        until(reached, _WITHIN_S)
        found[stage] = time.monotonic() - began_s
        print(stage, round(found[stage], 2), file=sys.stderr, flush=True)
    return found


def workers(cluster: LocalCluster) -> list[int]:
    """Process ids of the Python workers that the TaskManager has started."""
    running = cluster.running().get("taskmanager-1")
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(running.pid).children()] if running else []
    return []


if __name__ == "__main__":
    main()

"""Recovery of the join on Flink from Kafka, beside Flink SQL's: from `kill -9` until it is back at the head of the log.

python -m tests.benchmarks.live.recovery --rows 10000000
python -m tests.benchmarks.live.recovery --rows 10000000 --victim taskmanager --at-once --alone

One cluster and one run: the events are there beforehand, one a record, and the window is four times their span, so all
impressions are held. A victim is killed once the join's state has been kept at the end of the log, the first one with
`--at-once` right after the join has caught up. Then Flink SQL's join on the same cluster loses its TaskManager, while
it holds `--peer-rows`: to catch up with ten million takes it more than a quarter of an hour. A TaskManager is started
again at once, as a supervisor would; a worker is Flink's business. Back is who has joined a click on an impression that
came after the kill.

Needs Java and Maven. Prints one JSON object. Its times are seconds since the kill, each stage after the one before: the
loss was noticed, the TaskManager registered, a worker process was there, all tasks ran, the shard was open with its
state loaded, the first click on what came later was joined.
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
from tests.benchmarks.join import SPAN_S, events_of
from tests.benchmarks.live.flink import submit_join, until
from tests.benchmarks.live.flink_kafka import TASKMANAGER_MB, OurSamples, local_cluster, project_on
from tests.benchmarks.load.events_on_kafka import Events, after_all, append_single
from tests.benchmarks.peers import flink_sql_recovery
from tests.benchmarks.peers.flink_kafka_join import Backend

_WITHIN_S = 300.0
_VICTIMS = ("worker", "taskmanager")
_LATER = 16
"""Impressions, and a click on each, that come after a kill: every partition gets some."""


def main() -> None:
    """Measure once, print, and end the cluster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--victim", choices=_VICTIMS, action="append", help="may be repeated; both without")
    parser.add_argument("--at-once", action="store_true", help="kill the first victim right after catching up")
    parser.add_argument("--backend", choices=get_args(Backend), default="rocksdb", help="of Flink SQL's state")
    parser.add_argument(
        "--peer-rows", type=int, default=2_000_000, help="impressions Flink SQL holds, no more than ours"
    )
    parser.add_argument("--alone", action="store_true", help="without Flink SQL")
    parser.add_argument("--taskmanager-mb", type=int, default=TASKMANAGER_MB)
    chosen = parser.parse_args()
    # So that a `timeout` ends the cluster too.
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
    """Our figures, by who was killed."""
    held = Held(folder, cluster, "ours", rows)
    figures: dict[str, Any] = {"machine": machine(), "held": rows, "at_once": at_once, "caught_up_s": held.catch_up()}
    for victim in victims:
        if victim != victims[0] or not at_once:
            held.settle()
        figures[victim] = held.strike(victim)
    figures["state_bytes"] = held.state_bytes()
    held.cancel()
    held.close()
    return figures


def flink_sql(folder: Path, cluster: LocalCluster, rows: int, backend: Backend) -> dict[str, Any]:
    """The peer's figures."""
    held = Held(folder, cluster, "peer", rows)
    measured = flink_sql_recovery.measure(held.project, cluster, backend, held.joined, held.append_later)
    held.close()
    return {"held": rows, **measured}


class Held:
    """A live join that holds many impressions, and what is known of it from outside.

    Attributes:
        joined: how many clicks there are whose impressions are held.
    """

    def __init__(self, folder: Path, cluster: LocalCluster, name: str, rows: int) -> None:
        """Append the events to topics of their own; nothing reads them yet."""
        self.project = project_on(cluster, folder / name, f"{name}.", SPAN_S * 4)
        self._cluster, self._log = cluster, open_log(self.project)
        shown, clicks = events_of(rows)
        append_single(self.project, self._log, {"impressions": shown, "clicks": clicks})
        self._first: Events = {"impressions": shown.slice(0, 1), "clicks": clicks.slice(0, 1)}
        self._ids = itertools.count(-1, -1)
        self.joined = clicks.num_rows
        self._counter, self._flink, self._job = OurSamples(self._log), FlinkRest(cluster.rest_url), name

    def catch_up(self) -> float:
        """Join all there is from the beginning; the seconds from submission."""
        with Stopwatch() as watch:
            submit_join(self.project, self._cluster, self._job)
            until(lambda: self._counter.poll() >= self.joined, _WITHIN_S)
        return watch.seconds

    def settle(self) -> None:
        """Return once the state at the end of the log has been kept."""
        of_inputs = [(r.topic, r.partition) for r in followed_ranges(self.project, self._log)]
        ends = {at: self._log.end_offset(*at) for at in of_inputs}
        until(
            lambda: all(r.start == ends[r.topic, r.partition] for r in followed_ranges(self.project, self._log)),
            _WITHIN_S,
        )

    def strike(self, victim: str) -> dict[str, float]:
        """Kill, append, and wait until what was appended is joined; when each stage on the way was reached."""
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
        assert self._counter.poll() == self.joined, "one sample for every click"
        return found

    def append_later(self) -> int:
        """Append a few impressions long after all others, and a click on each; how many."""
        ids = list(itertools.islice(self._ids, _LATER))
        append_single(self.project, self._log, {kind: after_all(one, ids) for kind, one in self._first.items()})
        self.joined += len(ids)
        return len(ids)

    def state_bytes(self) -> int:
        """What the join keeps on the disk."""
        return sum(f.stat().st_size for f in self.project.join_state.glob("live-0-*/*"))

    def cancel(self) -> None:
        """End the job; its topics stay."""
        cancel(self._flink, active_jobs(self._flink, [self._job])[self._job], SystemClock())

    def close(self) -> None:
        """Leave the log."""
        self._log.close()

    def _stages(self, before: set[int], victim: str, joined: int) -> dict[str, Callable[[], bool]]:
        """What happens one after the other, and how it is seen that it has."""
        started = {"taskmanager_s": lambda: self._cluster.ready("taskmanager-1")}

        def anew() -> set[int]:
            return set(workers(self._cluster)) - before

        return {
            # A worker is started again only by who has noticed; Flink may be quicker than what it tells.
            "noticed_s": lambda: self._vertices() != {"RUNNING"} or bool(anew()),
            **(started if victim == "taskmanager" else {}),
            "worker_s": lambda: bool(anew()),
            "tasks_s": lambda: self._vertices() == {"RUNNING"},
            "opened_s": lambda: self._opened(anew()),
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
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(running.pid).children()] if running else []
    return []


if __name__ == "__main__":
    main()

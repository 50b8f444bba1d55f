"""End-to-end freshness on a real Kafka and a real Flink: from a click produced to the first version with its effect.

python -m tests.benchmarks.live.freshness --rate 5000 --seconds 40

The market produces in real time; both jobs run on Flink; a replica follows in another process. Freshness is the time
from a click's append to Kafka until the replica serves the first version that learned its sample; a click is withheld
if that version sent none of its rows to serving. Requires Java and Maven. Prints one JSON object, in seconds; Ekko
(OSDI 2022) publishes 2.4 s for the same path.
"""

import argparse
import json
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.cluster.cluster import LocalCluster
from pipeline.configuration.deployment.services import Cluster
from pipeline.configuration.project import Project
from pipeline.flink.deployment import submit_jobs
from pipeline.ingest.event_writer import append_heartbeat
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.interface.log import Log, last_record
from pipeline.logs.open import open_log
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.harness.report import machine
from tests.benchmarks.load.click_paths import ClickPath, ClickPaths, dead_lettered_clicks
from tests.benchmarks.load.market_load import PacedLoad, project_in
from tests.benchmarks.load.watched import Seen, Watched
from tests.support.command.ports import free_port_range

EKKO_S = 2.4
WARM_UP_S = 20.0
"""Time for windows to close and code to be compiled before measuring."""
_BUSY_S = 0.3
_CLOSING_MS = 30_000
"""Distance of the heartbeat after the last event; closes every window."""
_START_WITHIN_S, _SETTLE_WITHIN_S, _POLL_EVERY_S = 120.0, 60.0, 0.5
_PORTS = ("kafka_port", "kafka_controller_port", "flink_rest_port", "flink_rpc_port")


def main() -> None:
    """Measure once, print, and end the cluster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=5000.0, help="events per second")
    parser.add_argument("--seconds", type=float, default=40.0, help="how long clicks are measured")
    chosen = parser.parse_args()
    # `timeout` then ends the cluster too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    logging.getLogger("kafka").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="springtide-freshness-") as folder:
        first = free_port_range(len(_PORTS))
        ports = {name: first + i for i, name in enumerate(_PORTS)}
        cluster = LocalCluster(Cluster(**ports), Path(folder) / "cluster")
        try:
            cluster.up()
            project = project_in(Path(folder) / "live", cluster)
            before = core_share()
            found = measure(project, chosen.rate, chosen.seconds)
            shares = {"core_share": [before, core_share()]}
            print(json.dumps(found | {"machine": machine() | shares}))
        finally:
            cluster.down(wipe=True)


def core_share() -> float:
    """The share of one core that a busy process gets here now: 1 on an idle machine."""
    began_s, cpu_s = time.monotonic(), time.process_time()
    while time.process_time() - cpu_s < _BUSY_S:
        pass
    return round(_BUSY_S / (time.monotonic() - began_s), 2)


def measure(project: Project, rate: float, seconds: float, warm_up_s: float = WARM_UP_S) -> dict[str, Any]:
    """Freshness of the clicks of `seconds` seconds, after `warm_up_s` at the head; starts both jobs."""
    log = open_log(project)
    load = PacedLoad(project, 1, rate, _START_WITHIN_S + warm_up_s + seconds)
    submit_jobs(project, ("samples", "train"), from_logs=True, report=print)
    with Watched(project.root, Project.open) as replica:
        load.start()
        try:
            _until(lambda: bool(replica.seen()), _START_WITHIN_S)
            since_s = time.monotonic() + warm_up_s
            time.sleep(warm_up_s + seconds)
        finally:
            load.end()
        closed_ms = project.clock.now_ms() + _CLOSING_MS
        append_heartbeat(project, log, closed_ms)
        _until(lambda: _settled(project, log, closed_ms, replica.seen()), _SETTLE_WITHIN_S)
        seen = replica.seen()
    produced = load.produced(since_s, since_s + seconds)
    paths = ClickPaths(project, log, seen).of(produced)
    lost = produced.keys() - paths.keys() - dead_lettered_clicks(project, log)
    log.close()
    return {
        "rate_events_per_s": rate,
        "produced_events_per_s": round(load.events / load.seconds, 1),
        "clicks": len(produced),
        "set_aside": len(produced) - len(paths) - len(lost),
        "lost": len(lost),
        **report(list(paths.values())),
    }


def report(paths: list[ClickPath]) -> dict[str, Any]:
    """The printed figures. Percentiles exclude withheld clicks, unless named otherwise."""
    table = {
        name: np.array([getattr(path, name) for path in paths]) for name in ("emitted", "learned", "visible", "sent")
    }
    withheld = table["sent"] == 0
    visible = table["visible"][~withheld & ~np.isnan(table["visible"])]
    return {
        "count": len(paths),
        "invisible": int(np.isnan(table["visible"]).sum()),
        "withheld_share": round(float(withheld.mean()), 4),
        "rows_sent_share": round(float(np.nanmean(table["sent"])), 4),
        "p50_s": _at(visible, 50),
        "p99_s": _at(visible, 99),
        "max_s": _at(visible, 100),
        "with_withheld": {"p50_s": _at(table["visible"], 50), "p99_s": _at(table["visible"], 99)},
        "stages_s": {
            "produced_to_said": _stage(table["emitted"]),
            "said_to_learned": _stage(table["learned"] - table["emitted"]),
            "learned_to_visible": _stage(table["visible"] - table["learned"]),
        },
        "beside": {"ekko_s": EKKO_S},
    }


def _stage(seconds: npt.NDArray[np.float64]) -> dict[str, float]:
    return {f"p{percent}": _at(seconds, percent) for percent in (50, 99)}


def _at(seconds: npt.NDArray[np.float64], percent: float) -> float:
    known = seconds[~np.isnan(seconds)]
    return round(float(np.percentile(known, percent)), 4) if len(known) else float("nan")


def _settled(project: Project, log: Log, closed_ms: int, seen: Seen) -> bool:
    """Whether everything up to the heartbeat at `closed_ms` is emitted, learned and served."""
    max_event_time_ms = closed_ms - round(project.config.events.disorder_s * 1000)
    store, topic = VersionStore(project), project.config.topics.samples
    try:
        for shard in range(project.config.logs.shards):
            last, current = last_record(log, topic, shard), store.current(shard)
            if last is None or decode_sample_block(last.value).watermark_ms < max_event_time_ms or current is None:
                return False
            if store.ledger.version(current).offset <= last.offset or str(current) not in seen[-1][0]:
                return False
    finally:
        store.close()
    return True


def _until(reached: Callable[[], bool], within_s: float) -> None:
    ends_s = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < ends_s, f"not within {within_s:.0f} s"
        time.sleep(_POLL_EVERY_S)


if __name__ == "__main__":
    main()

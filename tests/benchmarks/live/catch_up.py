"""Catch-up of the join on Flink with hours of events on Kafka: held impressions, state and memory, hour by hour.

python -m tests.benchmarks.live.catch_up --hours 6 --per-hour 400000

Requires Java and Maven. Prints a JSON object per line when the watermark passes an hour of the market: held
impressions, bytes of stored state, and the peak resident memory so far of the worker and of the TaskManager.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline.cluster.cluster import LocalCluster
from pipeline.configuration.deployment.services import Cluster
from pipeline.configuration.project import Project
from pipeline.ingest.event_writer import EventWriter, append_heartbeat
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from pipeline.market.market import HOUR_MS, Market
from tests.live.live_shop import workers
from tests.support.command.command_line import springtide
from tests.support.command.ports import free_port_range
from tests.support.command.scrape import scrape, url_of
from tests.torture.project import live_project

MINUTE_MS = 60_000
_POLL_EVERY_S = 0.1
_WITHIN_S = 280.0


def main() -> None:
    """Produce, catch up, print, and end the cluster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=6)
    parser.add_argument("--per-hour", type=int, default=400_000, help="impressions")
    chosen = parser.parse_args()
    # `timeout` then ends the cluster too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="springtide-behind-") as folder:
        first = free_port_range(4)
        ports = {"kafka_port": first, "kafka_controller_port": first + 1, "flink_rest_port": first + 2}
        cluster = LocalCluster(Cluster(**ports, flink_rpc_port=first + 3), Path(folder) / "cluster")
        try:
            cluster.up()
            for row in catch_up(Path(folder) / "live", cluster, chosen.hours, chosen.per_hour):
                print(json.dumps(row), flush=True)
        finally:
            cluster.down(wipe=True)


def catch_up(root: Path, cluster: LocalCluster, hours: int, per_hour: int) -> Iterator[dict[str, Any]]:
    """Put hours of the market into Kafka, start the join from the beginning, and yield a row per hour passed."""
    project = live_project(root, cluster)
    with (root / "springtide.toml").open("a") as file:
        file.write("\n[telemetry]\nport = 0\n")
    config = MarketConfig(hours=hours, impressions_per_hour=per_hour)
    events = produce(project, config)
    yield {"hours": hours, "events": events}
    springtide(root, "run", "samples", "--runner", "flink")
    began_s, passed, most = time.monotonic(), 0, dict.fromkeys(("worker_mb", "taskmanager_mb"), 0.0)
    while passed < hours:
        assert time.monotonic() - began_s < _WITHIN_S, "took too long"
        time.sleep(_POLL_EVERY_S)
        sizes = {"worker_mb": sum(map(resident_mb, workers(cluster)))}
        sizes["taskmanager_mb"] = resident_mb(cluster.running()["taskmanager-1"].pid)
        most = {name: max(most[name], size) for name, size in sizes.items()}
        readings = worker_readings(root)
        if readings.get("watermark_ms", 0) >= config.start_at_ms + (passed + 1) * HOUR_MS:
            passed = int(readings.pop("watermark_ms") - config.start_at_ms) // HOUR_MS
            yield {
                "passed_hours": min(passed, hours),
                "seconds": round(time.monotonic() - began_s, 1),
                **readings,
                **most,
            }


def produce(project: Project, config: MarketConfig) -> int:
    """Append the market minute by minute, then a heartbeat a day later; returns the number of events."""
    log, market, events = open_log(project), Market(1, config), 0
    targets = [EventWriter(project, log, kind) for kind in ("impressions", "clicks")]
    for hour in range(config.hours):
        arrived, ends_ms = market.events(hour), market.end_at_ms(hour)
        both = (arrived.impressions, arrived.impressions_arrive_ms), (arrived.clicks, arrived.clicks_arrive_ms)
        for target, (rows, arrive_ms) in zip(targets, both, strict=True):
            cuts = np.searchsorted(arrive_ms, ends_ms - MINUTE_MS * np.arange(59, 0, -1)).tolist()
            for start, stop in pairwise([0, *cuts, rows.num_rows]):
                target.append(rows.slice(start, stop - start))
            events += rows.num_rows
    append_heartbeat(project, log, market.end_at_ms(config.hours - 1) + 24 * HOUR_MS)
    log.close()
    return events


def worker_readings(root: Path) -> dict[str, float]:
    """Metrics of the job's worker; empty while it is unavailable."""
    try:
        (name,) = [path.stem for path in (root / "state" / "telemetry").glob("samples-*.json")]
        found = scrape(str(url_of(root, name)))
        watermarks_s = found.all("springtide_join_watermark_timestamp_seconds").values()
        return {
            "watermark_ms": 1000 * min(watermarks_s),
            "held": sum(found.all("springtide_join_held_impressions").values()),
            "state_mb": round(sum(found.all("springtide_join_state_bytes").values()) / 1e6, 1),
        }
    except (OSError, ValueError):
        return {}


def resident_mb(pid: int) -> float:
    """Resident memory of a process; 0 once it has ended."""
    try:
        return round(psutil.Process(pid).memory_info().rss / 1e6, 1)
    except psutil.NoSuchProcess:
        return 0.0


if __name__ == "__main__":
    main()

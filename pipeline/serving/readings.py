"""Prometheus metrics of a replica, read from its status at every scrape."""

from collections.abc import Iterator

from pipeline.serving.replica import Replica
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading


def replica_readings(replica: Replica) -> Iterator[Reading]:
    """Served part, version, rows, bytes, lag and refusals of every shard; no lag while the log is unavailable."""
    status = replica.status()
    if status["part"] is not None:
        yield metrics.SERVED_PART.reading(1, status["part"])
    for shard in status["shards"]:
        index = shard["shard"]
        yield metrics.SERVED_GENERATION.reading(shard["generation"], index)
        yield metrics.SERVED_SEQUENCE.reading(shard["sequence"], index)
        if shard["lag_records"] is not None:
            yield metrics.DELTA_LAG.reading(shard["lag_records"], index)
        if shard["last_at_ms"] is not None:
            yield metrics.SERVED_EVENT_TIME.reading(shard["last_at_ms"] / 1000, index)
        for table, rows in shard["rows"].items():
            yield metrics.SERVED_ROWS.reading(rows, index, table)
            yield metrics.SERVED_BYTES.reading(shard["payload_bytes"][table], index, table)
        for kind, count in shard["refused"].items():
            yield metrics.DELTAS_REFUSED.reading(count, index, kind)

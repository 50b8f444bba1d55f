"""Metrics of the join: counts that its shards keep anyway, read at each scrape."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.arrays.block import EventKind
from pipeline.logs.events.codec import NO_WATERMARK
from pipeline.logs.interface.end_offsets import EndOffsets
from pipeline.samples.run.shard import JoinShard
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading


def shard_readings(shard: JoinShard) -> Iterator[Reading]:
    """What one shard has emitted since it was opened, and what it holds."""
    tally, index = shard.tally, shard.shard
    yield metrics.JOIN_EVENTS.reading(tally.events, index)
    for kind, count in dict(tally.samples).items():
        yield metrics.JOIN_SAMPLES.reading(count, index, kind)
    for reason, count in dict(tally.dead_letters).items():
        yield metrics.DEAD_LETTERS.reading(count, index, reason)
    yield metrics.JOIN_HELD.reading(tally.held, index)
    yield metrics.JOIN_PENDING.reading(tally.pending, index)
    if shard.file is not None:
        yield metrics.JOIN_STATE.reading(shard.file.bytes, index)


def input_readings(ends: EndOffsets, topics: Mapping[EventKind, str], shards: Sequence[JoinShard]) -> Iterator[Reading]:
    """Progress of every input partition, by the slowest shard; no lag while the log is unavailable.

    Raises LogError.
    """
    for kind, partition in sorted({at for shard in shards for at in shard.tally.inputs}):
        topic = topics[kind]
        known = [read for shard in shards if (read := shard.tally.inputs.get((kind, partition)))]
        lag = ends.lag(topic, partition, min(next_offset for next_offset, _ in known))
        if lag is not None:
            yield metrics.JOIN_LAG.reading(lag, topic, partition)
        watermarks = [watermark_ms for _, watermark_ms in known if watermark_ms not in (None, NO_WATERMARK)]
        if watermarks:
            yield metrics.JOIN_WATERMARK.reading(min(watermarks) / 1000, topic, partition)

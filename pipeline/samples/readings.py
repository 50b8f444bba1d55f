"""What Prometheus is told of the join: counts that its shards keep anyway, read when it asks."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.ground import telemetry
from pipeline.ground.block import Kind
from pipeline.ground.telemetry import Reading
from pipeline.logs.ends import Ends
from pipeline.logs.events import NO_WATERMARK
from pipeline.samples.shard import JoinShard


def shard_readings(shard: JoinShard) -> Iterator[Reading]:
    """What one shard has said since it was opened, and what it holds."""
    tally, index = shard.tally, shard.shard
    yield telemetry.JOIN_EVENTS.reading(tally.events, index)
    for kind, count in dict(tally.samples).items():
        yield telemetry.JOIN_SAMPLES.reading(count, index, kind)
    for reason, count in dict(tally.dead_letters).items():
        yield telemetry.DEAD_LETTERS.reading(count, index, reason)
    yield telemetry.JOIN_HELD.reading(tally.held, index)
    yield telemetry.JOIN_PENDING.reading(tally.pending, index)
    if shard.file is not None:
        yield telemetry.JOIN_STATE.reading(shard.file.bytes, index)


def input_readings(ends: Ends, topics: Mapping[Kind, str], shards: Sequence[JoinShard]) -> Iterator[Reading]:
    """How far every input partition is read, by the shard that is furthest behind; no lag while the log is away.

    Raises LogError.
    """
    for kind, partition in sorted({at for shard in shards for at in shard.join.progress.of}):
        topic = topics[kind]
        known = [p for shard in shards if (p := shard.join.progress.of.get((kind, partition)))]
        lag = ends.lag(topic, partition, min(p.next_offset for p in known))
        if lag is not None:
            yield telemetry.JOIN_LAG.reading(lag, topic, partition)
        marks = [p.watermark_ms for p in known if p.watermark_ms not in (None, NO_WATERMARK)]
        if marks:
            yield telemetry.JOIN_WATERMARK.reading(min(marks) / 1000, topic, partition)

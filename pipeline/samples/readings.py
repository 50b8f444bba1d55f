"""What Prometheus is told of the join: counts that its shards keep anyway, read when it asks."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.ground import telemetry
from pipeline.ground.block import Kind
from pipeline.ground.telemetry import Reading
from pipeline.logs.events import NO_WATERMARK
from pipeline.logs.log import Log
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


def input_readings(log: Log, topics: Mapping[Kind, str], shards: Sequence[JoinShard]) -> Iterator[Reading]:
    """How far every input partition is read, by the shard that is furthest behind. Raises LogError."""
    for kind, topic in topics.items():
        for partition in range(log.partitions(topic)):
            known = [p for shard in shards if (p := shard.join.progress.of.get((kind, partition)))]
            if not known:
                continue
            end, read = log.end_offset(topic, partition), min(p.next_offset for p in known)
            yield telemetry.JOIN_LAG.reading(max(0, end - read), topic, partition)
            marks = [p.watermark_ms for p in known if p.watermark_ms not in (None, NO_WATERMARK)]
            if marks:
                yield telemetry.JOIN_WATERMARK.reading(min(marks) / 1000, topic, partition)

"""Shards that follow their inputs live, each on its own, driven by a runner that may lose, repeat or move anything.

The runner only hands over runs of records; what a shard says and keeps is settled between it and the logs (design D4b).
A shard that finds a run missing before the one it is given reads it itself; one that it knows, it passes over. State is
kept beside the runner's, now and then: what came since is read from the logs again, so any kept state will do, or none.
"""

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pipeline.ground import telemetry
from pipeline.ground.crashpoint import pass_point
from pipeline.ground.errors import OffsetError
from pipeline.ground.keys import shard_of
from pipeline.ground.project import Project
from pipeline.ground.telemetry import Reading
from pipeline.logs.events import EventCodec
from pipeline.logs.log import Log
from pipeline.logs.source import PartitionRange, ReadRange, decode_next
from pipeline.logs.span import Span
from pipeline.samples.handover import Parcel
from pipeline.samples.position import INPUTS
from pipeline.samples.progress import Input, PartitionProgress
from pipeline.samples.readings import input_readings, shard_readings
from pipeline.samples.roundfile import (
    RoundManifest,
    forget_older,
    live_folder,
    newest_kept,
    read_shard,
    write_manifest,
)
from pipeline.samples.saved import load_standing
from pipeline.samples.shard import JoinShard, needed_from
from pipeline.samples.spans import Spans, mark_of

_KEEP_SHARE = 0.05
"""State is kept for at most this share of the time."""
_KEEP_EVERY_S = 5.0


class LiveShard:
    """One shard, opened: fences taken, state loaded, what was said read. Not thread-safe."""

    def __init__(self, project: Project, log: Log, shard: int) -> None:
        self._project, self._log, self._number = project, log, 0
        names = project.config.topics
        self._topics = names.inputs
        self._log_ids = {t: log.log_id(t) for t in (*self._topics.values(), names.samples, names.dead_letters)}
        self._codecs = {kind: EventCodec(project.config.events, kind, log) for kind in INPUTS}
        self._shard = JoinShard(project, log, shard, newest_kept(project.join_state, shard))
        self._kept_to: list[int] = []
        self._kept_at_s, self._kept_within_s = project.clock.monotonic_s(), 0.0

    @property
    def join_shard(self) -> JoinShard:
        """What it drives, to be looked at."""
        return self._shard

    def input_readings(self, shards: Sequence[JoinShard]) -> Iterator[Reading]:
        """How far `shards` have read the inputs. Raises LogError."""
        return input_readings(self._log, self._topics, shards)

    @property
    def said_to(self) -> int:
        """Where the shard's samples partition ends, as it knows from its opening and from what it said since."""
        return self._shard.said_to

    def take(self, spans: Iterable[Span]) -> None:
        """One bundle: feed it, with what is missing before it, and say what it decides. Spans in any order.

        Raises:
            FencedError: the shard was opened elsewhere since.
            OffsetError: what is missing is no longer in the log.
        """
        events = 0
        for span in sorted(spans, key=lambda s: (s.block.watermark_ms, s.block.next_offset)):
            at = self._shard.join.progress.of[span.block.kind, span.block.partition]
            for missed in self._missed(at, span):
                self._shard.take_in(_parcels(missed))
            for parcel in _parcels(span):
                self._shard.feed(parcel)
            events += len(span.block)
        self._shard.say()
        self._keep_if_due(idle=not events)

    def _missed(self, at: PartitionProgress, span: Span) -> Iterator[Span]:
        """The runs between what was read and this span's start, this shard's rows of them."""
        kind, partition = span.block.kind, span.block.partition
        topic = self._topics[kind]
        element = PartitionRange(topic, kind, partition, 0, span.start, None, self._log_ids[topic])
        while at.next_offset < span.start:
            left = ReadRange(at.next_offset, span.start, mark_of(at.watermark_ms, self._shard.join.spans))
            decoded, _ = decode_next(self._log, self._codecs[kind], element, left)
            if decoded is None:
                return
            parts = split(Span.of(left.start, decoded), self._project)
            yield next(part for shard, part in parts if shard == self._shard.shard)

    def _keep_if_due(self, *, idle: bool) -> None:
        began_s = self._project.clock.monotonic_s()
        read_to = [at.next_offset for at in self._shard.join.progress.of.values()]
        # Who has nothing to do is held up by nothing.
        pause_s = _KEEP_EVERY_S if idle else max(_KEEP_EVERY_S, self._kept_within_s / _KEEP_SHARE)
        early = began_s - self._kept_at_s < pause_s
        if early or read_to == self._kept_to:
            return
        self._number, self._kept_to = self._number + 1, read_to
        join_state, shard = self._project.join_state, self._shard.shard
        folder = live_folder(join_state, shard, self._shard.epoch)
        file = self._shard.save(folder, self._number, {})
        write_manifest(folder, RoundManifest(self._number, self._log_ids, (file,)))
        forget_older(join_state, shard, self._shard.epoch)
        pass_point("samples.after_state")
        self._kept_at_s = self._project.clock.monotonic_s()
        self._kept_within_s = self._kept_at_s - began_s


_held: dict[tuple[str, int], LiveShard] = {}
_turns: defaultdict[tuple[str, int], threading.Lock] = defaultdict(threading.Lock)
"""By project folder and shard: what this process holds open, and whose turn it is."""


def take(project: Project, log: Log, shard: int, spans: Sequence[Span], said_to: int) -> int:
    """A bundle for a shard, opened first where this process does not hold it; returns where its samples now end.

    What goes wrong in a bundle may leave decisions unsaid in memory, so the shard is then let go; the next bundle
    opens it again. A worker that was fenced so ends its bundle; whether another one follows is the runner's affair.

    Args:
        project: whose shard.
        log: the project's, opened in this process.
        shard: which.
        spans: in any order.
        said_to: where the shard's samples ended when the runner last heard.

    Raises:
        OffsetError: the samples partition has lost records since.
    """
    of = (str(project.root), shard)
    failures = telemetry.SHARD_FAILURES.labels("join", str(shard))
    with _turns[of], failures.count_exceptions():
        if of not in _held:
            _held[of] = LiveShard(project, log, shard)
        held = _held[of]
        try:
            if held.said_to < said_to:
                _check_not_lost(project, log, shard, said_to)
            with telemetry.timed(telemetry.ROUND_SECONDS, project.clock):
                held.take(spans)
        except BaseException:
            del _held[of]
            raise
        return held.said_to


def readings(root: str) -> Iterator[Reading]:
    """What Prometheus is told of the shards of the project in `root` that this process holds. Raises LogError."""
    held = [live for (of, _), live in list(_held.items()) if of == root]
    if held:
        yield from held[0].input_readings([live.join_shard for live in held])
    for live in held:
        yield from shard_readings(live.join_shard)


def split(span: Span, project: Project) -> Iterator[tuple[int, Span]]:
    """The span's part for every shard; offset and watermark go to all of them, dead letters to one."""
    shards = project.config.logs.shards
    to = span.block.partition % shards
    of = shard_of(span.block.columns, project.config.events.shard_columns, shards)
    for shard in range(shards):
        yield shard, span.part(np.flatnonzero(of == shard), with_dead=shard == to)


def starts(project: Project, log: Log) -> list[PartitionRange]:
    """Every input partition, open, from the first offset that some shard has not read. Takes no fence."""
    names = project.config.topics
    read = [_read_to(project, log, shard) for shard in range(project.config.logs.shards)]
    ranges = []
    for kind in INPUTS:
        topic = names.impressions if kind == "impressions" else names.clicks
        for partition in range(log.partitions(topic)):
            offset, watermark_ms = min((of[kind, partition] for of in read), key=lambda at: at[0])
            mark_ms = mark_of(watermark_ms, Spans.of(project.config))
            ranges.append(PartitionRange(topic, kind, partition, offset, None, mark_ms, log.log_id(topic)))
    return ranges


def _read_to(project: Project, log: Log, shard: int) -> dict[Input, tuple[int, int | None]]:
    kept = newest_kept(project.join_state, shard)
    if kept is None:
        return needed_from(project, log, shard)
    topics = project.config.topics.inputs
    partitions = {kind: log.partitions(topic) for kind, topic in topics.items()}
    standing = load_standing(project.config, shard, partitions, read_shard(kept.folder, kept.file))
    return {at: (p.next_offset, p.watermark_ms) for at, p in standing.progress.of.items()}


def _parcels(span: Span) -> Iterator[Parcel]:
    if span.dead is not None:
        yield span.dead
    yield span.block


def _check_not_lost(project: Project, log: Log, shard: int, said_to: int) -> None:
    topic = project.config.topics.samples
    # A shard that was held elsewhere meanwhile knows less than the runner: its fence will tell.
    if (end := log.end_offset(topic, shard)) < said_to:
        raise OffsetError(
            f"partition {topic}/{shard} ends at offset {end}, the runner saw it end at "
            f"{said_to}. hint: records were lost; restore the log, or start from the logs alone"
        )

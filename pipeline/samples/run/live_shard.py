"""Shards that follow their inputs live, each on its own, driven by a runner that may lose, repeat or move anything.

The runner only hands over runs of records; what a shard says and keeps is settled between it and the logs (design D4b).
A shard that finds a run missing before the one it is given reads it itself; one that it knows, it passes over. State is
kept beside the runner's, now and then, by a thread of its own while the shard goes on: what came since is read from the
logs again, so any kept state will do, or none.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import structlog

from pipeline.arrays.keys import shard_of
from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, OffsetError
from pipeline.logs.beam.record_span import Span
from pipeline.logs.beam.source import PartitionRange, decode_next
from pipeline.logs.checks import check_partitions_read
from pipeline.logs.end_offsets import EndOffsets
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.log import Log
from pipeline.process.crash_point import reach_crash_point
from pipeline.samples.join.durations import Durations, max_event_time_of
from pipeline.samples.join.emitted import INPUTS
from pipeline.samples.join.input_progress import Input, PartitionProgress
from pipeline.samples.run.handover import Parcel
from pipeline.samples.run.readings import input_readings, shard_readings
from pipeline.samples.run.shard import JoinShard, needed_from
from pipeline.samples.state.snapshot import load_summary
from pipeline.samples.state.state_files import (
    RoundManifest,
    ShardFile,
    StoredState,
    latest_state,
    live_folder,
    read_shard,
    remove_earlier_epochs,
    write_round_manifest,
)
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading, timed

_KEEP_EVERY_S = 5.0
"""State is kept so often at most; it writes what is new, so keeping it more often costs little."""
_HELD_UP_SHARE = 0.02
"""A shard is held up for at most this share of the time: its marks are copied, one byte for each held impression."""
_KEEP_SHARE = 0.25
"""State is being written for at most this share of the time, beside the shard."""

T = TypeVar("T")
_talk = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Keep:
    """How the last state was kept: when that ended, how long it held the shard up, and how long it wrote beside it."""

    ended_at_s: float
    held_up_s: float = 0.0
    wrote_s: float = 0.0

    def next_at_s(self, *, idle: bool) -> float:
        """When state may be kept again; who has nothing to do is held up by nothing.

        >>> Keep(100.0, 0.05, 1.0).next_at_s(idle=False), Keep(100.0, 0.2, 1.0).next_at_s(idle=False)
        (105.0, 110.0)
        """
        if idle:
            return self.ended_at_s + _KEEP_EVERY_S
        return self.ended_at_s + max(_KEEP_EVERY_S, self.held_up_s / _HELD_UP_SHARE, self.wrote_s / _KEEP_SHARE)


class LiveShard:
    """One shard, opened: fences taken, state loaded, what was said read. Not thread-safe."""

    def __init__(self, project: Project, log: Log, shard: int) -> None:
        self._project, self._log, self._clock, self._number = project, log, project.clock, 0
        names = project.config.topics
        self._topics = names.inputs
        self._log_ids = {t: log.log_id(t) for t in (*self._topics.values(), names.samples, names.dead_letters)}
        self._codecs = {kind: EventCodec(project.config.events, kind, log) for kind in INPUTS}
        self._ends = EndOffsets(log)
        began_s = self._clock.monotonic_s()
        self._shard = _of_newest(project, shard, lambda kept: JoinShard(project, log, shard, kept))
        opened_at_s = self._clock.monotonic_s()
        self._folder = live_folder(project.join_state, shard, self._shard.epoch)
        self._keeper, self._keeping = ThreadPoolExecutor(1), Future[Keep]()
        self._keeping.set_result(Keep(opened_at_s))
        self._kept_to: list[int] = []
        held, seconds = len(self._shard.join.held), round(opened_at_s - began_s, 3)
        _talk.info("join shard is open", shard=shard, held=held, seconds=seconds)

    @property
    def join_shard(self) -> JoinShard:
        """What it drives, to be looked at."""
        return self._shard

    def input_readings(self, shards: Sequence[JoinShard]) -> Iterator[Reading]:
        """How far `shards` have read the inputs. Raises LogError."""
        return input_readings(self._ends, self._topics, shards)

    @property
    def emitted_to(self) -> int:
        """Where the shard's samples partition ends, as it knows from its opening and from what it said since."""
        return self._shard.emitted_to

    def take(self, spans: Iterable[Span]) -> None:
        """One bundle: feed it, with what is missing before it, and say what it decides. Durations in any order.

        Raises:
            FencedError: the shard was opened elsewhere since.
            OffsetError: what is missing is no longer in the log.
        """
        events = 0
        for span in sorted(spans, key=lambda s: (s.block.watermark_ms, s.block.next_offset)):
            at = self._shard.join.progress.of[span.block.kind, span.block.partition]
            for missed in self._missed(at, span):
                self._shard.take_in(_parcels(missed))
                # One that is killed again on the way shall not begin again.
                self._keep_if_due(idle=False)
            for parcel in _parcels(span):
                self._shard.feed(parcel)
            events += len(span.block)
        self._shard.say()
        self._keep_if_due(idle=not events)

    def _missed(self, at: PartitionProgress, span: Span) -> Iterator[Span]:
        """The runs between what was read and this span's start, this shard's rows of them."""
        kind, partition = span.block.kind, span.block.partition
        topic = self._topics[kind]
        partitions = self._project.config.logs.partitions
        while at.next_offset < span.start:
            max_event_time_ms, log_id = (
                max_event_time_of(at.watermark_ms, self._shard.join.durations),
                self._log_ids[topic],
            )
            left = PartitionRange(
                topic, kind, partition, at.next_offset, span.start, max_event_time_ms, log_id, partitions
            )
            decoded, _ = decode_next(self._log, self._codecs[kind], left)
            if decoded is None:
                return
            parts = split(Span.of(left.start, decoded), self._project)
            yield next(part for shard, part in parts if shard == self._shard.shard)

    def settle(self) -> None:
        """Return once no state is being kept. Raises what went wrong with it."""
        self._keeping.result()

    def close(self) -> None:
        """Return once nothing is written any more; the shard takes nothing after that."""
        self._keeper.shutdown()

    def _keep_if_due(self, *, idle: bool) -> None:
        if not self._keeping.done():
            return
        began_s = self._clock.monotonic_s()
        read_to = [at.next_offset for at in self._shard.join.progress.of.values()]
        if began_s < self._keeping.result().next_at_s(idle=idle) or read_to == self._kept_to:
            return
        self._number, self._kept_to = self._number + 1, read_to
        write = self._shard.saving(self._folder, self._number)
        held_up_s = self._clock.monotonic_s() - began_s
        self._keeping = self._keeper.submit(self._keep, write, self._number, held_up_s)

    def _keep(self, write: Callable[[], ShardFile], number: int, held_up_s: float) -> Keep:
        began_s = self._clock.monotonic_s()
        write_round_manifest(self._folder, RoundManifest(number, self._log_ids, (write(),)))
        remove_earlier_epochs(self._project.join_state, self._shard.shard, self._shard.epoch)
        reach_crash_point("samples.after_state")
        ended_at_s = self._clock.monotonic_s()
        return Keep(ended_at_s, held_up_s, ended_at_s - began_s)


_held: dict[tuple[str, int], LiveShard] = {}
_turns: defaultdict[tuple[str, int], threading.Lock] = defaultdict(threading.Lock)
"""By project folder and shard: what this process holds open, and whose turn it is."""


def take(project: Project, log: Log, shard: int, spans: Sequence[Span], emitted_to: int) -> int:
    """A bundle for a shard, opened first where this process does not hold it; returns where its samples now end.

    What goes wrong in a bundle may leave decisions unsaid in memory, so the shard is then let go; the next bundle
    opens it again. A worker that was fenced so ends its bundle; whether another one follows is the runner's affair.

    Args:
        project: whose shard.
        log: the project's, opened in this process.
        shard: which.
        spans: in any order.
        emitted_to: where the shard's samples ended when the runner last heard.

    Raises:
        OffsetError: the samples partition has lost records since.
    """
    of = (str(project.root), shard)
    failures = metrics.SHARD_FAILURES.labels("join", str(shard))
    with _turns[of], failures.count_exceptions():
        if of not in _held:
            _held[of] = LiveShard(project, log, shard)
        held = _held[of]
        try:
            if held.emitted_to < emitted_to:
                _check_not_lost(project, log, shard, emitted_to)
            with timed(metrics.ROUND_SECONDS, project.clock):
                held.take(spans)
        except BaseException:
            _held.pop(of).close()
            raise
        return held.emitted_to


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
    if shards == 1:
        yield 0, span
        return
    to = span.block.partition % shards
    of = shard_of(span.block.columns, project.config.events.shard_columns, shards)
    for shard in range(shards):
        yield shard, span.part(np.flatnonzero(of == shard), with_dead=shard == to)


def starts(project: Project, log: Log) -> list[PartitionRange]:
    """Every input partition, open, from the first offset that some shard has not read. Takes no fence.

    Raises LogError where an input has not the partitions that are configured.
    """
    names = project.config.topics
    read = [_read_to(project, log, shard) for shard in range(project.config.logs.shards)]
    ranges = []
    for kind in INPUTS:
        topic, partitions = names.inputs[kind], project.config.logs.partitions
        check_partitions_read(log, topic, partitions)
        for partition in range(partitions):
            offset, watermark_ms = min((of[kind, partition] for of in read), key=lambda at: at[0])
            max_event_time_ms = max_event_time_of(watermark_ms, Durations.of(project.config))
            log_id = log.log_id(topic)
            ranges.append(PartitionRange(topic, kind, partition, offset, None, max_event_time_ms, log_id, partitions))
    return ranges


def _read_to(project: Project, log: Log, shard: int) -> dict[Input, tuple[int, int | None]]:
    topics = project.config.topics.inputs
    partitions = {kind: log.partitions(topic) for kind, topic in topics.items()}

    def look(kept: StoredState | None) -> dict[Input, tuple[int, int | None]]:
        if kept is None:
            return needed_from(project, log, shard)
        standing = load_summary(project.config, shard, partitions, read_shard(kept.folder, kept.file))
        return {at: (p.next_offset, p.watermark_ms) for at, p in standing.progress.of.items()}

    return _of_newest(project, shard, look)


def _of_newest(project: Project, shard: int, use: Callable[[StoredState | None], T]) -> T:
    """What `use` makes of the newest state that was kept. Raises DamagedError.

    A shard that was taken over may replace its own just now; then it is another one that is the newest.
    """
    while True:
        kept = latest_state(project.join_state, shard)
        try:
            return use(kept)
        except DamagedError:
            if latest_state(project.join_state, shard) == kept:
                raise


def _parcels(span: Span) -> Iterator[Parcel]:
    if span.dead is not None:
        yield span.dead
    yield span.block


def _check_not_lost(project: Project, log: Log, shard: int, emitted_to: int) -> None:
    topic = project.config.topics.samples
    # A shard that was held elsewhere meanwhile knows less than the runner: its fence will tell.
    if (end := log.end_offset(topic, shard)) < emitted_to:
        raise OffsetError(
            f"partition {topic}/{shard} ends at offset {end}, the runner saw it end at "
            f"{emitted_to}. hint: records were lost; restore the log, or start from the logs alone"
        )

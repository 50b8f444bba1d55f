"""Join shards on a runner that may lose, repeat, reorder or move bundles: each stores its own state.

The runner only delivers blocks; a shard emits and recovers through the log alone. Its state is stored apart from the
runner's, every few seconds, by a separate thread. Later input is read from the log again after a restart, so a shard
can start from any stored state, or from none.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from pipeline.configuration.project import Project
from pipeline.errors import OffsetError
from pipeline.logs.beam.source_block import SourceBlock
from pipeline.logs.interface.end_offsets import EndOffsets
from pipeline.logs.interface.log import Log
from pipeline.process.crash_point import reach_crash_point
from pipeline.samples.join.progress.input_progress import Input
from pipeline.samples.run.readings import input_readings, shard_readings
from pipeline.samples.run.shard import JoinShard
from pipeline.samples.run.start_offsets import from_latest_state
from pipeline.samples.state.state_files import (
    ShardFile,
    StateManifest,
    live_folder,
    remove_earlier_epochs,
    write_state_manifest,
)
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading, timed

_STORE_EVERY_S = 5.0
"""Minimum interval between two stored states. Storing writes what is new, so a short interval costs little."""
_BLOCKED_SHARE = 0.02
"""A shard is blocked for at most this share of the time: its flags are copied, one byte per held impression."""
_WRITING_SHARE = 0.25
"""State is being written for at most this share of the time."""

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Stored:
    """When the last state was stored, for how long that blocked the shard, and how long it wrote."""

    ended_at_s: float
    blocked_s: float = 0.0
    writing_s: float = 0.0

    def next_at_s(self, *, idle: bool) -> float:
        """When state may be stored again; blocking an idle shard costs nothing.

        >>> Stored(100.0, 0.05, 1.0).next_at_s(idle=False), Stored(100.0, 0.2, 1.0).next_at_s(idle=False)
        (105.0, 110.0)
        """
        if idle:
            return self.ended_at_s + _STORE_EVERY_S
        pause_s = max(_STORE_EVERY_S, self.blocked_s / _BLOCKED_SHARE, self.writing_s / _WRITING_SHARE)
        return self.ended_at_s + pause_s


class StoredShard:
    """One open join shard that stores its state in the background. Not thread-safe."""

    def __init__(self, project: Project, log: Log, shard: int) -> None:
        """Acquire the fences, load the latest state, restore what was emitted since."""
        self._project, self._clock, self._number = project, project.clock, 0
        names = project.config.topics
        topics = (*project.config.input_topics.values(), names.samples, names.dead_letters)
        self._log_ids = {topic: log.log_id(topic) for topic in topics}
        began_s = self._clock.monotonic_s()
        self.join_shard = from_latest_state(project, shard, lambda kept: JoinShard(project, log, shard, kept))
        opened_at_s = self._clock.monotonic_s()
        self._folder = live_folder(project.join_state, shard, self.join_shard.epoch)
        self._writer, self._storing = ThreadPoolExecutor(1), Future[Stored]()
        self._storing.set_result(Stored(opened_at_s))
        self._stored_to: list[int] = []
        # An input counts as unfinished until its first block arrives.
        self._unfinished: set[Input] = set(self.join_shard.join.progress.of)
        held, seconds = len(self.join_shard.join.held), round(opened_at_s - began_s, 3)
        logger.info("join shard opened", shard=shard, held=held, seconds=seconds)

    def process(self, blocks: Iterable[SourceBlock]) -> None:
        """Join one bundle of blocks, in any order, and emit. Raises as `JoinShard.process`."""
        # State is stored between missing blocks too: a shard that is killed there does not start over.
        bundle = sorted(blocks, key=lambda block: block.block.next_offset)
        self._update_unfinished(bundle)
        events = self.join_shard.process(bundle, self._unfinished, lambda: self._store_if_due(idle=False))
        self._store_if_due(idle=not events)

    def wait_stored(self) -> None:
        """Return once no state is being written. Raises what failed in it."""
        self._storing.result()

    def close(self) -> None:
        """Return once nothing is written any more. The shard processes nothing after that."""
        self._writer.shutdown()

    def _update_unfinished(self, blocks: Iterable[SourceBlock]) -> None:
        """Which inputs have more to read after `blocks`, in log order; blocks processed before are ignored."""
        for block in blocks:
            at = (block.block.kind, block.block.partition)
            if block.block.next_offset < self.join_shard.join.progress.of[at].next_offset:
                continue
            if block.more:
                self._unfinished.add(at)
            else:
                self._unfinished.discard(at)

    def _store_if_due(self, *, idle: bool) -> None:
        if not self._storing.done():
            return
        began_s = self._clock.monotonic_s()
        read_to = [at.next_offset for at in self.join_shard.join.progress.of.values()]
        if began_s < self._storing.result().next_at_s(idle=idle) or read_to == self._stored_to:
            return
        self._number, self._stored_to = self._number + 1, read_to
        write = self.join_shard.saving(self._folder, self._number)
        blocked_s = self._clock.monotonic_s() - began_s
        self._storing = self._writer.submit(self._store, write, self._number, blocked_s)

    def _store(self, write: Callable[[], ShardFile], number: int, blocked_s: float) -> Stored:
        began_s = self._clock.monotonic_s()
        write_state_manifest(self._folder, StateManifest(number, self._log_ids, (write(),)))
        remove_earlier_epochs(self._project.join_state, self.join_shard.shard, self.join_shard.epoch)
        reach_crash_point("samples.after_state")
        ended_at_s = self._clock.monotonic_s()
        return Stored(ended_at_s, blocked_s, ended_at_s - began_s)


class StoredShards:
    """The join shards that this process has open. Each is opened at its first bundle. Thread-safe."""

    def __init__(self, project: Project, log: Log) -> None:
        self._project, self._log, self._ends = project, log, EndOffsets(log)
        self._open: dict[int, StoredShard] = {}
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def process(self, shard: int, blocks: Sequence[SourceBlock], emitted_to: int) -> int:
        """One bundle of a shard; returns where its samples partition now ends.

        A failed bundle may leave decisions in memory that were not emitted, so the shard is closed; the next bundle
        opens it again. A FencedError fails the bundle; the runner may retry it here.

        Args:
            shard: the shard's number.
            blocks: its parts of source blocks, in any order.
            emitted_to: where its samples partition ended according to Beam's state.

        Raises:
            OffsetError: the samples partition has lost records since.
        """
        failures = metrics.SHARD_FAILURES.labels("join", str(shard))
        with self._locks[shard], failures.count_exceptions():
            if shard not in self._open:
                self._open[shard] = StoredShard(self._project, self._log, shard)
            stored = self._open[shard]
            try:
                if stored.join_shard.emitted_to < emitted_to:
                    self._check_not_lost(shard, emitted_to)
                with timed(metrics.ROUND_SECONDS, self._project.clock):
                    stored.process(blocks)
                stored.join_shard.count_progress()
            except BaseException:
                self._open.pop(shard).close()
                raise
            return stored.join_shard.emitted_to

    def readings(self) -> Iterator[Reading]:
        """Metrics of the open shards. Raises LogError."""
        shards = [stored.join_shard for stored in list(self._open.values())]
        if shards:
            yield from input_readings(self._ends, self._project.config.input_topics, shards)
        for shard in shards:
            yield from shard_readings(shard)

    def _check_not_lost(self, shard: int, emitted_to: int) -> None:
        topic = self._project.config.topics.samples
        # A shard that is also open elsewhere may be behind the runner: its fence then fails.
        if (end := self._log.end_offset(topic, shard)) < emitted_to:
            raise OffsetError(
                f"partition {topic}/{shard} ends at offset {end}, Beam's state has "
                f"{emitted_to}. hint: records were lost; restore the log, or start from the logs alone"
            )

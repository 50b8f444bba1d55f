"""One join shard and its own partitions, where samples and dead letters are emitted exactly once.

Opening a shard acquires its fences first, then loads its state, then reads what it emitted since that state. Appends
come before the state is stored: what a crash leaves emitted but not stored is found in the log at the next start. A
fenced `JoinShard` must be closed; the runner may open a new one. See "Exactly once" in ARCHITECTURE.md.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import DeadLetters, EventKind
from pipeline.configuration.project import Project
from pipeline.logs.beam.partition_range import PartitionRange, check_log_id, read_next
from pipeline.logs.beam.source_block import SourceBlock
from pipeline.logs.events.codec import NO_WATERMARK, EventCodec
from pipeline.logs.events.dead_letters import SHARD, dead_letter_records, read_dead_letters, readable_letters
from pipeline.logs.events.sample_block import SampleBlock, encode_sample_block
from pipeline.logs.interface.log import Log, read_to_end
from pipeline.process.crash_point import reach_crash_point
from pipeline.samples.held.durations import max_event_time_of
from pipeline.samples.join.dead_letters import concatenate_dead_letters
from pipeline.samples.join.join import Join
from pipeline.samples.join.progress.emitted import USED
from pipeline.samples.join.progress.input_progress import Input, PartitionProgress
from pipeline.samples.join.samples import Samples
from pipeline.samples.run.original_records import with_originals
from pipeline.samples.run.start_offsets import read_to_without_state
from pipeline.samples.state.restore import load_join
from pipeline.samples.state.snapshot import take_snapshot
from pipeline.samples.state.state_files import (
    ShardFile,
    StoredState,
    link_segments,
    read_shard,
    segment_names,
    write_shard,
)
from pipeline.versions.ledger.sample_records import SampleRecords

_ENCODERS = 2
"""Threads that encode the records of one shard's samples."""


@dataclass
class Tally:
    """What a shard has read and emitted since it was opened, and what it holds after its latest bundle.

    Attributes:
        inputs: by input, the next offset and the watermark up to which everything decided is emitted and counted.
    """

    events: int = 0
    samples: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    held: int = 0
    pending: int = 0
    inputs: dict[Input, tuple[int, int | None]] = field(default_factory=dict)


class JoinShard:
    """A join and the exclusive right to emit what it decides. Not thread-safe.

    Attributes:
        join: the state machine.
        file: its last stored state; None before the first.
        tally: counts since it was opened.
        emitted_to: the end of its samples partition, which no other process writes.
    """

    def __init__(self, project: Project, log: Log, shard: int, found: StoredState | None) -> None:
        """Acquire the fences and load the state `found`; without one begin where the shard's last record says."""
        self._project, self._log, self.shard = project, log, shard
        self._config, topics = project.config, project.config.topics
        self._topics = self._config.input_topics
        self._kinds = {topic: kind for kind, topic in self._topics.items()}
        self._log_ids = {topic: log.log_id(topic) for topic in self._topics.values()}
        self._codecs = {kind: EventCodec.of(project, kind, log) for kind in self._topics}
        self._fences = {topic: log.acquire_fence(topic, shard) for topic in (topics.samples, topics.dead_letters)}
        self.file: ShardFile | None = None if found is None else found.file
        self._stored_in = None if found is None else found.folder
        self.tally = Tally()
        self._set_aside: list[DeadLetters] = []
        self.join = self._begin() if found is None else self._load(found)
        self._restore_emitted()
        self.emitted_to = log.end_offset(topics.samples, shard)
        self._count_held()
        self.count_progress()

    @property
    def epoch(self) -> int:
        """The epoch of its fence over the samples partition."""
        return self._fences[self._config.topics.samples].epoch

    def process(
        self,
        blocks: Iterable[SourceBlock],
        unfinished: Collection[Input] = (),
        after_missing: Callable[[], None] = lambda: None,
    ) -> int:
        """Join one bundle and emit what it decides. Blocks may come in any order and repeatedly.

        Records missing before a block are read from the log; what they decide is emitted at once, and then
        `after_missing` is called. `unfinished` are the inputs with more to read after the bundle.

        Returns:
            The number of events in `blocks`.

        Raises:
            FencedError: another process opened the shard since.
            OffsetError: missing records are no longer in the log.
        """
        events = 0
        for block in sorted(blocks, key=self._feeding_order):
            for missing in self._missing_before(block):
                self.join.unfinished = {*unfinished, (block.block.kind, block.block.partition)}
                self._feed(missing)
                self._emit()
                after_missing()
            self.join.unfinished = unfinished
            self._feed(block)
            events += len(block.block)
        self.join.unfinished = unfinished
        self._emit()
        return events

    def count_progress(self) -> None:
        """Put the progress of the inputs into the tally, at the end of a round or bundle."""
        self.tally.inputs = {at: (read.next_offset, read.watermark_ms) for at, read in self.join.progress.of.items()}

    def save(self, folder: Path, number: int, read_to: Mapping[tuple[EventKind, int], int]) -> ShardFile:
        """Store the state as that of round `number`; `read_to` is where its ranges ended, gaps included."""
        for at, offset in read_to.items():
            partition = self.join.progress.of[at]
            partition.next_offset = max(partition.next_offset, offset)
        return self.saving(folder, number)()

    def saving(self, folder: Path, number: int) -> Callable[[], ShardFile]:
        """A function that stores the state as it is now; call it in any thread, before the next call of this one."""
        ends = tuple(self._log.end_offset(topic, self.shard) for topic in self._fences)
        before, stored_in, state = self.file, self._stored_in, take_snapshot(self.join, segment_names(self.file))

        def write() -> ShardFile:
            if before is not None and stored_in not in (None, folder):
                link_segments(stored_in, folder, before)
            name = f"{number:012d}-{self.shard}.join"
            self.file, self._stored_in = write_shard(folder, name, state, (ends[0], ends[1])), folder
            return self.file

        return write

    def _missing_before(self, block: SourceBlock) -> Iterator[SourceBlock]:
        """The records between what was read and the block's start, this shard's part of them."""
        kind, partition = block.block.kind, block.block.partition
        at = self.join.progress.of[kind, partition]
        while at.next_offset < block.start:
            unread = self._unread(kind, partition, at, block.start)
            decoded, _ = read_next(self._log, self._codecs[kind], unread)
            if decoded is None:
                return
            parts = SourceBlock.of(unread.start, decoded).split(
                self._config.events.shard_columns, self._config.logs.shards
            )
            yield next(part for shard, part in parts if shard == self.shard)

    def _unread(self, kind: EventKind, partition: int, at: PartitionProgress, stop: int) -> PartitionRange:
        topic, partitions = self._topics[kind], self._config.logs.partitions
        at_ms = max_event_time_of(at.watermark_ms, self.join.durations)
        return PartitionRange(topic, kind, partition, at.next_offset, stop, at_ms, self._log_ids[topic], partitions)

    def _feed(self, block: SourceBlock) -> None:
        """Feed the join a block, those of one partition in log order, and set its dead letters aside."""
        if block.dead is not None:
            # Before the block's events: the join's offsets then still show which letters are new.
            self._set_aside.append(self._not_yet_emitted(block.dead))
        self.tally.events += len(block.block)
        self.join.feed(block.block)

    def _emit(self) -> None:
        """Append what everything fed so far decides."""
        decided, dead = self.join.decide(), self._set_aside
        self._set_aside = []
        for each in dead:
            self.join.counts.add_dead(each)
        letters = concatenate_dead_letters([*dead, with_originals(decided.dead, self._log)])
        self._append(decided.samples, letters)
        self._count_held()

    def _append(self, decided: Samples, letters: DeadLetters) -> None:
        """Append dead letters first: the samples' records name the offsets below which input is no longer needed."""
        topics, records = self._config.topics, self._records(decided)
        dead, headers = dead_letter_records(letters, {SHARD: str(self.shard)})
        if dead or records:
            reach_crash_point("samples.before_append")
        if dead:
            self._log.append(
                topics.dead_letters, self.shard, dead, fence=self._fences[topics.dead_letters], headers=headers
            )
        if records:
            first = self._log.append(topics.samples, self.shard, records, fence=self._fences[topics.samples])
            self.emitted_to = first + len(records)
        self.tally.samples.update(decided.kinds())
        self.tally.dead_letters.update(letters.table.column("reason").to_pylist())
        reach_crash_point("samples.after_append")

    def _count_held(self) -> None:
        self.tally.held, self.tally.pending = len(self.join.held), self.join.pending

    def _records(self, samples: Samples) -> list[bytes]:
        """The samples' records in order, encoded on several threads: that work holds no GIL."""
        rows, join = self._config.samples.block_rows, self.join
        watermark_ms = NO_WATERMARK if join.watermark_ms is None else join.watermark_ms
        needs, watermarks = join.needed_offsets(), join.needed_watermarks()

        def record(start: int) -> bytes:
            part, last = samples.batch(start, start + rows), start + rows >= len(samples)
            block = SampleBlock(self.shard, part, needs, self._log_ids, watermark_ms, last, watermarks)
            return encode_sample_block(block)

        with ThreadPoolExecutor(_ENCODERS) as pool:
            return list(pool.map(record, range(0, len(samples), rows)))

    def _not_yet_emitted(self, letters: DeadLetters) -> DeadLetters:
        """The dead letters of a source at positions that are new to this shard."""
        columns = (letters.table.column(name).to_pylist() for name in ("topic", "partition", "offset", "row"))
        new = [self._is_new(*position) for position in zip(*columns, strict=True)]
        return DeadLetters(letters.table.filter(pa.array(new, pa.bool_())))

    def _is_new(self, topic: str, partition: int, offset: int, row: int) -> bool:
        kind = self._kinds[topic]
        flags = self.join.emitted_positions.flags(
            self.join.inputs[kind], partition, np.array([offset]), np.array([row])
        )
        return bool(offset >= self.join.progress.of[kind, partition].next_offset and not flags[0] & USED)

    def _partitions(self) -> dict[EventKind, int]:
        return {kind: self._log.partitions(topic) for kind, topic in self._topics.items()}

    def _load(self, found: StoredState) -> Join:
        for topic, log_id in found.log_ids.items():
            check_log_id(self._log, topic, log_id)
        return load_join(self._config, self.shard, self._partitions(), *read_shard(found.folder, found.file))

    def _begin(self) -> Join:
        """A join without a stored state."""
        join = Join(self._config, self.shard, self._partitions())
        read_to = read_to_without_state(self._project, self._log, self.shard)
        for (kind, partition), (offset, watermark_ms) in read_to.items():
            join.begin(kind, partition, offset, watermark_ms)
        return join

    def _restore_emitted(self) -> None:
        """Read what the shard's own partitions hold beyond the loaded state."""
        topics, file = self._config.topics, self.file
        samples_from = None if file is None else file.samples_offset
        own = SampleRecords(self._project, self._log, self.shard)
        for records in read_to_end(self._log, topics.samples, self.shard, samples_from):
            self.join.restore_emitted([block.batch for _, block in own.decode_all(records)])
        dead_from = None if file is None else file.dead_letters_offset
        for records in read_to_end(self._log, topics.dead_letters, self.shard, dead_from):
            self.join.restore_emitted([], [read_dead_letters(readable_letters(records))])

    def _feeding_order(self, block: SourceBlock) -> tuple[int, int, int, int]:
        """By watermark, so that partitions interleave by event time; within a partition in log order."""
        events = block.block
        return events.watermark_ms, self.join.inputs[events.kind], events.partition, events.next_offset

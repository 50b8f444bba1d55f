"""One join shard and its own partitions: samples and dead letters are said there exactly once (design D4b).

It takes its fences first, then loads its state, then reads what it said beyond that. Appends come before state: what a
crash leaves said but not saved is found in the log at the next start. A shard that is fenced stops for good.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import DeadLetters, EventBlock, EventKind
from pipeline.configuration.project import Project
from pipeline.errors import OffsetError
from pipeline.logs.beam.source import check_log_id
from pipeline.logs.events.codec import NO_WATERMARK
from pipeline.logs.events.dead_letters import SHARD, dead_letter_records, read_dead_letters
from pipeline.logs.events.sample_block import SampleBlock, decode_sample_block, encode_sample_block
from pipeline.logs.log import Log, last_record, read_to_end
from pipeline.process.crash_point import reach_crash_point
from pipeline.samples.join.emitted import USED
from pipeline.samples.join.input_progress import Input
from pipeline.samples.join.join import Join
from pipeline.samples.join.output import Samples, dead_letter_batch
from pipeline.samples.run.handover import Handover, Parcel
from pipeline.samples.run.originals import with_originals
from pipeline.samples.state.snapshot import load_join, take_snapshot
from pipeline.samples.state.state_files import (
    ShardFile,
    StoredState,
    link_segments,
    read_shard,
    segment_names,
    write_shard,
)

_ENCODERS = 2
"""Threads that make records of one shard's samples."""

Element = tuple[int, int, int, int, int]
"""Watermark, input, partition, next offset, and the ticket of a block or of dead letters: sorts as it is to be fed."""


@dataclass
class Tally:
    """What a shard has read and said since it was opened, and what it holds after its newest bundle."""

    events: int = 0
    samples: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    held: int = 0
    pending: int = 0


class JoinShard:
    """A join and the right to say what it decides. Not thread-safe.

    Attributes:
        join: the state machine.
        file: its last saved state; None before the first.
        tally: counts since it was opened.
        emitted_to: where its samples partition ends, which nobody else writes.
    """

    def __init__(self, project: Project, log: Log, shard: int, found: StoredState | None) -> None:
        """Take the fences and load what `found` keeps; None begins where the shard's last record says."""
        self._project, self._log, self.shard = project, log, shard
        self._config, topics = project.config, project.config.topics
        self._topics = topics.inputs
        self._fences = {topic: log.acquire_fence(topic, shard) for topic in (topics.samples, topics.dead_letters)}
        self.file: ShardFile | None = None if found is None else found.file
        self._kept_in = None if found is None else found.folder
        self.tally = Tally()
        self._set_aside: list[DeadLetters] = []
        self.join = self._begin() if found is None else self._load(found)
        self._recall()
        self.emitted_to = log.end_offset(topics.samples, shard)
        self._count_held()

    @property
    def epoch(self) -> int:
        """Of this opening's fence over the samples partition."""
        return self._fences[self._config.topics.samples].epoch

    def take(self, elements: Iterable[Element], handover: Handover) -> None:
        """One bundle: feed it, say what it decides. Elements of all partitions, in any order."""
        self.take_in(handover.fetch(ticket) for *_, ticket in sorted(elements))

    def take_in(self, parcels: Iterable[Parcel]) -> None:
        """Feed them all, and say what they decide."""
        for parcel in parcels:
            self.feed(parcel)
        self.say()

    def feed(self, parcel: Parcel) -> None:
        """Take in a block, those of one partition in log order, or dead letters of the source, before their block."""
        if isinstance(parcel, EventBlock):
            self.tally.events += len(parcel)
            self.join.feed(parcel)
        else:
            # Their block comes after them, so the join's offsets still tell what is new.
            self._set_aside.append(self._unsaid(parcel))

    def say(self) -> None:
        """Append what all that was fed decides."""
        decided, dead = self.join.decide(), self._set_aside
        self._set_aside = []
        letters = [dead_letter_batch(dead), with_originals(decided.dead, self._log)]
        self._say(decided.samples, dead_letter_batch(letters))
        self._count_held()

    def save(self, folder: Path, number: int, read_to: Mapping[tuple[EventKind, int], int]) -> ShardFile:
        """Keep the state as that of round `number`; `read_to` is where its ranges ended, gaps included."""
        for at, offset in read_to.items():
            partition = self.join.progress.of[at]
            partition.next_offset = max(partition.next_offset, offset)
        return self.saving(folder, number)()

    def saving(self, folder: Path, number: int) -> Callable[[], ShardFile]:
        """What keeps the state as it is now; to be called in any thread, before the next such call to this shard."""
        ends = tuple(self._log.end_offset(topic, self.shard) for topic in self._fences)
        before, kept_in, state = self.file, self._kept_in, take_snapshot(self.join, segment_names(self.file))

        def write() -> ShardFile:
            if before is not None and kept_in not in (None, folder):
                link_segments(kept_in, folder, before)
            name = f"{number:012d}-{self.shard}.join"
            self.file, self._kept_in = write_shard(folder, name, state, (ends[0], ends[1])), folder
            return self.file

        return write

    def _say(self, decided: Samples, letters: DeadLetters) -> None:
        """Append; dead letters first, for the samples' records say from where on input is needed no more."""
        topics, records = self._config.topics, self._records(decided)
        dead, why = dead_letter_records(letters, {SHARD: str(self.shard)})
        if dead or records:
            reach_crash_point("samples.before_append")
        if dead:
            self._log.append(
                topics.dead_letters, self.shard, dead, fence=self._fences[topics.dead_letters], headers=why
            )
        if records:
            first = self._log.append(topics.samples, self.shard, records, fence=self._fences[topics.samples])
            self.emitted_to = first + len(records)
        self.tally.samples.update(decided.kinds())
        self.tally.dead_letters.update(letters.table.column("reason").to_pylist())
        reach_crash_point("samples.after_append")

    def _count_held(self) -> None:
        self.tally.held, self.tally.pending = len(self.join.held), len(self.join.pending)

    def _records(self, samples: Samples) -> list[bytes]:
        """The samples' records in order, made on several threads: laying out and packing columns holds no GIL."""
        rows, join = self._config.samples.block_rows, self.join
        log_ids = {topic: self._log.log_id(topic) for topic in self._topics.values()}
        watermark_ms = NO_WATERMARK if join.watermark_ms is None else join.watermark_ms
        needs, marks = join.needed_offsets(), join.needed_watermarks()

        def record(start: int) -> bytes:
            part, last = samples.batch(start, start + rows), start + rows >= len(samples)
            return encode_sample_block(SampleBlock(self.shard, part, needs, log_ids, watermark_ms, last, marks))

        with ThreadPoolExecutor(_ENCODERS) as pool:
            return list(pool.map(record, range(0, len(samples), rows)))

    def _unsaid(self, letters: DeadLetters) -> DeadLetters:
        """Dead letters of the source at positions that are new to this shard."""
        new = [self._is_new(*place) for place in zip(*self._places(letters), strict=True)]
        return DeadLetters(letters.table.filter(pa.array(new, pa.bool_())))

    @staticmethod
    def _places(letters: DeadLetters) -> list[list[Any]]:
        return [letters.table.column(n).to_pylist() for n in ("topic", "partition", "offset", "row")]

    def _is_new(self, topic: str, partition: int, offset: int, row: int) -> bool:
        kind: EventKind = "impressions" if topic == self._topics["impressions"] else "clicks"
        flags = self.join.emitted_positions.flags(kind, partition, np.array([offset]), np.array([row]))
        return bool(offset >= self.join.progress.of[kind, partition].next_offset and not flags[0] & USED)

    def _partitions(self) -> dict[EventKind, int]:
        return {kind: self._log.partitions(topic) for kind, topic in self._topics.items()}

    def _load(self, found: StoredState) -> Join:
        for topic, log_id in found.log_ids.items():
            check_log_id(self._log, topic, log_id)
        return load_join(self._config, self.shard, self._partitions(), read_shard(found.folder, found.file))

    def _begin(self) -> Join:
        """A join without any state: from where its last record says it needs the input, or from the beginning."""
        join = Join(self._config, self.shard, self._partitions())
        for (kind, partition), (offset, max_event_time_ms) in needed_from(self._project, self._log, self.shard).items():
            join.begin(kind, partition, offset, max_event_time_ms)
        return join

    def _recall(self) -> None:
        """Take what the own partitions say beyond the state as said."""
        topics, file = self._config.topics, self.file
        samples_from = None if file is None else file.samples_offset
        for records in read_to_end(self._log, topics.samples, self.shard, samples_from):
            self.join.restore_emitted([decode_sample_block(record.value).batch for record in records])
        dead_from = None if file is None else file.dead_letters_offset
        for records in read_to_end(self._log, topics.dead_letters, self.shard, dead_from):
            self.join.restore_emitted([], [read_dead_letters(records)])


def needed_from(project: Project, log: Log, shard: int) -> dict[Input, tuple[int, int | None]]:
    """Per input partition the offset a shard without any state begins at, and the watermark (ms) before it.

    Raises LogReplacedError, and OffsetError where an input no longer reaches back that far.
    """
    topics = project.config.topics.inputs
    last = last_record(log, project.config.topics.samples, shard)
    block = None if last is None else decode_sample_block(last.value)
    found: dict[Input, tuple[int, int | None]] = {}
    for kind, topic in topics.items():
        if block is not None:
            check_log_id(log, topic, block.log_ids[topic])
        for partition in range(log.partitions(topic)):
            name, begins = f"{topic}/{partition}", log.begin_offset(topic, partition)
            needed = begins if block is None else block.needed_offsets.get(name, 0)
            if needed < begins:
                raise OffsetError(
                    f"partition {name} begins at offset {begins}, shard {shard} of the join lost its state and "
                    f"needs it from {needed}. hint: restore {project.join_state} or the log"
                )
            found[kind, partition] = (needed, None if block is None else block.needed_watermarks.get(name))
    return found

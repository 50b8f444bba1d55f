"""One join shard and its own partitions: samples and dead letters are said there exactly once (design D4b).

It takes its fences first, then loads its state, then reads what it said beyond that. Appends come before state: what a
crash leaves said but not saved is found in the log at the next start. A shard that is fenced stops for good.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.ground.block import DeadLetters, EventBlock, Kind
from pipeline.ground.crashpoint import pass_point
from pipeline.ground.errors import OffsetError
from pipeline.ground.project import Project
from pipeline.logs.dead_letters import SHARD, dead_letter_records, read_dead_letters
from pipeline.logs.events import NO_WATERMARK
from pipeline.logs.log import Log, last_record, runs_of
from pipeline.logs.sample_block import SampleBlock, decode_sample_block, encode_sample_block
from pipeline.logs.source import check_log_id
from pipeline.samples.handover import Handover
from pipeline.samples.join import Join
from pipeline.samples.originals import with_originals
from pipeline.samples.output import Samples, dead_letter_batch
from pipeline.samples.position import USED
from pipeline.samples.roundfile import RoundManifest, ShardFile, read_shard, segments_in, write_shard
from pipeline.samples.saved import load_join, save_join

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
    """

    def __init__(self, project: Project, log: Log, shard: int, manifest: RoundManifest | None) -> None:
        self._project, self._log, self.shard = project, log, shard
        self._config, topics = project.config, project.config.topics
        self._topics: dict[Kind, str] = {"impressions": topics.impressions, "clicks": topics.clicks}
        self._fences = {topic: log.take_fence(topic, shard) for topic in (topics.samples, topics.dead_letters)}
        self.file: ShardFile | None = None if manifest is None else manifest.shards[shard]
        self.tally = Tally()
        self.join = self._begin() if self.file is None else self._load(self.file)
        self._recall()
        self._count_held()

    def take(self, elements: Iterable[Element], handover: Handover) -> None:
        """One bundle: feed it, say what it decides. Elements of all partitions, in any order."""
        dead = [dead_letter_batch([])]
        for *_, ticket in sorted(elements):
            found = handover.fetch(ticket)
            if isinstance(found, EventBlock):
                self.tally.events += len(found)
                self.join.feed(found)
            else:
                # These sort first, so the join's offsets still tell what is new.
                dead.append(self._unsaid(found))
        decided = self.join.decide()
        self._say(decided.samples, dead_letter_batch([*dead, with_originals(decided.dead, self._log)]))
        self._count_held()

    def save(self, number: int, read_to: Mapping[tuple[Kind, int], int]) -> ShardFile:
        """Keep the state as that of round `number`; `read_to` is where its ranges ended, gaps included."""
        for at, offset in read_to.items():
            partition = self.join.progress.of[at]
            partition.next_offset = max(partition.next_offset, offset)
        ends = tuple(self._log.end_offset(topic, self.shard) for topic in self._fences)
        name = f"{number:012d}-{self.shard}.join"
        saved = save_join(self.join, segments_in(self.file))
        self.file = write_shard(self._project.join_state, name, saved, (ends[0], ends[1]))
        return self.file

    def _say(self, decided: Samples, letters: DeadLetters) -> None:
        """Append; dead letters first, for the samples' records say from where on input is needed no more."""
        pass_point("samples.before_append")
        topics = self._config.topics
        dead, why = dead_letter_records(letters, {SHARD: str(self.shard)})
        for topic, values, headers in (
            (topics.dead_letters, dead, why),
            (topics.samples, self._records(decided), None),
        ):
            if values:
                self._log.append(topic, self.shard, values, fence=self._fences[topic], headers=headers)
        self.tally.samples.update(decided.kinds())
        self.tally.dead_letters.update(letters.table.column("reason").to_pylist())
        pass_point("samples.after_append")

    def _count_held(self) -> None:
        self.tally.held, self.tally.pending = len(self.join.held), len(self.join.pending)

    def _records(self, samples: Samples) -> list[bytes]:
        """The samples' records in order, made on several threads: laying out and packing columns holds no GIL."""
        rows, join = self._config.samples.block_rows, self.join
        log_ids = {topic: self._log.log_id(topic) for topic in self._topics.values()}
        watermark_ms = NO_WATERMARK if join.watermark_ms is None else join.watermark_ms
        needs, marks = join.needs(), join.needs_marks()

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
        kind: Kind = "impressions" if topic == self._topics["impressions"] else "clicks"
        flags = self.join.said.flags(kind, partition, np.array([offset]), np.array([row]))
        return bool(offset >= self.join.progress.of[kind, partition].next_offset and not flags[0] & USED)

    def _partitions(self) -> dict[Kind, int]:
        return {kind: self._log.partitions(topic) for kind, topic in self._topics.items()}

    def _load(self, file: ShardFile) -> Join:
        frames = read_shard(self._project.join_state, file)
        return load_join(self._config, self.shard, self._partitions(), frames)

    def _begin(self) -> Join:
        """A join without any state: from where its last record says it needs the input, or from the beginning."""
        join = Join(self._config, self.shard, self._partitions())
        last = last_record(self._log, self._config.topics.samples, self.shard)
        block = None if last is None else decode_sample_block(last.value)
        for kind, partition in join.progress.of:
            name = f"{self._topics[kind]}/{partition}"
            begins = self._log.begin_offset(self._topics[kind], partition)
            if block is None:
                join.begin(kind, partition, begins, None)
                continue
            check_log_id(self._log, self._topics[kind], block.log_ids[self._topics[kind]])
            needed = block.needs.get(name, 0)
            if needed < begins:
                raise OffsetError(
                    f"partition {name} begins at offset {begins}, shard {self.shard} of the join lost its state and "
                    f"needs it from {needed}. hint: restore {self._project.join_state} or the log"
                )
            join.begin(kind, partition, needed, block.marks.get(name))
        return join

    def _recall(self) -> None:
        """Take what the own partitions say beyond the state as said."""
        topics, file = self._config.topics, self.file
        samples_from = None if file is None else file.samples_offset
        for records in runs_of(self._log, topics.samples, self.shard, samples_from):
            self.join.remember_said([decode_sample_block(record.value).batch for record in records])
        dead_from = None if file is None else file.dead_letters_offset
        for records in runs_of(self._log, topics.dead_letters, self.shard, dead_from):
            self.join.remember_said([], [read_dead_letters(records)])

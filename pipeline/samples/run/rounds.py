"""Rounds: in process a log is followed as a series of closed ranges; the state of all shards is stored after each.

Plans what a round reads and keeps the shards open between rounds.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.configuration.project import Project
from pipeline.errors import OffsetError
from pipeline.logs.beam.partition_range import PartitionRange, check_log_id
from pipeline.logs.beam.source_block import SourceBlock
from pipeline.logs.interface.checks import check_partitions_read
from pipeline.logs.interface.end_offsets import EndOffsets
from pipeline.logs.interface.log import Log
from pipeline.process.crash_point import reach_crash_point
from pipeline.samples.join.progress.input_progress import Input
from pipeline.samples.run.read_budget import ReadBudget
from pipeline.samples.run.readings import input_readings, shard_readings
from pipeline.samples.run.shard import JoinShard
from pipeline.samples.run.start_offsets import open_ranges
from pipeline.samples.state.state_files import StateManifest, latest_state, read_state_manifest, write_state_manifest
from pipeline.telemetry.registry import Reading


@dataclass(frozen=True)
class SamplesReport:
    """Counts of one run of the join.

    Attributes:
        events: impressions and feedback read.
        samples: by kind.
        dead_letters: by reason.
        rounds: rounds finished.
    """

    events: int = 0
    samples: Mapping[str, int] = field(default_factory=dict)
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    rounds: int = 0


class Rounds:
    """The open join shards of a project: fences acquired, state loaded, emitted samples restored. Not thread-safe.

    Attributes:
        shards: the shards.
        finished: rounds finished since they were opened.
        planned: the ranges of the current round.
        unfinished: the inputs with records after the current round.
    """

    def __init__(self, project: Project, log: Log) -> None:
        self._project, self._log, self._ends = project, log, EndOffsets(log)
        config = project.config
        names = config.topics
        self._topics, self._partitions = config.input_topics, config.logs.partitions
        manifest = read_state_manifest(project.join_state)
        self._log_ids = {t: log.log_id(t) for t in (*self._topics.values(), names.samples, names.dead_letters)}
        if manifest is not None:
            for topic, log_id in manifest.log_ids.items():
                check_log_id(log, topic, log_id)
        self._number = 0 if manifest is None else manifest.number
        stored = [latest_state(project.join_state, shard) for shard in range(config.logs.shards)]
        self.shards = [JoinShard(project, log, shard, found) for shard, found in enumerate(stored)]
        self.finished = 0
        self.planned: list[PartitionRange] = []
        self.unfinished: set[Input] = set()
        self._budget = ReadBudget(project, log)

    def ends(self) -> dict[Input, int]:
        """Where each input partition ends now. Raises LogError if partitions were added meanwhile."""
        for topic in self._topics.values():
            check_partitions_read(self._log, topic, self._partitions)
        inputs = [(kind, p) for kind in self._topics for p in range(self._partitions)]
        return {(kind, p): self._log.end_offset(self._topics[kind], p) for kind, p in inputs}

    def plan(self, ends: Mapping[Input, int]) -> list[PartitionRange]:
        """Plan the next round: at most `round_records` offsets of every partition with something before its end.

        Raises OffsetError if an input was trimmed beyond what has been read, or has lost records that have been read.
        """
        most = self._project.config.samples.round_records
        opened = self._open_ranges()
        for read in opened:
            _check_end(read, ends[read.kind, read.partition])
        closed = [replace(r, stop=min(ends[r.kind, r.partition], r.start + most)) for r in opened]
        unread = [r for r in closed if r.stop is not None and r.start < r.stop]
        self.planned = self._budget.within(unread, ends) if unread else []
        self.unfinished = {(r.kind, r.partition) for r in self.planned if r.stop != ends[r.kind, r.partition]}
        return self.planned

    def process(self, shard: int, blocks: Sequence[SourceBlock], emitted_to: int) -> int:
        """Join one shard's blocks of the current round and emit; returns where its samples partition now ends."""
        self.shards[shard].process(blocks, self.unfinished)
        return self.shards[shard].emitted_to

    def unread(self, ends: Mapping[Input, int]) -> int:
        """Offsets before `ends` that are not read yet."""
        return sum(max(0, ends[r.kind, r.partition] - r.start) for r in self._open_ranges())

    def finish(self, ranges: list[PartitionRange]) -> None:
        """Store the state of all shards at once: `ranges` have been read and what they decide is emitted."""
        self._number += 1
        read_to: dict[Input, int] = {(r.kind, r.partition): r.stop for r in ranges if r.stop is not None}
        folder = self._project.join_state
        files = tuple(shard.save(folder, self._number, read_to) for shard in self.shards)
        write_state_manifest(folder, StateManifest(self._number, self._log_ids, files))
        reach_crash_point("samples.after_state")
        self.finished += 1

    def report(self) -> SamplesReport:
        """Counts of all shards since they were opened."""
        samples: Counter[str] = Counter()
        dead: Counter[str] = Counter()
        for shard in self.shards:
            samples.update(shard.tally.samples)
            dead.update(shard.tally.dead_letters)
        events = sum(shard.tally.events for shard in self.shards)
        return SamplesReport(events, dict(sorted(samples.items())), dict(sorted(dead.items())), self.finished)

    def count_progress(self) -> None:
        """Show the progress of the inputs in metrics, once a round is finished and counted."""
        for shard in self.shards:
            shard.count_progress()

    def readings(self) -> Iterator[Reading]:
        """Metrics of the shards. Raises LogError."""
        yield from input_readings(self._ends, self._topics, self.shards)
        for shard in self.shards:
            yield from shard_readings(shard)

    def _open_ranges(self) -> list[PartitionRange]:
        read = [{at: (p.next_offset, p.watermark_ms) for at, p in s.join.progress.of.items()} for s in self.shards]
        return open_ranges(self._project.config, self._log_ids, read)


def _check_end(read: PartitionRange, end: int) -> None:
    """Later records would take the offsets of those that were lost, and never be read."""
    if end < read.start:
        raise OffsetError(
            f"partition {read.topic}/{read.partition} ends at offset {end}, the join has read it to {read.start}: it "
            "has lost records. hint: restore the log, or create the topic again and ingest its files again"
        )

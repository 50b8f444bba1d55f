"""Rounds: how a log is followed in process, as a series of closed ranges, all shards moving on together.

Plans which offsets a round reads, and keeps the shards between rounds. Knows nothing of Beam.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.arrays.block import EventKind
from pipeline.configuration.project import Project
from pipeline.logs.beam.source import PartitionRange, check_log_id
from pipeline.logs.checks import check_partitions_read
from pipeline.logs.end_offsets import EndOffsets
from pipeline.logs.log import Log
from pipeline.process.crash_point import reach_crash_point
from pipeline.samples.join.durations import max_event_time_of
from pipeline.samples.join.emitted import INPUTS
from pipeline.samples.run.handover import Handover
from pipeline.samples.run.read_budget import Pace
from pipeline.samples.run.readings import input_readings, shard_readings
from pipeline.samples.run.shard import JoinShard
from pipeline.samples.state.state_files import RoundManifest, latest_state, read_round_manifest, write_round_manifest
from pipeline.telemetry.registry import Reading

Input = tuple[EventKind, int]


@dataclass(frozen=True)
class SamplesReport:
    """What a run of the join did.

    Attributes:
        events: impressions and clicks taken in.
        samples: by kind.
        dead_letters: by reason.
        rounds: rounds finished.
    """

    events: int = 0
    samples: Mapping[str, int] = field(default_factory=dict)
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    rounds: int = 0


class Rounds:
    """The shards of a project's join, opened: fences taken, state loaded, what was said read. Not thread-safe.

    Attributes:
        topics: of the inputs.
        shards: the joins.
        finished: rounds finished since this was opened.
        handover: what is under way between steps.
        planned: what the round under way reads.
    """

    def __init__(self, project: Project, log: Log) -> None:
        self._project, self._log, self._ends = project, log, EndOffsets(log)
        config = project.config
        names = config.topics
        self.topics, self._partitions = names.inputs, config.logs.partitions
        manifest = read_round_manifest(project.join_state)
        self._log_ids = {t: log.log_id(t) for t in (*self.topics.values(), names.samples, names.dead_letters)}
        if manifest is not None:
            for topic, log_id in manifest.log_ids.items():
                check_log_id(log, topic, log_id)
        self._number = 0 if manifest is None else manifest.number
        kept = [latest_state(project.join_state, shard) for shard in range(config.logs.shards)]
        self.shards = [JoinShard(project, log, shard, found) for shard, found in enumerate(kept)]
        self.finished = 0
        self.planned: list[PartitionRange] = []
        self.handover = Handover()
        self._pace = Pace(config, log)

    def ends(self) -> dict[Input, int]:
        """Where each input partition ends now. Raises LogError where partitions were added since this was opened."""
        for topic in self.topics.values():
            check_partitions_read(self._log, topic, self._partitions)
        places = [(kind, p) for kind in self.topics for p in range(self._partitions)]
        return {(kind, p): self._log.end_offset(self.topics[kind], p) for kind, p in places}

    def plan(self, ends: Mapping[Input, int]) -> list[PartitionRange]:
        """The next round: of every partition with something before its end, at most `round_records` offsets.

        Raises OffsetError where an input was trimmed beyond what has been read.
        """
        most = self._project.config.samples.round_records
        ranges = []
        for (kind, partition), end in sorted(ends.items(), key=lambda e: (INPUTS.index(e[0][0]), e[0][1])):
            start, max_event_time_ms = self._start(kind, partition)
            stop = min(end, start + most)
            if start < stop:
                topic = self.topics[kind]
                log_id = self._log_ids[topic]
                ranges.append(
                    PartitionRange(topic, kind, partition, start, stop, max_event_time_ms, log_id, self._partitions)
                )
        self.planned = self._pace.paced(ranges, ends) if ranges else []
        return self.planned

    def left(self, ends: Mapping[Input, int]) -> int:
        """Offsets before `ends` that are still to be read."""
        return sum(max(0, end - self._start(*at)[0]) for at, end in ends.items())

    def finish(self, ranges: list[PartitionRange]) -> None:
        """The ranges have been read and what they decide is said: make that the state of all shards at once."""
        self._number += 1
        read_to: dict[Input, int] = {(r.kind, r.partition): r.stop for r in ranges if r.stop is not None}
        folder = self._project.join_state
        files = tuple(shard.save(folder, self._number, read_to) for shard in self.shards)
        write_round_manifest(self._project.join_state, RoundManifest(self._number, self._log_ids, files))
        reach_crash_point("samples.after_state")
        self.finished += 1

    def report(self) -> SamplesReport:
        """What all shards did since they were opened."""
        samples: Counter[str] = Counter()
        dead: Counter[str] = Counter()
        for shard in self.shards:
            samples.update(shard.tally.samples)
            dead.update(shard.tally.dead_letters)
        events = sum(shard.tally.events for shard in self.shards)
        return SamplesReport(events, dict(sorted(samples.items())), dict(sorted(dead.items())), self.finished)

    def readings(self) -> Iterator[Reading]:
        """What Prometheus is told. Raises LogError."""
        yield from input_readings(self._ends, self.topics, self.shards)
        for shard in self.shards:
            yield from shard_readings(shard)

    def _start(self, kind: EventKind, partition: int) -> tuple[int, int | None]:
        """The first offset that some shard has not read, and the partition's mark before it.

        Shards stand at different offsets only after one of them lost its state; those ahead pass over what they know.
        """
        progress = [shard.join.progress.of[kind, partition] for shard in self.shards]
        behind = min(progress, key=lambda p: p.next_offset)
        return behind.next_offset, max_event_time_of(behind.watermark_ms, self.shards[0].join.durations)
